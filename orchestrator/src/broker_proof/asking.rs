//! Asks the broker's nodes, and remembers the verdict.

use core::{future::pending, time::Duration};
use std::sync::Arc;

use duet_bus::{
    Bus, BusEvent, RequestError,
    inspect::{Answer, Node},
};
use duet_wire::{Code, Refusal};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Flaw, Told, is_enough, judge};
use crate::{clock::Clock, orchestrator::Orchestrator};

/// How often a broker that is safe, and whose nodes agree on the time, is asked again.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// How often any other is, so that it serves soon after an operator has mended it.
const ASK_UNSAFE_EVERY: Duration = Duration::from_secs(2);

/// How long the first answer may take.
const FIRST_ANSWER: Duration = Duration::from_millis(1500);

/// How long the other nodes may take after it.
const OTHER_ANSWERS: Duration = Duration::from_secs(1);

/// How often a broker is asked before it counts as silent. It may just be starting, or be busy.
const TRIES: u32 = 3;

/// The pause between them.
const TRY_PAUSE: Duration = Duration::from_millis(250);

/// How long a caller waits for a verdict, which takes a little longer than all tries.
const VERDICT_PATIENCE: Duration = Duration::from_secs(6);

/// The verdict on the broker that this process is connected to.
#[derive(Debug)]
pub(crate) struct BrokerProof {
    /// Whether the operator vouches for the broker, whatever its nodes answer.
    is_trusted: bool,
    /// `None` until the nodes have been asked over the present connection.
    verdict: watch::Sender<Option<Result<(), Flaw>>>,
}

impl BrokerProof {
    pub(crate) fn new(is_trusted: bool) -> Self {
        if is_trusted {
            tracing::warn!(
                "the broker is trusted unseen (--trust-broker): a power cut may revoke what it acknowledged"
            );
        }
        Self { is_trusted, verdict: watch::Sender::default() }
    }

    pub(crate) const fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Whether the nodes' last answers were all right.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(*self.verdict.borrow(), Some(Ok(())))
    }

    /// Waits for a verdict, a few seconds at most. Returns why jobs may not be accepted or started.
    pub(crate) async fn require(&self) -> Result<(), Refusal> {
        if self.is_trusted {
            return Ok(());
        }
        let mut verdict = self.verdict.subscribe();
        let known = timeout(VERDICT_PATIENCE, verdict.wait_for(Option::is_some)).await;
        match known.ok().and_then(Result::ok).and_then(|verdict| verdict.clone()) {
            Some(verdict) => Ok(verdict?),
            None => Err(Refusal::new(Code::BrokerUnreachable, "there is no connection to the broker")),
        }
    }

    /// Waits until jobs may be started.
    pub(crate) async fn allowed(&self) {
        if !self.is_trusted
            && self.verdict.subscribe().wait_for(|verdict| matches!(verdict, Some(Ok(())))).await.is_err()
        {
            // The sender is part of `self`, so this does not happen.
            pending::<()>().await;
        }
    }

    /// The connection is another one now.
    fn forget(&self) {
        self.verdict.send_replace(None);
    }

    fn note(&self, verdict: Result<(), Flaw>) {
        let noted = Some(verdict.clone());
        let is_news = self.verdict.send_if_modified(|known| {
            let is_news = *known != noted;
            *known = noted;
            is_news
        });
        match verdict {
            Ok(()) if is_news => {
                tracing::info!("every node of the broker that answers flushes what it acknowledges")
            }
            Err(flaw) if is_news => {
                tracing::error!(code = %Code::UnsafeBroker, trusted = self.is_trusted, "{flaw}");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Asks the nodes once for the time, before anything is written or judged by it. If none answers,
/// this machine's clock counts until one does.
pub(crate) async fn learn_time(bus: &Bus, clock: &Clock) {
    if let Ok(answers) = bus.nodes_for_orchestrators(FIRST_ANSWER, OTHER_ANSWERS, is_enough).await {
        note_time(clock, answers);
    }
    if clock.broker_ahead_ms().is_none() {
        tracing::warn!("the broker tells no time; jobs are timed by this machine's clock until it does");
    }
}

fn note_time(clock: &Clock, answers: Vec<Told>) {
    let nodes: Vec<Answer<Node>> =
        answers.into_iter().filter_map(|answer| answer.understood().ok()).collect();
    let expected = nodes.iter().map(|node| node.value.cluster_size()).max().unwrap_or_default();
    clock.learn(&nodes, expected);
}

/// Asks at once, on each new connection, and every half minute, until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let (bus, proof, clock) = (&orchestrator.bus, &orchestrator.broker, &orchestrator.clock);
    let mut events = bus.events();
    let asking = async {
        loop {
            tokio::select! {
                // The answers may be another server's than the one that is connected now.
                () = connection_changed(&mut events) => {
                    proof.forget();
                    continue;
                }
                asked = ask(bus) => if let Some(answers) = asked {
                    proof.note(judge(&answers));
                    note_time(clock, answers);
                    orchestrator.metrics.broker_ahead(clock.broker_ahead_ms());
                }
            }
            let is_well = proof.is_safe() && clock.require_agreement().is_ok();
            let pause = if is_well { ASK_EVERY } else { ASK_UNSAFE_EVERY };
            tokio::select! {
                () = connection_changed(&mut events) => proof.forget(),
                () = sleep(pause) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = asking => {}
    }
}

/// Resolves when the connection is lost or made anew.
async fn connection_changed(events: &mut broadcast::Receiver<BusEvent>) {
    loop {
        match events.recv().await {
            // One that was missed may have been this.
            Ok(BusEvent::Connected | BusEvent::Disconnected) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => pending().await,
        }
    }
}

/// Asks every node. Without an answer the list is empty. `None` without a connection.
async fn ask(bus: &Bus) -> Option<Vec<Told>> {
    for attempt in 1..=TRIES {
        match bus.nodes_for_orchestrators(FIRST_ANSWER, OTHER_ANSWERS, is_enough).await {
            Ok(answers) => return Some(answers),
            Err(RequestError::Unreachable) => return None,
            Err(RequestError::PermissionDenied { .. }) => break,
            Err(error) => tracing::debug!(%error, attempt, "the broker says nothing about itself"),
        }
        sleep(TRY_PAUSE).await;
    }
    Some(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_connection_has_no_verdict_until_its_nodes_were_asked() {
        let proof = BrokerProof::new(false);
        proof.note(Ok(()));
        assert_eq!(proof.require().await, Ok(()));
        proof.forget();
        assert!(!proof.is_safe());
        let asked = async { proof.note(Err(Flaw::WithoutStore)) };
        let (required, ()) = tokio::join!(proof.require(), asked);
        assert_eq!(required.unwrap_err().code, Code::UnsafeBroker);
    }
}

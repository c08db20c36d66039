//! Asks the broker's nodes, and remembers the verdict.

use core::{future::pending, time::Duration};
use std::sync::Arc;

use duet_bus::{
    Bus, RequestError, connection_changed,
    inspect::{Answer, Node},
};
use duet_wire::{Code, Refusal};
use tokio::{
    sync::watch,
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

/// How long one comparison of the streams may take.
const COMPARE_DEADLINE: Duration = Duration::from_secs(10);

/// The pause before streams that could not be compared are compared again. A broker that has just
/// started answers nothing about them for a moment.
const COMPARE_PAUSE: Duration = Duration::from_millis(250);

/// How long a caller waits for a verdict, which takes a little longer than all tries.
const VERDICT_PATIENCE: Duration = Duration::from_secs(6);

/// The verdict on the broker that this process is connected to.
#[derive(Debug)]
pub(crate) struct BrokerProof {
    /// Whether the operator vouches for the broker, whatever its nodes answer.
    is_trusted: bool,
    /// `None` until the nodes have been asked over the present connection.
    verdict: watch::Sender<Option<Result<(), Flaw>>>,
    /// Whether its streams were compared over the present connection with what is remembered of
    /// them.
    is_compared: watch::Sender<bool>,
}

impl BrokerProof {
    pub(crate) fn new(is_trusted: bool) -> Self {
        if is_trusted {
            tracing::warn!(
                "the broker is trusted unseen (--trust-broker): a power cut may revoke what it acknowledged"
            );
        }
        Self { is_trusted, verdict: watch::Sender::default(), is_compared: watch::Sender::default() }
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
        if !self.is_trusted {
            let mut verdict = self.verdict.subscribe();
            let known = timeout(VERDICT_PATIENCE, verdict.wait_for(Option::is_some)).await;
            match known.ok().and_then(Result::ok).and_then(|verdict| verdict.clone()) {
                Some(verdict) => verdict?,
                None => {
                    return Err(Refusal::new(
                        Code::BrokerUnreachable,
                        "there is no connection to the broker",
                    ));
                }
            }
        }
        self.require_compared().await
    }

    /// Waits until the streams were compared over the present connection, a few seconds at most.
    /// Before that, what is in them may be an earlier copy.
    pub(crate) async fn require_compared(&self) -> Result<(), Refusal> {
        let mut is_compared = self.is_compared.subscribe();
        match timeout(VERDICT_PATIENCE, is_compared.wait_for(|is_compared| *is_compared)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(
                Code::StorageUnavailable,
                "the broker's streams are not compared yet with what is remembered of them; try again",
            )),
        }
    }

    /// Whether the streams were compared over the present connection.
    pub(crate) fn is_compared(&self) -> bool {
        *self.is_compared.borrow()
    }

    /// Waits until jobs may be started.
    pub(crate) async fn allowed(&self) {
        let (mut verdict, mut is_compared) = (self.verdict.subscribe(), self.is_compared.subscribe());
        let is_safe = async {
            self.is_trusted || verdict.wait_for(|verdict| matches!(verdict, Some(Ok(())))).await.is_ok()
        };
        if !is_safe.await || is_compared.wait_for(|is_compared| *is_compared).await.is_err() {
            // The senders are part of `self`, so this does not happen.
            pending::<()>().await;
        }
    }

    /// The connection is another one now.
    fn forget(&self) {
        self.verdict.send_replace(None);
        self.is_compared.send_replace(false);
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
    clock.learn(&nodes);
}

/// Asks at once, on each new connection, and every half minute, until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let (bus, proof, clock) = (&orchestrator.bus, &orchestrator.broker, &orchestrator.clock);
    let mut events = bus.events();
    let asking = async {
        forget(&orchestrator);
        loop {
            tokio::select! {
                // The answers may be another server's than the one that is connected now.
                () = connection_changed(&mut events) => {
                    forget(&orchestrator);
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
            let comparing = async {
                compare(&orchestrator).await;
                pending::<()>().await;
            };
            tokio::select! {
                () = connection_changed(&mut events) => forget(&orchestrator),
                // The broker may be mended before its streams can be compared.
                _ = timeout(pause, comparing) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = asking => {}
    }
}

/// The connection is another one now: its server may hold an earlier copy.
fn forget(orchestrator: &Orchestrator) {
    orchestrator.broker.forget();
    orchestrator.metrics.knows(orchestrator.directory.parties());
    orchestrator.stores.hear_anew(orchestrator.directory.parties().cloned());
}

/// Compares the streams with what is remembered of them, unless that was done over this connection.
/// Tries until it succeeds.
async fn compare(orchestrator: &Orchestrator) {
    while !orchestrator.broker.is_compared() {
        match timeout(COMPARE_DEADLINE, orchestrator.compare_stores()).await {
            Ok(Ok(_)) => drop(orchestrator.broker.is_compared.send_replace(true)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the broker's streams are not compared yet");
                sleep(COMPARE_PAUSE).await;
            }
            Err(_) => tracing::debug!("the broker's streams do not answer"),
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
        proof.is_compared.send_replace(true);
        assert_eq!(proof.require().await, Ok(()));
        proof.forget();
        assert!(!proof.is_safe());
        let asked = async { proof.note(Err(Flaw::WithoutStore)) };
        let (required, ()) = tokio::join!(proof.require(), asked);
        assert_eq!(required.unwrap_err().code, Code::UnsafeBroker);
    }
}

//! Retries deliveries to one endpoint. Every orchestrator runs one retrier per endpoint.
//!
//! While the endpoint fails, one orchestrator probes it with one delivery at a time. Once a probe
//! succeeds, all that is due is delivered at once, within the bound on what is under way.

use core::time::Duration;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use duet_bus::Address;
use duet_wire::JobId;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    deliver::Attempt,
    endpoint::{ACK_GRACE, Endpoint},
    log::{self, Delivery, DeliveryOutcome},
    retries::{AtHand, Claim, Picked, Retry, Rule},
    schedule,
    worker::{PAUSE, job_of},
};
use crate::{
    clock::whole_millis,
    orchestrator::{Orchestrator, jitter},
};

/// The longest time until a retrier looks again, so that a wrong clock is noticed.
const LONGEST_REST: Duration = Duration::from_secs(60);

pub(super) struct Retrier {
    orchestrator: Arc<Orchestrator>,
    endpoint: watch::Receiver<Arc<Endpoint>>,
    /// Before then, in milliseconds since 1970, this orchestrator makes no probe: the endpoint's
    /// entry says so, even if the change has not arrived here.
    no_probe_before_ms: AtomicU64,
}

/// A stored result that is tried once more.
struct Again {
    job: JobId,
    retry: Retry,
    claim: Claim,
    /// When the result was stored, in milliseconds since 1970.
    stored_at_ms: u64,
}

impl Retrier {
    pub(super) fn new(orchestrator: Arc<Orchestrator>, endpoint: watch::Receiver<Arc<Endpoint>>) -> Self {
        Self { orchestrator, endpoint, no_probe_before_ms: AtomicU64::new(0) }
    }

    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let retries = Arc::clone(&self.orchestrator.retries);
        let mut endpoint = self.endpoint.clone();
        let id = endpoint.borrow().id;
        let wake = retries.wake(id);
        let mut waiting = self.orchestrator.metrics.retries_waiting();
        let mut results = self.orchestrator.metrics.waiting();
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let count = u64::try_from(retries.waiting(id)).unwrap_or(u64::MAX);
            waiting.are(count);
            results.are(count);
            let known = Arc::clone(&endpoint.borrow_and_update());
            let now = self.orchestrator.clock.now_ms();
            let (picked, look_at_ms) = retries.pick(id, self.rule(&known), anywhere(), now);
            for (picked, at_hand) in picked {
                let (retrier, endpoint) = (Arc::clone(&self), Arc::clone(&known));
                tasks.spawn(async move { retrier.retry(&endpoint, picked, at_hand).await });
            }
            let rest = look_at_ms.map(|at| Duration::from_millis(at.saturating_sub(now)));
            let rest = rest.unwrap_or(LONGEST_REST).min(LONGEST_REST);
            tokio::select! {
                () = stop.cancelled() => break,
                () = wake.notified() => {}
                changed = endpoint.changed() => if changed.is_err() { break },
                () = sleep_until(Instant::now() + rest) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn rule(&self, endpoint: &Endpoint) -> Rule {
        if endpoint.is_failing() {
            let here = self.no_probe_before_ms.load(Ordering::Relaxed);
            Rule::Probe { at_ms: endpoint.next_probe_ms().max(here) }
        } else {
            Rule::Due { max_under_way: self.orchestrator.deliverer.settings().max_under_way.into() }
        }
    }

    /// Tries one delivery once more. Then removes it, or puts it back.
    async fn retry(&self, endpoint: &Endpoint, picked: Picked, _at_hand: AtHand) {
        let orchestrator = &self.orchestrator;
        let until_ms = self
            .orchestrator
            .clock
            .now_ms()
            .saturating_add(whole_millis(orchestrator.deliverer.settings().timeout + ACK_GRACE));
        let is_probe = endpoint.is_failing();
        if is_probe && let Err(at_ms) = orchestrator.take_probe(endpoint, until_ms).await {
            self.no_probe_before_ms.store(at_ms, Ordering::Relaxed);
            return;
        }
        let Picked { job, retry, .. } = picked;
        let claim = match orchestrator.retries.claim(endpoint.id, &picked, until_ms).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.id, %job, error, "a delivery cannot be retried now");
                return sleep(PAUSE).await;
            }
        };
        let stored = match orchestrator.bus.end_at(retry.sequence).await {
            Ok(stored) => stored.filter(|(end, _)| {
                // A stream that was made anew has another result at this place.
                end.address == Address::Result(endpoint.tenant.clone()) && job_of(&end.payload) == Some(job)
            }),
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.id, %job, %error, "a delivery is retried when its claim lapses");
                return;
            }
        };
        let Some((end, stored_at_ms)) = stored else {
            self.result_is_gone(endpoint, job, retry, claim).await;
            return;
        };
        let id = job.to_string();
        let timeout = orchestrator.deliverer.settings().timeout;
        match orchestrator.deliverer.attempt(endpoint, &id, end.payload, timeout).await {
            Ok(attempt) => {
                let again = Again { job, retry, claim, stored_at_ms };
                self.conclude(endpoint, attempt, again, is_probe).await;
            }
            Err(refusal) => {
                tracing::error!(endpoint = %endpoint.id, %refusal, "a delivery cannot be signed");
            }
        }
    }

    async fn conclude(&self, endpoint: &Endpoint, attempt: Attempt, again: Again, is_probe: bool) {
        let Again { job, retry, claim, stored_at_ms } = again;
        let orchestrator = &self.orchestrator;
        let noted = orchestrator.note_attempt(endpoint, &attempt, is_probe).await;
        let failing = noted.as_ref().filter(|noted| noted.is_failing());
        let probe_at_ms = failing.map(Endpoint::next_probe_ms).unwrap_or_default();
        if is_probe {
            self.no_probe_before_ms.store(probe_at_ms, Ordering::Relaxed);
        }
        let now = self.orchestrator.clock.now_ms();
        let number = retry.attempts.saturating_add(1);
        let back = attempt.error.as_ref().and_then(|_| {
            let retry = Retry { tried_at_ms: now, claimed_until_ms: 0, ..retry };
            if is_probe {
                // The endpoint accepts nothing, which is no reason to give up this result.
                return Some(retry);
            }
            let settings = orchestrator.deliverer.settings();
            let pause = schedule::pause_after(number, settings, attempt.retry_after, jitter())?;
            let due_ms = now.saturating_add(whole_millis(pause));
            Some(Retry { attempts: number, due_ms, ..retry })
        });
        let next_ms = back.map(|retry| retry.due_ms.max(probe_at_ms));
        let delivery = attempt.into_delivery(&job.to_string(), number, next_ms);
        let published_at_ms = (!retry.is_replay).then_some(stored_at_ms);
        orchestrator.metrics.delivery(&delivery, published_at_ms);
        tracing::debug!(endpoint = %endpoint.id, %job, ?delivery, "delivery");
        match back {
            Some(retry) => orchestrator.retries.put_back(claim, retry).await,
            None => orchestrator.retries.remove(claim).await,
        }
        log::write(&orchestrator.bus, endpoint.id, &delivery).await;
    }

    /// Gives up a delivery whose result the stream does not keep any longer.
    async fn result_is_gone(&self, endpoint: &Endpoint, job: JobId, retry: Retry, claim: Claim) {
        let delivery = Delivery {
            message: job.to_string(),
            attempt: retry.attempts,
            at_ms: self.orchestrator.clock.now_ms(),
            took_ms: 0,
            outcome: DeliveryOutcome::GivenUp,
            status: None,
            error: Some("the stream does not keep the result any longer".to_owned()),
            next_attempt_at_ms: None,
        };
        tracing::warn!(endpoint = %endpoint.id, %job, "a result to deliver is not kept any longer");
        self.orchestrator.metrics.delivery(&delivery, None);
        self.orchestrator.retries.remove(claim).await;
        log::write(&self.orchestrator.bus, endpoint.id, &delivery).await;
    }
}

/// Where in the order of entries to begin. Several orchestrators that begin at the same one would
/// contend for each.
fn anywhere() -> usize {
    // Without entropy it is the first, which costs contention and nothing else.
    getrandom::u32().map_or(0, |number| usize::try_from(number).unwrap_or(0))
}

//! Spends announcements: pulls them, and for each takes the next job in fair order
//! ([`duet_queue::line`]) and has the core of the queue process it ([`crate::attempts`]).
//!
//! Each announcement is a permit to process one job, not necessarily the job it names. The stream
//! holds as many as there are waiting jobs. A job that is settled or parked spends one. A job that
//! has to be tried again returns its announcement to the stream. An announcement is dropped when no
//! job waits. If the stream has too few, the sweeper adds some.

use core::time::Duration;
use std::sync::Arc;

use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer};
use duet_bus::{Address, kv::Key, streams::StorageError};
use duet_queue::actions::Looked;
use duet_wire::{JobId, JobStateName, TenantId};
use futures::StreamExt as _;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    board::{Held, Turn},
    clock::{until, whole_millis},
    orchestrator::{Orchestrator, jitter},
};

/// How long one request for announcements stays open at the broker.
const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// How long after that the client waits for the request's end before it gives up.
const PULL_GRACE: Duration = Duration::from_secs(5);

/// How long the broker may take to confirm an acknowledgement.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(5);

/// The longest pause after a failure of the broker.
const MAX_FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// How long an announcement waits for a free place before the orchestrator looks again.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);

/// What happens to an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// It is spent, or there is no job to spend it on.
    Done,
    /// The broker delivers it again after this pause.
    Later(Duration),
}

/// The job that an announcement names.
#[derive(Debug, Clone)]
struct Named {
    tenant: TenantId,
    job: JobId,
}

/// Pulls announcements until `stop`, at most as many as there are free places, and processes jobs.
/// Returns once the jobs at hand are done or `drain` has passed.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken, drain: Duration) {
    let room = Arc::new(Semaphore::new(orchestrator.queue.max_in_flight));
    let mut tasks = JoinSet::new();
    let mut consumer = None;
    let mut failures = 0_u32;
    loop {
        let pulled = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            pulled = async {
                orchestrator.broker.allowed().await;
                pull(&orchestrator, &mut consumer, &room, &mut tasks, &stop).await
            } => pulled,
        };
        while tasks.try_join_next().is_some() {}
        match pulled {
            Ok(()) => failures = 0,
            Err(error) => {
                consumer = None;
                if failures == 0 {
                    tracing::warn!(%error, "jobs cannot be pulled; trying again");
                }
                failures = failures.saturating_add(1);
                let pause = Duration::from_millis(100).saturating_mul(1 << failures.min(6));
                let pause = pause.min(MAX_FAILURE_PAUSE).mul_f64(0.5 + jitter() / 2.0);
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(pause) => {}
                }
            }
        }
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    if timeout(drain, drained).await.is_err() {
        tracing::warn!("jobs were still in work at the end; other orchestrators will take them over");
    }
}

#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Consumer(#[from] StorageError),
    #[error("the broker does not deliver: {0}")]
    Broker(String),
}

/// Requests as many announcements as there are free places. Each is handled in its own task as it
/// arrives.
async fn pull(
    orchestrator: &Arc<Orchestrator>,
    consumer: &mut Option<PullConsumer>,
    room: &Arc<Semaphore>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), PullError> {
    let Ok(first) = Arc::clone(room).acquire_owned().await else { return Ok(()) };
    let mut permits = vec![first];
    while let Ok(permit) = Arc::clone(room).try_acquire_owned() {
        permits.push(permit);
    }
    let consumer = match consumer {
        Some(consumer) => consumer,
        None => consumer.insert(orchestrator.bus.jobs_consumer(&orchestrator.storage).await?),
    };
    let mut batch = consumer
        .batch()
        .max_messages(permits.len())
        .expires(PULL_EXPIRES)
        .messages()
        .await
        .map_err(|error| PullError::Broker(error.to_string()))?;
    let deliver = async {
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| PullError::Broker(error.to_string()))?;
            let Some(permit) = permits.pop() else {
                return Err(PullError::Broker("more messages than were asked for".to_owned()));
            };
            let orchestrator = Arc::clone(orchestrator);
            let stop = stop.clone();
            tasks.spawn(async move {
                orchestrator.handle(message, &stop).await;
                drop(permit);
            });
        }
        Ok(())
    };
    timeout(PULL_EXPIRES + PULL_GRACE, deliver)
        .await
        .unwrap_or_else(|_| Err(PullError::Broker("no end of a pull in time".to_owned())))
}

/// The job that an announcement is about.
fn announced(message: &Message) -> Option<Named> {
    let Ok(Address::Job(tenant)) = message.subject.as_str().parse() else { return None };
    let job: JobId = core::str::from_utf8(&message.payload).ok()?.parse().ok()?;
    Some(Named { tenant, job })
}

impl Orchestrator {
    /// Handles one announcement: tells the broker meanwhile that it is in use, then acknowledges it
    /// or has it delivered again.
    async fn handle(&self, message: Message, stop: &CancellationToken) {
        let Some(named) = announced(&message) else {
            tracing::warn!(subject = %message.subject, "an announcement names no job");
            acknowledge(&message).await;
            return;
        };
        let mut alive = interval((self.storage.job_ack_wait / 3).max(Duration::from_millis(50)));
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.tick().await;
        let deliveries = message.info().map_or(1, |info| info.delivered);
        let work = self.work(&named, deliveries, stop);
        tokio::pin!(work);
        let progress = loop {
            tokio::select! {
                progress = &mut work => break progress,
                _ = alive.tick() => {
                    if let Err(error) = message.ack_with(AckKind::Progress).await {
                        tracing::debug!(%error, "progress was not told");
                    }
                }
            }
        };
        match progress {
            Disposition::Done => acknowledge(&message).await,
            Disposition::Later(pause) => again(&message, pause).await,
        }
    }

    /// Spends the announcement of `named` on the next job in fair order.
    async fn work(&self, named: &Named, deliveries: i64, stop: &CancellationToken) -> Disposition {
        let mut named_is_untried = true;
        // A job that waits for its owner stands in no queue. Only its own announcement leads to it.
        if self
            .board
            .state(&Key::from((&named.tenant, named.job)))
            .is_some_and(|(state, _)| state == JobStateName::AwaitingOwner)
        {
            named_is_untried = false;
            if let Some(progress) = self.look_at_named(named, deliveries).await {
                return progress;
            }
        }
        loop {
            let mut freed = self.board.freed();
            match self.board.next(self.clock.now_ms(), (&named.tenant, named.job)) {
                Turn::Job(held) => {
                    if let Some(progress) = self.look(held, 1).await {
                        return progress;
                    }
                }
                Turn::Crowded => {
                    tokio::select! {
                        () = stop.cancelled() => return Disposition::Later(Duration::ZERO),
                        _ = freed.changed() => {}
                        () = sleep(CROWDED_PAUSE) => {}
                    }
                }
                // The named job may be queued although this board does not show it yet. Or it may
                // run in a session of an orchestrator that died.
                Turn::NoJob if named_is_untried => {
                    named_is_untried = false;
                    if let Some(progress) = self.look_at_named(named, deliveries).await {
                        return progress;
                    }
                }
                Turn::NoJob => {
                    let due = self.board.due(&named.tenant, named.job);
                    return due.map_or(Disposition::Done, |due_ms| {
                        Disposition::Later(until(due_ms, self.clock.now_ms()))
                    });
                }
            }
        }
    }

    /// Processes the job that an announcement names, unless this process already does.
    async fn look_at_named(&self, named: &Named, deliveries: i64) -> Option<Disposition> {
        let held = self.board.hold(&named.tenant, named.job)?;
        self.look(held, deliveries).await
    }

    /// Processes a job in hand. `deliveries` is how often its announcement was delivered, or 1 if
    /// the job was taken from the fair queue. Returns `None` when there was nothing to do.
    async fn look(&self, mut held: Held, deliveries: i64) -> Option<Disposition> {
        let span = tracing::info_span!("job", key = %held.key);
        async {
            let pause = match self.attempts.work(&self.board, &held.key, deliveries).await {
                Some(Looked::Worked) => return Some(Disposition::Done),
                Some(Looked::Nothing | Looked::Parked) => return None,
                Some(Looked::Unreadable(reason)) => {
                    tracing::error!(reason, "a job's entry cannot be read; passed over");
                    self.board.pass_over(&held.key);
                    return None;
                }
                Some(Looked::Later(pause)) => pause,
                None => self.queue.max_retry_pause,
            };
            held.rest_until(self.clock.now_ms().saturating_add(whole_millis(pause)));
            Some(Disposition::Later(pause))
        }
        .instrument(span)
        .await
    }
}

/// Acknowledges with confirmation. Without it the broker may deliver the announcement again. That
/// is harmless, but the log should show it.
pub(crate) async fn acknowledge(message: &Message) {
    match timeout(ACKNOWLEDGE_DEADLINE, message.double_ack()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an acknowledgement was not confirmed"),
        Err(_) => tracing::debug!("an acknowledgement was not confirmed in time"),
    }
}

/// Asks the broker to deliver the announcement again after `pause`.
pub(crate) async fn again(message: &Message, pause: Duration) {
    // A pause of zero would be a bare NAK, which the broker redelivers in a tight loop.
    let pause = pause.max(Duration::from_millis(1));
    if let Err(error) = message.ack_with(AckKind::Nak(Some(pause))).await {
        tracing::debug!(%error, "a job was not put back; it comes again when its time is up");
    }
}

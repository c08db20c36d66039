//! Working on jobs: pulling announcements, and carrying each job as far as it goes now.

use core::time::Duration;
use std::sync::Arc;

use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer};
use duet_bus::{
    Address,
    kv::{Entry, Key},
    streams::StorageError,
};
use duet_protocol::ids::{SessionId, ShareIndex};
use duet_wire::{Code, JobEvent, JobId, JobRecord, JobState, Pair, Refusal, SigningRequest, progress::Step};
use futures::StreamExt as _;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    board::Observer,
    clock::{now_ms, until},
    directory::Terms,
    jobs::{Changed, StoreError},
    orchestrator::{Orchestrator, jitter},
    plan::{self, Decision},
    session::NotStarted,
    settle::{Failure, past_attempts, running_pair},
};

/// How long one request for announcements stays open at the broker.
const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// How long after that its end is waited for before it is given up.
const PULL_GRACE: Duration = Duration::from_secs(5);

/// How long the broker may take to confirm an acknowledgement.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a job that is announced and not there is looked for.
const MAX_LOOKS_FOR_A_MISSING_JOB: i64 = 5;

/// The longest pause after the broker failed.
const MAX_FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// How far a job went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is left to do for the announcement: the job is settled, or waits for its owner.
    Done,
    /// It is to be looked at again after a pause.
    Later(Duration),
}

/// Pulls announcements until `stop`, at most as many as there is room for, and works on their jobs.
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
            pulled = pull(&orchestrator, &mut consumer, &room, &mut tasks) => pulled,
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

/// One request for as many announcements as there is room for; each is worked on in its own task
/// as it arrives.
async fn pull(
    orchestrator: &Arc<Orchestrator>,
    consumer: &mut Option<PullConsumer>,
    room: &Arc<Semaphore>,
    tasks: &mut JoinSet<()>,
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
            tasks.spawn(async move {
                orchestrator.handle(message).await;
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
fn announced(message: &Message) -> Option<Key> {
    let Ok(Address::Job(tenant)) = message.subject.as_str().parse() else { return None };
    let job: JobId = core::str::from_utf8(&message.payload).ok()?.parse().ok()?;
    Some(Key::from((&tenant, job)))
}

impl Orchestrator {
    /// Works on one announcement, telling the broker meanwhile that it is being worked on, and
    /// acknowledges it in the end.
    async fn handle(&self, message: Message) {
        let Some(key) = announced(&message) else {
            tracing::warn!(subject = %message.subject, "an announcement names no job");
            acknowledge(&message).await;
            return;
        };
        let span = tracing::info_span!("job", %key);
        async {
            let mut alive = interval((self.storage.job_ack_wait / 3).max(Duration::from_millis(50)));
            alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
            alive.tick().await;
            let deliveries = message.info().map_or(1, |info| info.delivered);
            let work = self.carry_on(&key, deliveries);
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
                Ok(Progress::Done) => acknowledge(&message).await,
                Ok(Progress::Later(pause)) => again(&message, pause).await,
                Err(error) => {
                    tracing::warn!(%error, "a job cannot be worked on now");
                    again(&message, self.queue.max_retry_pause.mul_f64(0.5 + jitter() / 2.0)).await;
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// Does what can be done now for the job under `key`, which was announced `deliveries` times.
    async fn carry_on(&self, key: &Key, deliveries: i64) -> Result<Progress, StoreError> {
        // Before the first read, so that no change is missed.
        let mut observer = self.board.observe(key);
        let mut just_announced = true;
        loop {
            let at_first = core::mem::replace(&mut just_announced, false);
            let Some(entry) = self.jobs.get(key).await? else {
                // In a cluster the server that is asked may not have heard of a new entry yet.
                let again = deliveries < MAX_LOOKS_FOR_A_MISSING_JOB;
                return Ok(if again { Progress::Later(self.queue.retry_pause) } else { Progress::Done });
            };
            let record = &entry.value;
            let now = now_ms();
            match &record.state {
                JobState::Running { session, pair, .. } => {
                    if pair.initiator() == ShareIndex::Device {
                        // The owner's device does the work; the sweeper watches the clock.
                        return Ok(Progress::Done);
                    }
                    let (session, request) = (*session, self.request_of(record)?);
                    // Somebody who died, or this process before it was told again, began it.
                    self.see_through(key, session, &request, &mut observer).await?;
                }
                JobState::Queued if now >= record.expires_at_ms => self.expire(key).await?,
                JobState::Queued => {
                    let pause = until(record.next_attempt_at_ms, now);
                    if !pause.is_zero() {
                        return Ok(Progress::Later(pause));
                    }
                    let request = self.request_of(record)?;
                    match self.advance(key, entry, &request, &mut observer).await? {
                        Some(progress) => return Ok(progress),
                        None => continue,
                    }
                }
                // Not after an attempt that failed just now: it is looked at again later.
                JobState::AwaitingOwner if at_first && now < record.expires_at_ms => {
                    let request = self.request_of(record)?;
                    if !self.go_without_owner(key, entry, &request, &mut observer).await? {
                        return Ok(Progress::Done);
                    }
                }
                JobState::AwaitingOwner
                | JobState::Signed { .. }
                | JobState::Failed { .. }
                | JobState::Expired
                | JobState::Cancelled => return Ok(Progress::Done),
            }
        }
    }

    /// What the requester of `record` asked for. It was verified when the job was accepted.
    pub(crate) fn request_of(&self, record: &JobRecord) -> Result<SigningRequest, StoreError> {
        SigningRequest::from_json(&record.request.body)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Takes a queued job one step on: an attempt, its owner's turn, or its end. `None` means that it
    /// is to be looked at again at once.
    async fn advance(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        observer: &mut Observer,
    ) -> Result<Option<Progress>, StoreError> {
        let facts = self.directory.wallet(request.wallet).await;
        let past = past_attempts(&entry.value);
        let usable = |pair: Pair| facts.terms(pair).map(drop);
        match plan::decide(&request.pairs, &past, usable, &self.queue) {
            Decision::Try(pair) => match facts.terms(pair) {
                Ok(terms) => {
                    self.attempt(key, entry, request, pair, terms, observer).await?;
                    Ok(None)
                }
                Err(refusal) => Ok(Some(self.wait(&entry.value, request, &refusal))),
            },
            Decision::AwaitOwner(_) => {
                let parked = self
                    .jobs
                    .change(key, Some(entry), |record| record.apply(&JobEvent::Park, record.fence, now_ms()))
                    .await?;
                Ok(matches!(parked, Changed::Applied(_)).then_some(Progress::Done))
            }
            Decision::Wait(refusal) => Ok(Some(self.wait(&entry.value, request, &refusal))),
            Decision::Fail(refusal) => {
                self.give_up(key, refusal).await?;
                Ok(Some(Progress::Done))
            }
        }
    }

    /// Tries a job that waits for its owner with a pair that it prefers, if one can sign by now.
    /// Returns whether it was tried.
    async fn go_without_owner(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        observer: &mut Observer,
    ) -> Result<bool, StoreError> {
        if !plan::prefers_backends(&request.pairs) {
            return Ok(false);
        }
        let facts = self.directory.wallet(request.wallet).await;
        let past = past_attempts(&entry.value);
        let usable = |pair: Pair| facts.terms(pair).map(drop);
        let Some(pair) = plan::without_owner(&request.pairs, &past, usable, &self.queue) else {
            return Ok(false);
        };
        let Ok(terms) = facts.terms(pair) else { return Ok(false) };
        self.attempt(key, entry, request, pair, terms, observer).await?;
        Ok(true)
    }

    /// One attempt of `pair`, from its start to its end.
    async fn attempt(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        pair: Pair,
        terms: Terms,
        observer: &mut Observer,
    ) -> Result<(), StoreError> {
        match self.start_session(key, entry, request, pair, terms).await {
            Ok(started) => self.run_session(key, request, &started, observer).await,
            // Somebody else was quicker; the record tells what with.
            Err(NotStarted::Moved) => Ok(()),
            Err(NotStarted::Store(error)) => Err(error),
            Err(NotStarted::Internal(reason)) => {
                tracing::error!(reason, "a session cannot be drawn up");
                self.give_up(key, Refusal::new(Code::Internal, "the session could not be drawn up")).await
            }
        }
    }

    /// No pair can sign now: asks the parties anew when the job is looked at again.
    fn wait(&self, record: &JobRecord, request: &SigningRequest, refusal: &Refusal) -> Progress {
        tracing::debug!(code = %refusal.code, message = refusal.message, "no pair can sign now");
        self.directory.forget(request.wallet);
        // The longer the job has waited, the longer the next pause.
        let waited = until(now_ms(), record.updated_at_ms);
        let pause = waited.clamp(self.queue.retry_pause, self.queue.max_retry_pause);
        Progress::Later(pause.mul_f64(1.0 - jitter() / 2.0).min(until(record.expires_at_ms, now_ms())))
    }

    async fn give_up(&self, key: &Key, refusal: Refusal) -> Result<(), StoreError> {
        let Refusal { code, message } = refusal;
        let event = JobEvent::Fail { code, culprit: None, message };
        let changed = self
            .jobs
            .change(key, None, |record| match record.state {
                JobState::Queued | JobState::AwaitingOwner => {
                    record.apply(&event, record.fence, now_ms()).map_err(drop)
                }
                _ => Err(()),
            })
            .await?;
        if let Changed::Applied(snapshot) = changed {
            tracing::info!(%code, "job given up");
            self.publish_end(&snapshot).await;
        }
        Ok(())
    }

    /// Ends a job whose time has passed, unless it runs: then the session ends first, no later.
    pub(crate) async fn expire(&self, key: &Key) -> Result<(), StoreError> {
        let changed = self
            .jobs
            .change(key, None, |record| match record.state {
                JobState::Queued | JobState::AwaitingOwner if now_ms() >= record.expires_at_ms => {
                    record.apply(&JobEvent::Expire, record.fence, now_ms()).map_err(drop)
                }
                _ => Err(()),
            })
            .await?;
        if let Changed::Applied(snapshot) = changed {
            tracing::info!(job = %snapshot.value.id, "job expired");
        }
        Ok(())
    }

    /// Invites both parties of a session just begun, and waits for its end.
    async fn run_session(
        &self,
        key: &Key,
        request: &SigningRequest,
        started: &crate::session::Started,
        observer: &mut Observer,
    ) -> Result<(), StoreError> {
        let session = started.session;
        let span = tracing::info_span!("session", %session);
        async {
            // The responder first: it has to listen before the initiator speaks.
            for seat in [&started.responder, &started.initiator] {
                if let Err(failure) = self.invite(started, seat).await {
                    return self.end_attempt(key, session, request, failure).await;
                }
            }
            self.announce_step(session, Step::Running).await;
            self.wait_for_end(key, session, request, started.expires_at_ms, observer).await
        }
        .instrument(span)
        .await
    }

    /// Waits for the end of a session that somebody else began.
    async fn see_through(
        &self,
        key: &Key,
        session: SessionId,
        request: &SigningRequest,
        observer: &mut Observer,
    ) -> Result<(), StoreError> {
        let expires_at_ms = match self.sessions.get(session).await? {
            Some(record) => record.expires_at_ms,
            // It was never stored, so nobody was invited to it.
            None => 0,
        };
        self.wait_for_end(key, session, request, expires_at_ms, observer).await
    }

    /// Waits until the job is no longer in `session`; ends the attempt when the session's time and
    /// the grace for its outcome have passed.
    async fn wait_for_end(
        &self,
        key: &Key,
        session: SessionId,
        request: &SigningRequest,
        expires_at_ms: u64,
        observer: &mut Observer,
    ) -> Result<(), StoreError> {
        let left = match expires_at_ms {
            0 => Duration::ZERO,
            moment => until(moment, now_ms()) + self.queue.outcome_grace,
        };
        let over = async {
            while let Some(snapshot) = observer.changed().await {
                if running_pair(&snapshot.value, session).is_none() {
                    return;
                }
            }
        };
        if timeout(left, over).await.is_ok() {
            return Ok(());
        }
        // What the observer did not tell, the compare-and-swap does.
        let refusal = Refusal::new(Code::Deadline, "the session ended without an outcome in time");
        self.end_attempt(key, session, request, Failure::from(refusal)).await
    }
}

/// Acknowledges with confirmation: an announcement that is not confirmed would come again, which is
/// harmless, but is better known.
pub(crate) async fn acknowledge(message: &Message) {
    match timeout(ACKNOWLEDGE_DEADLINE, message.double_ack()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an acknowledgement was not confirmed"),
        Err(_) => tracing::debug!("an acknowledgement was not confirmed in time"),
    }
}

/// Has the announcement delivered again after `pause`.
pub(crate) async fn again(message: &Message, pause: Duration) {
    // A pause of nothing would be a bare NAK, redelivered in a tight loop.
    let pause = pause.max(Duration::from_millis(1));
    if let Err(error) = message.ack_with(AckKind::Nak(Some(pause))).await {
        tracing::debug!(%error, "a job was not put back; it comes again when its time is up");
    }
}

//! Processes jobs: pulls announcements, and for each takes the next job in fair order
//! ([`crate::line`]) as far as it goes now.
//!
//! Each announcement is a permit to process one job, not necessarily the job it names. The stream
//! holds as many as there are waiting jobs. A job that is settled or parked spends one. A job that
//! has to be tried again returns its announcement to the stream. An announcement is dropped when no
//! job waits. If the stream has too few, the sweeper adds some.

use core::{panic::AssertUnwindSafe, time::Duration};
use std::sync::Arc;

use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer};
use duet_bus::{
    Address,
    kv::{Entry, Key},
    streams::StorageError,
    trace,
};
use duet_protocol::ids::{SessionId, ShareIndex};
use duet_wire::{
    Code, JobEvent, JobId, JobRecord, JobState, JobStateName, Pair, Refusal, SigningRequest, TenantId,
    progress::Step, request::RequestError,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    board::{Held, Observer, Turn},
    clock::{until, whole_millis},
    directory::{Terms, WalletFacts},
    jobs::{Changed, StoreError},
    orchestrator::{Orchestrator, jitter},
    plan::{self, Decision, Moment},
    reasons,
    session::NotStarted,
    settings::QueueSettings,
    settle::{Failure, past_attempts, running_pair},
};

/// How long one request for announcements stays open at the broker.
const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// How long after that the client waits for the request's end before it gives up.
const PULL_GRACE: Duration = Duration::from_secs(5);

/// How long the broker may take to confirm an acknowledgement.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(5);

/// How often an orchestrator looks for a job that is announced but not found.
const MAX_LOOKS_FOR_A_MISSING_JOB: i64 = 5;

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

/// The result of looking at a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// The job was processed and needs no announcement any more: it is settled, or waits for its
    /// owner.
    Worked,
    /// The job has to be looked at again after this pause.
    Later(Duration),
    /// There was nothing to do for the job here. The announcement may serve another job.
    Nothing,
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
            let looked =
                AssertUnwindSafe(Box::pin(self.carry_on(&held.key, deliveries))).catch_unwind().await;
            let looked = match looked {
                Ok(Ok(looked)) => looked,
                Ok(Err(StoreError::Corrupt(reason) | StoreError::Newer(reason))) => {
                    tracing::error!(reason, "a job's entry cannot be read; passed over");
                    self.board.pass_over(&held.key);
                    Looked::Nothing
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a job cannot be worked on now");
                    Looked::Later(self.queue.max_retry_pause.mul_f64(0.5 + jitter() / 2.0))
                }
                Err(_) => {
                    tracing::error!("the orchestrator failed while it worked on a job");
                    let refusal =
                        Refusal::new(Code::Internal, "the orchestrator failed while it worked on the job");
                    match self.end_or_give_up(&held.key, refusal).await {
                        Ok(()) => Looked::Worked,
                        Err(_) => Looked::Later(self.queue.max_retry_pause),
                    }
                }
            };
            match looked {
                Looked::Worked => Some(Disposition::Done),
                Looked::Later(pause) => {
                    held.rest_until(self.clock.now_ms().saturating_add(whole_millis(pause)));
                    Some(Disposition::Later(pause))
                }
                Looked::Nothing => None,
            }
        }
        .instrument(span)
        .await
    }

    /// Does what can be done now for the job under `key`. Its announcement was delivered
    /// `deliveries` times.
    async fn carry_on(&self, key: &Key, deliveries: i64) -> Result<Looked, StoreError> {
        // Observes before the first read, so that no change is missed.
        let mut observer = self.board.observe(key);
        let mut worked = false;
        // A job accepted just now need not be read from the broker. If another orchestrator was
        // quicker, the compare-and-swap fails, and the next look reads the entry itself.
        let mut may_be_behind = deliveries <= 1;
        let done = |worked| if worked { Looked::Worked } else { Looked::Nothing };
        loop {
            if worked && observer.sees_it_settled() {
                return Ok(Looked::Worked);
            }
            let entry = if core::mem::take(&mut may_be_behind) {
                self.jobs.recent(key).await?
            } else {
                self.jobs.get(key).await?
            };
            let Some(entry) = entry else {
                // In a cluster the server that answers may not have a new entry yet.
                let again = !worked && deliveries < MAX_LOOKS_FOR_A_MISSING_JOB;
                return Ok(if again { Looked::Later(self.queue.retry_pause) } else { done(worked) });
            };
            let record = &entry.value;
            let now = self.clock.now_ms();
            match &record.state {
                JobState::Running { session, pair, .. }
                    if !worked && deliveries > 1 && pair.initiator() != ShareIndex::Device =>
                {
                    let (session, request) = (*session, self.request_of(record)?);
                    // The orchestrator that began the session may have died.
                    self.see_through(key, session, &request, &mut observer).await?;
                    worked = true;
                }
                JobState::Queued if self.clock.has_passed(record.expires_at_ms) => {
                    self.expire(key).await?;
                    worked = true;
                }
                JobState::Queued => {
                    let pause = until(record.next_attempt_at_ms, now);
                    // A clock that was ahead noted the time: the board has held the job back for as
                    // long as the job had to rest.
                    let is_ahead = record.updated_at_ms > now || pause > self.queue.longest_pause();
                    if !pause.is_zero() && !is_ahead {
                        return Ok(Looked::Later(pause));
                    }
                    let request = match self.request_of(record) {
                        Ok(request) => request,
                        // An orchestrator of the release that accepted it reads it.
                        Err(error @ StoreError::Newer(_)) => return Err(error),
                        Err(_) => {
                            self.give_up(key, unreadable()).await?;
                            return Ok(Looked::Worked);
                        }
                    };
                    match self.advance(key, entry, &request, &mut observer).await? {
                        Advanced::Tried => worked = true,
                        Advanced::Over => return Ok(Looked::Worked),
                        Advanced::Wait(pause) => return Ok(Looked::Later(pause)),
                        // Another orchestrator was quicker; the next look reads its record.
                        Advanced::Moved => {}
                    }
                }
                // Not right after a failed attempt: the job is looked at again later.
                JobState::AwaitingOwner if !worked && now < record.expires_at_ms => {
                    let request = self.request_of(record)?;
                    if !self.go_without_owner(key, entry, &request, &mut observer).await? {
                        return Ok(Looked::Nothing);
                    }
                    worked = true;
                }
                // Either the owner's device does the work and the sweeper watches the clock, or
                // another orchestrator processes the job, or it is settled, or an orchestrator of a
                // later release knows what its state means.
                JobState::Running { .. }
                | JobState::AwaitingOwner
                | JobState::Signed { .. }
                | JobState::Failed { .. }
                | JobState::Expired
                | JobState::Cancelled
                | JobState::Unknown(_) => {
                    // The board must not offer the job again before its watch reports the change.
                    self.board.apply(key, entry.value, entry.revision);
                    return Ok(done(worked));
                }
            }
        }
    }

    /// The request that `record` holds. It was verified when the job was accepted.
    pub(crate) fn request_of(&self, record: &JobRecord) -> Result<SigningRequest, StoreError> {
        SigningRequest::from_json(&record.request.body).map_err(|error| match error {
            RequestError::UnsupportedVersion => StoreError::Newer(error.to_string()),
            _ => StoreError::Corrupt(error.to_string()),
        })
    }

    /// Takes a queued job one step on: an attempt, a wait for its owner, or its end.
    async fn advance(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        observer: &mut Observer,
    ) -> Result<Advanced, StoreError> {
        if let Err(refusal) = self.broker.require().await {
            tracing::debug!(code = %refusal.code, message = refusal.message, "no job is started");
            // No further announcement is pulled until the broker is safe.
            return Ok(Advanced::Wait(self.queue.retry_pause));
        }
        if self.clock.now_ms() >= entry.value.expires_at_ms
            && let Err(refusal) = self.clock.require_agreement()
        {
            return self.wait(key, entry, request, refusal).await;
        }
        let mut facts = self.directory.wallet_to_sign(request.wallet).await;
        let past = past_attempts(&entry.value);
        let moment = Moment { now_ms: self.clock.now_ms(), jitter: 1.0 };
        let decide = |facts: &WalletFacts| {
            plan::decide(&request.pairs, &past, |pair| facts.terms(pair).map(drop), &self.queue, moment)
        };
        let mut decision = decide(&facts);
        if matches!(decision, Decision::Fail(_)) {
            // The obstacle may have been removed since, and another orchestrator may know.
            facts = self.directory.wallet_anew(request.wallet).await;
            decision = decide(&facts);
        }
        match decision {
            // The job is due, but for a pair that cannot sign now. This one still has to rest.
            Decision::Try(_, pause) if !pause.is_zero() => Ok(Advanced::Wait(pause)),
            Decision::Try(pair, _) => match facts.terms(pair) {
                Ok(terms) => {
                    let tried = self.attempt(key, entry, request, pair, terms, observer).await?;
                    Ok(if tried { Advanced::Tried } else { Advanced::Moved })
                }
                Err(refusal) => self.wait(key, entry, request, refusal).await,
            },
            Decision::AwaitOwner(_) => {
                let parked = self
                    .jobs
                    .change(key, Some(entry), |record| {
                        record.apply(&JobEvent::Park, record.fence, self.clock.now_ms())
                    })
                    .await?;
                Ok(if matches!(parked, Changed::Applied(_)) { Advanced::Over } else { Advanced::Moved })
            }
            Decision::Wait(refusal) => self.wait(key, entry, request, refusal).await,
            Decision::Fail(refusal) => {
                self.give_up(key, refusal).await?;
                Ok(Advanced::Over)
            }
        }
    }

    /// Tries a job that waits for its owner with a pair that its request prefers, if such a pair
    /// can sign now. Returns whether it started an attempt.
    async fn go_without_owner(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        observer: &mut Observer,
    ) -> Result<bool, StoreError> {
        if !plan::prefers_backends(&request.pairs) || self.broker.require().await.is_err() {
            return Ok(false);
        }
        let facts = self.directory.wallet_to_sign(request.wallet).await;
        let past = past_attempts(&entry.value);
        let usable = |pair: Pair| facts.terms(pair).map(drop);
        let Some(pair) = plan::without_owner(&request.pairs, &past, usable, &self.queue) else {
            return Ok(false);
        };
        let Ok(terms) = facts.terms(pair) else { return Ok(false) };
        self.attempt(key, entry, request, pair, terms, observer).await
    }

    /// Runs one attempt of `pair` to its end. Returns false when another orchestrator had changed
    /// the job first.
    async fn attempt(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        pair: Pair,
        terms: Terms,
        observer: &mut Observer,
    ) -> Result<bool, StoreError> {
        match self.start_session(key, entry, request, pair, terms).await {
            Ok(started) => self.run_session(key, request, &started, observer).await?,
            Err(NotStarted::Moved) => return Ok(false),
            Err(NotStarted::Store(error)) => return Err(error),
            Err(NotStarted::Internal(reason)) => {
                tracing::error!(reason, "the orchestrator cannot set up a session");
                self.give_up(
                    key,
                    Refusal::new(Code::Internal, "the orchestrator could not set up the session"),
                )
                .await?;
            }
        }
        Ok(true)
    }

    /// Lets the job rest while no pair can sign. The parties are asked anew after that. The job
    /// shows the reason: it is written when it changes, not at each look.
    async fn wait(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        refusal: Refusal,
    ) -> Result<Advanced, StoreError> {
        let Refusal { code, message } = refusal;
        tracing::debug!(%code, message, "no pair can sign now");
        if !reasons::is_silence(code) {
            self.directory.forget_older(request.wallet);
        }
        let (record, now) = (&entry.value, self.clock.now_ms());
        // The longer the job has waited, the longer the next pause.
        let waited = record.waiting.as_ref().map_or(Duration::ZERO, |waiting| until(now, waiting.since_ms));
        let pause = waited.clamp(self.queue.retry_pause, self.queue.max_retry_pause);
        let pause = pause.mul_f64(1.0 - jitter() / 2.0);
        // Past its expiry it waits until the broker's nodes agree on the time.
        let left = Some(until(record.expires_at_ms, now)).filter(|left| !left.is_zero());
        let pause = left.map_or(pause, |left| pause.min(left));
        if record.waiting.as_ref().is_some_and(|waiting| waiting.code == code) {
            return Ok(Advanced::Wait(pause));
        }
        let event =
            JobEvent::Wait { code, message, next_attempt_at_ms: now.saturating_add(whole_millis(pause)) };
        let noted =
            self.jobs.change(key, Some(entry), |record| record.apply(&event, record.fence, now)).await?;
        Ok(match noted {
            Changed::Applied(_) => {
                tracing::info!(%code, "the job waits");
                Advanced::Wait(pause)
            }
            Changed::Declined(_) | Changed::Missing => Advanced::Moved,
        })
    }

    /// After a failure of this process at a job: ends the job's running attempt, or gives up a job
    /// that does not run.
    async fn end_or_give_up(&self, key: &Key, refusal: Refusal) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(()) };
        let JobState::Running { session, .. } = entry.value.state else {
            return self.give_up(key, refusal).await;
        };
        let request = self.request_of(&entry.value)?;
        self.end_attempt(key, session, &request, refusal.into()).await
    }

    async fn give_up(&self, key: &Key, refusal: Refusal) -> Result<(), StoreError> {
        let Refusal { code, message } = refusal;
        let event = JobEvent::Fail { code, culprit: None, evidence: None, message };
        let changed = self
            .jobs
            .change(key, None, |record| match record.state {
                JobState::Queued | JobState::AwaitingOwner => {
                    record.apply(&event, record.fence, self.clock.now_ms()).map_err(drop)
                }
                _ => Err(()),
            })
            .await?;
        if let Changed::Applied(snapshot) = changed {
            tracing::info!(%code, "job given up");
            self.conclude(&snapshot).await;
        }
        Ok(())
    }

    /// Ends an expired job, unless it runs: a running session ends first, no later than the job
    /// expires. Returns whether the bucket has the job.
    pub(crate) async fn expire(&self, key: &Key) -> Result<bool, StoreError> {
        let changed = self
            .jobs
            .change(key, None, |record| match record.state {
                JobState::Queued | JobState::AwaitingOwner if self.clock.has_passed(record.expires_at_ms) => {
                    record.apply(&JobEvent::Expire, record.fence, self.clock.now_ms()).map_err(drop)
                }
                _ => Err(()),
            })
            .await?;
        if let Changed::Applied(snapshot) = &changed {
            tracing::info!(job = %snapshot.value.id, "job expired");
            self.conclude(snapshot).await;
        }
        Ok(!matches!(changed, Changed::Missing))
    }

    /// Invites both parties of a session that just began, and waits for its end.
    async fn run_session(
        &self,
        key: &Key,
        request: &SigningRequest,
        started: &crate::session::Started,
        observer: &mut Observer,
    ) -> Result<(), StoreError> {
        let session = started.session;
        let span = tracing::info_span!("session", %session);
        trace::follow(&span, started.trace.as_deref());
        async {
            // The responder comes first: it has to listen before the initiator speaks.
            let seated = match self.invite(started, &started.responder).await {
                Ok(seated) => seated,
                Err(failure) => return self.end_attempt(key, session, request, failure).await,
            };
            let initiating = match self.invite(started, &started.initiator).await {
                Ok(initiating) => initiating,
                Err(failure) => {
                    seated.release(&self.bus, session).await;
                    return self.end_attempt(key, session, request, failure).await;
                }
            };
            self.announce_step(session, Step::Running).await;
            let failure = Failure::no_outcome(started.initiator.party.clone());
            let left = time_left(&self.queue, started.expires_at_ms, self.clock.now_ms());
            let end = self.wait_for_end(key, session, request, left, failure, observer);
            if !end.await? {
                // One of them may still wait for the other.
                seated.release(&self.bus, session).await;
                initiating.release(&self.bus, session).await;
            }
            Ok(())
        }
        .instrument(span)
        .await
    }

    /// Waits for the end of a session that another orchestrator began.
    async fn see_through(
        &self,
        key: &Key,
        session: SessionId,
        request: &SigningRequest,
        observer: &mut Observer,
    ) -> Result<(), StoreError> {
        let now = self.clock.now_ms();
        let (left, initiator) = match self.sessions.get(session).await? {
            // The other's clock may differ by more than a session lasts.
            Some(record) => {
                let seen_at_ms = self.board.seen_at_ms(key).unwrap_or(now);
                let ends_at_ms = seen_at_ms.saturating_add(whole_millis(self.queue.session_timeout));
                (time_left(&self.queue, ends_at_ms, now), Some(record.initiator.party))
            }
            // The session was never stored, so no party was invited to it.
            None => (Duration::ZERO, None),
        };
        let failure = Failure::abandoned(initiator);
        self.wait_for_end(key, session, request, left, failure, observer).await.map(drop)
    }

    /// Waits until the job is no longer in `session`. Ends the attempt with `failure` when the time
    /// `left` has passed. Returns whether the session made the job's signature.
    async fn wait_for_end(
        &self,
        key: &Key,
        session: SessionId,
        request: &SigningRequest,
        left: Duration,
        failure: Failure,
        observer: &mut Observer,
    ) -> Result<bool, StoreError> {
        let over = async {
            while let Some(snapshot) = observer.changed().await {
                if running_pair(&snapshot.value, session).is_none() {
                    return matches!(snapshot.value.state, JobState::Signed { .. });
                }
            }
            false
        };
        if let Ok(is_signed) = timeout(left, over).await {
            return Ok(is_signed);
        }
        // The observer may have missed the end; then the compare-and-swap declines.
        self.end_attempt(key, session, request, failure).await?;
        Ok(false)
    }
}

/// How long the outcome of a session may still take that ends at `expires_at_ms`. This process's
/// clock may have been set back since: no session lasts longer than sessions may.
fn time_left(queue: &QueueSettings, expires_at_ms: u64, now_ms: u64) -> Duration {
    until(expires_at_ms, now_ms).min(queue.session_timeout) + queue.outcome_grace
}

/// How far a queued job was taken.
enum Advanced {
    /// A session of the job has ended.
    Tried,
    /// The job needs no announcement any more.
    Over,
    /// The job rests for this long.
    Wait(Duration),
    /// Another orchestrator was quicker.
    Moved,
}

/// The refusal of a job whose stored request does not parse. Without it the job would be looked at
/// for ever.
fn unreadable() -> Refusal {
    Refusal::new(Code::Internal, "the stored request cannot be read by this version")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_a_clock_ahead_noted_lasts_no_longer_than_others() {
        let queue = QueueSettings::default();
        let longest = queue.session_timeout + queue.outcome_grace;
        let session_ms = whole_millis(queue.session_timeout);
        assert_eq!(time_left(&queue, 1_000 + session_ms, 1_000), longest);
        assert_eq!(time_left(&queue, 301_000 + session_ms, 1_000), longest);
        assert_eq!(time_left(&queue, 1_000, 1_000), queue.outcome_grace);
    }
}

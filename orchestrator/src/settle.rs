//! How attempts end, how jobs end, and how an orchestrator publishes an end.

use core::time::Duration;

use duet_bus::{
    Address,
    ends::StoredEnd,
    kv::{Entry, Key},
};
use duet_protocol::{
    ids::{PartyId, SessionId},
    signature,
};
use duet_wire::{
    Code, JobEnded, JobEvent, JobRecord, JobResult, JobState, Pair, RecoverableSignature, Refusal,
    SignedResult, SigningRequest,
    job::{Attempt, AttemptOutcome, Evidence},
    progress::Step,
    session_state::SessionEvent,
};

use crate::{
    board::Snapshot,
    clock::whole_millis,
    directory::WalletFacts,
    feed,
    jobs::{Changed, StoreError},
    orchestrator::{Orchestrator, jitter},
    plan::{self, Decision, Moment, PastAttempt},
    settings::QueueSettings,
};

/// How long the broker may take to store a result or a dead letter.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);

/// Why an attempt ended without a signature.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) refusal: Refusal,
    pub(crate) culprit: Option<PartyId>,
    pub(crate) evidence: Option<Evidence>,
}

impl Failure {
    /// The failure of an attempt in which both parties accepted, and whose initiator reported no
    /// outcome in time.
    pub(crate) fn no_outcome(initiator: PartyId) -> Self {
        let refusal = Refusal::new(Code::Deadline, "the session ended without an outcome in time");
        let evidence = Some(Evidence::Silence { of: initiator, before_acceptance: false });
        Self { refusal, culprit: None, evidence }
    }

    /// The failure of an attempt that another orchestrator began and left. `None` stands for a
    /// session that was never stored, so that no party was invited to it.
    pub(crate) fn abandoned(initiator: Option<PartyId>) -> Self {
        match initiator {
            Some(of) => {
                let message = "the orchestrator that began the session is gone, and no outcome came in time";
                let evidence = Some(Evidence::Silence { of, before_acceptance: true });
                Self { refusal: Refusal::new(Code::Deadline, message), culprit: None, evidence }
            }
            None => {
                let message = "the session was not stored, so no party was invited to it";
                Refusal::new(Code::BrokerUnreachable, message).into()
            }
        }
    }

    /// How the attempt ended, as it is stored.
    fn outcome(&self) -> AttemptOutcome {
        let Self { refusal: Refusal { code, message }, culprit, evidence } = self.clone();
        AttemptOutcome::Failed { code, culprit, evidence, message }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, culprit: None, evidence: None }
    }
}

/// The attempts of `record` that count and that ended without a signature.
pub(crate) fn past_attempts(record: &JobRecord) -> Vec<PastAttempt> {
    record.counting_attempts().filter_map(PastAttempt::of).collect()
}

/// The pair of `record`'s running attempt, if it runs in `session`.
pub(crate) fn running_pair(record: &JobRecord, session: SessionId) -> Option<Pair> {
    match &record.state {
        JobState::Running { session: current, pair, .. } if *current == session => Some(*pair),
        _ => None,
    }
}

/// The sessions that the job lists.
pub(crate) fn listed_sessions(record: &JobRecord) -> Vec<SessionId> {
    record.attempts.iter().map(|attempt| attempt.session).collect()
}

/// Those of the sessions `before` a change that the job does not list `after` it.
pub(crate) fn unlisted_sessions(mut before: Vec<SessionId>, after: &JobRecord) -> Vec<SessionId> {
    before.retain(|session| after.attempts.iter().all(|attempt| attempt.session != *session));
    before
}

/// The session is not, or no longer, the job's current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over;

/// The job's event after a failed attempt of `pair`. `has_expired` is whether the job has.
pub(crate) fn event_after(
    queue: &QueueSettings,
    record: &JobRecord,
    pair: Pair,
    pairs: &[Pair],
    failure: &Failure,
    moment: Moment,
    has_expired: bool,
) -> JobEvent {
    let Moment { now_ms, .. } = moment;
    let Failure { refusal: Refusal { code, message }, culprit, evidence } = failure.clone();
    if has_expired {
        return JobEvent::Expire;
    }
    if record.revocation.is_some() {
        return JobEvent::CancelRevoked { code, culprit, evidence, message };
    }
    if code == Code::RejectedByOwner {
        return JobEvent::Fail { code, culprit, evidence, message };
    }
    let mut past = past_attempts(record);
    past.extend(record.attempts.last().and_then(|running| {
        let outcome = Some(failure.outcome());
        PastAttempt::of(&Attempt { pair, outcome, ended_at_ms: Some(now_ms), ..running.clone() })
    }));
    let retry = |pause, Failure { refusal: Refusal { code, message }, culprit, evidence }| {
        let next_attempt_at_ms = now_ms.saturating_add(whole_millis(pause));
        JobEvent::Retry { code, culprit, evidence, message, next_attempt_at_ms }
    };
    match plan::decide(pairs, &past, |_| Ok(()), queue, moment) {
        Decision::AwaitOwner(_) => JobEvent::ReturnToOwner { code, culprit, evidence, message },
        Decision::Try(_, pause) => retry(pause, failure.clone()),
        Decision::Wait(_) => retry(queue.retry_pause, failure.clone()),
        Decision::Fail(last) => JobEvent::Fail {
            code: last.code,
            culprit,
            evidence,
            // The last attempt's own message says more than that it was the last.
            message: if last.code == code { message } else { last.message },
        },
    }
}

impl Orchestrator {
    /// Ends the session `session` of the job under `key` without a signature. Decides what follows:
    /// another attempt later, a wait for the owner, or the job's end. Does nothing when the job is
    /// not in that session.
    pub(crate) async fn end_attempt(
        &self,
        key: &Key,
        session: SessionId,
        request: &SigningRequest,
        failure: Failure,
    ) -> Result<(), StoreError> {
        match &failure.evidence {
            // The party may have no worker at all, as while its only one restarts.
            Some(Evidence::Silence { of, .. }) => self.directory.doubt(of, request.wallet),
            _ if plan::facts_are_stale(failure.refusal.code) => self.directory.forget(request.wallet),
            _ => {}
        }
        let mut unlisted = Vec::new();
        let changed = self
            .jobs
            .change(key, None, |record| {
                let pair = running_pair(record, session).ok_or(Over)?;
                let moment = Moment { now_ms: self.clock.now_ms(), jitter: jitter() };
                let has_expired = self.clock.has_passed(record.expires_at_ms);
                let event =
                    event_after(&self.queue, record, pair, &request.pairs, &failure, moment, has_expired);
                let (fence, before) = (record.fence, listed_sessions(record));
                record.apply(&event, fence, self.clock.now_ms()).map_err(|_| Over)?;
                unlisted = unlisted_sessions(before, record);
                Ok::<(), Over>(())
            })
            .await?;
        let Changed::Applied(snapshot) = changed else { return Ok(()) };
        self.forget_sessions(&unlisted).await;
        self.note_failed(&snapshot.value, request, session, &failure);
        let Failure { refusal, culprit, .. } = failure;
        tracing::info!(job = %snapshot.value.id, %session, code = %refusal.code,
            culprit = culprit.as_ref().map(tracing::field::display), "attempt ended without a signature");
        let (event, step) = if matches!(refusal.code, Code::Deadline | Code::JobExpired) {
            (SessionEvent::Expire, Step::Expired)
        } else {
            (SessionEvent::Fail, Step::Failed { code: refusal.code })
        };
        self.announce_step(session, step).await;
        self.sessions.end(session, event).await;
        self.conclude(&snapshot).await;
        Ok(())
    }

    /// Removes the records of sessions that their job lists no longer, since no later step would.
    pub(crate) async fn forget_sessions(&self, sessions: &[SessionId]) {
        for session in sessions {
            if let Err(error) = self.sessions.remove(*session).await {
                tracing::warn!(%session, %error, "the record of an old session was not removed");
            }
        }
    }

    /// Verifies `signature` over the job's digest under the wallet's key and stores the job's
    /// result. `job` is its entry as just read. Returns the stored job.
    pub(crate) async fn accept_signature(
        &self,
        job: Entry<JobRecord>,
        session: SessionId,
        request: &SigningRequest,
        facts: &WalletFacts,
        pair: Pair,
        signature: &RecoverableSignature,
    ) -> Result<Snapshot, NotAccepted> {
        let key = Key::from((&job.value.tenant, job.value.id));
        let result = self.result_of(session, request, facts, pair, signature).await?;
        let digest = result.digest;
        let result = SignedResult::sign(&result, &self.result_key)
            .map_err(|error| NotAccepted::Impossible(Refusal::new(Code::Internal, error.to_string())))?;
        let changed = self
            .jobs
            .change(&key, Some(job), |record| {
                running_pair(record, session).ok_or(Over)?;
                let (fence, event) = (record.fence, JobEvent::Sign { result: result.clone() });
                record.apply(&event, fence, self.clock.now_ms()).map_err(|_| Over)
            })
            .await
            .map_err(NotAccepted::Store)?;
        match changed {
            Changed::Applied(snapshot) => {
                self.note_signed(&snapshot.value, request, session, digest);
                Ok(snapshot)
            }
            Changed::Declined(Over) | Changed::Missing => Err(NotAccepted::Over),
        }
    }

    async fn result_of(
        &self,
        session: SessionId,
        request: &SigningRequest,
        facts: &WalletFacts,
        pair: Pair,
        signed: &RecoverableSignature,
    ) -> Result<JobResult, NotAccepted> {
        let digest = request.payload.digest().map_err(|error| NotAccepted::Impossible(error.into()))?;
        let key = facts.verifying_key(pair, &request.path).map_err(NotAccepted::Impossible)?;
        signature::verify(&key, &digest, signed).map_err(|_| NotAccepted::Invalid)?;
        let signed =
            self.first_signature(request, &digest, &key, *signed).await.map_err(NotAccepted::Store)?;
        Ok(JobResult {
            job: request.job(),
            tenant: request.tenant.clone(),
            wallet: request.wallet,
            path: request.path.clone(),
            address: key.address(),
            digest,
            signature: signed,
            signed_transaction: request.payload.signed_transaction(&signed).map(Into::into),
            transaction_hash: request.payload.transaction_hash(&signed).map(Into::into),
            session,
            completed_at_ms: self.clock.now_ms(),
        })
    }

    /// Records the end of a job that the store already has as ended, and publishes it. Subscribers
    /// to the tenant's results see it; a failure also goes to the dead letters. Does nothing for
    /// open jobs.
    ///
    /// If publishing fails, or the process dies before noting it, the sweeper repeats it
    /// ([`Self::publish_end_again`]).
    pub(crate) async fn conclude(&self, snapshot: &Snapshot) {
        self.note_end(&snapshot.value);
        self.publish_end(snapshot).await;
    }

    async fn publish_end(&self, snapshot: &Snapshot) {
        let record = &snapshot.value;
        if record.end_published_at_ms.is_some() || !record.state.is_final() {
            return;
        }
        let published = self.publish_documents(record).await;
        self.metrics.end_published(published.is_ok());
        if let Err(error) = published {
            tracing::warn!(job = %record.id, %error, "a job's end was not published; trying again later");
            return;
        }
        self.note_published(snapshot).await;
    }

    /// Publishes the end of a job that may have been published already. Within the stream's window
    /// for duplicates the stream drops the repetition. Later, this searches the stream first.
    pub(crate) async fn publish_end_again(&self, snapshot: &Snapshot) {
        let record = &snapshot.value;
        let age = Duration::from_millis(self.clock.now_ms().saturating_sub(record.updated_at_ms));
        if age > self.storage.duplicate_window / 2 {
            let is_it = |end: &StoredEnd| feed::is_end_of(end, record);
            match self.bus.has_end(&record.tenant, record.updated_at_ms, is_it).await {
                Ok(true) => return self.note_published(snapshot).await,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(job = %record.id, %error, "it is not known whether a job's end was published");
                    return;
                }
            }
        }
        self.publish_end(snapshot).await;
    }

    async fn publish_documents(&self, record: &JobRecord) -> Result<(), PublishFailure> {
        // A job that an operator put back may end a second time, even before another attempt.
        let message_id = format!("{}.{}", record.id, record.updated_at_ms);
        let mut documents = Vec::with_capacity(2);
        if let JobState::Failed { .. } = &record.state {
            documents.push((Address::Dead(record.tenant.clone()), serde_json::to_vec(record)?));
        }
        if let JobState::Signed { result } = &record.state {
            documents.push((Address::Result(record.tenant.clone()), serde_json::to_vec(result)?));
        } else if let Some(ended) = JobEnded::of(record) {
            documents.push((Address::Ended(record.tenant.clone()), serde_json::to_vec(&ended)?));
        }
        for (address, document) in documents {
            self.bus.publish_stored(&address, document, Some(&message_id), PUBLISH_DEADLINE).await?;
        }
        Ok(())
    }

    async fn note_published(&self, snapshot: &Snapshot) {
        let record = &snapshot.value;
        let key = Key::from((&record.tenant, record.id));
        let noted = self
            .jobs
            .change(&key, Some((**snapshot).clone()), |record| {
                if record.end_published_at_ms.is_some() || !record.state.is_final() {
                    return Err(Over);
                }
                record.end_published_at_ms = Some(self.clock.now_ms());
                Ok(())
            })
            .await;
        if let Err(error) = noted {
            tracing::warn!(job = %record.id, %error, "it was not noted that a job's end was published");
        }
    }
}

/// Why a job's end was not published.
#[derive(Debug, thiserror::Error)]
enum PublishFailure {
    #[error(transparent)]
    Broker(#[from] duet_bus::PublishError),
    #[error("it does not serialise: {0}")]
    Document(#[from] serde_json::Error),
}

/// Why a reported signature is not stored.
#[derive(Debug)]
pub(crate) enum NotAccepted {
    /// It does not verify.
    Invalid,
    /// The job is no longer in that session.
    Over,
    /// The signature cannot be checked now, or cannot be made into a result.
    Impossible(Refusal),
    /// The store failed.
    Store(StoreError),
}

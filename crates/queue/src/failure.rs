//! What follows from the end of an attempt.

use duet_protocol::ids::{PartyId, SessionId, ShareIndex};
use duet_wire::{
    Code, JobEvent, JobRecord, JobState, Pair, Refusal,
    job::{Attempt, AttemptOutcome, Evidence},
};

use crate::{
    plan::{self, Decision, Moment, PastAttempt},
    settings::QueueSettings,
    time::whole_millis,
};

/// Why an attempt ended without a signature.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The code, and an explanation for a person.
    pub refusal: Refusal,
    /// The party demonstrably at fault.
    pub culprit: Option<PartyId>,
    /// The evidence for that.
    pub evidence: Option<Evidence>,
}

impl Failure {
    /// The failure of an attempt in which both parties accepted, and whose initiator reported no
    /// outcome in time.
    #[must_use]
    pub fn no_outcome(initiator: PartyId) -> Self {
        let refusal = Refusal::new(Code::Deadline, "the session ended without an outcome in time");
        let evidence = Some(Evidence::Silence { of: initiator, before_acceptance: false });
        Self { refusal, culprit: None, evidence }
    }

    /// The failure of an attempt that another orchestrator began and left. `None` stands for a
    /// session that was never stored, so that no party was invited to it.
    #[must_use]
    pub fn abandoned(initiator: Option<PartyId>) -> Self {
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
#[must_use]
pub fn past_attempts(record: &JobRecord) -> Vec<PastAttempt> {
    record.counting_attempts().filter_map(PastAttempt::of).collect()
}

/// The pair of `record`'s running attempt, if it runs in `session`.
#[must_use]
pub fn running_pair(record: &JobRecord, session: SessionId) -> Option<Pair> {
    match &record.state {
        JobState::Running { session: current, pair, .. } if *current == session => Some(*pair),
        _ => None,
    }
}

/// The sessions that the job lists.
#[must_use]
pub fn listed_sessions(record: &JobRecord) -> Vec<SessionId> {
    record.attempts.iter().map(|attempt| attempt.session).collect()
}

/// Those of the sessions `before` a change that the job does not list `after` it.
#[must_use]
pub fn unlisted_sessions(mut before: Vec<SessionId>, after: &JobRecord) -> Vec<SessionId> {
    before.retain(|session| after.attempts.iter().all(|attempt| attempt.session != *session));
    before
}

/// The session is not, or no longer, the job's current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over;

/// The job's event after a failed attempt of `pair`. `has_expired` is whether the job has.
#[must_use]
pub fn event_after(
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

/// The reason that the holder of share `index` gives. A rejection by the owner ends a job, and only
/// the device speaks for the owner. From any other party it ends only the session, as misbehaviour.
#[must_use]
pub fn said_by(index: ShareIndex, refusal: Refusal) -> Refusal {
    if refusal.code == Code::RejectedByOwner && index != ShareIndex::Device {
        let message = format!("the holder of share {index} rejects in the owner's name");
        return Refusal::new(Code::PeerMisbehaved, message);
    }
    refusal
}

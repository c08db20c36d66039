//! A job as the orchestrators store it, and the one function that changes its state.

use duet_protocol::ids::{PartyId, SessionId};
use serde::{Deserialize, Serialize};

use crate::{
    JobId, Priority, TenantId,
    encoding::hex_array,
    error::{Code, Refusal, bounded},
    request::{Pair, SignedRequest, SigningRequest},
    result::SignedResult,
    revocation::RevocationProof,
};

/// How many attempts a record remembers; the oldest are forgotten beyond that.
pub const MAX_REMEMBERED_ATTEMPTS: usize = 32;

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// It waits for an orchestrator, or for its next attempt.
    Queued,
    /// It waits for the owner to approve it on the device.
    AwaitingOwner,
    /// A session is under way.
    Running {
        /// The session.
        session: SessionId,
        /// Which attempt, from 1.
        attempt: u32,
        /// The pair that signs.
        pair: Pair,
    },
    /// There is a signature. Final.
    Signed {
        /// It, and all about it.
        result: SignedResult,
    },
    /// It was given up. Final unless an operator puts it back.
    Failed {
        /// Why.
        code: Code,
        /// The same for a person.
        message: String,
    },
    /// Its time passed. Final.
    Expired,
    /// Its requester withdrew it. Final.
    Cancelled,
}

/// A state without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStateName {
    /// See [`JobState::Queued`].
    Queued,
    /// See [`JobState::AwaitingOwner`].
    AwaitingOwner,
    /// See [`JobState::Running`].
    Running,
    /// See [`JobState::Signed`].
    Signed,
    /// See [`JobState::Failed`].
    Failed,
    /// See [`JobState::Expired`].
    Expired,
    /// See [`JobState::Cancelled`].
    Cancelled,
}

impl JobStateName {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::AwaitingOwner,
        Self::Running,
        Self::Signed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The name as text, for example `awaiting_owner`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::AwaitingOwner => "awaiting_owner",
            Self::Running => "running",
            Self::Signed => "signed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl core::fmt::Display for JobStateName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected queued, awaiting_owner, running, signed, failed, expired or cancelled")]
pub struct UnknownJobState;

impl core::str::FromStr for JobStateName {
    type Err = UnknownJobState;
    fn from_str(text: &str) -> Result<Self, UnknownJobState> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(UnknownJobState)
    }
}

impl JobState {
    /// The state's name.
    #[must_use]
    pub const fn name(&self) -> JobStateName {
        match self {
            Self::Queued => JobStateName::Queued,
            Self::AwaitingOwner => JobStateName::AwaitingOwner,
            Self::Running { .. } => JobStateName::Running,
            Self::Signed { .. } => JobStateName::Signed,
            Self::Failed { .. } => JobStateName::Failed,
            Self::Expired => JobStateName::Expired,
            Self::Cancelled => JobStateName::Cancelled,
        }
    }

    /// Whether nothing follows by itself.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Signed { .. } | Self::Failed { .. } | Self::Expired | Self::Cancelled)
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// Only a pair with the device is left; the owner must come.
    Park,
    /// A session begins: a worker took the job, or the owner approved it.
    Start {
        /// The session, new.
        session: SessionId,
        /// The pair that will sign.
        pair: Pair,
    },
    /// The session failed; another attempt follows at the given time.
    Retry {
        /// Why it failed.
        code: Code,
        /// Whose fault it demonstrably was.
        culprit: Option<PartyId>,
        /// What that is known by.
        evidence: Option<Evidence>,
        /// The same for a person.
        message: String,
        /// When to try again, in milliseconds since 1970.
        next_attempt_at_ms: u64,
    },
    /// The session with the device failed; the owner may approve again.
    ReturnToOwner {
        /// Why it failed.
        code: Code,
        /// Whose fault it demonstrably was.
        culprit: Option<PartyId>,
        /// What that is known by.
        evidence: Option<Evidence>,
        /// The same for a person.
        message: String,
    },
    /// The session's signature verified and its result is signed.
    Sign {
        /// The result.
        result: SignedResult,
    },
    /// No further attempt is made.
    Fail {
        /// Why.
        code: Code,
        /// Whose fault it demonstrably was.
        culprit: Option<PartyId>,
        /// What that is known by.
        evidence: Option<Evidence>,
        /// The same for a person.
        message: String,
    },
    /// The owner said no.
    Reject,
    /// The request's time passed.
    Expire,
    /// The requester withdraws it.
    Cancel,
    /// The session of a job that was revoked ended without a signature: no other follows.
    CancelRevoked {
        /// Why the session failed.
        code: Code,
        /// Whose fault it demonstrably was.
        culprit: Option<PartyId>,
        /// What that is known by.
        evidence: Option<Evidence>,
        /// The same for a person.
        message: String,
    },
    /// An operator puts a failed job back.
    Requeue,
}

impl JobEvent {
    /// The event's name, for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Start { .. } => "start",
            Self::Retry { .. } => "retry",
            Self::ReturnToOwner { .. } => "return-to-owner",
            Self::Sign { .. } => "sign",
            Self::Fail { .. } => "fail",
            Self::Reject => "reject",
            Self::Expire => "expire",
            Self::Cancel => "cancel",
            Self::CancelRevoked { .. } => "cancel-revoked",
            Self::Requeue => "requeue",
        }
    }

    /// Whether only the worker that runs the current attempt may report it.
    #[must_use]
    pub const fn ends_attempt(&self) -> bool {
        matches!(
            self,
            Self::Retry { .. } | Self::ReturnToOwner { .. } | Self::Sign { .. } | Self::CancelRevoked { .. }
        )
    }
}

/// Why an event is refused; the record is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The state does not allow it.
    #[error("a job that is {state} cannot take the event {event}")]
    Illegal {
        /// The state it is in.
        state: JobStateName,
        /// What was tried.
        event: &'static str,
    },
    /// Its request was revoked.
    #[error("the job's request was revoked; submit a new one")]
    Revoked,
    /// A newer attempt has begun since.
    #[error("attempt {held} is over; the job is at attempt {current}")]
    StaleFence {
        /// The token that was shown.
        held: u64,
        /// The token that counts.
        current: u64,
    },
}

/// The state after `event`; `attempts` is how many were started before. All changes of a job's
/// state go through here.
///
/// # Errors
/// When the state does not allow the event.
pub fn next(state: &JobState, event: &JobEvent, attempts: u32) -> Result<JobState, TransitionError> {
    use JobEvent as E;
    use JobState as S;
    match (state, event) {
        (S::Queued, E::Park) => Ok(S::AwaitingOwner),
        (S::Queued | S::AwaitingOwner, E::Start { session, pair }) => {
            Ok(S::Running { session: *session, attempt: attempts.saturating_add(1), pair: *pair })
        }
        (S::Running { .. }, E::Retry { .. }) | (S::Failed { .. }, E::Requeue) => Ok(S::Queued),
        (S::Running { .. }, E::ReturnToOwner { .. }) => Ok(S::AwaitingOwner),
        (S::Running { .. }, E::Sign { result }) => Ok(S::Signed { result: result.clone() }),
        (S::Queued | S::AwaitingOwner | S::Running { .. }, E::Fail { code, message, .. }) => {
            Ok(S::Failed { code: *code, message: bounded(message.clone()) })
        }
        (S::AwaitingOwner, E::Reject) => Ok(S::Failed {
            code: Code::RejectedByOwner,
            message: "The owner rejected the request on the device.".to_owned(),
        }),
        (S::Queued | S::AwaitingOwner | S::Running { .. }, E::Expire) => Ok(S::Expired),
        // A running attempt may already have made the signature: it cannot be called back.
        (S::Queued | S::AwaitingOwner, E::Cancel) | (S::Running { .. }, E::CancelRevoked { .. }) => {
            Ok(S::Cancelled)
        }
        _ => Err(TransitionError::Illegal { state: state.name(), event: event.name() }),
    }
}

/// What it is known by how an attempt ended, and whose fault that was. The orchestrator's own word:
/// what it names by a hash, who sent it signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// A party's own answer to its invitation: no.
    Refusal {
        /// Whose.
        by: PartyId,
    },
    /// A party's answer to its invitation, which makes no sense.
    Nonsense {
        /// Whose.
        by: PartyId,
        /// The SHA-256 of the answer.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party's signed report. If it blames the other party, that is its word.
    Report {
        /// Whose.
        by: PartyId,
        /// The SHA-256 of the report as it was sent, with its signature.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party's signed report of a signature that does not verify for the job's digest.
    InvalidSignature {
        /// Whose.
        by: PartyId,
        /// As above.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// That a party from which a word was due said none in time. It may have died, or been cut off,
    /// or somebody between may have kept its word: nobody is blamed for it.
    Silence {
        /// Whose.
        of: PartyId,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// With the signature.
    Signed,
    /// Without.
    Failed {
        /// Why.
        code: Code,
        /// Whose fault it demonstrably was.
        culprit: Option<PartyId>,
        /// What that is known by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Evidence>,
        /// The same for a person.
        message: String,
    },
    /// The job's time passed.
    Expired,
}

/// One attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which, from 1.
    pub attempt: u32,
    /// Its session.
    pub session: SessionId,
    /// The pair that was to sign.
    pub pair: Pair,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
}

/// A dead letter's return to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How many attempts had been started by then. They are remembered, and count no more.
    pub attempts: u32,
}

/// A party that does not keep a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRefused {
    /// Which.
    pub party: PartyId,
    /// Why.
    pub refusal: Refusal,
}

/// That a job's request was revoked, and which parties know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRevocation {
    /// By whom, and the signature.
    pub proof: RevocationProof,
    /// When the orchestrator took it, in milliseconds since 1970.
    pub at_ms: u64,
    /// The parties that keep it and sign the request no more.
    pub kept_by: Vec<PartyId>,
    /// The parties that are yet to acknowledge it. They are told until they do, or the request has
    /// expired.
    pub waits_for: Vec<PartyId>,
    /// The parties that do not keep it, for a reason that repetition does not cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_by: Vec<RevocationRefused>,
}

/// A job as it is stored: JSON in the key-value bucket, changed by compare-and-swap only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What the requester signed.
    pub request: SignedRequest,
    /// How urgent it is among its tenant's jobs.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Where it stands.
    #[serde(flatten)]
    pub state: JobState,
    /// How many attempts were started.
    pub attempts_started: u32,
    /// The latest attempts, oldest first, at most [`MAX_REMEMBERED_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
    /// Grows with each attempt; whoever runs an attempt holds its value, and only the current one
    /// may end it.
    pub fence: u64,
    /// When the next attempt may begin, in milliseconds since 1970.
    pub next_attempt_at_ms: u64,
    /// When it was accepted.
    pub created_at_ms: u64,
    /// When it last changed.
    pub updated_at_ms: u64,
    /// When it ends whatever happens.
    pub expires_at_ms: u64,
    /// That an operator put it back from the dead letters, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back: Option<PutBack>,
    /// When its end was published: to those who follow the tenant's results, and a failure to the
    /// dead letters as well. A settled job without it is published (again) by whoever finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_published_at_ms: Option<u64>,
    /// That its request was revoked, and which parties know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<JobRevocation>,
    /// The trace that it was accepted in, as a `traceparent` of W3C Trace Context, if traces are
    /// exported. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl JobRecord {
    /// A job just accepted. `request` is what `signed` says, verified by the caller.
    #[must_use]
    pub fn new(signed: SignedRequest, request: &SigningRequest, now_ms: u64) -> Self {
        Self {
            id: request.job(),
            tenant: request.tenant.clone(),
            request: signed,
            priority: Priority::default(),
            state: JobState::Queued,
            attempts_started: 0,
            attempts: Vec::new(),
            fence: 0,
            next_attempt_at_ms: now_ms,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            expires_at_ms: request.expires_at.saturating_mul(1000),
            put_back: None,
            end_published_at_ms: None,
            revocation: None,
            trace: None,
        }
    }

    /// The same job with `priority`.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The attempts that count: those since the job was put back, or all.
    pub fn counting_attempts(&self) -> impl Iterator<Item = &Attempt> {
        let before = self.put_back.map_or(0, |put_back| put_back.attempts);
        self.attempts.iter().filter(move |attempt| attempt.attempt > before)
    }

    /// Applies `event` at `now_ms`. `fence` is the token the caller holds: the one the record had
    /// when its attempt began. It counts for events that end an attempt.
    ///
    /// # Errors
    /// When the state does not allow the event, or a newer attempt has begun; the record is then
    /// unchanged.
    pub fn apply(&mut self, event: &JobEvent, fence: u64, now_ms: u64) -> Result<(), TransitionError> {
        if event.ends_attempt() && fence != self.fence {
            return Err(TransitionError::StaleFence { held: fence, current: self.fence });
        }
        let state = next(&self.state, event, self.attempts_started)?;
        if self.revocation.is_some() && matches!(event, JobEvent::Start { .. } | JobEvent::Requeue) {
            return Err(TransitionError::Revoked);
        }
        let was_running = matches!(self.state, JobState::Running { .. });
        match event {
            JobEvent::Start { session, pair } => {
                self.fence = self.fence.saturating_add(1);
                self.attempts_started = self.attempts_started.saturating_add(1);
                if self.attempts.len() >= MAX_REMEMBERED_ATTEMPTS {
                    self.attempts.remove(0);
                }
                self.attempts.push(Attempt {
                    attempt: self.attempts_started,
                    session: *session,
                    pair: *pair,
                    started_at_ms: now_ms,
                    ended_at_ms: None,
                    outcome: None,
                });
            }
            JobEvent::Retry { next_attempt_at_ms, .. } => self.next_attempt_at_ms = *next_attempt_at_ms,
            JobEvent::Requeue => {
                self.next_attempt_at_ms = now_ms;
                self.put_back = Some(PutBack { at_ms: now_ms, attempts: self.attempts_started });
                self.end_published_at_ms = None;
            }
            _ => {}
        }
        if was_running && let Some(attempt) = self.attempts.last_mut() {
            attempt.ended_at_ms = Some(now_ms);
            attempt.outcome = match event {
                JobEvent::Sign { .. } => Some(AttemptOutcome::Signed),
                JobEvent::Retry { code, culprit, evidence, message, .. }
                | JobEvent::ReturnToOwner { code, culprit, evidence, message }
                | JobEvent::CancelRevoked { code, culprit, evidence, message }
                | JobEvent::Fail { code, culprit, evidence, message } => Some(AttemptOutcome::Failed {
                    code: *code,
                    culprit: culprit.clone(),
                    evidence: evidence.clone(),
                    message: bounded(message.clone()),
                }),
                _ => Some(AttemptOutcome::Expired),
            };
        }
        self.state = state;
        self.updated_at_ms = now_ms;
        Ok(())
    }
}

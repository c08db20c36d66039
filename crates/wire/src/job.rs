//! A job as the orchestrators store it, and the one function that changes its state.

use duet_protocol::ids::{PartyId, SessionId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    JobId, Priority, TenantId,
    encoding::hex_array,
    error::{Class, Code, Refusal, bounded},
    record::{self, Kept, Unreadable},
    request::{Pair, SignedRequest, SigningRequest},
    result::SignedResult,
    revocation::RevocationProof,
    unknown::UnknownName,
};

/// How many attempts a record keeps. Attempts beyond that are counted and no longer listed.
pub const MAX_REMEMBERED_ATTEMPTS: usize = 32;

/// A job's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// It waits for an orchestrator, or for its next attempt.
    #[default]
    Queued,
    /// It waits for the owner to approve it on the device.
    AwaitingOwner,
    /// A session is running.
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
        /// The result with the signature.
        result: SignedResult,
    },
    /// The orchestrator gave it up. Final unless an operator puts it back.
    Failed {
        /// Why.
        code: Code,
        /// An explanation for a person.
        message: String,
    },
    /// It expired. Final.
    Expired,
    /// The tenant cancelled it, or its request was revoked. Final.
    Cancelled,
    /// A state that a later release added. This build shows its name and leaves the job to
    /// orchestrators that know it.
    #[serde(skip)]
    Unknown(UnknownName),
}

/// A state without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// See [`JobState::Unknown`].
    Unknown(UnknownName),
}

impl JobStateName {
    /// All that this build knows.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::AwaitingOwner,
        Self::Running,
        Self::Signed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The name as a text of this program, for example `awaiting_owner`. It is `unknown` for a
    /// state that this build does not know, which displays as its own name.
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
            Self::Unknown(_) => UnknownName::LABEL,
        }
    }
}

impl core::fmt::Display for JobStateName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown(name) => name.fmt(f),
            known => f.write_str(known.as_str()),
        }
    }
}

impl Serialize for JobStateName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobStateName {
    /// Reads any name, also one that this build does not know. What a caller asks for is parsed
    /// with [`core::str::FromStr`], which refuses such a name.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            Ok(known) => Ok(known),
            Err(UnknownJobState) => UnknownName::new(&text).map(Self::Unknown).map_err(D::Error::custom),
        }
    }
}

/// The text names no state.
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
            Self::Unknown(name) => JobStateName::Unknown(*name),
        }
    }

    /// Whether no further state follows by itself. Of an unknown state, another release knows.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Signed { .. } | Self::Failed { .. } | Self::Expired | Self::Cancelled)
    }

    /// Reads the state that `members` describe. `tag` is the member with the state's name.
    fn read(members: &Map<String, Value>, tag: &str) -> Result<Self, Unreadable> {
        let name = members.get(tag).unwrap_or(&Value::Null);
        match record::part::<JobStateName>(name)? {
            JobStateName::Unknown(name) => Ok(Self::Unknown(name)),
            // The record as it is: its state stands beside its other members.
            _ if tag == "state" => {
                Self::deserialize(members).map_err(|error| Unreadable::Malformed(error.to_string()))
            }
            _ => {
                let mut members = members.clone();
                members.insert("state".to_owned(), name.clone());
                record::part(&Value::Object(members))
            }
        }
    }

    /// The members that describe the state, its name among them under `tag`.
    fn write(&self, tag: &str) -> Result<Map<String, Value>, serde_json::Error> {
        if let Self::Unknown(name) = self {
            return Ok(Map::from_iter([(tag.to_owned(), name.as_str().into())]));
        }
        let mut members: Map<String, Value> = serde_json::from_value(serde_json::to_value(self)?)?;
        if let Some(name) = members.remove("state") {
            members.insert(tag.to_owned(), name);
        }
        Ok(members)
    }
}

/// An event in the life of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// Only pairs with the device are left, so the job waits for its owner.
    Park,
    /// No pair can sign now, by the parties' answers. The job waits, and no session begins.
    Wait {
        /// Why.
        code: Code,
        /// An explanation for a person.
        message: String,
        /// When to look again, in milliseconds since 1970.
        next_attempt_at_ms: u64,
    },
    /// A session begins: an orchestrator started an attempt, or the owner approved the job.
    Start {
        /// The session, new.
        session: SessionId,
        /// The pair that will sign.
        pair: Pair,
    },
    /// The session failed. Another attempt follows at the given time.
    Retry {
        /// Why it failed.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// The evidence for that.
        evidence: Option<Evidence>,
        /// An explanation for a person.
        message: String,
        /// When to try again, in milliseconds since 1970.
        next_attempt_at_ms: u64,
    },
    /// The session with the device failed. The owner may approve again.
    ReturnToOwner {
        /// Why it failed.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// The evidence for that.
        evidence: Option<Evidence>,
        /// An explanation for a person.
        message: String,
    },
    /// The session's signature verified, and the orchestrator signed the result.
    Sign {
        /// The result.
        result: SignedResult,
    },
    /// No further attempt is made.
    Fail {
        /// Why.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// The evidence for that.
        evidence: Option<Evidence>,
        /// An explanation for a person.
        message: String,
    },
    /// The owner rejected the job.
    Reject,
    /// The request expired.
    Expire,
    /// The tenant cancels it, or its request is revoked.
    Cancel,
    /// The session of a revoked job ended without a signature. No other session follows.
    CancelRevoked {
        /// Why the session failed.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// The evidence for that.
        evidence: Option<Evidence>,
        /// An explanation for a person.
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
            Self::Wait { .. } => "wait",
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

    /// Whether the event ends an attempt, so that it needs the current attempt's fence token.
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
    /// A newer attempt has begun.
    #[error("attempt {held} is over; the job is at attempt {current}")]
    StaleFence {
        /// The token that the caller presented.
        held: u64,
        /// The current token.
        current: u64,
    },
}

/// The state after `event`. `attempts` is how many attempts were started before. Every change of a
/// job's state goes through this function.
///
/// # Errors
/// When the state does not allow the event.
pub fn next(state: &JobState, event: &JobEvent, attempts: u32) -> Result<JobState, TransitionError> {
    use JobEvent as E;
    use JobState as S;
    match (state, event) {
        (S::Queued, E::Park) => Ok(S::AwaitingOwner),
        (S::Queued, E::Wait { .. }) => Ok(S::Queued),
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
        // A running attempt may already have made the signature, which cannot be revoked.
        (S::Queued | S::AwaitingOwner, E::Cancel) | (S::Running { .. }, E::CancelRevoked { .. }) => {
            Ok(S::Cancelled)
        }
        _ => Err(TransitionError::Illegal { state: state.name(), event: event.name() }),
    }
}

/// The evidence for how an attempt ended and which party was at fault. It is the orchestrator's own
/// statement. Where it has a hash, the hash is of a message that a party sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// A party refused its invitation.
    Refusal {
        /// The party.
        by: PartyId,
    },
    /// A party's answer to its invitation does not parse.
    Nonsense {
        /// The party.
        by: PartyId,
        /// The SHA-256 of the answer.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party's signed report. If it blames the other party, only this party says so.
    Report {
        /// The party.
        by: PartyId,
        /// The SHA-256 of the report as it was sent, with its signature.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party's signed report of a signature that does not verify for the job's digest.
    InvalidSignature {
        /// The party.
        by: PartyId,
        /// The SHA-256 of the report as it was sent, with its signature.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party did not answer in time. It may have died or been cut off, or another process on the
    /// way may have withheld its answer. So this blames no party.
    Silence {
        /// The party.
        of: PartyId,
        /// Whether this orchestrator has not seen both parties accept the session: the party did
        /// not answer its invitation, or the orchestrator that sent it died. Then the silence says
        /// nothing about the job.
        #[serde(default, skip_serializing_if = "is_false")]
        before_acceptance: bool,
    },
    /// Evidence of a kind that a later release added.
    #[serde(other)]
    Unknown,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It ended with the signature.
    Signed,
    /// It ended without a signature.
    Failed {
        /// Why.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// The evidence for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Evidence>,
        /// An explanation for a person.
        message: String,
    },
    /// The job expired.
    Expired,
    /// In a way that a later release added.
    #[serde(other)]
    Unknown,
}

impl AttemptOutcome {
    /// What the outcome means for the job. `None` for an end with a signature, for an expired job,
    /// and for an outcome that a later release added.
    #[must_use]
    pub const fn class(&self) -> Option<Class> {
        match self {
            Self::Failed {
                code: Code::Deadline,
                evidence: Some(Evidence::Silence { before_acceptance: true, .. }),
                ..
            } => Some(Class::Wait),
            Self::Failed { code, .. } => Some(code.class()),
            Self::Signed | Self::Expired | Self::Unknown => None,
        }
    }
}

/// Earlier attempts that ended in the same way as the one listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// How many.
    pub attempts: u32,
    /// When the first of them began, in milliseconds since 1970.
    pub first_started_at_ms: u64,
}

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The code.
    pub code: Code,
    /// An explanation for a person: what has to happen before the job goes on.
    pub message: String,
    /// Since when the job waits, for this or for another reason, in milliseconds since 1970.
    pub since_ms: u64,
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
    /// Earlier attempts of the pair that ended with the same code. They are counted here and not
    /// listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
}

impl Attempt {
    /// How many attempts this entry stands for: itself, and those counted in `earlier`.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.earlier.map_or(1, |earlier| earlier.attempts.saturating_add(1))
    }

    /// When the first attempt began that this entry stands for, in milliseconds since 1970.
    #[must_use]
    pub fn first_started_at_ms(&self) -> u64 {
        self.earlier.map_or(self.started_at_ms, |earlier| earlier.first_started_at_ms)
    }

    /// Whether both failed, with the same pair and the same code, and mean the same for the job.
    fn is_like(&self, other: &Self) -> bool {
        let end = |attempt: &Self| match &attempt.outcome {
            Some(outcome @ AttemptOutcome::Failed { code, .. }) => Some((*code, outcome.class())),
            _ => None,
        };
        self.pair == other.pair && end(self).is_some() && end(self) == end(other)
    }

    /// Whether it says nothing about the job.
    fn says_nothing(&self) -> bool {
        self.outcome.as_ref().and_then(AttemptOutcome::class) == Some(Class::Wait)
    }
}

/// A dead letter's return to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How many attempts had been started by then. They are kept but no longer count.
    pub attempts: u32,
}

/// A party that refuses to store a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRefused {
    /// The party.
    pub party: PartyId,
    /// Why.
    pub refusal: Refusal,
}

/// The revocation of a job's request, and which parties know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRevocation {
    /// The signer, and the signature.
    pub proof: RevocationProof,
    /// When the orchestrator accepted it, in milliseconds since 1970.
    pub at_ms: u64,
    /// The parties that have stored it and no longer sign the request.
    pub kept_by: Vec<PartyId>,
    /// The parties that have not acknowledged it yet. The orchestrator tells them until they do, or
    /// the request has expired.
    pub waits_for: Vec<PartyId>,
    /// The parties that refused it for a reason that a repetition does not cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_by: Vec<RevocationRefused>,
}

/// Where the members of a record's state stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StateForm {
    /// Among the record's other members, `state` being its name. Schema 1.
    #[default]
    Flat,
    /// In an object of their own under `state`, its name under `name`. Schema 2. No release writes
    /// it yet.
    Member,
}

/// A job as it is stored: JSON in the key-value bucket, changed by compare-and-swap only.
///
/// Members that this build does not know are kept, see [`crate::record`]. A record is written in
/// the form in which it was read, and a new one in the form of schema 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The request as the requester signed it.
    pub request: SignedRequest,
    /// How urgent it is among its tenant's jobs.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Its state.
    #[serde(skip)]
    pub state: JobState,
    /// How many attempts were started.
    pub attempts_started: u32,
    /// The latest attempts, oldest first, at most [`MAX_REMEMBERED_ATTEMPTS`]. Attempts that said
    /// nothing about the job are listed once for each pair and code.
    pub attempts: Vec<Attempt>,
    /// The fence token. It grows with each attempt. The orchestrator that runs an attempt holds its
    /// value, and only the current value may end the attempt.
    pub fence: u64,
    /// When the next attempt may begin, in milliseconds since 1970.
    pub next_attempt_at_ms: u64,
    /// Why it waits, or last waited, unless an attempt has since ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// When it was accepted, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// When it expires at the latest, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Its last return from the dead letters by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back: Option<PutBack>,
    /// When its end was published in the results' stream, and for a failure among the dead letters.
    /// Any orchestrator that finds a settled job without this publishes it (again).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_published_at_ms: Option<u64>,
    /// The revocation of its request, and which parties know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<JobRevocation>,
    /// The trace in which it was accepted, as a `traceparent` of W3C Trace Context, if traces are
    /// exported. No decision depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Where its state stands.
    #[serde(skip)]
    pub form: StateForm,
    /// What this build does not know of it.
    #[serde(skip)]
    pub kept: Kept,
}

impl<'de> Deserialize<'de> for JobRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let whole = Map::deserialize(deserializer)?;
        record::require_readable(&whole).map_err(D::Error::custom)?;
        let mut record = Self::deserialize(&whole).map_err(D::Error::custom)?;
        let state = match whole.get("state") {
            Some(Value::Object(members)) => {
                record.form = StateForm::Member;
                JobState::read(members, "name")
            }
            _ => JobState::read(&whole, "state"),
        };
        record.state = state.map_err(D::Error::custom)?;
        record.kept = Kept::of(whole, record.known().map_err(D::Error::custom)?);
        Ok(record)
    }
}

impl Serialize for JobRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        self.kept.with(self.known().map_err(S::Error::custom)?).serialize(serializer)
    }
}

impl JobRecord {
    /// The members that this build knows.
    fn known(&self) -> Result<Value, serde_json::Error> {
        let mut known = Self::serialize(self, serde_json::value::Serializer)?;
        if let Value::Object(members) = &mut known {
            match self.form {
                StateForm::Flat => members.extend(self.state.write("state")?),
                StateForm::Member => {
                    members.insert("state".to_owned(), Value::Object(self.state.write("name")?));
                }
            }
        }
        Ok(known)
    }

    /// A job that was just accepted. `request` is the content of `signed`; the caller has verified
    /// it.
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
            waiting: None,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            expires_at_ms: request.expires_at.saturating_mul(1000),
            put_back: None,
            end_published_at_ms: None,
            revocation: None,
            trace: None,
            form: StateForm::default(),
            kept: Kept::default(),
        }
    }

    /// Sets the job's priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The attempts that count: those since the job was put back, or all.
    pub fn counting_attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| self.counts(attempt))
    }

    /// Whether the attempt was started since the job was put back, or the job never was.
    fn counts(&self, attempt: &Attempt) -> bool {
        attempt.attempt > self.put_back.map_or(0, |put_back| put_back.attempts)
    }

    /// Counts the attempt at `older` in the one at `newer`, and lists it no longer.
    fn fold(&mut self, older: usize, newer: usize) {
        if older >= newer || newer >= self.attempts.len() {
            return;
        }
        let folded = self.attempts.remove(older);
        if let Some(into) = self.attempts.get_mut(newer - 1) {
            let attempts = folded.times().saturating_add(into.times()).saturating_sub(1);
            into.earlier = Some(Earlier { attempts, first_started_at_ms: folded.first_started_at_ms() });
        }
    }

    /// The oldest attempt that ended as a later one did, with the first such later one.
    fn repeated(&self) -> Option<(usize, usize)> {
        let attempts = || self.attempts.iter().enumerate();
        attempts().find_map(|(older, attempt)| {
            let is_repeat = |&(at, later): &(usize, &Attempt)| {
                at > older && attempt.is_like(later) && self.counts(attempt) == self.counts(later)
            };
            attempts().find(is_repeat).map(|(newer, _)| (older, newer))
        })
    }

    /// Makes room for one more attempt. The attempts that count stay counted after a long wait.
    fn make_room(&mut self) {
        if self.attempts.len() < MAX_REMEMBERED_ATTEMPTS {
            return;
        }
        match self.repeated() {
            Some((older, newer)) => self.fold(older, newer),
            None => {
                let at = self.attempts.iter().position(Attempt::says_nothing).unwrap_or(0);
                self.attempts.remove(at);
            }
        }
    }

    /// Lists an attempt that said nothing about the job once, however often it was made.
    fn fold_waits(&mut self) {
        let Some((newer, last)) = self.attempts.iter().enumerate().next_back() else { return };
        if !last.says_nothing() {
            return;
        }
        let is_repeat = |attempt: &Attempt| attempt.is_like(last) && self.counts(attempt);
        if let Some(older) = self.attempts.iter().take(newer).position(is_repeat) {
            self.fold(older, newer);
        }
    }

    /// Notes why the job waits.
    fn wait_for(&mut self, code: Code, message: &str, now_ms: u64) {
        let since_ms = self.waiting.as_ref().map_or(now_ms, |waiting| waiting.since_ms);
        self.waiting = Some(Waiting { code, message: bounded(message.to_owned()), since_ms });
    }

    /// Applies `event` at `now_ms`. `fence` is the token that the caller holds: the record's token
    /// when its attempt began. It matters only for events that end an attempt.
    ///
    /// # Errors
    /// When the state does not allow the event, or a newer attempt has begun. The record is then
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
                self.make_room();
                self.attempts.push(Attempt {
                    attempt: self.attempts_started,
                    session: *session,
                    pair: *pair,
                    started_at_ms: now_ms,
                    ended_at_ms: None,
                    outcome: None,
                    earlier: None,
                });
            }
            JobEvent::Wait { code, message, next_attempt_at_ms } => {
                self.next_attempt_at_ms = *next_attempt_at_ms;
                self.wait_for(*code, message, now_ms);
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
            let outcome = attempt.outcome.clone();
            self.fold_waits();
            match outcome {
                Some(AttemptOutcome::Failed { code, ref message, .. })
                    if !state.is_final()
                        && outcome.as_ref().and_then(AttemptOutcome::class) == Some(Class::Wait) =>
                {
                    self.wait_for(code, message, now_ms);
                }
                // An expired job still shows what it waited for.
                Some(AttemptOutcome::Expired) => {}
                _ => self.waiting = None,
            }
        }
        if matches!(event, JobEvent::Requeue) || (state.is_final() && state != JobState::Expired) {
            self.waiting = None;
        }
        self.state = state;
        self.updated_at_ms = now_ms;
        Ok(())
    }
}

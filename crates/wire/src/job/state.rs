//! The states of a job, the events in its life, and the one function that changes its state.

use duet_protocol::ids::{PartyId, SessionId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::attempt::Evidence;
use crate::{
    error::{Code, bounded},
    record::{self, Unreadable},
    request::Pair,
    result::SignedResult,
    unknown::UnknownName,
};

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
    pub(super) fn read(members: &Map<String, Value>, tag: &str) -> Result<Self, Unreadable> {
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
    pub(super) fn write(&self, tag: &str) -> Result<Map<String, Value>, serde_json::Error> {
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

//! The errors of a party, and the stable codes that other processes see.

use duet_bus::{RequestError, SubscribeError};
use duet_protocol::codec::{DecodeError, EncodeError};
use duet_wire::{Code, Refusal};

use crate::{
    at_rest::{KeyError, OpenError},
    compute::Abandoned,
    store::StoreError,
    vault::UnlockError,
};

/// Why a party did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum PartyError {
    /// The share store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The share store does not open.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// A record of the store does not open: it was changed, or belongs to another key.
    #[error("a record of the share store: {0}")]
    Record(#[from] OpenError),
    /// A key encryption key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This party refuses.
    #[error(transparent)]
    Refused(Refusal),
    /// The wallet's policy refuses.
    #[error("{refusal}")]
    RefusedByPolicy {
        /// The rule that came nearest to allowing the request.
        rule: Option<String>,
        /// The reason.
        refusal: Refusal,
    },
    /// Another process refused.
    #[error("{by}: {refusal}")]
    RefusedBy {
        /// The name of the process.
        by: String,
        /// Its refusal.
        refusal: Refusal,
    },
    /// A request over the broker got no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A subscription could not be made.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Another process sent a message that does not parse.
    #[error("{from} sent a malformed message: {reason}")]
    Malformed {
        /// The name of the process.
        from: String,
        /// The fault in the message.
        reason: DecodeError,
    },
    /// A message of this party exceeds its size limit.
    #[error("a message cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The process is stopping.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// A stored record opens but does not parse: another version wrote it.
    #[error("a stored {what} does not parse: {reason}")]
    Stored {
        /// The kind of the record.
        what: &'static str,
        /// The fault in the record.
        reason: String,
    },
}

impl PartyError {
    /// A refusal by this party.
    pub(crate) fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Store(
                StoreError::Exists(_) | StoreError::OlderBuilds(_) | StoreError::OtherPayload { .. },
            ) => Code::Conflict,
            // The session was decided by an older policy. A new one is decided by the newest.
            Self::Store(StoreError::PolicyChanged) => Code::StaleEpoch,
            Self::Store(StoreError::LimitExceeded(_)) => Code::LimitExceeded,
            Self::Store(StoreError::TooManyAnswers) => Code::TooManyAnswers,
            Self::Store(StoreError::Quarantined(_)) => Code::Locked,
            Self::Store(StoreError::Revoked) => Code::Cancelled,
            Self::Store(_) => Code::StorageUnavailable,
            Self::Unlock(error) => error.code(),
            Self::Record(_) | Self::Stored { .. } => Code::StorageUnavailable,
            Self::Key(KeyError::Randomness) | Self::Encode(_) | Self::Abandoned(_) => Code::Internal,
            Self::Key(_) => Code::StorageUnavailable,
            Self::Refused(refusal)
            | Self::RefusedByPolicy { refusal, .. }
            | Self::RefusedBy { refusal, .. } => refusal.code,
            Self::Request(RequestError::TimedOut { .. } | RequestError::NoResponders { .. }) => {
                Code::Deadline
            }
            Self::Request(RequestError::TooLarge { .. }) => Code::TooLarge,
            Self::Request(RequestError::PermissionDenied { .. }) => Code::Unauthorized,
            Self::Request(_) | Self::Subscribe(_) => Code::BrokerUnreachable,
            Self::Malformed { .. } => Code::MalformedMessage,
        }
    }

    /// The error for other processes: the code and a message. Details of failures inside this party
    /// stay in its own log.
    #[must_use]
    pub fn to_refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) | Self::RefusedByPolicy { refusal, .. } => refusal.clone(),
            Self::Store(
                StoreError::LimitExceeded(_)
                | StoreError::PolicyChanged
                | StoreError::Revoked
                | StoreError::TooManyAnswers
                | StoreError::OtherPayload { .. }
                | StoreError::Quarantined(_),
            ) => Refusal::new(self.code(), self.to_string()),
            Self::Store(_) | Self::Record(_) | Self::Key(_) | Self::Unlock(_) | Self::Stored { .. } => {
                Refusal::new(
                    self.code(),
                    "the party's share store does not work at the moment; the party's operator has to repair it",
                )
            }
            Self::Abandoned(_) | Self::Encode(_) => Refusal::new(self.code(), "the party failed; try again"),
            _ => Refusal::new(self.code(), self.to_string()),
        }
    }
}

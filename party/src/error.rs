//! What can go wrong in a party, and by which of the stable codes it is known outside.

use duet_bus::{RequestError, SubscribeError};
use duet_protocol::codec::{DecodeError, EncodeError};
use duet_wire::{Code, Refusal};

use crate::{
    at_rest::{KeyError, OpenError},
    compute::Abandoned,
    store::StoreError,
    vault::UnlockError,
};

/// Why a party did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PartyError {
    /// The share store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The share store does not open.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// A record of the store does not open: it was changed, or belongs to another key.
    #[error("a record of the share store: {0}")]
    Record(#[from] OpenError),
    /// The key encryption key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This party says no.
    #[error(transparent)]
    Refused(Refusal),
    /// A wallet's policy says no.
    #[error("{refusal}")]
    RefusedByPolicy {
        /// The rule that came nearest to allowing it.
        rule: Option<String>,
        /// Why.
        refusal: Refusal,
    },
    /// Another process said no.
    #[error("{by}: {refusal}")]
    RefusedBy {
        /// Who.
        by: String,
        /// What it said.
        refusal: Refusal,
    },
    /// A request over the broker brought no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A subscription could not be made.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Another process sent what does not parse.
    #[error("{from} sent a malformed message: {reason}")]
    Malformed {
        /// Who.
        from: String,
        /// What is wrong with it.
        reason: DecodeError,
    },
    /// A message of this party's own is over its limit.
    #[error("a message cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The process is stopping.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// A stored record does not parse, though it opens: another version wrote it.
    #[error("a stored {what} does not parse: {reason}")]
    Stored {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
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
            Self::Store(StoreError::Exists(_) | StoreError::PolicyChanged) => Code::Conflict,
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

    /// What others are told: the code and a sentence. Failures inside this party keep their details
    /// for its own log.
    #[must_use]
    pub fn to_refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) | Self::RefusedByPolicy { refusal, .. } => refusal.clone(),
            Self::Store(
                StoreError::LimitExceeded(_)
                | StoreError::PolicyChanged
                | StoreError::Revoked
                | StoreError::TooManyAnswers
                | StoreError::Quarantined(_),
            ) => Refusal::new(self.code(), self.to_string()),
            Self::Store(_) | Self::Record(_) | Self::Key(_) | Self::Unlock(_) | Self::Stored { .. } => {
                Refusal::new(
                    self.code(),
                    "the party's share store does not work at the moment; its operator has to look",
                )
            }
            Self::Abandoned(_) | Self::Encode(_) => Refusal::new(self.code(), "the party failed; try again"),
            _ => Refusal::new(self.code(), self.to_string()),
        }
    }
}

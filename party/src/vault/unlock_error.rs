//! Why a share store does not open.

use duet_wire::Code;

use crate::{at_rest::KeyError, key_encryption::KeyEncryptionError, store::StoreError};

/// Why a share store does not open.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The passphrase is not the store's.
    #[error("wrong passphrase (attempt {failures}); each further one takes longer")]
    WrongPassphrase {
        /// The number of failures since the last success.
        failures: u32,
    },
    /// The key file, or the credential, is not the store's.
    #[error("the key file does not belong to this share store")]
    WrongKeyFile,
    /// Too many wrong passphrases.
    #[error("{failures} wrong passphrases so far; the next attempt is allowed in {} s", .wait_ms.div_ceil(1000))]
    TooEarly {
        /// The number of failures.
        failures: u32,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// No party was set up in the store.
    #[error("the share store is empty; set up the party first")]
    Empty,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's key was not encrypted or decrypted.
    #[error(transparent)]
    KeyEncryption(#[from] KeyEncryptionError),
    /// The system provides no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store's description of its own key does not parse.
    #[error("the share store's description of its key does not parse")]
    Descriptor,
    /// The store's key was decrypted, but does not open the store's records.
    #[error("the share store's key does not open its records: settings and records are of different stores")]
    Mismatch,
    /// The store's key was changed a moment ago, and other workers have yet to take the new one.
    #[error("the share store's key was changed a moment ago; the next change is possible in {} s", .wait_ms.div_ceil(1000))]
    InSuccession {
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// The new source decrypts another key than it encrypted.
    #[error("the new key or passphrase does not decrypt the share store's key again; nothing was changed")]
    Untrue,
}

impl UnlockError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::WrongPassphrase { .. } | Self::WrongKeyFile | Self::TooEarly { .. } => {
                Code::WrongPassphrase
            }
            Self::Empty => Code::NotFound,
            Self::KeyEncryption(KeyEncryptionError::Abandoned(_)) => Code::Internal,
            Self::InSuccession { .. } => Code::Conflict,
            Self::Store(_)
            | Self::KeyEncryption(_)
            | Self::Key(_)
            | Self::Descriptor
            | Self::Mismatch
            | Self::Untrue => Code::StorageUnavailable,
        }
    }
}

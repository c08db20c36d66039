//! Why a store's key was not encrypted or decrypted.

use super::Source;
use crate::{at_rest::KeyError, compute::Abandoned};

/// Why a store's key was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum KeyEncryptionError {
    /// The key was not encrypted under this source, or the ciphertext was changed.
    #[error("the store's key does not open")]
    WrongKey,
    /// Another source decrypts the store's key.
    #[error("this store is opened with {expected}, not with {offered}")]
    Source {
        /// The source that decrypts it.
        expected: Source,
        /// The source that was offered.
        offered: Source,
    },
    /// systemd gave the service no credential of this name.
    #[error("there is no credential {name}: {reason}")]
    NoCredential {
        /// The credential's name.
        name: String,
        /// What was not found.
        reason: String,
    },
    /// The key file or the passphrase failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Vault failed.
    #[error(transparent)]
    Transit(#[from] VaultTransitError),
    /// The process is stopping.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
}

/// Why Vault did not encrypt or decrypt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultTransitError {
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
    /// Vault does not answer.
    #[error("Vault at {url} is out of reach: {reason}")]
    Unreachable {
        /// Vault's address.
        url: String,
        /// The reason of the failure.
        reason: String,
    },
    /// Vault has not been unsealed.
    #[error("Vault at {url} is sealed")]
    Sealed {
        /// Vault's address.
        url: String,
    },
    /// Vault cannot answer at the moment.
    #[error("Vault at {url} answers with status {status}: {reason}")]
    Busy {
        /// Vault's address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Vault's reason.
        reason: String,
    },
    /// The token is invalid, has expired, or lacks the permission.
    #[error("Vault denies its token {path}")]
    Denied {
        /// The path that was called.
        path: String,
    },
    /// The engine does not exist, or it has no such key.
    #[error("Vault has no key at {path}: {reason}")]
    NoKey {
        /// The path that was called.
        path: String,
        /// Vault's reason.
        reason: String,
    },
    /// Vault refused.
    #[error("Vault refuses {path} with status {status}: {reason}")]
    Refused {
        /// The path that was called.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Vault's reason.
        reason: String,
    },
    /// The answer is not in Vault's format.
    #[error("the answer to {path} is not one of Vault's: {reason}")]
    Answer {
        /// The path that was called.
        path: String,
        /// The fault in the answer.
        reason: &'static str,
    },
    /// Another key of Vault encrypted the store's key.
    #[error("the store's key is encrypted under Vault's key {expected}, not {offered}")]
    OtherKey {
        /// The key that encrypted it, with its mount.
        expected: String,
        /// The key that was offered.
        offered: String,
    },
}

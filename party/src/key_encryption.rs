//! Encryption of a store's key: by a key file, a passphrase, or a key service.
//!
//! A store's records are sealed under the store's own key. It is random and never leaves the store
//! in the clear. Beside the records lies a [`WrappedKey`]: that key, encrypted by a
//! [`KeyEncryption`].
//!
//! A process has the key decrypted once, when it opens the store, and never while it signs. So
//! signing neither waits for a key service nor stops with it. The price: a key service that is told
//! to refuse stops a party from starting, but not from continuing.

mod local;
pub mod transit;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::{
    local::{KeyFile, Passphrase},
    transit::{Transit, TransitError, TransitOptions},
};
use crate::{
    at_rest::{Argon2Cost, KeyEncryptionKey, KeyError, SALT_SIZE_BYTES},
    compute::Abandoned,
};

/// The purpose that a wrapped key is bound to.
const PURPOSE: &[u8] = b"store";

/// A kind of [`KeyEncryption`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// 32 bytes in a file, or in a credential of systemd.
    Key,
    /// A passphrase.
    Passphrase,
    /// HashiCorp Vault's transit engine.
    Transit,
}

impl Source {
    /// The source as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Passphrase => "passphrase",
            Self::Transit => "vault",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "a key file or credential",
            Self::Passphrase => "a passphrase",
            Self::Transit => "Vault's transit engine",
        })
    }
}

/// A store's encrypted key, with the cleartext parameters of its decryption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case")]
pub enum WrappedKey {
    /// For a store that was made before keys were encrypted, and not changed since. Its key is the
    /// content of the key file.
    File,
    /// For such a store with a passphrase: its key is argon2id (version 0x13) of the passphrase.
    Argon2id {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
        /// The cost of argon2id.
        cost: Argon2Cost,
    },
    /// The key is encrypted under a key of 32 bytes.
    WrappedByKey {
        /// A sealed record of kind [`RecordKind::Key`](crate::at_rest::RecordKind::Key).
        #[serde(with = "hex::serde")]
        ciphertext: Vec<u8>,
    },
    /// The key is encrypted under argon2id (RFC 9106, version 0x13) of a passphrase.
    WrappedByPassphrase {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
        /// The cost of argon2id.
        cost: Argon2Cost,
        /// A sealed record of kind [`RecordKind::Key`](crate::at_rest::RecordKind::Key).
        #[serde(with = "hex::serde")]
        ciphertext: Vec<u8>,
    },
    /// Vault's transit engine encrypted the key.
    WrappedByTransit {
        /// Where the engine is mounted.
        mount: String,
        /// The name of the engine's key.
        key: String,
        /// The ciphertext from Vault, with the key's version: `vault:v1:…`.
        ciphertext: String,
    },
}

impl WrappedKey {
    /// The source that decrypts it.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::File | Self::WrappedByKey { .. } => Source::Key,
            Self::Argon2id { .. } | Self::WrappedByPassphrase { .. } => Source::Passphrase,
            Self::WrappedByTransit { .. } => Source::Transit,
        }
    }

    /// Whether the source itself is the store's key. Then another source requires another store
    /// key.
    #[must_use]
    pub const fn is_the_source(&self) -> bool {
        matches!(self, Self::File | Self::Argon2id { .. })
    }
}

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
    Transit(#[from] TransitError),
    /// The process is stopping.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
}

/// A source that encrypts a store's key and decrypts it again: a key encryption key, or a service
/// that holds one.
#[async_trait]
pub trait KeyEncryption: fmt::Debug + Send + Sync + 'static {
    /// The kind of this source.
    fn source(&self) -> Source;

    /// Encrypts a store's key. Creates a key file that does not exist yet.
    ///
    /// # Errors
    /// When the source is not available.
    async fn wrap(&self, key: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError>;

    /// Decrypts a store's key.
    ///
    /// # Errors
    /// When the source is not available, or when another source encrypted the key.
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError>;

    /// Encrypts a store's key again: under the newest version of a service's key, or with a new
    /// salt.
    ///
    /// # Errors
    /// As [`Self::wrap`] and [`Self::unwrap`].
    async fn rewrap(&self, wrapped: &WrappedKey) -> Result<WrappedKey, KeyEncryptionError> {
        let key = self.unwrap(wrapped).await?;
        self.wrap(&key).await
    }
}

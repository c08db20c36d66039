//! What encrypts a store's key: a file, a passphrase, or a key service.
//!
//! A store's records are sealed under the store's own key, which is random and never changes hands.
//! What rests beside them is that key, encrypted by a [`KeyEncryption`]: a [`WrappedKey`]. A
//! process asks for it to be decrypted once, when it opens the store, and never while it signs; so
//! signing neither waits for a key service nor stops with it. The price is that a key service which
//! is told to refuse keeps a party from starting, not from going on.

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

/// What a wrapped key is bound to.
const PURPOSE: &[u8] = b"store";

/// A kind of [`KeyEncryption`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// 32 bytes in a file or in a credential of systemd's.
    Key,
    /// A passphrase.
    Passphrase,
    /// HashiCorp Vault's transit engine.
    Transit,
}

impl Source {
    /// One word for it.
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

/// A store's key as it rests, encrypted, and in the clear what has to be known to decrypt it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case")]
pub enum WrappedKey {
    /// Of a store that was made when keys were not encrypted yet, and not changed since: its key is
    /// the key file's content.
    File,
    /// Of such a store: the store's key is argon2id (version 0x13) of a passphrase.
    Argon2id {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
        /// The cost it was stretched with.
        cost: Argon2Cost,
    },
    /// Encrypted under a key of 32 bytes.
    WrappedByKey {
        /// A sealed record of kind [`RecordKind::Key`](crate::at_rest::RecordKind::Key).
        #[serde(with = "hex::serde")]
        ciphertext: Vec<u8>,
    },
    /// Encrypted under argon2id (RFC 9106, version 0x13) of a passphrase.
    WrappedByPassphrase {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
        /// The cost it was stretched with.
        cost: Argon2Cost,
        /// A sealed record of kind [`RecordKind::Key`](crate::at_rest::RecordKind::Key).
        #[serde(with = "hex::serde")]
        ciphertext: Vec<u8>,
    },
    /// Encrypted by Vault's transit engine.
    WrappedByTransit {
        /// Where the engine is mounted.
        mount: String,
        /// The name of its key.
        key: String,
        /// As Vault wrote it, with the key's version: `vault:v1:…`.
        ciphertext: String,
    },
}

impl WrappedKey {
    /// What decrypts it.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::File | Self::WrappedByKey { .. } => Source::Key,
            Self::Argon2id { .. } | Self::WrappedByPassphrase { .. } => Source::Passphrase,
            Self::WrappedByTransit { .. } => Source::Transit,
        }
    }

    /// Whether the store's key is that of its source, rather than encrypted under it: then another
    /// source means another key for the store.
    #[must_use]
    pub const fn is_the_source(&self) -> bool {
        matches!(self, Self::File | Self::Argon2id { .. })
    }
}

/// Why a store's key was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum KeyEncryptionError {
    /// It was not encrypted under this key, or was changed since.
    #[error("the store's key does not open")]
    WrongKey,
    /// The store's key is decrypted by something else.
    #[error("this store is opened with {expected}, not with {offered}")]
    Source {
        /// What it is decrypted by.
        expected: Source,
        /// What was offered.
        offered: Source,
    },
    /// The service's user was handed no credential of this name.
    #[error("there is no credential {name}: {reason}")]
    NoCredential {
        /// The credential's name.
        name: String,
        /// What was looked for and not found.
        reason: String,
    },
    /// The key file or the passphrase.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Vault.
    #[error(transparent)]
    Transit(#[from] TransitError),
    /// The process is stopping.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
}

/// Something that can encrypt a store's key and decrypt it again: a key encryption key, or a
/// service that has one.
#[async_trait]
pub trait KeyEncryption: fmt::Debug + Send + Sync + 'static {
    /// What kind it is.
    fn source(&self) -> Source;

    /// Encrypts a store's key. What does not exist yet, a key file, is made.
    ///
    /// # Errors
    /// When it cannot be had.
    async fn wrap(&self, key: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError>;

    /// Decrypts a store's key.
    ///
    /// # Errors
    /// When it cannot be had, or is not the one that encrypted it.
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError>;

    /// Encrypts a store's key anew: under the newest version of a service's key, or with a new
    /// salt.
    ///
    /// # Errors
    /// As [`Self::wrap`] and [`Self::unwrap`].
    async fn rewrap(&self, wrapped: &WrappedKey) -> Result<WrappedKey, KeyEncryptionError> {
        let key = self.unwrap(wrapped).await?;
        self.wrap(&key).await
    }
}

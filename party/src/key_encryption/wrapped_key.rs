//! The kinds of sources that encrypt a store's key, and the encrypted key.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::at_rest::{Argon2Cost, SALT_SIZE_BYTES};

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

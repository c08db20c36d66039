//! Key encryption keys: 32-byte keys that encrypt other keys.

use std::{fmt, path::PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub(crate) const KEY_SIZE_BYTES: usize = 32;
/// The length of a salt in bytes.
pub const SALT_SIZE_BYTES: usize = 16;
const KEY_MATERIAL_TAG: &[u8] = b"duet/at-rest/v1/key-material";
const KEY_ID_TAG: &[u8] = b"duet/at-rest/v1/key-id";

/// The cost of argon2id. It is stored in the clear beside the store, so that the default can rise
/// later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argon2Cost {
    /// Memory in KiB; 8 KiB to 1 GiB.
    pub memory_kib: u32,
    /// Passes over the memory; 1 to 64.
    pub passes: u32,
    /// Lanes; 1 to 16.
    pub lanes: u32,
}

impl Argon2Cost {
    /// The second recommended setting of RFC 9106 §4: 64 MiB, three passes, four lanes. It takes
    /// about a quarter of a second on one core.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    fn parameters(self) -> Result<Params, KeyError> {
        // The stored cost is untrusted: a changed file must not make the process allocate a
        // terabyte.
        if self.memory_kib > 1024 * 1024 || self.passes > 64 || self.lanes > 16 {
            return Err(KeyError::Cost);
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_SIZE_BYTES))
            .map_err(|_| KeyError::Cost)
    }
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self::RECOMMENDED
    }
}

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The length of the key file is not 32 bytes.
    #[error("key file {0} must hold exactly 32 bytes")]
    Length(PathBuf),
    /// Other users can read or write the key file.
    #[error("key file {path} has mode {mode:03o}: others could read or change it; run `chmod 600 {path}`")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The passphrase is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// An argon2id cost is out of bounds.
    #[error("argon2id cost out of bounds")]
    Cost,
    /// The operating system provided no randomness.
    #[error("no randomness from the operating system")]
    Randomness,
}

/// Identifies a key without revealing anything else about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(#[serde(with = "hex::serde")] pub [u8; Self::SIZE_BYTES]);

impl KeyId {
    /// Its length in bytes.
    pub const SIZE_BYTES: usize = 16;
}

/// A 32-byte key that encrypts other keys: the data keys of records, or another key encryption key.
/// It is wiped on drop.
pub struct KeyEncryptionKey(pub(crate) Zeroizing<[u8; KEY_SIZE_BYTES]>);

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey(..)")
    }
}

impl KeyEncryptionKey {
    /// A key from its bytes. For tests, and for callers with their own key service.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_SIZE_BYTES]>) -> Self {
        Self(bytes)
    }

    /// A fresh random key.
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
        getrandom::fill(key.as_mut()).map_err(|_| KeyError::Randomness)?;
        Ok(Self(key))
    }

    /// Derives a key from a passphrase with argon2id (RFC 9106, version 0x13). Slow.
    ///
    /// # Errors
    /// When the passphrase is empty or the cost is out of bounds.
    pub fn from_passphrase(
        passphrase: &str,
        salt: &[u8; SALT_SIZE_BYTES],
        cost: Argon2Cost,
    ) -> Result<Self, KeyError> {
        if passphrase.is_empty() {
            return Err(KeyError::EmptyPassphrase);
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.parameters()?);
        let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
        argon2.hash_password_into(passphrase.as_bytes(), salt, key.as_mut()).map_err(|_| KeyError::Cost)?;
        Ok(Self(key))
    }

    /// Derives a key from 32 secret bytes from elsewhere, such as the output of a passkey's PRF
    /// extension. It uses HKDF-SHA256 (RFC 5869) with a salt and a tag of its own, so that another
    /// use of that output gives another key.
    ///
    /// # Errors
    /// Never for this length. The error is the library's limit.
    pub fn from_key_material(
        material: &[u8; KEY_SIZE_BYTES],
        salt: &[u8; SALT_SIZE_BYTES],
    ) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
        Hkdf::<Sha256>::new(Some(salt), material)
            .expand(KEY_MATERIAL_TAG, key.as_mut())
            .map_err(|_| KeyError::Cost)?;
        Ok(Self(key))
    }

    /// Identifies this key and reveals nothing else about it: the first 16 bytes of SHA-256 over a
    /// tag and the key. Meant for random keys. For a key from a passphrase the id would confirm a
    /// guess, as any record does.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Sha256::new().chain_update(KEY_ID_TAG).chain_update(self.0.as_slice()).finalize();
        let mut id = [0; KeyId::SIZE_BYTES];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        KeyId(id)
    }

    /// The bytes of the key, for a service that encrypts it.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_SIZE_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn key(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn the_same_passphrase_gives_the_same_key_under_one_salt_only() {
        let derive = |salt| KeyEncryptionKey::from_passphrase("correct horse", &[salt; 16], CHEAP).unwrap();
        assert_eq!(derive(1).id(), derive(1).id());
        assert_ne!(*derive(1).0, *derive(2).0);
        assert!(matches!(
            KeyEncryptionKey::from_passphrase("", &[1; 16], CHEAP),
            Err(KeyError::EmptyPassphrase)
        ));
    }

    #[test]
    fn an_absurd_cost_is_refused_before_it_is_paid() {
        let cost = Argon2Cost { memory_kib: u32::MAX, passes: 1, lanes: 1 };
        assert!(matches!(KeyEncryptionKey::from_passphrase("x", &[0; 16], cost), Err(KeyError::Cost)));
    }

    #[test]
    fn keys_are_told_apart_by_their_ids() {
        assert_eq!(key(1).id(), key(1).id());
        assert_ne!(key(1).id(), key(2).id());
        assert_ne!(KeyEncryptionKey::generate().unwrap().id(), KeyEncryptionKey::generate().unwrap().id());
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert_eq!(format!("{:?}", key(0xab)), "KeyEncryptionKey(..)");
    }
}

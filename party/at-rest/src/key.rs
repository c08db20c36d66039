//! The key that wraps data keys, and where it comes from.

use std::{
    fmt,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

const KEY_SIZE_BYTES: usize = 32;
pub(crate) const SALT_SIZE_BYTES: usize = 16;
const KEY_MATERIAL_TAG: &[u8] = b"duet/at-rest/v1/key-material";

/// Where a key encryption key comes from.
#[derive(Clone)]
pub enum KeySource {
    /// A file of exactly 32 random bytes that only its owner may read.
    File(PathBuf),
    /// A passphrase, stretched with argon2id.
    Passphrase(Zeroizing<String>),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Passphrase(_) => f.write_str("Passphrase(..)"),
        }
    }
}

/// What argon2id costs. Kept beside the store in the clear, so that the default can rise later.
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
    /// The second recommended setting of RFC 9106 §4: 64 MiB, three passes, four lanes.
    /// About a quarter of a second on one core.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    fn parameters(self) -> Result<Params, KeyError> {
        // The stored cost is not trusted: a changed file must not make a start take a terabyte.
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

/// What is stored, in the clear, about how the key is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case")]
pub enum KeyDescriptor {
    /// The key is the content of a file.
    File,
    /// The key is argon2id (version 0x13) of a passphrase.
    Argon2id {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
        /// The cost it was stretched with.
        cost: Argon2Cost,
    },
}

/// Why a key could not be made or found.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The key file is not 32 bytes long.
    #[error("key file {0} must hold exactly 32 bytes")]
    Length(PathBuf),
    /// The key file can be read or written by others.
    #[error("key file {path} has mode {mode:03o}; run `chmod 600 {path}`")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The store's key comes from elsewhere than was offered.
    #[error("this store is opened with {expected}, not with {offered}")]
    Source {
        /// Where the store's key comes from.
        expected: &'static str,
        /// What was offered.
        offered: &'static str,
    },
    /// A passphrase that is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// An argon2id cost outside its bounds.
    #[error("argon2id cost out of bounds")]
    Cost,
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Randomness,
}

/// The 32-byte key under which data keys are wrapped. Zeroized on drop.
pub struct KeyEncryptionKey(pub(crate) Zeroizing<[u8; KEY_SIZE_BYTES]>);

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey(..)")
    }
}

impl KeyEncryptionKey {
    /// A key from its bytes. For tests and for callers with a key service of their own.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_SIZE_BYTES]>) -> Self {
        Self(bytes)
    }

    /// Stretches a passphrase with argon2id (RFC 9106, version 0x13). Slow.
    ///
    /// # Errors
    /// On an empty passphrase or a cost out of bounds.
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

    /// Derives a key from 32 secret bytes that something else keeps, such as the output of a passkey's
    /// PRF extension: HKDF-SHA256 (RFC 5869) with a salt and a tag of its own, so that the same output
    /// serves nothing else.
    ///
    /// # Errors
    /// Never for this length; the library's limit.
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

    /// Makes a new key: writes a key file if there is none yet, or draws a salt.
    ///
    /// Slow for a passphrase (argon2id): call it off the async threads.
    ///
    /// # Errors
    /// When the file exists but is no valid key file or cannot be written, or on an empty passphrase.
    pub fn create(source: &KeySource, cost: Argon2Cost) -> Result<(Self, KeyDescriptor), KeyError> {
        let descriptor = match source {
            KeySource::File(path) => {
                if !path.exists() {
                    write_key_file(path)?;
                }
                KeyDescriptor::File
            }
            KeySource::Passphrase(_) => {
                let mut salt = [0; SALT_SIZE_BYTES];
                getrandom::fill(&mut salt).map_err(|_| KeyError::Randomness)?;
                KeyDescriptor::Argon2id { salt, cost }
            }
        };
        Ok((Self::derive(source, &descriptor)?, descriptor))
    }

    /// Finds the key of a store again. Whether it is the right one shows when a record is opened.
    ///
    /// Slow for a passphrase (argon2id): call it off the async threads.
    ///
    /// # Errors
    /// When the key file is missing, malformed or readable by others, or when the store's key has
    /// another source.
    pub fn derive(source: &KeySource, descriptor: &KeyDescriptor) -> Result<Self, KeyError> {
        match (source, descriptor) {
            (KeySource::File(path), KeyDescriptor::File) => read_key_file(path).map(Self),
            (KeySource::Passphrase(passphrase), KeyDescriptor::Argon2id { salt, cost }) => {
                Self::from_passphrase(passphrase, salt, *cost)
            }
            (KeySource::File(_), KeyDescriptor::Argon2id { .. }) => {
                Err(KeyError::Source { expected: "a passphrase", offered: "a key file" })
            }
            (KeySource::Passphrase(_), KeyDescriptor::File) => {
                Err(KeyError::Source { expected: "a key file", offered: "a passphrase" })
            }
        }
    }
}

fn write_key_file(path: &Path) -> Result<(), KeyError> {
    let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
    getrandom::fill(key.as_mut()).map_err(|_| KeyError::Randomness)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(key.as_ref())?;
            file.sync_all()
        })
        .map_err(|source| KeyError::File { path: path.to_owned(), source })
}

fn read_key_file(path: &Path) -> Result<Zeroizing<[u8; KEY_SIZE_BYTES]>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions { path: path.to_owned(), mode });
        }
    }
    if metadata.len() != KEY_SIZE_BYTES as u64 {
        return Err(KeyError::Length(path.to_owned()));
    }
    let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
    file.read_exact(key.as_mut()).map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

    #[test]
    fn a_key_file_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let source = KeySource::File(directory.path().join("key"));
        let (made, descriptor) = KeyEncryptionKey::create(&source, CHEAP).unwrap();
        let found = KeyEncryptionKey::derive(&source, &descriptor).unwrap();
        assert_eq!(*made.0, *found.0);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let source = KeySource::File(path.clone());
        KeyEncryptionKey::create(&source, CHEAP).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            KeyEncryptionKey::derive(&source, &KeyDescriptor::File),
            Err(KeyError::Permissions { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_short_or_long_key_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 31, 33] {
            let path = directory.path().join(format!("key-{length}"));
            std::fs::write(&path, vec![1; length]).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(
                KeyEncryptionKey::derive(&KeySource::File(path), &KeyDescriptor::File),
                Err(KeyError::Length(_))
            ));
        }
    }

    #[test]
    fn the_same_passphrase_gives_the_same_key_under_one_salt_only() {
        let source = KeySource::Passphrase(Zeroizing::new("correct horse".to_owned()));
        let (first, descriptor) = KeyEncryptionKey::create(&source, CHEAP).unwrap();
        let (other, _) = KeyEncryptionKey::create(&source, CHEAP).unwrap();
        assert_eq!(*first.0, *KeyEncryptionKey::derive(&source, &descriptor).unwrap().0);
        assert_ne!(*first.0, *other.0);
    }

    #[test]
    fn an_absurd_cost_is_refused_before_it_is_paid() {
        let source = KeySource::Passphrase(Zeroizing::new("x".to_owned()));
        let cost = Argon2Cost { memory_kib: u32::MAX, passes: 1, lanes: 1 };
        let descriptor = KeyDescriptor::Argon2id { salt: [0; 16], cost };
        assert!(matches!(KeyEncryptionKey::derive(&source, &descriptor), Err(KeyError::Cost)));
    }

    #[test]
    fn debug_shows_neither_passphrase_nor_key() {
        let source = KeySource::Passphrase(Zeroizing::new("hunter2".to_owned()));
        assert!(!format!("{source:?}").contains("hunter2"));
        let key = KeyEncryptionKey::from_bytes(Zeroizing::new([0xab; 32]));
        assert_eq!(format!("{key:?}"), "KeyEncryptionKey(..)");
    }
}

//! Key encryption keys on this machine: in a file, in a credential, or from a passphrase.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{KeyEncryption, KeyEncryptionError, Source, WrappedKey, encryption::PURPOSE};
use crate::{
    at_rest::{
        Argon2Cost, KeyEncryptionKey, KeyError, OpenError, SALT_SIZE_BYTES, SealedRecord,
        key_file::{self, Origin},
    },
    compute::Compute,
};

/// The variable in which systemd names the folder of a service's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A key of 32 random bytes in a file. The store does not record its path: a file on one machine
/// may be a credential on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    origin: Origin,
}

impl KeyFile {
    /// A file that its owner maintains. It is created when it first wraps a key.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), origin: Origin::Owner }
    }

    /// The credential of this name, which systemd passes to the service (`LoadCredential=`,
    /// `LoadCredentialEncrypted=`).
    ///
    /// # Errors
    /// When there is no such credential, or when the name is invalid.
    pub fn credential(name: &str) -> Result<Self, KeyEncryptionError> {
        Self::credential_in(env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from).as_deref(), name)
    }

    fn credential_in(directory: Option<&Path>, name: &str) -> Result<Self, KeyEncryptionError> {
        let missing = |reason| KeyEncryptionError::NoCredential { name: name.to_owned(), reason };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(missing("a credential's name is a file's name".to_owned()));
        }
        let directory = directory.ok_or_else(|| missing(format!("{CREDENTIALS_DIRECTORY} is not set")))?;
        let path = directory.join(name);
        if !path.exists() {
            return Err(missing(format!("{} does not exist", path.display())));
        }
        Ok(Self { path, origin: Origin::Systemd })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<KeyEncryptionKey, KeyError> {
        key_file::read(&self.path, self.origin)
    }
}

fn opened(result: Result<KeyEncryptionKey, OpenError>) -> Result<KeyEncryptionKey, KeyEncryptionError> {
    result.map_err(|_| KeyEncryptionError::WrongKey)
}

#[async_trait]
impl KeyEncryption for KeyFile {
    fn source(&self) -> Source {
        Source::Key
    }

    async fn wrap(&self, key: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError> {
        let made = self.origin == Origin::Owner && !self.path.exists();
        let under = if made { key_file::create(&self.path) } else { self.read() }?;
        let ciphertext = under.wrap(key, PURPOSE)?.as_bytes().to_vec();
        Ok(WrappedKey::WrappedByKey { ciphertext })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError> {
        match wrapped {
            WrappedKey::File => Ok(self.read()?),
            WrappedKey::WrappedByKey { ciphertext } => {
                opened(self.read()?.unwrap(&SealedRecord::from_bytes(ciphertext.clone()), PURPOSE))
            }
            other => Err(KeyEncryptionError::Source { expected: other.source(), offered: self.source() }),
        }
    }
}

/// A passphrase, stretched with argon2id.
#[derive(Clone)]
pub struct Passphrase {
    passphrase: Zeroizing<String>,
    cost: Argon2Cost,
    compute: Compute,
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Passphrase {
    /// A passphrase, and the threads that stretch it. `cost` applies to new ciphertexts. Each
    /// existing ciphertext has its own.
    #[must_use]
    pub fn new(passphrase: Zeroizing<String>, cost: Argon2Cost, compute: Compute) -> Self {
        Self { passphrase, cost, compute }
    }

    async fn stretch(
        &self,
        salt: [u8; SALT_SIZE_BYTES],
        cost: Argon2Cost,
    ) -> Result<KeyEncryptionKey, KeyEncryptionError> {
        let passphrase = self.passphrase.clone();
        let work = move || KeyEncryptionKey::from_passphrase(&passphrase, &salt, cost);
        Ok(self.compute.run(work).await??)
    }
}

#[async_trait]
impl KeyEncryption for Passphrase {
    fn source(&self) -> Source {
        Source::Passphrase
    }

    async fn wrap(&self, key: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError> {
        let mut salt = [0; SALT_SIZE_BYTES];
        getrandom::fill(&mut salt).map_err(|_| KeyError::Randomness)?;
        let under = self.stretch(salt, self.cost).await?;
        let ciphertext = under.wrap(key, PURPOSE)?.as_bytes().to_vec();
        Ok(WrappedKey::WrappedByPassphrase { salt, cost: self.cost, ciphertext })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError> {
        match wrapped {
            WrappedKey::Argon2id { salt, cost } => self.stretch(*salt, *cost).await,
            WrappedKey::WrappedByPassphrase { salt, cost, ciphertext } => {
                let under = self.stretch(*salt, *cost).await?;
                opened(under.unwrap(&SealedRecord::from_bytes(ciphertext.clone()), PURPOSE))
            }
            other => Err(KeyEncryptionError::Source { expected: other.source(), offered: self.source() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned()), CHEAP, Compute::limited(1))
    }

    /// Checks that `right` opens what it wrapped, and that no other source does.
    async fn is_the_only_one(right: &dyn KeyEncryption, others: &[&dyn KeyEncryption]) {
        let key = KeyEncryptionKey::generate().unwrap();
        let wrapped = right.wrap(&key).await.unwrap();
        let text = serde_json::to_string(&wrapped).unwrap();
        assert!(!text.contains(&hex::encode(key.expose())));
        let read: WrappedKey = serde_json::from_str(&text).unwrap();
        assert_eq!(right.unwrap(&read).await.unwrap().id(), key.id());
        let again = right.rewrap(&read).await.unwrap();
        assert_ne!(again, read);
        assert_eq!(right.unwrap(&again).await.unwrap().id(), key.id());
        for other in others {
            match other.unwrap(&read).await.unwrap_err() {
                KeyEncryptionError::WrongKey => assert_eq!(other.source(), right.source()),
                KeyEncryptionError::Source { expected, offered } => {
                    assert_eq!((expected, offered), (right.source(), other.source()));
                }
                error => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn what_one_source_wraps_only_it_unwraps() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) =
            (KeyFile::at(directory.path().join("a")), KeyFile::at(directory.path().join("b")));
        second.wrap(&KeyEncryptionKey::generate().unwrap()).await.unwrap();
        is_the_only_one(&first, &[&second, &passphrase("right")]).await;
        is_the_only_one(&passphrase("right"), &[&passphrase("wrong"), &first]).await;
    }

    #[tokio::test]
    async fn a_key_file_is_made_to_wrap_and_never_to_unwrap() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::at(directory.path().join("key"));
        let wrapped = WrappedKey::WrappedByKey { ciphertext: vec![1; 90] };
        assert!(matches!(file.unwrap(&wrapped).await, Err(KeyEncryptionError::Key(KeyError::File { .. }))));
        assert!(!file.path().exists());
        file.wrap(&KeyEncryptionKey::generate().unwrap()).await.unwrap();
        assert!(matches!(file.unwrap(&wrapped).await, Err(KeyEncryptionError::WrongKey)));
    }

    #[tokio::test]
    async fn a_credential_is_the_same_key_elsewhere_and_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::at(directory.path().join("seal.key"));
        let key = KeyEncryptionKey::generate().unwrap();
        let wrapped = file.wrap(&key).await.unwrap();
        let credential = KeyFile::credential_in(Some(directory.path()), "seal.key").unwrap();
        assert_eq!(credential.unwrap(&wrapped).await.unwrap().id(), key.id());
        #[cfg(unix)]
        {
            // As systemd does: the bits of the group are the mask of the access-control list.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o440);
            std::fs::set_permissions(file.path(), mode).unwrap();
            assert_eq!(credential.unwrap(&wrapped).await.unwrap().id(), key.id());
            assert!(file.unwrap(&wrapped).await.is_err());
        }
        for (directory, name) in [
            (None, "seal.key"),
            (Some(directory.path()), "absent"),
            (Some(directory.path()), ""),
            (Some(directory.path()), ".."),
            (Some(directory.path()), "../seal.key"),
        ] {
            let refused = KeyFile::credential_in(directory, name).unwrap_err();
            assert!(matches!(refused, KeyEncryptionError::NoCredential { .. }), "{name}: {refused}");
        }
    }

    #[test]
    fn what_older_stores_say_of_their_keys_is_still_read() {
        assert_eq!(serde_json::from_str::<WrappedKey>(r#"{"source":"file"}"#).unwrap(), WrappedKey::File);
        let json = format!(
            r#"{{"source":"argon2id","salt":"{}","cost":{{"memory_kib":65536,"passes":3,"lanes":4}}}}"#,
            "01".repeat(16)
        );
        let expected = WrappedKey::Argon2id { salt: [1; 16], cost: Argon2Cost::RECOMMENDED };
        assert_eq!(serde_json::from_str::<WrappedKey>(&json).unwrap(), expected);
        assert!(expected.is_the_source());
    }

    #[test]
    fn debug_shows_no_passphrase() {
        assert!(!format!("{:?}", passphrase("hunter2")).contains("hunter2"));
    }
}

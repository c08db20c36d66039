//! A share store that is unlocked: records go in and out in the clear, and rest sealed.

use std::sync::Arc;

use duet_wire::Code;
use zeroize::Zeroizing;

use crate::{
    at_rest::{
        Argon2Cost, KeyDescriptor, KeyEncryptionKey, KeyError, KeySource, RecordKind, RecordLabel,
        SealedRecord,
    },
    clock::Clock,
    compute::{Abandoned, Compute},
    error::PartyError,
    store::{ShareStore, StoreError, UnlockRefused},
};

/// The setting that holds the [`KeyDescriptor`].
const DESCRIPTOR: &str = "key-descriptor";
/// What the check record holds.
const CHECK: &[u8] = b"duet/v1/key-check";

/// Why a share store does not open.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The passphrase is not the store's.
    #[error("wrong passphrase (attempt {failures}); each further one takes longer")]
    WrongPassphrase {
        /// How many attempts have failed since the last that did not.
        failures: u32,
    },
    /// The key file is not the store's.
    #[error("the key file does not belong to this share store")]
    WrongKeyFile,
    /// Too many wrong passphrases.
    #[error("{failures} wrong passphrases so far; the next attempt is allowed in {} s", .wait_ms.div_ceil(1000))]
    TooEarly {
        /// How many attempts have failed.
        failures: u32,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// No party was set up in it.
    #[error("the share store is empty; set up the party first")]
    Empty,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The process is stopping.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// What the store says of its own key does not parse.
    #[error("the share store's description of its key does not parse")]
    Descriptor,
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
            Self::Store(_) | Self::Key(_) | Self::Descriptor => Code::StorageUnavailable,
            Self::Abandoned(_) => Code::Internal,
        }
    }
}

/// An unlocked share store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault {
    store: Arc<dyn ShareStore>,
    key: Arc<KeyEncryptionKey>,
}

fn check_label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::Check, &[])
}

async fn derive(
    compute: &Compute,
    source: &KeySource,
    descriptor: KeyDescriptor,
) -> Result<KeyEncryptionKey, UnlockError> {
    let source = source.clone();
    Ok(compute.run(move || KeyEncryptionKey::derive(&source, &descriptor)).await??)
}

impl Vault {
    /// Gives an empty store its key: makes the key file, or stretches the passphrase with a new salt.
    ///
    /// # Errors
    /// When the store has a key already, or cannot be written.
    pub async fn create(
        store: Arc<dyn ShareStore>,
        source: &KeySource,
        cost: Argon2Cost,
        compute: &Compute,
    ) -> Result<Self, UnlockError> {
        if store.setting(DESCRIPTOR).await?.is_some() {
            return Err(StoreError::Exists("the share store has a key already".to_owned()).into());
        }
        let from = source.clone();
        let (key, descriptor) = compute.run(move || KeyEncryptionKey::create(&from, cost)).await??;
        let vault = Self { store, key: Arc::new(key) };
        vault.write_key(&descriptor, vec![]).await?;
        Ok(vault)
    }

    /// Opens a store. Slow for a passphrase; attempts are counted, in the store, before they are
    /// made, and after three failures each waits longer than the one before.
    ///
    /// # Errors
    /// See [`UnlockError`].
    pub async fn open(
        store: Arc<dyn ShareStore>,
        source: &KeySource,
        compute: &Compute,
        clock: &Clock,
    ) -> Result<Self, UnlockError> {
        let descriptor = store.setting(DESCRIPTOR).await?.ok_or(UnlockError::Empty)?;
        let descriptor = serde_json::from_slice(&descriptor).map_err(|_| UnlockError::Descriptor)?;
        let check = store.record(&check_label()).await?.ok_or(UnlockError::Descriptor)?;
        let failures = match source {
            KeySource::File(_) => 0,
            KeySource::Passphrase(_) => {
                store.count_unlock_attempt(clock.now_ms()).await.map_err(|refused| match refused {
                    UnlockRefused::TooEarly { failures, wait_ms } => {
                        UnlockError::TooEarly { failures, wait_ms }
                    }
                    UnlockRefused::Store(error) => error.into(),
                })?
            }
        };
        let key = derive(compute, source, descriptor).await?;
        match check.open(&key, &check_label()) {
            Ok(content) if content.as_slice() == CHECK => {}
            _ => {
                return Err(match source {
                    KeySource::File(_) => UnlockError::WrongKeyFile,
                    KeySource::Passphrase(_) => UnlockError::WrongPassphrase { failures },
                });
            }
        }
        if failures > 0 {
            store.clear_unlock_attempts().await?;
        }
        Ok(Self { store, key: Arc::new(key) })
    }

    /// Wraps every record's data key under a new key, in one transaction. A copy of the store from
    /// before still opens with the old one.
    ///
    /// No other process may write to the store meanwhile: what it adds would be under the old key.
    ///
    /// # Errors
    /// When a record does not open or the store cannot be written; nothing has changed then.
    pub async fn change_key(
        &self,
        source: &KeySource,
        cost: Argon2Cost,
        compute: &Compute,
    ) -> Result<Self, PartyError> {
        let from = source.clone();
        let (key, descriptor) = compute.run(move || KeyEncryptionKey::create(&from, cost)).await??;
        let mut rewrapped = Vec::new();
        for label in self.store.record_labels().await? {
            if let Some(record) = self.store.record(&label).await? {
                let record = record.rewrap(&self.key, &key, &label)?;
                rewrapped.push((label, record));
            }
        }
        let vault = Self { store: Arc::clone(&self.store), key: Arc::new(key) };
        vault.write_key(&descriptor, rewrapped).await?;
        Ok(vault)
    }

    async fn write_key(
        &self,
        descriptor: &KeyDescriptor,
        mut records: Vec<(RecordLabel, SealedRecord)>,
    ) -> Result<(), UnlockError> {
        let label = check_label();
        let check = SealedRecord::seal(&self.key, &label, CHECK)?;
        records.push((label, check));
        let descriptor = serde_json::to_vec(descriptor).map_err(|_| UnlockError::Descriptor)?;
        Ok(self.store.replace_records(&records, (DESCRIPTOR, &descriptor)).await?)
    }

    /// The store, for what needs no key.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ShareStore> {
        &self.store
    }

    /// Seals a record for its label.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn seal(&self, label: &RecordLabel, plaintext: &[u8]) -> Result<SealedRecord, KeyError> {
        SealedRecord::seal(&self.key, label, plaintext)
    }

    /// Seals and stores a record.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn write(&self, label: &RecordLabel, plaintext: &[u8]) -> Result<(), PartyError> {
        let record = self.seal(label, plaintext)?;
        Ok(self.store.put_records(&[(label.clone(), record)]).await?)
    }

    /// Reads and opens a record.
    ///
    /// # Errors
    /// When it is there and does not open.
    pub async fn read(&self, label: &RecordLabel) -> Result<Option<Zeroizing<Vec<u8>>>, PartyError> {
        match self.store.record(label).await? {
            Some(record) => Ok(Some(record.open(&self.key, label)?)),
            None => Ok(None),
        }
    }

    /// Reads and opens a record that has to be there.
    ///
    /// # Errors
    /// When it is missing or does not open.
    pub(crate) async fn require(
        &self,
        label: &RecordLabel,
        what: &'static str,
    ) -> Result<Zeroizing<Vec<u8>>, PartyError> {
        self.read(label).await?.ok_or_else(|| PartyError::Stored { what, reason: "it is missing".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use std::sync::atomic::{AtomicU64, Ordering};

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn passphrase(text: &str) -> KeySource {
        KeySource::Passphrase(Zeroizing::new(text.to_owned()))
    }

    async fn store(directory: &tempfile::TempDir) -> Arc<dyn ShareStore> {
        let options = SqliteOptions::at(directory.path().join("store.db"));
        Arc::new(SqliteStore::create(&options).await.unwrap())
    }

    #[tokio::test]
    async fn a_wrong_passphrase_is_refused_counted_and_slowed_down() {
        let directory = tempfile::tempdir().unwrap();
        let (store, compute) = (store(&directory).await, Compute::limited(1));
        let now = Arc::new(AtomicU64::new(1_000_000));
        let time = Arc::clone(&now);
        let clock = Clock::new(move || time.load(Ordering::Relaxed));
        let open = |text| {
            let (store, compute, clock) = (Arc::clone(&store), compute.clone(), clock.clone());
            async move { Vault::open(store, &passphrase(text), &compute, &clock).await }
        };
        assert!(matches!(open("right").await, Err(UnlockError::Empty)));
        let vault = Vault::create(Arc::clone(&store), &passphrase("right"), CHEAP, &compute).await.unwrap();
        assert!(Vault::create(Arc::clone(&store), &passphrase("x"), CHEAP, &compute).await.is_err());
        let label = RecordLabel::of_party(RecordKind::Card, b"x");
        vault.write(&label, b"secret").await.unwrap();

        for attempt in 1..=4 {
            let refused = open("wrong").await;
            assert!(matches!(refused, Err(UnlockError::WrongPassphrase { failures }) if failures == attempt));
        }
        // Even the right one waits now, so that guessing cannot be hidden among successes.
        assert!(matches!(open("right").await, Err(UnlockError::TooEarly { wait_ms: 1_000, .. })));
        now.fetch_add(1_000, Ordering::Relaxed);
        let again = open("right").await.unwrap();
        assert_eq!(again.read(&label).await.unwrap().unwrap().as_slice(), b"secret");
        assert!(matches!(open("wrong").await, Err(UnlockError::WrongPassphrase { failures: 1 })));
    }

    #[tokio::test]
    async fn a_key_file_of_another_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (store, compute) = (store(&directory).await, Compute::limited(1));
        let source = KeySource::File(directory.path().join("key"));
        Vault::create(Arc::clone(&store), &source, CHEAP, &compute).await.unwrap();
        let clock = Clock::system();
        Vault::open(Arc::clone(&store), &source, &compute, &clock).await.unwrap();
        std::fs::remove_file(directory.path().join("key")).unwrap();
        KeyEncryptionKey::create(&source, CHEAP).unwrap();
        assert!(matches!(
            Vault::open(Arc::clone(&store), &source, &compute, &clock).await,
            Err(UnlockError::WrongKeyFile)
        ));
        assert!(matches!(
            Vault::open(store, &passphrase("x"), &compute, &clock).await,
            Err(UnlockError::Key(KeyError::Source { .. }))
        ));
    }

    #[tokio::test]
    async fn a_changed_passphrase_opens_everything_and_the_old_one_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (store, compute, clock) = (store(&directory).await, Compute::limited(1), Clock::system());
        let vault = Vault::create(Arc::clone(&store), &passphrase("old"), CHEAP, &compute).await.unwrap();
        let label = RecordLabel::of_party(RecordKind::Card, b"x");
        vault.write(&label, b"secret").await.unwrap();
        let changed = vault.change_key(&passphrase("new"), CHEAP, &compute).await.unwrap();
        assert_eq!(changed.read(&label).await.unwrap().unwrap().as_slice(), b"secret");
        let reopened = Vault::open(Arc::clone(&store), &passphrase("new"), &compute, &clock).await.unwrap();
        assert_eq!(reopened.read(&label).await.unwrap().unwrap().as_slice(), b"secret");
        assert!(matches!(
            Vault::open(store, &passphrase("old"), &compute, &clock).await,
            Err(UnlockError::WrongPassphrase { .. })
        ));
    }
}

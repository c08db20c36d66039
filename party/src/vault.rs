//! An unlocked share store. Callers read and write plaintext, and the store holds sealed records.
//!
//! # Changing the key while workers run
//! What decrypts the store's key is one setting. Replacing it does not affect a process that has
//! the key already.
//!
//! A change of the key itself rewraps every record in one transaction. The new key stays in the
//! store for a while, encrypted under the old one. A process with an open store finds it there:
//! when a record does not open, before it seals one, and in [`Vault::keep_up`]. The store refuses
//! records under any key but its own. So no record is added that no process could read.

mod unlock_error;

use std::sync::{Arc, PoisonError, RwLock};

use duet_wire::audit::{Draft, Event};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::unlock_error::UnlockError;
use crate::{
    at_rest::{KeyEncryptionKey, KeyError, KeyId, OpenError, RecordKind, RecordLabel, SealedRecord},
    clock::Clock,
    error::PartyError,
    key_encryption::{KeyEncryption, KeyEncryptionError, Source, VaultTransitError, WrappedKey},
    store::{
        KEY_DESCRIPTOR, KEY_ID, KEY_SUCCESSION, KeyChange, NewKey, ShareStore, StoreError, UnlockRefused,
    },
};

/// The content of the check record.
const CHECK: &[u8] = b"duet/v1/key-check";
/// The purpose of a key that is encrypted under its predecessor.
const SUCCESSOR: &[u8] = b"successor";
/// How long a new key stays in the store, encrypted under the old one. It is longer than workers'
/// clocks differ, and than a worker goes without [`Vault::keep_up`].
const SUCCESSION_MS: u64 = 120_000;

/// The successor of a store's key.
#[derive(Serialize, Deserialize)]
struct Succession {
    /// The id of the old key.
    of: KeyId,
    /// The new key, encrypted under the old one.
    #[serde(with = "hex::serde")]
    sealed: Vec<u8>,
    /// Until when it stays in the store, in Unix milliseconds.
    until_ms: u64,
}

/// An unlocked share store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault {
    store: Arc<dyn ShareStore>,
    key: Arc<RwLock<Arc<KeyEncryptionKey>>>,
}

fn check_label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::Check, &[])
}

fn check(key: &KeyEncryptionKey) -> Result<(RecordLabel, SealedRecord), KeyError> {
    let label = check_label();
    let record = SealedRecord::seal(key, &label, CHECK)?;
    Ok((label, record))
}

fn to_setting(value: &impl Serialize) -> Result<Vec<u8>, UnlockError> {
    serde_json::to_vec(value).map_err(|_| UnlockError::Descriptor)
}

/// Checks that `source` decrypts `wrapped` to `key`. A missing permission shows before anything
/// depends on the source.
async fn tried(
    source: &dyn KeyEncryption,
    key: &KeyEncryptionKey,
    wrapped: WrappedKey,
) -> Result<WrappedKey, UnlockError> {
    if source.unwrap(&wrapped).await?.id() == key.id() { Ok(wrapped) } else { Err(UnlockError::Untrue) }
}

impl Vault {
    fn with(store: Arc<dyn ShareStore>, key: KeyEncryptionKey) -> Self {
        Self { store, key: Arc::new(RwLock::new(Arc::new(key))) }
    }

    /// The same vault over another opening of its store, or a copy of it.
    #[cfg(test)]
    pub(crate) fn over(&self, store: Arc<dyn ShareStore>) -> Self {
        Self { store, key: Arc::clone(&self.key) }
    }

    /// Gives an empty store a random key, encrypted by `source`.
    ///
    /// # Errors
    /// When the store has a key already or cannot be written, or when `source` fails.
    pub async fn create(store: Arc<dyn ShareStore>, source: &dyn KeyEncryption) -> Result<Self, UnlockError> {
        let exists = || StoreError::Exists("the share store has a key already".to_owned());
        if store.setting(KEY_DESCRIPTOR).await?.is_some() {
            return Err(exists().into());
        }
        let key = KeyEncryptionKey::generate()?;
        let descriptor = to_setting(&tried(source, &key, source.wrap(&key).await?).await?)?;
        let fresh = NewKey {
            id: key.id(),
            rewrap: Box::new(|_, _| Err(OpenError::Refused)),
            records: vec![check(&key)?],
            succession: None,
        };
        let change = KeyChange { replaces: None, descriptor, key: Some(fresh) };
        match store.change_key(&change).await {
            Err(StoreError::KeyChanged) => Err(exists().into()),
            changed => {
                changed?;
                Ok(Self::with(store, key))
            }
        }
    }

    /// Opens a store. Slow for a passphrase. The store counts each attempt before it is made. After
    /// three failures, each attempt must wait longer than the last.
    /// # Errors
    /// See [`UnlockError`].
    pub async fn open(
        store: Arc<dyn ShareStore>,
        source: &dyn KeyEncryption,
        clock: &Clock,
    ) -> Result<Self, UnlockError> {
        let descriptor = store.setting(KEY_DESCRIPTOR).await?.ok_or(UnlockError::Empty)?;
        let wrapped: WrappedKey = serde_json::from_slice(&descriptor).map_err(|_| UnlockError::Descriptor)?;
        let failures = match source.source() {
            Source::Key | Source::Transit => 0,
            Source::Passphrase => {
                store.count_unlock_attempt(clock.now_ms()).await.map_err(|refused| match refused {
                    UnlockRefused::TooEarly { failures, wait_ms } => {
                        UnlockError::TooEarly { failures, wait_ms }
                    }
                    UnlockRefused::Store(error) => error.into(),
                })?
            }
        };
        let wrong = || match source.source() {
            Source::Key => UnlockError::WrongKeyFile,
            Source::Passphrase => UnlockError::WrongPassphrase { failures },
            Source::Transit => UnlockError::Mismatch,
        };
        let key = source.unwrap(&wrapped).await.map_err(|error| match error {
            KeyEncryptionError::WrongKey => wrong(),
            error => error.into(),
        })?;
        let check = store.record(&check_label()).await?.ok_or(UnlockError::Descriptor)?;
        match check.open(&key, &check_label()) {
            Ok(content) if content.as_slice() == CHECK => {}
            // Here the source is the key, so only the records show that it is wrong.
            _ if wrapped.is_the_source() => return Err(wrong()),
            _ if store.setting(KEY_DESCRIPTOR).await?.as_ref() != Some(&descriptor) => {
                return Err(StoreError::KeyChanged.into());
            }
            _ => return Err(UnlockError::Mismatch),
        }
        if failures > 0 {
            store.clear_unlock_attempts().await?;
        }
        Ok(Self::with(store, key))
    }

    /// The source that decrypts the store's key.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn source(&self) -> Result<Source, UnlockError> {
        Ok(self.descriptor().await?.1.source())
    }

    async fn descriptor(&self) -> Result<(Vec<u8>, WrappedKey), UnlockError> {
        let descriptor = self.store.setting(KEY_DESCRIPTOR).await?.ok_or(UnlockError::Empty)?;
        let wrapped = serde_json::from_slice(&descriptor).map_err(|_| UnlockError::Descriptor)?;
        Ok((descriptor, wrapped))
    }

    /// Encrypts the store's key by `source` from now on. If that source encrypts it already,
    /// encrypts it again, under the newest version of a service's key. The previous source no
    /// longer opens the store, but still opens older copies. A process with an open store keeps its
    /// access.
    ///
    /// # Errors
    /// When `source` fails, or when another process changes the store's key at the same time.
    /// Nothing has changed then.
    pub async fn rewrap(&self, source: &dyn KeyEncryption, clock: &Clock) -> Result<(), UnlockError> {
        let (replaces, wrapped) = self.descriptor().await?;
        if wrapped.is_the_source() {
            return Err(UnlockError::Descriptor);
        }
        let key = self.key();
        // For a newer version of the same key, Vault rewraps without revealing the plaintext.
        let anew = match (source.source(), wrapped.source()) {
            (Source::Transit, Source::Transit) => match source.rewrap(&wrapped).await {
                Err(KeyEncryptionError::Transit(VaultTransitError::OtherKey { .. })) => {
                    source.wrap(&key).await?
                }
                anew => anew?,
            },
            _ => source.wrap(&key).await?,
        };
        let wrapped = tried(source, &key, anew).await?;
        let change = KeyChange { replaces: Some(replaces), descriptor: to_setting(&wrapped)?, key: None };
        self.noting_key(source, false, clock).change_key(&change).await?;
        Ok(())
    }

    /// The store, which will record the change of its key or source together with it.
    fn noting_key(&self, source: &dyn KeyEncryption, new_key: bool, clock: &Clock) -> Arc<dyn ShareStore> {
        let opened_by = source.source().as_str().to_owned();
        self.store.noting(Draft::new(clock.now_ms(), Event::StoreKeyChanged { opened_by, new_key }))
    }

    /// Gives the store a new key, encrypted by `source`, and rewraps every record's data key under
    /// it, in one transaction. Returns the number of rewrapped records.
    ///
    /// An older copy of the store still opens with its own source, and does not reveal the new key.
    /// The exception is a copy made in the two minutes for which the store holds the new key under
    /// the old one.
    ///
    /// # Errors
    /// When `source` fails, a record does not open, or the store cannot be written. Nothing has
    /// changed then.
    pub async fn change_key(&self, source: &dyn KeyEncryption, clock: &Clock) -> Result<u64, UnlockError> {
        self.keep_up(clock).await?;
        if let Some(current) = self.store.setting(KEY_SUCCESSION).await? {
            let succession: Succession =
                serde_json::from_slice(&current).map_err(|_| UnlockError::Descriptor)?;
            let wait_ms = succession.until_ms.saturating_sub(clock.now_ms()).min(SUCCESSION_MS);
            return Err(UnlockError::InSuccession { wait_ms });
        }
        let (replaces, _) = self.descriptor().await?;
        let (old, key) = (self.key(), Arc::new(KeyEncryptionKey::generate()?));
        let descriptor = to_setting(&tried(source, &key, source.wrap(&key).await?).await?)?;
        let succession = Succession {
            of: old.id(),
            sealed: old.wrap(&key, SUCCESSOR)?.as_bytes().to_vec(),
            until_ms: clock.now_ms().saturating_add(SUCCESSION_MS),
        };
        let to = Arc::clone(&key);
        let fresh = NewKey {
            id: key.id(),
            rewrap: Box::new(move |label, record| record.rewrap(&old, &to, label)),
            records: vec![],
            succession: Some(to_setting(&succession)?),
        };
        let change = KeyChange { replaces: Some(replaces), descriptor, key: Some(fresh) };
        let records = self.noting_key(source, true, clock).change_key(&change).await?;
        self.take(key);
        Ok(records)
    }

    /// Whether the source itself is the store's key, as before keys were encrypted. Then a new
    /// source requires a new key ([`Self::change_key`]).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn key_is_the_source(&self) -> Result<bool, UnlockError> {
        Ok(self.descriptor().await?.1.is_the_source())
    }

    /// Takes the store's new key, if there is one. Deletes the succession when its time is over.
    ///
    /// # Errors
    /// When the store cannot be read. Also when the key was changed and the time to take the new
    /// one is over: this process must open the store again.
    pub async fn keep_up(&self, clock: &Clock) -> Result<(), UnlockError> {
        self.follow().await?;
        let Some(setting) = self.store.setting(KEY_SUCCESSION).await? else { return Ok(()) };
        let succession: Succession = serde_json::from_slice(&setting).map_err(|_| UnlockError::Descriptor)?;
        if succession.until_ms < clock.now_ms() {
            self.store.remove_setting(KEY_SUCCESSION, &setting).await?;
        }
        Ok(())
    }

    /// Takes the key that the store's records are sealed under. Returns whether it is a new one.
    async fn follow(&self) -> Result<bool, UnlockError> {
        let key = self.key();
        match self.store.setting(KEY_ID).await? {
            Some(id) if id != key.id().0 => {}
            _ => return Ok(false),
        }
        let setting = self.store.setting(KEY_SUCCESSION).await?.ok_or(StoreError::KeyChanged)?;
        let succession: Succession = serde_json::from_slice(&setting).map_err(|_| UnlockError::Descriptor)?;
        let next = key
            .unwrap(&SealedRecord::from_bytes(succession.sealed), SUCCESSOR)
            .map_err(|_| StoreError::KeyChanged)?;
        tracing::info!("the share store has a new key");
        self.take(Arc::new(next));
        Ok(true)
    }

    fn key(&self) -> Arc<KeyEncryptionKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, key: Arc<KeyEncryptionKey>) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// The store, for operations that need no key.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ShareStore> {
        &self.store
    }

    /// Seals a record for its label, under the store's present key. If the key changes before the
    /// record is stored, the store refuses the record, and the caller starts again.
    ///
    /// # Errors
    /// When the store cannot be read, or the operating system gives no randomness.
    pub async fn seal(&self, label: &RecordLabel, plaintext: &[u8]) -> Result<SealedRecord, PartyError> {
        self.follow().await?;
        Ok(self.seal_now(label, plaintext)?)
    }

    /// Seals a record under the key that this process has, without asking whether it is still the
    /// store's.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn seal_now(&self, label: &RecordLabel, plaintext: &[u8]) -> Result<SealedRecord, KeyError> {
        SealedRecord::seal(&self.key(), label, plaintext)
    }

    /// Seals and stores a record.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn write(&self, label: &RecordLabel, plaintext: &[u8]) -> Result<(), PartyError> {
        let record = self.seal(label, plaintext).await?;
        Ok(self.store.put_records(&[(label.clone(), record)]).await?)
    }

    /// Reads and opens a record.
    ///
    /// # Errors
    /// When the record exists and does not open.
    pub async fn read(&self, label: &RecordLabel) -> Result<Option<Zeroizing<Vec<u8>>>, PartyError> {
        let Some(record) = self.store.record(label).await? else { return Ok(None) };
        match record.open(&self.key(), label) {
            Err(OpenError::Refused) if self.follow().await? => {}
            opened => return Ok(Some(opened?)),
        }
        match self.store.record(label).await? {
            Some(record) => Ok(Some(record.open(&self.key(), label)?)),
            None => Ok(None),
        }
    }

    /// Reads and opens a record that must exist.
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
mod tests;

//! A share store that is unlocked: records go in and out in the clear, and rest sealed.
//!
//! # How the key is changed while workers run
//! What decrypts the store's key can change without anybody noticing who has the key already: one
//! setting is replaced. When the key itself changes, every record is wrapped anew in one
//! transaction, and the new key is left in the store, encrypted under the old one, for a while. A
//! process that has the store open finds it there: when a record does not open, before it seals
//! one, and whenever it looks ([`Vault::keep_up`]). The store refuses records that were sealed
//! under another key than its own, so nothing can be added that nobody could read.

use std::sync::{Arc, PoisonError, RwLock};

use duet_wire::{
    Code,
    audit::{Draft, Event},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    at_rest::{KeyEncryptionKey, KeyError, KeyId, OpenError, RecordKind, RecordLabel, SealedRecord},
    clock::Clock,
    error::PartyError,
    key_encryption::{KeyEncryption, KeyEncryptionError, Source, TransitError, WrappedKey},
    store::{
        KEY_DESCRIPTOR, KEY_ID, KEY_SUCCESSION, KeyChange, NewKey, ShareStore, StoreError, UnlockRefused,
    },
};

/// What the check record holds.
const CHECK: &[u8] = b"duet/v1/key-check";
/// What a key is bound to that is encrypted under the one before it.
const SUCCESSOR: &[u8] = b"successor";
/// How long a new key lies in the store for those who have the old one: longer than workers' clocks
/// differ and than a worker goes without looking.
const SUCCESSION_MS: u64 = 120_000;

/// Why a share store does not open.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The passphrase is not the store's.
    #[error("wrong passphrase (attempt {failures}); each further one takes longer")]
    WrongPassphrase {
        /// How many attempts have failed since the last that did not.
        failures: u32,
    },
    /// The key file, or the credential, is not the store's.
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
    /// The store's key was not encrypted or decrypted.
    #[error(transparent)]
    KeyEncryption(#[from] KeyEncryptionError),
    /// Randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What the store says of its own key does not parse.
    #[error("the share store's description of its key does not parse")]
    Descriptor,
    /// The store's key was decrypted, and does not open what lies in the store.
    #[error("the share store's key does not open its records: settings and records are of different stores")]
    Mismatch,
    /// The store's key was changed a moment ago, and others are yet to take the new one.
    #[error("the share store's key was changed a moment ago; the next change is possible in {} s", .wait_ms.div_ceil(1000))]
    InSuccession {
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// The new source decrypts something else than it was given.
    #[error("what is to open the share store does not give its key back; nothing was changed")]
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

/// Which key follows which.
#[derive(Serialize, Deserialize)]
struct Succession {
    /// The key before.
    of: KeyId,
    /// The key after, encrypted under the one before.
    #[serde(with = "hex::serde")]
    sealed: Vec<u8>,
    /// Until when it lies in the store, in Unix milliseconds.
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

/// The encrypted key, after `source` has decrypted it: what it may not do is noticed before
/// anything depends on it.
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

    /// Gives an empty store a key, encrypted by `source`.
    ///
    /// # Errors
    /// When the store has a key already, cannot be written, or `source` does not do its part.
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

    /// Opens a store. Slow for a passphrase; attempts are counted, in the store, before they are
    /// made, and after three failures each waits longer than the one before.
    ///
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
            // Without encryption in between, it is only here that a wrong key shows.
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

    /// What decrypts the store's key.
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

    /// Has the store's key encrypted by `source` from now on, or, if that is what does it already,
    /// anew: under the newest version of a service's key. What decrypted it before does not open
    /// the store any more; it still opens copies from before. Whoever has the store open keeps it
    /// open.
    ///
    /// # Errors
    /// When `source` does not do its part, or the store's key is changed by somebody else
    /// meanwhile; nothing has changed then.
    pub async fn rewrap(&self, source: &dyn KeyEncryption, clock: &Clock) -> Result<(), UnlockError> {
        let (replaces, wrapped) = self.descriptor().await?;
        if wrapped.is_the_source() {
            return Err(UnlockError::Descriptor);
        }
        let key = self.key();
        // The newest version of the same key: Vault does that without handing out what is
        // encrypted.
        let anew = match (source.source(), wrapped.source()) {
            (Source::Transit, Source::Transit) => match source.rewrap(&wrapped).await {
                Err(KeyEncryptionError::Transit(TransitError::OtherKey { .. })) => source.wrap(&key).await?,
                anew => anew?,
            },
            _ => source.wrap(&key).await?,
        };
        let wrapped = tried(source, &key, anew).await?;
        let change = KeyChange { replaces: Some(replaces), descriptor: to_setting(&wrapped)?, key: None };
        self.noting_key(source, false, clock).change_key(&change).await?;
        Ok(())
    }

    /// The store, which records with the change that it gets another key.
    fn noting_key(&self, source: &dyn KeyEncryption, new_key: bool, clock: &Clock) -> Arc<dyn ShareStore> {
        let opened_by = source.source().as_str().to_owned();
        self.store.noting(Draft::new(clock.now_ms(), Event::StoreKeyChanged { opened_by, new_key }))
    }

    /// Gives the store another key, encrypted by `source`, and wraps every record's data key under
    /// it, in one transaction. A copy of the store from before still opens with what opened it
    /// then, and gives nobody the new key, unless it was made while the new key lay there for
    /// others to take: two minutes. How many records it were.
    ///
    /// # Errors
    /// When `source` does not do its part, a record does not open, or the store cannot be written;
    /// nothing has changed then.
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

    /// Whether the store's key is what its source holds, as it was before keys were encrypted: then
    /// another source takes another key ([`Self::change_key`]).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn key_is_the_source(&self) -> Result<bool, UnlockError> {
        Ok(self.descriptor().await?.1.is_the_source())
    }

    /// Takes the store's new key if there is one, and removes what it was taken from when its time
    /// is over.
    ///
    /// # Errors
    /// When the store cannot be read, or its key was changed and the time to take the new one is
    /// over: this process has to open the store again.
    pub async fn keep_up(&self, clock: &Clock) -> Result<(), UnlockError> {
        self.follow().await?;
        let Some(setting) = self.store.setting(KEY_SUCCESSION).await? else { return Ok(()) };
        let succession: Succession = serde_json::from_slice(&setting).map_err(|_| UnlockError::Descriptor)?;
        if succession.until_ms < clock.now_ms() {
            self.store.remove_setting(KEY_SUCCESSION, &setting).await?;
        }
        Ok(())
    }

    /// Has the key that the store's records are sealed under; whether that is another one than
    /// before.
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

    /// The store, for what needs no key.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ShareStore> {
        &self.store
    }

    /// Seals a record for its label, under the store's key as it is now. If that changes before the
    /// record is stored, the store refuses it, and all is to be done again.
    ///
    /// # Errors
    /// When the store cannot be read, or the operating system gives no randomness.
    pub async fn seal(&self, label: &RecordLabel, plaintext: &[u8]) -> Result<SealedRecord, PartyError> {
        self.follow().await?;
        Ok(self.seal_now(label, plaintext)?)
    }

    /// The same under the key that this process has, without looking whether it is still the
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
    /// When it is there and does not open.
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
mod tests;

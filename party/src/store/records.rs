//! Sealed records, plain settings, what opens the store, and whether it can be relied on.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::at_rest::{KeyId, OpenError, RecordLabel, SealedRecord};

/// Whether a store may be relied on for locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Every write so far succeeded, or succeeded after a recovery.
    Ready,
    /// A lock, another decision of a session, or a test write failed; the reason.
    Unready(String),
}

/// Why the key of a store may not be tried now.
#[derive(Debug, thiserror::Error)]
pub enum UnlockRefused {
    /// Too many wrong passphrases.
    #[error("{failures} failed attempts; the next is allowed in {} s", .wait_ms.div_ceil(1000))]
    TooEarly {
        /// How many attempts failed.
        failures: u32,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// The attempt could not be counted, so it is not made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The setting that says how the store's key is had.
pub(crate) const KEY_DESCRIPTOR: &str = "key-descriptor";
/// The setting that says which key the records are sealed under: its [`KeyId`]. A transaction that
/// stores a record reads it too. A store from before there were changes has none until its first
/// record.
pub(crate) const KEY_ID: &str = "key-id";
/// The setting in which a process that has the key before finds the one after it.
pub(crate) const KEY_SUCCESSION: &str = "key-succession";

/// The setting that says when the store was restored last: Unix milliseconds, 8 bytes, big endian.
pub(crate) const RESTORED_AT: &str = "restored-at";
/// The setting that says since when the limits count as used up, because the store was restored and
/// does not know what was spent: as [`RESTORED_AT`], until an operator removes it.
pub(crate) const LIMITS_USED_UP_SINCE: &str = "limits-used-up-since";

/// Reads what [`RESTORED_AT`] and [`LIMITS_USED_UP_SINCE`] hold.
pub(crate) fn moment(setting: &[u8]) -> Result<u64, StoreError> {
    let bytes = setting.try_into().map_err(|_| StoreError::Corrupt("a moment of another length"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// A change of what opens a store.
#[derive(Debug)]
pub struct KeyChange {
    /// What the store must say now of how its key is had, or [`StoreError::KeyChanged`]; `None`:
    /// nothing yet.
    pub replaces: Option<Vec<u8>>,
    /// What it says from now on.
    pub descriptor: Vec<u8>,
    /// Another key for the records. `None`: they stay as they are.
    pub key: Option<NewKey>,
}

/// Wraps a record's data key under another key.
pub type Rewrap = dyn Fn(&RecordLabel, &SealedRecord) -> Result<SealedRecord, OpenError> + Send + Sync;

/// Another key for a store's records.
pub struct NewKey {
    /// Which key.
    pub id: KeyId,
    /// Wraps a record's data key under it.
    pub rewrap: Box<Rewrap>,
    /// Records to store with it, sealed under it.
    pub records: Vec<(RecordLabel, SealedRecord)>,
    /// How others who have the store open find it.
    pub succession: Option<Vec<u8>>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A record's data key wrapped under the new key.
pub(crate) fn rewrapped(
    key: &NewKey,
    label: &RecordLabel,
    sealed: Vec<u8>,
) -> Result<SealedRecord, StoreError> {
    (key.rewrap)(label, &SealedRecord::from_bytes(sealed))
        .map_err(|_| StoreError::Corrupt("a record that its key does not open"))
}

/// Sealed records, plain settings, and whether the store can be relied on.
#[async_trait]
pub trait RecordStore: fmt::Debug + Send + Sync + 'static {
    /// Whether locks can be written.
    fn readiness(&self) -> Readiness;
    /// Returns when locks can be written (`ready`), or when they cannot. Cancel safe.
    async fn until_ready(&self, ready: bool);
    /// Writes the locks that could not be written and a canary; the store is ready afterwards.
    async fn recover(&self) -> Result<(), StoreError>;
    /// A plain setting.
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes a plain setting.
    async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError>;
    /// Counts an attempt to open the store with a passphrase before it is made, or refuses it.
    async fn count_unlock_attempt(&self, now_ms: u64) -> Result<u32, UnlockRefused>;
    /// Forgets the failed attempts after one that succeeded.
    async fn clear_unlock_attempts(&self) -> Result<(), StoreError>;
    /// A sealed record.
    async fn record(&self, label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError>;
    /// Stores sealed records, all or none, replacing those of the same labels. As wherever a record
    /// is stored, [`StoreError::KeyChanged`] if it was sealed under another key than the store's.
    async fn put_records(&self, records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError>;
    /// Changes what opens the store, in one transaction; how many records it has wrapped anew.
    async fn change_key(&self, change: &KeyChange) -> Result<u64, StoreError>;
    /// Removes a plain setting, if it still has this value.
    async fn remove_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError>;
    /// Whether the store came out of a backup or an older copy of itself; when it was noticed the
    /// Paillier keys it held were marked [`PaillierState::NeedsRotation`].
    async fn was_restored(&self) -> Result<bool, StoreError>;
    /// Closes the store's connections. Dropping it does the same, later.
    async fn close(&self);
}

//! The share store: what a party must not forget.
//!
//! [`ShareStore`] is what the rest of the crate knows of it; [`sqlite::SqliteStore`] serves the
//! workers of one machine, [`postgres::PostgresStore`] those of several. A store keeps sealed
//! records (see [`crate::at_rest`]) and, in plain columns, what it must decide upon in a
//! transaction: states, counts, locks. All workers of a party share one store, so every decision
//! below is a transaction, never a read followed by a write.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};

use crate::at_rest::{KeyId, OpenError, RecordKind, RecordLabel, SealedRecord};

mod audit;
mod columns;
#[cfg(test)]
mod conformance;
mod health;
mod migrations;
mod pending;
mod policy;
#[cfg(feature = "postgres")]
pub mod postgres;
mod spending;
pub mod sqlite;
#[cfg(feature = "postgres")]
mod transfer;
mod witness;

/// How long a key stays after it was superseded: for sessions that were checked before and are
/// claimed after, and for a key just made by another process that is yet to be offered. Workers'
/// clocks may differ by less.
const SUPERSEDED_FOR_MS: u64 = 60_000;
/// How long a session is remembered after its manifest expired: workers' clocks may differ by less.
const SESSIONS_KEPT_FOR_MS: i64 = 3_600_000;

pub use self::{
    audit::{AuditChain, AuditStore},
    pending::{AnswerRole, AnswersOf, MAX_ANSWERS_PER_REQUEST, NewPending, PendingRow, PendingStore},
    policy::{MAX_PENDING_POLICIES, PolicyMark, PolicyRow, PolicyStore, PutPolicy, Spending},
    witness::{HeadRow, WitnessStore},
};

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be read or written.
    #[error("share store unavailable while it should {operation}: {source}")]
    Unavailable {
        /// What was asked for.
        operation: &'static str,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A lock could not be written earlier; until [`ShareStore::recover`] succeeds nothing is
    /// initiated and no verdict is released.
    #[error("share store not ready: {0}")]
    NotReady(String),
    /// A limit of a wallet's policy has no room: which one. Nothing was decided.
    #[error("a limit of the wallet's policy has no room: {0}")]
    LimitExceeded(String),
    /// The request was revoked. Nothing was decided.
    #[error("the request was revoked")]
    Revoked,
    /// A policy of the wallet was stored after the request was decided upon. Nothing was decided.
    #[error("the wallet's policy was changed meanwhile; ask again")]
    PolicyChanged,
    /// The signed request has had as many answers as one request may have. Nothing was decided.
    #[error("the request has had {MAX_ANSWERS_PER_REQUEST} answers; sign a new one")]
    TooManyAnswers,
    /// The responder's card is quarantined by now. Nothing was written, so nothing may be
    /// decrypted.
    #[error("the responder's card {0} is quarantined after a bad signature")]
    Quarantined(CardFingerprint),
    /// The database is set up so that it may forget what it has committed.
    #[error("share store unsafe: {0}")]
    Unsafe(String),
    /// A row that this build cannot have written.
    #[error("share store corrupt: {0}")]
    Corrupt(&'static str),
    /// What was to be written is sealed under a key that the store does not have any more. Or the
    /// caller wanted to change the key, and another process did so first. Nothing was written.
    #[error("the share store's key has been changed")]
    KeyChanged,
    /// A file beside the store.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The store exists already, or does not exist yet.
    #[error("{0}")]
    Exists(String),
    /// A file holds something else than a share store.
    #[error("{path} is not a share store: {reason}")]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
}

/// Whether a store may be relied on for locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Every write so far succeeded, or succeeded after a recovery.
    Ready,
    /// A lock, another decision of a session, or a test write failed; the reason.
    Unready(String),
}

/// A wallet's state in the store of one of its parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalletState {
    /// Verified and stored, not yet agreed by all holders. Expires.
    Prepared,
    /// Agreed by all holders. Never expires.
    Committed,
}

/// A wallet as it is first stored.
#[derive(Debug, Clone)]
pub struct NewWallet {
    /// Which wallet.
    pub id: WalletId,
    /// The share's epoch.
    pub epoch: Epoch,
    /// This party's index in it.
    pub index: ShareIndex,
    /// The tenant it belongs to.
    pub tenant: String,
    /// Its root public key, SEC1 compressed; no other wallet of this party may have it.
    pub public_key: [u8; 33],
    /// The hash of the package it came in: the same package again is the same wallet, another
    /// package for a known wallet is refused.
    pub package_hash: [u8; 32],
    /// This party's signed receipt, returned again when the package comes again.
    pub receipt: Vec<u8>,
    /// The admission token's id and how many wallets it admits.
    pub admission: Option<Admission>,
    /// When it was prepared, in Unix milliseconds.
    pub prepared_at_ms: u64,
    /// When it may be forgotten unless it is committed, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// The records to store with it.
    pub records: Vec<(RecordLabel, SealedRecord)>,
    /// The enrolments to note with it.
    pub enrolments: Vec<EnrolmentRow>,
}

/// An admission token's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The token's id.
    pub token: [u8; 16],
    /// How many wallets it admits.
    pub max_wallets: u32,
}

/// A wallet as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletRow {
    /// Which wallet.
    pub id: WalletId,
    /// The share's epoch.
    pub epoch: Epoch,
    /// This party's index in it.
    pub index: ShareIndex,
    /// The tenant it belongs to.
    pub tenant: String,
    /// Prepared or committed.
    pub state: WalletState,
    /// The hash of the package it came in.
    pub package_hash: [u8; 32],
    /// This party's signed receipt.
    pub receipt: Vec<u8>,
    /// This party's signed commit acknowledgement, once committed.
    pub commit_ack: Option<Vec<u8>>,
    /// How many of the Paillier keys that it was ever enrolled under are locked, for its life.
    pub failures: u32,
}

/// The outcome of an attempt to prepare a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareOutcome {
    /// It is stored.
    Prepared,
    /// The very same package was stored before.
    Already(WalletRow),
    /// Another package was stored for this wallet.
    Conflict,
    /// Another wallet of this party has the public key.
    SameKey,
    /// The admission token's quota is used up.
    QuotaExceeded,
}

/// The outcome of an attempt to commit a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is committed now.
    Committed,
    /// It was committed before; the acknowledgement of then.
    Already(Vec<u8>),
    /// There is no such wallet, or its preparation expired.
    Unknown,
}

/// An enrolment this party verified as a responder. Its record is of kind
/// [`RecordKind::Enrolment`](crate::at_rest::RecordKind::Enrolment) with the key's id as item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnrolmentRow {
    /// The wallet.
    pub wallet: WalletId,
    /// Who initiates.
    pub initiator: ShareIndex,
    /// Under which Paillier key.
    pub paillier_key: PaillierKeyId,
    /// For the shares of which epoch.
    pub epoch: Epoch,
}

/// What a Paillier key may be used for: never several responders, never several tenants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PaillierScope {
    /// A device's key, for both responders of one wallet.
    Wallet(WalletId),
    /// A service's key, for the wallets of one tenant towards one responder.
    Responder {
        /// The responder's card.
        card: CardFingerprint,
        /// The tenant.
        tenant: String,
    },
}

impl fmt::Display for PaillierScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wallet(wallet) => write!(f, "wallet/{wallet}"),
            Self::Responder { card, tenant } => write!(f, "responder/{card}/{tenant}"),
        }
    }
}

/// Whether a Paillier key may be used to initiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaillierState {
    /// It may.
    Ready,
    /// A bad signature locked it.
    Locked,
    /// It came out of a backup: a lock may have been forgotten with it.
    NeedsRotation,
}

impl PaillierScope {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let scope = match (parts.next()?, parts.next()?, parts.next()) {
            ("wallet", wallet, None) => Self::Wallet(wallet.parse().ok()?),
            ("responder", card, Some(tenant)) => {
                Self::Responder { card: card.parse().ok()?, tenant: tenant.to_owned() }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(scope)
    }
}

/// A Paillier key of this party, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaillierKeyRow {
    /// Which key.
    pub id: PaillierKeyId,
    /// What it may be used for, as text.
    pub scope: String,
    /// Whether it may be used.
    pub state: PaillierState,
}

/// How far this party's enrolment with one responder of one wallet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnEnrolment {
    /// The key the responder last acknowledged: the one to initiate with.
    pub agreed: Option<PaillierKeyId>,
    /// A key that is being offered and not yet acknowledged.
    pub offered: Option<PaillierKeyId>,
}

/// A key generation that is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealRow {
    /// The wallet.
    pub wallet: WalletId,
    /// Whether the record came out of a backup: the wallet may have been finished, and its Paillier
    /// key locked, since the backup was made.
    pub restored: bool,
}

/// The outcome of an attempt to lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOutcome {
    /// This call locked the key: only its caller may report the bad signature.
    Locked,
    /// The key was locked before: answer `locked`, without a verdict.
    AlreadyLocked,
}

/// A lock that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The key.
    pub key: PaillierKeyId,
    /// The session that ended in a bad signature.
    pub session: SessionId,
    /// The wallet that was to sign. `None`: it is not known any more.
    pub wallet: Option<WalletId>,
    /// The card of the responder whose answer it was. `None`: it is not known any more.
    pub card: Option<CardFingerprint>,
    /// The responder's signed answer.
    pub evidence: Vec<u8>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

/// A device's lock of which no card is blamed: it is from before locks named one, or what was
/// pending could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnblamedLock {
    /// The key.
    pub key: PaillierKeyId,
    /// The wallet that the key is for.
    pub wallet: WalletId,
    /// The responder's signed answer, when the lock has one.
    pub evidence: Option<Vec<u8>>,
}

/// Locks that a wallet may have had before its funds are to be moved to a new one.
pub const MOVE_FUNDS_AFTER: u32 = 3;

/// What this party thinks of a responder's card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// How many of this party's keys its answers locked. Locks of which it is one of two suspects
    /// count as one in all.
    pub locks: u32,
    /// Whether the operator said to go on with it after the first lock.
    pub is_accepted: bool,
}

impl Standing {
    /// Whether this party initiates with the card's holder.
    #[must_use]
    pub const fn is_trusted(self) -> bool {
        matches!((self.locks, self.is_accepted), (0, _) | (1, true))
    }

    /// Whether no word of the operator changes that: until answers can be proved, a second lock is
    /// final.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.locks > 1
    }
}

/// A card whose answers locked a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Culprit {
    /// The card.
    pub card: CardFingerprint,
    /// What this party thinks of it.
    pub standing: Standing,
}

/// What the gate says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The key is unlocked: the verdict may leave.
    Open,
    /// It is not: answer this, without a verdict.
    Closed(PaillierState),
}

/// The outcome of an attempt to pin a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinOutcome {
    /// First contact: the card is pinned now.
    Pinned,
    /// The same card was pinned before.
    Same,
    /// Another card is pinned.
    Different(CardFingerprint),
}

/// A charge against a wallet's limits, written before a signature ciphertext leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The session it was for; one charge, and so one ciphertext, per session ever.
    pub session: SessionId,
    /// The wallet that signs.
    pub wallet: WalletId,
    /// What it signs.
    pub digest: [u8; 32],
    /// When, in Unix milliseconds.
    pub charged_at_ms: u64,
}

/// A request that is not to be signed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedRequest {
    /// The wallet it was for.
    pub wallet: WalletId,
    /// Its content hash.
    pub request: [u8; 32],
    /// Who revoked it: its requester's key, or the owner's.
    pub by: [u8; 32],
    /// When the request expires, in Unix milliseconds: the revocation is kept until then.
    pub expires_at_ms: u64,
}

/// The most revocations that are kept of a wallet: some 200 bytes each.
pub(crate) const MAX_REVOCATIONS: i64 = 100_000;

/// Whether a revocation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It is, from now on.
    Now,
    /// The request was revoked before.
    Before,
    /// So many are kept of the wallet that no further one is.
    Full,
}

/// What a store remembers that bears on a request, apart from policies and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFacts {
    /// Whether the request was revoked.
    pub is_revoked: bool,
    /// When the store was restored last, in Unix milliseconds; `None` if it never was.
    pub restored_at_ms: Option<u64>,
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

/// The durable memory of a party, shared by all its workers.
///
/// # Cancel safety
/// A method whose future is dropped has either done all it does or nothing; which of the two is
/// unknown to the caller. All are safe to repeat.
pub trait ShareStore:
    RecordStore + WalletStore + KeyStore + SessionStore + PendingStore + AuditStore + PolicyStore + WitnessStore
{
}

impl<S> ShareStore for S where
    S: RecordStore
        + WalletStore
        + KeyStore
        + SessionStore
        + PendingStore
        + AuditStore
        + PolicyStore
        + WitnessStore
{
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

/// Wallets with what came with them: pinned cards, enrolments of their initiators, unfinished key
/// generations.
#[async_trait]
pub trait WalletStore: fmt::Debug + Send + Sync + 'static {
    /// Pins a party's card, if none is pinned.
    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError>;
    /// The pinned card of a party.
    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError>;
    /// Every pin.
    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError>;
    /// Wallets, prepared or committed, whose public key is not noted, at most `limit`: they were
    /// stored by the version before that.
    async fn wallets_without_public_key(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError>;
    /// Notes the public key of a wallet that lacks it.
    async fn note_public_key(&self, id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError>;
    /// Stores a verified wallet as prepared.
    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError>;
    /// Commits a prepared wallet, and forgets the record of its preparation
    /// ([`RecordKind::Prepared`](crate::at_rest::RecordKind::Prepared)).
    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError>;
    /// A wallet, prepared or committed.
    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError>;
    /// Committed wallets in order of their ids, those after `after`, at most `limit`.
    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError>;
    /// How many wallets are committed.
    async fn count_wallets(&self) -> Result<u64, StoreError>;
    /// Forgets prepared wallets that expired; how many.
    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError>;
    /// Stores a verified enrolment of an initiator; the newest two of each initiator are kept, the
    /// old one so that sessions go on until a rotation is agreed everywhere.
    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<(), StoreError>;
    /// The enrolments held for a wallet, newest first.
    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError>;
    /// Stores or replaces a dealer's unfinished key generation.
    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError>;
    /// The wallets whose key generation is unfinished, oldest first.
    async fn deals(&self) -> Result<Vec<DealRow>, StoreError>;
    /// Forgets a dealer's record.
    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError>;
}

/// This party's Paillier keys: whom each is agreed with, and whether it is locked.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a Paillier key of this party: ready if it is new, needing rotation if it came out of
    /// a record that was restored. A key that is there already keeps its state.
    async fn put_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
        now_ms: u64,
    ) -> Result<(), StoreError>;
    /// Stores a new Paillier key unless its scope has one: two workers at once make one key, not
    /// two. Returns the scope's newest key.
    async fn put_first_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<PaillierKeyRow, StoreError>;
    /// A Paillier key.
    async fn paillier_key(&self, id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError>;
    /// The keys of a scope, newest first.
    async fn paillier_keys(&self, scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError>;
    /// Every Paillier key of this party, newest first.
    async fn all_paillier_keys(&self) -> Result<Vec<PaillierKeyRow>, StoreError>;
    /// Deletes this party's Paillier keys that nothing uses any more, and says which: a newer one
    /// of the same scope has taken its place, no responder has agreed to the old one only, and
    /// every session that may have begun with it has expired; not before a minute has passed. That
    /// they existed, and were locked, is remembered.
    async fn remove_superseded_keys(&self, now_ms: u64) -> Result<Vec<PaillierKeyId>, StoreError>;

    /// Notes that `key` is being offered to `responder` for `wallet`.
    async fn offer_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError>;
    /// Notes that the responder acknowledged `key`: it is the one to initiate with from now on,
    /// unless a newer one was acknowledged already.
    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError>;
    /// Notes that this party has no responder to initiate with in `wallet`, so that it need not be
    /// looked at again.
    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError>;
    /// How far the enrolment with `responder` is.
    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError>;
    /// Committed wallets in which this party has share `index` and has not yet agreed on a Paillier
    /// key with anyone.
    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError>;
    /// Locks a Paillier key for good, durably, before it returns: deletes its sealed record and
    /// what is pending under it, counts a failure for every wallet that was ever enrolled under it,
    /// and keeps the responder's signed answer beside it, which quarantines the responder's card.
    /// When it cannot, the store goes unready and the caller sends nothing.
    async fn lock_paillier_key(&self, lock: &Lock) -> Result<LockOutcome, StoreError>;
    /// The gate: counts a good verdict of `session` in the key's row, durably, if that is not
    /// locked, serialised with every lock; and forgets what was pending of the session.
    async fn release_verdict(&self, key: PaillierKeyId, session: SessionId) -> Result<Gate, StoreError>;
    /// What this party thinks of a responder's card.
    async fn standing(&self, card: CardFingerprint) -> Result<Standing, StoreError>;
    /// Every card whose answers locked a key.
    async fn culprits(&self) -> Result<Vec<Culprit>, StoreError>;
    /// Devices' locks of which no card is blamed yet.
    async fn unblamed_locks(&self) -> Result<Vec<UnblamedLock>, StoreError>;
    /// Blames cards for the lock of a key of which none is blamed yet: one card as if the lock had
    /// named it, several as suspects. All are quarantined.
    async fn blame(&self, key: PaillierKeyId, cards: &[CardFingerprint]) -> Result<(), StoreError>;
    /// Notes the operator's word to go on with a card after its first lock; what it thinks of the
    /// card then. Decides something only the first time, and never ahead of a lock or after the
    /// second.
    async fn accept_culprit(&self, card: CardFingerprint, now_ms: u64) -> Result<Standing, StoreError>;
    /// The good verdicts under each locked key that a wallet was ever enrolled under: what bounds
    /// the bits it lost.
    async fn losses(&self, wallet: WalletId) -> Result<Vec<u64>, StoreError>;
    /// Committed wallets with at least one failure, those with the most first, at most `limit`.
    async fn failed_wallets(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError>;
}

/// What happened once and must not happen again.
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// Claims a session id; `false` if it was claimed before.
    async fn claim_session(
        &self,
        session: SessionId,
        wallet: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError>;
    /// Writes a charge durably; `false` if the session was charged before.
    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError>;
    /// Keeps a revocation until its request has expired, durably, and forgets those whose requests
    /// have expired at `now_ms`. A charge that comes later finds it: the two never pass each other.
    async fn revoke_request(&self, revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError>;
    /// What bears on a request of `wallet` with this content hash.
    async fn request_facts(&self, wallet: WalletId, request: [u8; 32]) -> Result<RequestFacts, StoreError>;
    /// How often signatures over `digest` were charged to `wallet`.
    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError>;
}

/// The label of a dealer's record.
pub(crate) fn deal_label(wallet: WalletId) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::Deal, wallet, ShareIndex::Device, Epoch(0), &[])
}

/// The label of a pending verdict's record.
pub(crate) fn pending_label(session: SessionId) -> RecordLabel {
    RecordLabel::of_party(RecordKind::PendingVerdict, session.as_bytes())
}

/// The label of an enrolment's record.
pub(crate) fn enrolment_label(row: &EnrolmentRow) -> RecordLabel {
    RecordLabel::of_wallet(
        RecordKind::Enrolment,
        row.wallet,
        row.initiator,
        row.epoch,
        row.paillier_key.as_bytes(),
    )
}

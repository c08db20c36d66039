//! This party's Paillier keys, whom each is agreed with, and their locks.

use std::fmt;

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};

use super::{StoreError, WalletRow};
use crate::at_rest::SealedRecord;

/// How long a key stays after it was superseded: for sessions that were checked before and are
/// claimed after, and for a key just made by another process that is yet to be offered. Workers'
/// clocks may differ by less.
pub(super) const SUPERSEDED_FOR_MS: u64 = 60_000;

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

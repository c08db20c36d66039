//! The whole of a store, and the parts of it that give a store back: with what belongs to the next
//! decision.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use duet_protocol::ids::WalletId;
use duet_wire::{
    audit::{ChainId, Draft, Record},
    remembered::Remembered,
};

use super::{
    AnswersOf, AuditChain, KeyStore, NewPending, PendingRow, PolicyMark, PolicyRow, PutPolicy, RecordStore,
    SessionStore, Spending, StoreError, WalletRow, WalletStore, WitnessStore,
};

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

/// What the party decided, in chains (see [`duet_wire::audit`]).
///
/// A store has no chain until one is begun, as a device's never is; then nothing is recorded.
#[async_trait]
pub trait AuditStore: fmt::Debug + Send + Sync + 'static {
    /// Returns this store, which appends `entry` to the newest chain in the very transaction of the
    /// decision that is asked of it: a claim, a charge, a lock, an accepted culprit, a key, an
    /// enrolment taken or agreed, a wallet prepared or committed, a pin. If nothing is decided,
    /// because it was before or is refused, nothing is appended. For one call.
    fn noting(&self, entry: Draft) -> Arc<dyn ShareStore>;
    /// Begins a chain with `genesis`, unless the newest one is another than `after`, or `after` is
    /// still written. Then another process began one, and nothing is done. A chain that follows
    /// another says in its second record which keys are locked, if any are.
    async fn begin_audit(
        &self,
        chain: ChainId,
        genesis: &Draft,
        after: Option<ChainId>,
    ) -> Result<(), StoreError>;
    /// Appends entries to the newest chain, all or none. [`StoreError::NotReady`] when it was
    /// closed, because the store was restored, and the next one has not begun.
    async fn append_audit(&self, entries: &[Draft]) -> Result<(), StoreError>;
    /// Every chain, oldest first.
    async fn audit_chains(&self) -> Result<Vec<AuditChain>, StoreError>;
    /// The records of a chain after `after`, in order, at most `limit`.
    async fn audit_records(&self, chain: ChainId, after: u64, limit: u32) -> Result<Vec<Record>, StoreError>;
    /// Notes that a chain has been published up to `sequence`.
    async fn audit_shipped(&self, chain: ChainId, sequence: u64) -> Result<(), StoreError>;
    /// Notes that the records after `from` are not published any more; all of them for `None`, or
    /// if the chain is not known. Returns how many there are.
    async fn unship_audit(&self, from: Option<(ChainId, u64)>) -> Result<u64, StoreError>;
    /// Removes records that were published and are older than `before_ms`, but never a chain's
    /// newest one, nor those that name locked keys; how many.
    async fn trim_audit(&self, before_ms: u64) -> Result<u64, StoreError>;
}

/// Pending verdicts: a process that dies between a decryption and the lock must not take the lock
/// with it.
#[async_trait]
pub trait PendingStore: fmt::Debug + Send + Sync + 'static {
    /// The same store, which counts an answer for a request in the very transaction of the charge
    /// or the pending verdict that is asked of it, and keeps there what the request's job signs. Or
    /// it does nothing of that and fails: with [`StoreError::TooManyAnswers`], or with
    /// [`StoreError::OtherPayload`] when the job was charged for something else. For one call.
    fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore>;
    /// What was kept of the broker with answers: the highest of each of its buckets of jobs, at
    /// most `limit`, latest epoch first.
    async fn remembered(&self, limit: u32) -> Result<Vec<Remembered>, StoreError>;
    /// Writes what is about to be decrypted, so that it survives this process. It is not flushed by
    /// itself: what releases the verdict or locks the key is, and whatever was written before goes
    /// to the disk with it. A power cut before that takes the verdict with the worker's memory, and
    /// no party has heard of either. [`StoreError::Quarantined`], and nothing is written, when a
    /// lock that was committed before blames the card: also of a session that had begun by then,
    /// under whichever key.
    async fn put_pending(&self, pending: &NewPending) -> Result<(), StoreError>;
    /// What processes that are gone left behind, oldest first: at most `limit`.
    async fn abandoned(&self, now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError>;
    /// Counts a start that found verdicts left behind; how many there were in this store's life.
    async fn count_unclean_start(&self) -> Result<u64, StoreError>;
    /// How many starts found verdicts left behind.
    async fn unclean_starts(&self) -> Result<u64, StoreError>;
}

/// Policies, what was spent of their limits, and who approved what.
#[async_trait]
pub trait PolicyStore: fmt::Debug + Send + Sync + 'static {
    /// The same store, which charges `spending` in the very transaction of the claim or charge that
    /// is asked of it, or does neither and fails: with [`StoreError::LimitExceeded`], or with
    /// [`StoreError::PolicyChanged`] when a policy was stored after those that it was decided by.
    /// For one call.
    fn spending(&self, spending: Spending) -> Arc<dyn ShareStore>;
    /// Stores a policy that is newer than all others of its wallet. Those that stop counting at
    /// `now_ms`, because a newer one is in effect, are removed.
    async fn put_policy(
        &self,
        wallet: WalletId,
        policy: &PolicyRow,
        now_ms: u64,
    ) -> Result<PutPolicy, StoreError>;
    /// A wallet and the mark of its newest policy, in effect or not, in one read: what was verified
    /// earlier can be decided by without reading the policies again.
    async fn wallet_with_policy(
        &self,
        wallet: WalletId,
    ) -> Result<Option<(WalletRow, Option<PolicyMark>)>, StoreError>;
    /// A wallet's policies, oldest first.
    async fn policies(&self, wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError>;
    /// Notes that `approver` approves the request with this hash, until the approval or the request
    /// expires; a later approval by the same approver counts longer. Forgets what has expired at
    /// `now_ms`.
    async fn put_approval(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        approver: [u8; 32],
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError>;
    /// Who approved the request, by approvals that count at `now_ms`.
    async fn approvals(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        now_ms: u64,
    ) -> Result<Vec<[u8; 32]>, StoreError>;
}

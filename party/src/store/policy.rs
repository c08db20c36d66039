//! What the wallets' owners allow, and what was spent of it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use duet_protocol::ids::WalletId;
use duet_wire::policy::{SignedPolicy, Spend};

use super::{ShareStore, StoreError};

/// A policy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its revision.
    pub revision: u64,
    /// From when it counts, in Unix milliseconds. A later one counts from the beginning where it refuses,
    /// and from then on where it allows more.
    pub effective_at_ms: u64,
    /// As its owner signed it.
    pub signed: SignedPolicy,
}

/// What became of an attempt to store a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutPolicy {
    /// It is stored.
    Stored,
    /// The very same one was stored before.
    Already(PolicyRow),
    /// One of this revision or a newer one is stored; its revision.
    Stale(u64),
    /// So many changes wait already that no further one is taken.
    TooManyPending,
}

/// Policies that wait to count at most. Each is decided by with every request until it does.
pub const MAX_PENDING_POLICIES: usize = 4;

/// What is charged with the next decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// The wallet.
    pub wallet: WalletId,
    /// What is signed: the same digest is spent once.
    pub digest: [u8; 32],
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What each of the policies that count charges; all of them must have room.
    pub spends: Vec<Spend>,
}

/// Policies, what was spent of their limits, and who approved what.
#[async_trait]
pub trait PolicyStore: fmt::Debug + Send + Sync + 'static {
    /// The same store, which charges `spending` in the very transaction of the claim or charge that is asked
    /// of it, or fails with [`StoreError::LimitExceeded`] and does neither. For one call.
    fn spending(&self, spending: Spending) -> Arc<dyn ShareStore>;
    /// Stores a policy that is newer than all others of its wallet. Those that stop counting at `now_ms`,
    /// because a newer one is in effect, are removed.
    async fn put_policy(
        &self,
        wallet: WalletId,
        policy: &PolicyRow,
        now_ms: u64,
    ) -> Result<PutPolicy, StoreError>;
    /// A wallet's policies, oldest first.
    async fn policies(&self, wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError>;
    /// Notes that `approver` approves the request with this hash, until it expires; forgets what has expired
    /// at `now_ms`.
    async fn put_approval(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        approver: [u8; 32],
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError>;
    /// Who approved the request.
    async fn approvals(&self, wallet: WalletId, request: [u8; 32]) -> Result<Vec<[u8; 32]>, StoreError>;
}

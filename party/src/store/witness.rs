//! What shows that a store forgot a lock: the records of its own audit chains, and heads that
//! others keep.

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, PartyId};
use duet_wire::audit::ChainId;

use super::StoreError;

/// A signed head of a party's audit chain, as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRow {
    /// The party that writes the chain.
    pub writer: PartyId,
    /// The chain.
    pub chain: ChainId,
    /// The number of the chain's newest record.
    pub sequence: u64,
    /// The encoded [`SignedHead`](duet_wire::audit::SignedHead).
    pub head: Vec<u8>,
}

/// What shows that a store forgot a lock.
#[async_trait]
pub trait WitnessStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the Paillier keys that this store's own audit records name as locked, whatever the
    /// keys' rows say.
    async fn locked_by_audit(&self) -> Result<BTreeSet<PaillierKeyId>, StoreError>;
    /// Locks those of `keys` that this store has and does not show as locked, deletes their sealed
    /// records, and returns them. One transaction; the lock has no session and no evidence. As by
    /// any lock, a failure is counted for every wallet that this store knows to be enrolled under
    /// the key, unless the key's row still shows when it was locked, and so that it was counted
    /// then; and the card that the key's scope names is quarantined. A key of a device names none.
    async fn lock_witnessed(
        &self,
        keys: &BTreeSet<PaillierKeyId>,
        now_ms: u64,
    ) -> Result<Vec<PaillierKeyId>, StoreError>;
    /// Marks the store as restored, as if it had been put back from a backup just now: its ready
    /// Paillier keys need rotation, and its audit chain is closed.
    async fn mark_restored(&self) -> Result<(), StoreError>;
    /// Keeps a head, unless a newer one of its chain is kept. Of one writer the heads of the
    /// `max_chains` chains that were added last are kept.
    async fn keep_head(&self, head: &HeadRow, max_chains: u32) -> Result<(), StoreError>;
    /// The heads that are kept of a writer, oldest chain first.
    async fn heads(&self, writer: &PartyId) -> Result<Vec<HeadRow>, StoreError>;
}

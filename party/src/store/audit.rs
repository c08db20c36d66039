//! The party's audit chains: appended to in the transactions that store what is recorded.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use duet_wire::audit::{ChainId, Draft, Event, Position, Record};

use super::{
    ShareStore, StoreError,
    columns::{Columns, paillier_row},
};

/// One of the party's chains, as far as the store holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditChain {
    /// Its newest record; the chain's name is in it.
    pub head: Position,
    /// When that was decided, in milliseconds since 1970.
    pub head_at_ms: u64,
    /// Whether nothing is appended to it any more, because the store was restored.
    pub closed: bool,
    /// Up to which record it has been published.
    pub shipped: u64,
}

/// A record's body as a column holds it.
pub(super) fn body(record: &Record) -> Result<&str, StoreError> {
    str::from_utf8(&record.body).map_err(|_| StoreError::Corrupt("an audit record that is no text"))
}

/// What follows the first record of a chain that began after another; `rows` are those of the
/// keys that are locked.
pub(super) fn found_locked(rows: &[impl Columns], at_ms: u64) -> Result<Option<Draft>, StoreError> {
    let rows = rows.iter().map(paillier_row).collect::<Result<Vec<_>, _>>()?;
    let paillier_keys: Vec<_> = rows.into_iter().map(|row| row.id).collect();
    Ok((!paillier_keys.is_empty()).then(|| Draft::new(at_ms, Event::KeysFoundLocked { paillier_keys })))
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
    /// Removes records that were published and are older than `before_ms`, but never a chain's
    /// newest one, nor those that name locked keys; how many.
    async fn trim_audit(&self, before_ms: u64) -> Result<u64, StoreError>;
}

/// A decision is not made without its record: whether there was a chain to append to.
pub(super) fn require_open(appended: bool) -> Result<(), StoreError> {
    if appended {
        return Ok(());
    }
    Err(StoreError::NotReady("the audit log was closed, and has not begun again".to_owned()))
}

//! What a store holds of an audit chain.

use duet_wire::audit::Position;

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

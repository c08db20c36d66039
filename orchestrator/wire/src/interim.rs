//! A type that belongs to the protocol crate, until it has it.

use serde::{Deserialize, Serialize};

/// What kind of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadKindTag {
    /// An Ethereum transaction.
    Transaction,
    /// An EIP-191 message.
    PersonalMessage,
    /// An EIP-712 document.
    TypedData,
    /// 32 bytes of unknown meaning.
    Digest,
}

//! Messages under [EIP-191](https://eips.ethereum.org/EIPS/eip-191), version 0x45
//! (`personal_sign`).

use alloy_primitives::eip191_hash_message;
use serde_json::Value;

use super::PayloadError;
use crate::strict_json::Node;

/// A message for people, given as text or as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PersonalMessage {
    /// `text`: signed as its UTF-8 bytes.
    Text(String),
    /// `hex`: bytes that need not be text.
    Hex(Vec<u8>),
}

impl PersonalMessage {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, PayloadError> {
        let object = node.object(&["text", "hex"])?;
        match (object.field("text"), object.field("hex")) {
            (Some(text), None) => Ok(Self::Text(text.text()?.to_owned())),
            (None, Some(hex)) => Ok(Self::Hex(hex.bytes()?)),
            _ => Err(node.error("expected either `text` or `hex`").into()),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Text(text) => serde_json::json!({ "text": text }),
            Self::Hex(bytes) => serde_json::json!({ "hex": format!("0x{}", hex::encode(bytes)) }),
        }
    }

    /// The message's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Hex(bytes) => bytes,
        }
    }

    /// `keccak256("\x19Ethereum Signed Message:\n" ‖ length in decimal ‖ message)`.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        eip191_hash_message(self.as_bytes()).0
    }
}

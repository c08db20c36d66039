//! A chain's name, and a place in a chain.

use core::{fmt, str::FromStr};

use duet_protocol::{ids::InvalidId, transcript};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    encoding::hex_array,
    signing::{self, BadSignature, Purpose},
};

/// A chain's name: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, udigest::Digestable)]
pub struct ChainId(#[udigest(as_bytes)] pub [u8; 16]);

impl ChainId {
    /// The identifier's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainId({self})")
    }
}

impl FromStr for ChainId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Hex { expected: 32 })?;
        Ok(Self(bytes))
    }
}

impl Serialize for ChainId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex_array::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for ChainId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex_array::deserialize(deserializer).map(Self)
    }
}

/// A place in a chain, and the hash that fixes the chain up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The chain.
    pub chain: ChainId,
    /// The record's number, from 1.
    pub sequence: u64,
    /// The record's hash.
    #[serde(with = "hex_array")]
    #[udigest(as_bytes)]
    pub hash: [u8; 32],
}

impl Position {
    /// Checks a checkpoint's signature.
    ///
    /// # Errors
    /// When it is not by `key` over this position.
    pub fn verify(&self, key: &[u8; 32], signature: &[u8; 64]) -> Result<(), BadSignature> {
        signing::verify(Purpose::Audit, &self.statement(), key, signature)
    }

    pub(super) fn statement(&self) -> [u8; 32] {
        transcript::hash("audit-checkpoint", self)
    }
}

//! A head: how far a party's audit chain goes, signed by the party. Other parties and the broker
//! keep it, so that an older copy of the party's store can be told from the current one.

use duet_protocol::{
    codec::{self, Message},
    ids::{PaillierKeyId, PartyId},
    transcript,
};
use serde::{Deserialize, Serialize};

use super::Position;
use crate::{
    encoding::hex_array,
    error::Refusal,
    signing::{self, BadSignature, Identity, Purpose},
};

/// How many locked keys a head names at most. A party with more names the newest.
pub const MAX_LOCKED_KEYS: usize = 1024;
/// How many heads of one writer a party keeps: one for each of its chains. A chain ends when a
/// store is restored.
pub const MAX_HEADS_PER_WRITER: usize = 32;

/// How far a party's chain goes, and which of its Paillier keys are locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The party that writes the chain.
    pub writer: PartyId,
    /// The newest record of its newest chain.
    pub position: Position,
    /// Every Paillier key of the party that was ever locked, at most [`MAX_LOCKED_KEYS`].
    pub locked: Vec<PaillierKeyId>,
}

impl Head {
    /// Signs the head with the writer's card key.
    #[must_use]
    pub fn sign(self, key: &impl Identity) -> SignedHead {
        let signature = signing::sign(Purpose::AuditHead, &self.statement(), key);
        SignedHead { head: self, signature }
    }

    fn statement(&self) -> [u8; 32] {
        transcript::hash("audit-head", self)
    }
}

/// A head with its writer's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// Ed25519 over the tag `duet/v1/audit-head` and the hash of the head.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl SignedHead {
    /// Returns the head, if `key` signed it.
    ///
    /// # Errors
    /// When `key` did not.
    pub fn verify(&self, key: &[u8; 32]) -> Result<&Head, BadSignature> {
        signing::verify(Purpose::AuditHead, &self.head.statement(), key, &self.signature)?;
        Ok(&self.head)
    }
}

impl Message for SignedHead {
    const KIND: u8 = 0x68;
    const VERSION: u8 = 1;
    /// The names, the signature, and 16 bytes for each locked key.
    const MAX_SIZE_BYTES: usize = 512 + 16 * MAX_LOCKED_KEYS;
}

/// A party's request to another party about heads, on `duet.v1.card.<from>.<to>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadRequest {
    /// To keep the sender's newest head.
    Keep {
        /// The head.
        head: SignedHead,
    },
    /// To return the sender's heads that the receiver keeps.
    Show,
}

impl Message for HeadRequest {
    const KIND: u8 = 0x69;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = SignedHead::MAX_SIZE_BYTES + 16;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// The answer to a [`HeadRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadReply {
    /// The head, or a newer one of the same chain, is on the receiver's disk.
    Kept,
    /// The sender's heads, one for each chain, at most [`MAX_HEADS_PER_WRITER`].
    Heads {
        /// The heads.
        heads: Vec<SignedHead>,
    },
    /// The request is refused.
    Refused(Refusal),
}

impl Message for HeadReply {
    const KIND: u8 = 0x6a;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = SignedHead::MAX_SIZE_BYTES * MAX_HEADS_PER_WRITER + 16;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::ChainId, signing::SigningKey};

    fn head() -> Head {
        Head {
            writer: "service".parse().unwrap(),
            position: Position { chain: ChainId([1; 16]), sequence: 7, hash: [2; 32] },
            locked: vec![PaillierKeyId([3; 16])],
        }
    }

    #[test]
    fn a_changed_head_is_not_signed() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let signed = head().sign(&key);
        assert_eq!(signed.verify(&public), Ok(&head()));
        let mut unlocked = signed.clone();
        unlocked.head.locked.clear();
        let mut longer = signed.clone();
        longer.head.position.sequence += 1;
        let mut of_another = signed.clone();
        of_another.head.writer = "partner".parse().unwrap();
        for changed in [unlocked, longer, of_another] {
            assert_eq!(changed.verify(&public), Err(BadSignature));
        }
        assert_eq!(signed.verify(&[9; 32]), Err(BadSignature));
    }

    #[test]
    fn the_largest_answer_has_an_encoding() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let position = Position { sequence: u64::MAX, ..head().position };
        let writer: PartyId = "p".repeat(32).parse().unwrap();
        let locked = vec![PaillierKeyId([3; 16]); MAX_LOCKED_KEYS];
        let signed = Head { writer, position, locked }.sign(&key);
        let reply = HeadReply::Heads { heads: vec![signed.clone(); MAX_HEADS_PER_WRITER] };
        let bytes = codec::encode(&reply).unwrap();
        assert_eq!(codec::decode(&bytes), Ok(reply));
        assert!(codec::encode(&HeadRequest::Keep { head: signed }).is_ok());
    }
}

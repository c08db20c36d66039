//! Revocations of signing requests, signed by the requester or the wallet's owner. Parties keep one
//! until the request has expired. Meanwhile they refuse the request as `cancelled`, whichever
//! process sends it.

use duet_protocol::{
    codec::{self, Message},
    ids::WalletId,
};
use serde::{Deserialize, Serialize};

use crate::{
    encoding::hex_array,
    error::Refusal,
    request::{MAX_REQUEST_SIZE_BYTES, SignedRequest},
    signing::{self, BadSignature, Identity, Purpose},
};

/// A revocation's signature with its signer, without the request. Tenants and devices send it; the
/// orchestrator already has the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationProof {
    /// The signer: the Ed25519 key of the request's requester, or of the wallet's owner.
    #[serde(with = "hex_array")]
    pub by: [u8; 32],
    /// Ed25519 over the tag `duet/v1/revocation`, the wallet's id (32 bytes), and the request's
    /// content hash (32 bytes): SHA-256 of the requester's key and the document's exact bytes.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

fn document(wallet: WalletId, content_hash: [u8; 32]) -> [u8; 64] {
    let mut document = [0; 64];
    let (head, tail) = document.split_at_mut(32);
    head.copy_from_slice(wallet.as_bytes());
    tail.copy_from_slice(&content_hash);
    document
}

impl RevocationProof {
    /// Revokes the request of `wallet` with this content hash.
    #[must_use]
    pub fn sign(wallet: WalletId, content_hash: [u8; 32], key: &impl Identity) -> Self {
        let signature = signing::sign(Purpose::Revocation, &document(wallet, content_hash), key);
        Self { by: key.verification_key(), signature }
    }

    /// Checks the signature. It does not check whether the signer may revoke the request.
    ///
    /// # Errors
    /// When it does not verify.
    pub fn verify(&self, wallet: WalletId, content_hash: [u8; 32]) -> Result<(), BadSignature> {
        signing::verify(Purpose::Revocation, &document(wallet, content_hash), &self.by, &self.signature)
    }
}

/// A revocation as it is sent to the parties, with the request itself. From the request a party
/// learns wallet, requester and expiry. The orchestrator can neither forge nor change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRevocation {
    /// The request as its requester signed it.
    pub request: SignedRequest,
    /// The signature that revokes it.
    pub proof: RevocationProof,
}

impl Message for SignedRevocation {
    const KIND: u8 = 0x70;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_REQUEST_SIZE_BYTES + 1024;
}

/// A party's answer to a [`SignedRevocation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevocationReply {
    /// The party has stored it durably and refuses the request from now on.
    Kept,
    /// The revocation is refused.
    Refused(Refusal),
}

impl Message for RevocationReply {
    const KIND: u8 = 0x71;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;

    #[test]
    fn a_revocation_is_for_one_wallet_and_one_request_by_one_key() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let proof = RevocationProof::sign(WalletId([1; 32]), [2; 32], &key);
        assert!(proof.verify(WalletId([1; 32]), [2; 32]).is_ok());
        assert!(proof.verify(WalletId([2; 32]), [2; 32]).is_err());
        assert!(proof.verify(WalletId([1; 32]), [1; 32]).is_err());
        let by = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert!(RevocationProof { by, ..proof }.verify(WalletId([1; 32]), [2; 32]).is_err());
    }
}

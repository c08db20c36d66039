//! Documents under a domain-separated Ed25519 signature.
//!
//! The signed bytes are `tag ‖ document`, where the tag is a line of its own. No tag is a prefix of
//! another. So a signature over one kind of document never verifies for another kind.

use duet_protocol::identity::PartyKeys;
pub use ed25519_dalek::SigningKey;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};

/// The kind of document that a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A signing request, by its requester.
    SigningRequest,
    /// How a session ended, by one of its parties.
    Outcome,
    /// The owner's answer to a waiting job, by the device.
    Approval,
    /// A finished job, by the orchestrator.
    Result,
    /// A gateway's challenge, by the device.
    Gateway,
    /// A checkpoint of an audit chain, by its writer.
    Audit,
    /// A wallet's policy, by its owner.
    Policy,
    /// A receipt for a policy, by the party that holds it.
    PolicyReceipt,
    /// An undated approval of a request, by an approver.
    RequestApproval,
    /// How far a party's audit chain goes, by the party.
    AuditHead,
    /// A dated approval of a request, by an approver.
    DatedApproval,
    /// A revocation of a request, by its requester or the wallet's owner.
    Revocation,
}

impl Purpose {
    /// The line that is signed in front of the document.
    #[must_use]
    pub const fn tag(self) -> &'static [u8] {
        match self {
            Self::SigningRequest => b"duet/v1/signing-request\n",
            Self::Outcome => b"duet/v1/outcome\n",
            Self::Approval => b"duet/v1/approval\n",
            Self::Result => b"duet/v1/result\n",
            Self::Gateway => b"duet/v1/gateway\n",
            Self::Audit => b"duet/v1/audit\n",
            Self::Policy => b"duet/v1/policy\n",
            Self::PolicyReceipt => b"duet/v1/policy-receipt\n",
            Self::RequestApproval => b"duet/v1/request-approval\n",
            Self::AuditHead => b"duet/v1/audit-head\n",
            Self::DatedApproval => b"duet/v1/dated-approval\n",
            Self::Revocation => b"duet/v1/revocation\n",
        }
    }
}

/// A signer of documents: the holder of a plain key, or a party with the keys of its card.
pub trait Identity {
    /// The Ed25519 verification key.
    fn verification_key(&self) -> [u8; 32];

    /// Signs `message` as it is. Callers use [`sign`], which adds the tag.
    fn sign_bytes(&self, message: &[u8]) -> [u8; 64];
}

impl Identity for SigningKey {
    fn verification_key(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }

    fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.sign(message).to_bytes()
    }
}

impl Identity for PartyKeys {
    fn verification_key(&self) -> [u8; 32] {
        *self.identity().as_bytes()
    }

    fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.sign(message).0
    }
}

/// The signature is not by the key over the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not belong to the key and the document")]
pub struct BadSignature;

fn tagged(purpose: Purpose, document: &[u8]) -> Vec<u8> {
    [purpose.tag(), document].concat()
}

/// Signs `document` for `purpose` (Ed25519, RFC 8032).
#[must_use]
pub fn sign(purpose: Purpose, document: &[u8], key: &impl Identity) -> [u8; 64] {
    key.sign_bytes(&tagged(purpose, document))
}

/// Checks that `signature` is by `key` over `document` for `purpose`. The check is strict: it
/// refuses keys and commitments of small order, and non-canonical encodings.
///
/// # Errors
/// When the signature does not verify.
pub fn verify(
    purpose: Purpose,
    document: &[u8],
    key: &[u8; 32],
    signature: &[u8; 64],
) -> Result<(), BadSignature> {
    VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(&tagged(purpose, document), &Signature::from_bytes(signature)))
        .map_err(|_| BadSignature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_for_one_purpose_is_none_for_another() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let purposes = [
            Purpose::SigningRequest,
            Purpose::Outcome,
            Purpose::Approval,
            Purpose::Result,
            Purpose::Gateway,
            Purpose::Audit,
            Purpose::Policy,
            Purpose::PolicyReceipt,
            Purpose::RequestApproval,
            Purpose::AuditHead,
            Purpose::DatedApproval,
            Purpose::Revocation,
        ];
        for made in purposes {
            let signature = sign(made, b"document", &key);
            for read in purposes {
                let verified = verify(read, b"document", key.verifying_key().as_bytes(), &signature);
                assert_eq!(verified.is_ok(), made == read, "{made:?} as {read:?}");
            }
        }
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The identity: with it, R = identity and s = 0 satisfies the plain equation for any text.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(verify(Purpose::Result, b"anything", &identity, &signature), Err(BadSignature));
    }
}

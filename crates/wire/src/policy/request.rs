//! Policies and approvals for a party, sent over `duet.v1.card.<from>.<party>` beside the questions
//! of [`crate::card_request`]. They are signed, so the process that forwards them cannot change
//! them.

use duet_protocol::{
    codec::{self, DecodeError, EncodeError, Message},
    ids::WalletId,
};
use serde::{Deserialize, Serialize};

use super::{MAX_POLICY_SIZE_BYTES, SignedPolicy};
use crate::{
    Refusal, SignedRequest,
    encoding::hex_array,
    request::MAX_REQUEST_SIZE_BYTES,
    signing::{self, BadSignature, Identity, Purpose},
};

/// How many policies of one wallet an answer contains at most: the one in effect and those that
/// wait.
const MAX_SHOWN: usize = 8;

/// A request to a party about policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyRequest {
    /// To accept a policy.
    Set {
        /// The wallet.
        wallet: WalletId,
        /// The policy.
        policy: SignedPolicy,
    },
    /// To list the policies that it holds.
    Show {
        /// The wallet.
        wallet: WalletId,
    },
    /// To record an approver's undated approval of a signing request.
    Approve {
        /// The approval.
        approval: RequestApproval,
    },
    /// To record an approver's dated approval of a signing request.
    ApproveDated {
        /// The approval.
        approval: DatedApproval,
    },
}

impl Message for PolicyRequest {
    const KIND: u8 = 0x64;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_REQUEST_SIZE_BYTES + MAX_POLICY_SIZE_BYTES;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

impl PolicyRequest {
    /// The wallet that the request names.
    ///
    /// # Errors
    /// When the approved request does not parse.
    pub fn wallet(&self) -> Result<WalletId, crate::request::RequestError> {
        match self {
            Self::Set { wallet, .. } | Self::Show { wallet } => Ok(*wallet),
            Self::Approve { approval: RequestApproval { request, .. } }
            | Self::ApproveDated { approval: DatedApproval { request, .. } } => {
                Ok(crate::SigningRequest::from_json(&request.body)?.wallet)
            }
        }
    }
}

/// A party's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyReply {
    /// The policy is stored.
    Set {
        /// The party's receipt for it.
        receipt: SignedReceipt,
    },
    /// The policies that apply, oldest first: the newest one in effect, and those that wait.
    Policies {
        /// The policies, each with the time from which it is in effect.
        policies: Vec<HeldPolicy>,
    },
    /// The approval is recorded.
    Approved,
    /// The request is refused.
    Refused(Refusal),
}

impl Message for PolicyReply {
    const KIND: u8 = 0x65;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_SHOWN * (MAX_POLICY_SIZE_BYTES + 256);
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// A policy that a party holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPolicy {
    /// From when it alone applies, in milliseconds since 1970. Until then a request has to pass it
    /// and the earlier ones.
    pub effective_at_ms: u64,
    /// The policy.
    pub policy: SignedPolicy,
}

/// States that a party holds a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReceipt {
    /// The wallet.
    pub wallet: WalletId,
    /// The policy's revision.
    pub revision: u64,
    /// The SHA-256 of its document.
    pub hash: [u8; 32],
    /// From when it alone applies, in milliseconds since 1970.
    pub effective_at_ms: u64,
}

impl Message for PolicyReceipt {
    const KIND: u8 = 0x66;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

/// A receipt's exact bytes with the party's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// The encoded [`PolicyReceipt`].
    pub receipt: Vec<u8>,
    /// Ed25519 by the party's card key over the tag `duet/v1/policy-receipt` and the receipt.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

/// Why a receipt is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The signature is not by the party's card key.
    #[error("the receipt is not signed by the party's card")]
    BadSignature(#[from] BadSignature),
    /// The bytes are not a receipt.
    #[error("the receipt does not parse: {0}")]
    Malformed(#[from] DecodeError),
}

impl SignedReceipt {
    /// Signs `receipt` with the key of a party's card.
    ///
    /// # Errors
    /// Never for a receipt that this crate made.
    pub fn sign(receipt: &PolicyReceipt, key: &impl Identity) -> Result<Self, EncodeError> {
        let receipt = codec::encode(receipt)?;
        let signature = signing::sign(Purpose::PolicyReceipt, &receipt, key);
        Ok(Self { receipt, signature })
    }

    /// Checks the signature against the Ed25519 key of the party's card, then parses.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub fn verify(&self, card_key: &[u8; 32]) -> Result<PolicyReceipt, ReceiptError> {
        signing::verify(Purpose::PolicyReceipt, &self.receipt, card_key, &self.signature)?;
        Ok(codec::decode(&self.receipt)?)
    }
}

/// An approver's undated approval of a signing request. It is for exactly this document by exactly
/// this requester. It does not extend the day for which a request may be valid; a [`DatedApproval`]
/// does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestApproval {
    /// The request as its requester signed it.
    pub request: SignedRequest,
    /// The approver: an Ed25519 key that the policy names, or the owner's.
    #[serde(with = "hex_array")]
    pub approver: [u8; 32],
    /// Ed25519 over the tag `duet/v1/request-approval` and the request's content hash.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl RequestApproval {
    /// Approves `request`.
    #[must_use]
    pub fn sign(request: SignedRequest, approver: &impl Identity) -> Self {
        let signature = signing::sign(Purpose::RequestApproval, &request.content_hash(), approver);
        Self { request, approver: approver.verification_key(), signature }
    }

    /// Checks the approver's signature. It does not check whether this approver counts, nor the
    /// request.
    ///
    /// # Errors
    /// When the signature does not verify.
    pub fn verify(&self) -> Result<(), BadSignature> {
        signing::verify(
            Purpose::RequestApproval,
            &self.request.content_hash(),
            &self.approver,
            &self.signature,
        )
    }
}

/// An approver's dated approval of a signing request. It is for exactly this document by exactly
/// this requester, and is valid for [`crate::validity::APPROVAL_VALID_S`] from its date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatedApproval {
    /// The request as its requester signed it.
    pub request: SignedRequest,
    /// The approver: an Ed25519 key that the policy names, or the owner's.
    #[serde(with = "hex_array")]
    pub approver: [u8; 32],
    /// When the approver signed, in seconds since 1970.
    pub issued_at: u64,
    /// Ed25519 over the tag `duet/v1/dated-approval`, the request's content hash (32 bytes), and
    /// `issued_at` (8 bytes, little endian).
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl DatedApproval {
    fn document(content_hash: [u8; 32], issued_at: u64) -> [u8; 40] {
        let mut document = [0; 40];
        let (head, tail) = document.split_at_mut(32);
        head.copy_from_slice(&content_hash);
        tail.copy_from_slice(&issued_at.to_le_bytes());
        document
    }

    /// Approves `request` at `issued_at`, in seconds since 1970.
    #[must_use]
    pub fn sign(request: SignedRequest, issued_at: u64, approver: &impl Identity) -> Self {
        let document = Self::document(request.content_hash(), issued_at);
        let signature = signing::sign(Purpose::DatedApproval, &document, approver);
        Self { request, approver: approver.verification_key(), issued_at, signature }
    }

    /// Checks the approver's signature. It does not check whether this approver counts, nor the
    /// request.
    ///
    /// # Errors
    /// When the signature does not verify.
    pub fn verify(&self) -> Result<(), BadSignature> {
        let document = Self::document(self.request.content_hash(), self.issued_at);
        signing::verify(Purpose::DatedApproval, &document, &self.approver, &self.signature)
    }
}

//! The owner's word on jobs that wait for it: `duet.v1.approval.<wallet>`, signed by the device's
//! card key.

use duet_protocol::{
    codec::{self, DecodeError, EncodeError, Message},
    ids::WalletId,
};
use serde::{Deserialize, Serialize};

use crate::{
    JobId, JobRecord,
    encoding::hex_array,
    error::Refusal,
    manifest::Manifest,
    request::{MAX_REQUEST_SIZE_BYTES, SignedRequest},
    revocation::RevocationProof,
    signing::{self, Identity, Purpose},
    validity,
};

/// How old an approval may be when it arrives, in milliseconds.
pub const MAX_APPROVAL_AGE_MS: u64 = 60_000;

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalAction {
    /// To see the waiting jobs.
    List,
    /// To sign one now.
    Approve {
        /// Which.
        job: JobId,
    },
    /// Not to sign one, ever.
    Reject {
        /// Which.
        job: JobId,
    },
    /// To sign something of the owner's own: a job as if submitted, begun at once. The same request
    /// again is the same job; once that is done, the reply is [`ApprovalReply::Job`].
    Sign {
        /// What is to be signed, under the owner's request key.
        request: SignedRequest,
    },
    /// To see what became of one.
    Job {
        /// Which.
        job: JobId,
    },
    /// Not to sign one, ever, under the owner's signature: the parties refuse its request from now
    /// on, from every sender.
    Revoke {
        /// Which.
        job: JobId,
        /// By the owner's request key.
        proof: RevocationProof,
    },
}

/// A device's request about its wallet's jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// The wallet.
    pub wallet: WalletId,
    /// What the owner wants.
    pub action: ApprovalAction,
    /// When it was made, in milliseconds since 1970; one older than [`MAX_APPROVAL_AGE_MS`] is
    /// refused.
    pub issued_at_ms: u64,
    /// Random, so that a request is taken once.
    pub nonce: [u8; 16],
}

impl Message for ApprovalRequest {
    const KIND: u8 = 0x4a;
    const VERSION: u8 = 2;
    const MAX_SIZE_BYTES: usize = MAX_REQUEST_SIZE_BYTES + 512;
}

/// An approval request's exact bytes with the device's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedApproval {
    /// The encoded [`ApprovalRequest`].
    pub request: Vec<u8>,
    /// Ed25519, by the key of the device's card, over the tag `duet/v1/approval` and the request.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl Message for SignedApproval {
    const KIND: u8 = 0x4b;
    const VERSION: u8 = 2;
    const MAX_SIZE_BYTES: usize = ApprovalRequest::MAX_SIZE_BYTES + 128;
}

/// Why an approval is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// The signature is not by the key.
    #[error("the approval's signature is not by the device's card key")]
    BadSignature(#[from] signing::BadSignature),
    /// The bytes are no approval.
    #[error("the approval does not parse: {0}")]
    Malformed(#[from] DecodeError),
    /// It was made too long ago, or will be made only later.
    #[error(
        "by the device's clock its word was made at a time that is {} the orchestrator's clock: the two \
         clocks differ, or the word was held back; at most {} are allowed",
        validity::relation(*.issued_at_ms, *.now_ms),
        validity::span(MAX_APPROVAL_AGE_MS)
    )]
    NotFresh {
        /// When it was made by the device's clock, in milliseconds since 1970.
        issued_at_ms: u64,
        /// The orchestrator's time.
        now_ms: u64,
    },
}

impl SignedApproval {
    /// Signs `request` with the key of the device's card.
    ///
    /// # Errors
    /// When it has no encoding.
    pub fn sign(request: &ApprovalRequest, key: &impl Identity) -> Result<Self, EncodeError> {
        let request = codec::encode(request)?;
        let signature = signing::sign(Purpose::Approval, &request, key);
        Ok(Self { request, signature })
    }

    /// Parses the request without believing it, to learn which wallet's device key is to be asked.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn unverified(&self) -> Result<ApprovalRequest, DecodeError> {
        codec::decode(&self.request)
    }

    /// Checks the signature against the Ed25519 key of the wallet's device card and that it was
    /// made within [`MAX_APPROVAL_AGE_MS`] of `now_ms`. The caller sees to it that a nonce counts
    /// once.
    ///
    /// # Errors
    /// See [`ApprovalError`].
    pub fn verify(&self, device_key: &[u8; 32], now_ms: u64) -> Result<ApprovalRequest, ApprovalError> {
        signing::verify(Purpose::Approval, &self.request, device_key, &self.signature)?;
        let request: ApprovalRequest = codec::decode(&self.request)?;
        if now_ms.abs_diff(request.issued_at_ms) > MAX_APPROVAL_AGE_MS {
            return Err(ApprovalError::NotFresh { issued_at_ms: request.issued_at_ms, now_ms });
        }
        Ok(request)
    }
}

/// A job that waits for the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingJob {
    /// The job.
    pub job: JobId,
    /// What the requester signed; the device checks and shows it.
    pub request: SignedRequest,
    /// When it was submitted, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// The orchestrator's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalReply {
    /// To `List`: the oldest waiting jobs, as many as fit.
    Jobs {
        /// Oldest first.
        jobs: Vec<WaitingJob>,
        /// Whether there are more.
        more: bool,
    },
    /// To `Approve` and `Sign`: the manifest's bytes. The responder has accepted; the device
    /// initiates.
    Session {
        /// The manifest.
        manifest: Vec<u8>,
    },
    /// To `Job`, and to `Sign` of a job that is over already: its record, in JSON, with the
    /// signature if there is one. See [`ApprovalReply::job`].
    Job {
        /// A [`JobRecord`].
        record: Vec<u8>,
    },
    /// To `Reject` and `Revoke`: done.
    Done,
    /// No.
    Refused(Refusal),
}

impl ApprovalReply {
    /// The reply that carries `record`.
    ///
    /// # Errors
    /// When it has no JSON.
    pub fn job(record: &JobRecord) -> Result<Self, serde_json::Error> {
        Ok(Self::Job { record: serde_json::to_vec(record)? })
    }
}

impl Message for ApprovalReply {
    const KIND: u8 = 0x4c;
    const VERSION: u8 = 2;
    const MAX_SIZE_BYTES: usize = 4 * MAX_REQUEST_SIZE_BYTES;
}

// A whole manifest fits an answer.
const _: () = assert!(ApprovalReply::MAX_SIZE_BYTES > Manifest::MAX_SIZE_BYTES + 16);

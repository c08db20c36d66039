//! The owner's answers to waiting jobs: `duet.v1.approval.<wallet>`, signed with the key of the
//! device's card.

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

/// What the owner asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalAction {
    /// To list the waiting jobs.
    List,
    /// To sign a job now.
    Approve {
        /// The job.
        job: JobId,
    },
    /// To reject a job for good.
    Reject {
        /// The job.
        job: JobId,
    },
    /// To sign a request of the owner's own. The job is accepted as if submitted, and begins at
    /// once. The same request sent again is the same job. Once that job is done, the reply is
    /// [`ApprovalReply::Job`].
    Sign {
        /// The request, under the owner's request key.
        request: SignedRequest,
    },
    /// To read a job's record.
    Job {
        /// The job.
        job: JobId,
    },
    /// To reject a job for good, under the owner's signature. From then on the parties refuse its
    /// request from every sender.
    Revoke {
        /// The job.
        job: JobId,
        /// The signature with the owner's request key.
        proof: RevocationProof,
    },
}

/// A device's request about its wallet's jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// The wallet.
    pub wallet: WalletId,
    /// What the owner asks for.
    pub action: ApprovalAction,
    /// When it was made, in milliseconds since 1970. The orchestrator refuses it when it is older
    /// than [`MAX_APPROVAL_AGE_MS`].
    pub issued_at_ms: u64,
    /// Random, so that a request counts once.
    pub nonce: [u8; 16],
}

impl Message for ApprovalRequest {
    const KIND: u8 = 0x4a;
    const VERSION: u8 = 2;
    const MAX_SIZE_BYTES: usize = MAX_REQUEST_SIZE_BYTES + 512;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
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
    /// The bytes are not an approval.
    #[error("the approval does not parse: {0}")]
    Malformed(#[from] DecodeError),
    /// It was made too long ago, or lies in the future.
    #[error(
        "by the device's clock it signed the approval at a time that is {} the orchestrator's clock: the two \
         clocks differ, or the approval was held back; at most {} are allowed",
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

    /// Parses the request without verifying it, to learn which wallet's device key to fetch.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn unverified(&self) -> Result<ApprovalRequest, DecodeError> {
        codec::decode(&self.request)
    }

    /// Checks the signature against the Ed25519 key of the wallet's device card, and that it was
    /// made within [`MAX_APPROVAL_AGE_MS`] of `now_ms`. The caller ensures that a nonce counts
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
    /// The request as the requester signed it. The device checks and shows it.
    pub request: SignedRequest,
    /// When it was submitted, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// The orchestrator's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalReply {
    /// The answer to `List`: the oldest waiting jobs, as many as fit.
    Jobs {
        /// Oldest first.
        jobs: Vec<WaitingJob>,
        /// Whether there are more.
        more: bool,
    },
    /// The answer to `Approve` and `Sign`: the manifest's bytes. The responder has accepted; the
    /// device initiates.
    Session {
        /// The manifest.
        manifest: Vec<u8>,
    },
    /// The answer to `Job`, and to `Sign` for a job that is already over: its record in JSON, with
    /// the signature if there is one. See [`ApprovalReply::job`].
    Job {
        /// A [`JobRecord`].
        record: Vec<u8>,
    },
    /// The answer to `Reject` and `Revoke`: done.
    Done,
    /// The request is refused.
    Refused(Refusal),
}

impl ApprovalReply {
    /// The reply that contains `record`.
    ///
    /// # Errors
    /// When it does not serialise.
    pub fn job(record: &JobRecord) -> Result<Self, serde_json::Error> {
        Ok(Self::Job { record: serde_json::to_vec(record)? })
    }
}

impl Message for ApprovalReply {
    const KIND: u8 = 0x4c;
    const VERSION: u8 = 2;
    const MAX_SIZE_BYTES: usize = 4 * MAX_REQUEST_SIZE_BYTES;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

// A whole manifest fits an answer.
const _: () = assert!(ApprovalReply::MAX_SIZE_BYTES > Manifest::MAX_SIZE_BYTES + 16);

//! A finished job, signed by the orchestrator.

use alloy_primitives::Bytes;
use duet_protocol::ids::{SessionId, WalletId};
use serde::{Deserialize, Serialize};

use crate::{
    DerivationPath, JobId, RecoverableSignature, TenantId,
    encoding::{address, exact_text, hex_array, prefixed_array},
    signing::{self, Identity, Purpose},
};

/// The largest result document in bytes: a signed transaction in hexadecimal and its description.
pub const MAX_RESULT_SIZE_BYTES: usize = 512 * 1024;

/// The result of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// The job.
    pub job: JobId,
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The wallet.
    pub wallet: WalletId,
    /// Which of the wallet's keys signed.
    pub path: DerivationPath,
    /// That key's Ethereum address.
    #[serde(with = "address")]
    pub address: [u8; 20],
    /// What was signed.
    #[serde(with = "prefixed_array")]
    pub digest: [u8; 32],
    /// The signature. For a message or typed data, it is the first one made by the same key.
    pub signature: RecoverableSignature,
    /// The bytes to broadcast, for a transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_transaction: Option<Bytes>,
    /// The signed transaction's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_hash: Option<alloy_primitives::B256>,
    /// The session in which the parties decided and signed.
    pub session: SessionId,
    /// When the result was stored, in milliseconds since 1970.
    pub completed_at_ms: u64,
}

/// A result's exact bytes with the orchestrator's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedResult {
    /// The JSON of a [`JobResult`], byte for byte.
    #[serde(with = "exact_text")]
    pub body: Vec<u8>,
    /// The orchestrator's Ed25519 key.
    #[serde(with = "hex_array")]
    pub key: [u8; 32],
    /// Ed25519 over the tag `duet/v1/result` and the body.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

/// Why a result is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// The result exceeds its size limit.
    #[error("the result has {size} bytes, at most {MAX_RESULT_SIZE_BYTES} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The key is not the orchestrator's.
    #[error("the result is signed by another key than the orchestrator's")]
    AnotherKey,
    /// The signature does not verify.
    #[error("the result's signature does not verify")]
    BadSignature(#[from] signing::BadSignature),
    /// The body is not a result.
    #[error("the result does not parse: {0}")]
    Malformed(String),
}

impl SignedResult {
    /// Signs `result` with the orchestrator's key.
    ///
    /// # Errors
    /// When it is over its size limit.
    pub fn sign(result: &JobResult, key: &impl Identity) -> Result<Self, ResultError> {
        let body = serde_json::to_vec(result).map_err(|e| ResultError::Malformed(e.to_string()))?;
        if body.len() > MAX_RESULT_SIZE_BYTES {
            return Err(ResultError::TooLarge { size: body.len() });
        }
        let signature = signing::sign(Purpose::Result, &body, key);
        Ok(Self { body, key: key.verification_key(), signature })
    }

    /// Checks that the orchestrator whose key is `orchestrator` signed it, then parses it.
    ///
    /// # Errors
    /// See [`ResultError`].
    pub fn verify(&self, orchestrator: &[u8; 32]) -> Result<JobResult, ResultError> {
        if self.key != *orchestrator {
            return Err(ResultError::AnotherKey);
        }
        if self.body.len() > MAX_RESULT_SIZE_BYTES {
            return Err(ResultError::TooLarge { size: self.body.len() });
        }
        signing::verify(Purpose::Result, &self.body, &self.key, &self.signature)?;
        self.parse_unverified()
    }

    /// Parses the body without verifying it, for the orchestrator's own records.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn parse_unverified(&self) -> Result<JobResult, ResultError> {
        serde_json::from_slice(&self.body).map_err(|e| ResultError::Malformed(e.to_string()))
    }
}

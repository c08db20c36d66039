//! A signature that verified. Only verification makes these types, so that no other signature
//! becomes a job's result.

use duet_protocol::{ids::SessionId, public_key::PublicKey, signature};
use duet_wire::{
    JobResult, RecoverableSignature, Refusal, SignedResult, SigningRequest, result::ResultError,
    signing::Identity,
};

/// Why a signature is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotVerified {
    /// It does not verify.
    Invalid,
    /// It cannot be checked.
    Unchecked(Refusal),
}

/// A signature over a request's digest that verifies under the wallet's (child) key.
#[derive(Debug, Clone)]
pub struct Verified {
    key: PublicKey,
    digest: [u8; 32],
    signature: RecoverableSignature,
}

impl Verified {
    /// Verifies `signature` over the digest of `request` under `key`.
    ///
    /// # Errors
    /// When it does not verify, or the request has no digest.
    pub fn check(
        request: &SigningRequest,
        key: PublicKey,
        signature: RecoverableSignature,
    ) -> Result<Self, NotVerified> {
        let digest = request.payload.digest().map_err(|error| NotVerified::Unchecked(error.into()))?;
        signature::verify(&key, &digest, &signature).map_err(|_| NotVerified::Invalid)?;
        Ok(Self { key, digest, signature })
    }

    /// The signature.
    #[must_use]
    pub const fn signature(&self) -> &RecoverableSignature {
        &self.signature
    }

    /// The digest that is signed.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The result of the job with `request`, made in `session`, as the orchestrator with `key`
    /// states it.
    ///
    /// # Errors
    /// When the result is too large.
    pub fn seal(
        self,
        request: &SigningRequest,
        session: SessionId,
        completed_at_ms: u64,
        key: &impl Identity,
    ) -> Result<SealedResult, ResultError> {
        let Self { key: public_key, digest, signature } = self;
        let result = JobResult {
            job: request.job(),
            tenant: request.tenant.clone(),
            wallet: request.wallet,
            path: request.path.clone(),
            address: public_key.address(),
            digest,
            signature,
            signed_transaction: request.payload.signed_transaction(&signature).map(Into::into),
            transaction_hash: request.payload.transaction_hash(&signature).map(Into::into),
            session,
            completed_at_ms,
        };
        Ok(SealedResult { session, digest, result: SignedResult::sign(&result, key)? })
    }
}

/// A job's result with a signature that verified, signed by an orchestrator.
#[derive(Debug, Clone)]
pub struct SealedResult {
    session: SessionId,
    digest: [u8; 32],
    result: SignedResult,
}

impl SealedResult {
    pub(crate) const fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(crate) const fn result(&self) -> &SignedResult {
        &self.result
    }
}

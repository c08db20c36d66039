//! Signatures that verified. Only verification makes these types. So no other request becomes a
//! job, no other signature a job's result, and no other revocation ends a job.

use duet_protocol::{ids::SessionId, public_key::PublicKey, signature};
use duet_wire::{
    JobRecord, JobResult, RecoverableSignature, Refusal, SignedRequest, SignedResult, SigningRequest,
    request::RequestError,
    result::ResultError,
    revocation::RevocationProof,
    signing::{BadSignature, Identity},
};

use crate::store::JobKey;

/// A signing request whose signature verified.
#[derive(Debug, Clone)]
pub struct VerifiedRequest {
    signed: SignedRequest,
    request: SigningRequest,
    digest: [u8; 32],
}

impl VerifiedRequest {
    /// Verifies the signature, and reads the document.
    ///
    /// # Errors
    /// When it does not verify or parse.
    pub fn check(signed: &SignedRequest) -> Result<Self, RequestError> {
        let request = signed.verify()?;
        let digest = request.payload.digest()?;
        Ok(Self { signed: signed.clone(), request, digest })
    }

    /// The document, as it was signed.
    #[must_use]
    pub const fn signed(&self) -> &SignedRequest {
        &self.signed
    }

    /// The request.
    #[must_use]
    pub const fn request(&self) -> &SigningRequest {
        &self.request
    }

    /// The digest that is to be signed.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The job that its idempotency key names.
    #[must_use]
    pub fn job(&self) -> JobKey {
        JobKey { tenant: self.request.tenant.clone(), job: self.request.job() }
    }
}

/// A revocation of a job's request whose signature verified. It says nothing of whether its signer
/// may revoke the request.
#[derive(Debug, Clone)]
pub struct VerifiedRevocation {
    job: JobKey,
    content_hash: [u8; 32],
    proof: RevocationProof,
}

impl VerifiedRevocation {
    /// Verifies that `proof` revokes `request`, which `record` holds.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(
        record: &JobRecord,
        request: &SigningRequest,
        proof: RevocationProof,
    ) -> Result<Self, BadSignature> {
        let content_hash = record.request.content_hash();
        proof.verify(request.wallet, content_hash)?;
        Ok(Self { job: JobKey::of(record), content_hash, proof })
    }

    pub(crate) const fn job(&self) -> &JobKey {
        &self.job
    }

    pub(crate) const fn proof(&self) -> &RevocationProof {
        &self.proof
    }

    /// Whether it revokes the request in `record`. The job's key may have been used again.
    pub(crate) fn is_of(&self, record: &JobRecord) -> bool {
        record.request.content_hash() == self.content_hash
    }
}

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

//! Accepts submissions: verifies them, and has the core of the queue decide about them.

use std::sync::Arc;

use duet_bus::trace;
use duet_queue::{
    intake::{Manner, Rejected, Submission, Submitted},
    verified::VerifiedRequest,
};
use duet_wire::{
    Code, IdempotencyKey, Problem, SignedRequest, TenantId, audit::Refused, request::RequestError,
};
use sha2::{Digest as _, Sha256};

use crate::{actions::entry_key, orchestrator::Orchestrator};

impl Orchestrator {
    /// Accepts `signed` as a job of `tenant` under `key`, and announces it.
    pub(crate) async fn submit(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        signed: &SignedRequest,
        manner: Manner,
    ) -> Result<Submitted, Rejected> {
        let submitted = match self.read_submission(tenant, key, signed, manner) {
            Ok(submission) => self.attempts.submit(submission).await,
            Err(problem) => Err(problem.into()),
        };
        submitted.map_err(|rejected| self.refuse(tenant, signed, rejected))
    }

    /// Returns why a request that names no job of `tenant` is refused.
    pub(crate) async fn submit_unnamed(&self, tenant: &TenantId, signed: &SignedRequest) -> Rejected {
        let key = match signed.verify() {
            Err(error) => return self.slow_down(tenant, refused_document(signed, error).into()),
            Ok(request) => request.idempotency_key,
        };
        match self.submit(tenant, &key, signed, Manner::default()).await {
            Err(rejected) => rejected,
            Ok(_) => {
                let detail = "the orchestrator could not read the request at first; submit it again";
                Problem::new(Code::Internal, detail).into()
            }
        }
    }

    fn read_submission(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        signed: &SignedRequest,
        manner: Manner,
    ) -> Result<Submission, Problem> {
        let verified = VerifiedRequest::check(signed).map_err(|error| refused_document(signed, error))?;
        let submission = self.submission(tenant, verified, manner)?;
        if submission.request.request().idempotency_key != *key {
            let detail = "the Idempotency-Key header and the request's idempotency_key differ";
            return Err(Problem::new(Code::MalformedJson, detail).at("idempotency_key"));
        }
        Ok(submission)
    }

    /// A submission of `tenant`, in the trace of the caller.
    ///
    /// # Errors
    /// When the request names another tenant.
    pub(crate) fn submission(
        &self,
        tenant: &TenantId,
        request: VerifiedRequest,
        manner: Manner,
    ) -> Result<Submission, Problem> {
        if request.request().tenant != *tenant {
            let detail = "the request names another tenant than the token's";
            return Err(Problem::new(Code::WrongTenant, detail).at("tenant"));
        }
        let may_exist = self.board.state(&entry_key(&request.job())).is_some();
        Ok(Submission { request: Arc::new(request), manner, may_exist, trace: trace::current() })
    }

    /// Records that a request is refused. Returns the refusal to show the tenant.
    pub(crate) fn refuse(&self, tenant: &TenantId, signed: &SignedRequest, rejected: Rejected) -> Rejected {
        if let Rejected::Store(error) = &rejected {
            tracing::warn!(%error, "a job was not stored");
        }
        self.note_refused(Refused::request("job", signed, (&rejected).into()));
        self.slow_down(tenant, rejected)
    }

    /// The refusal to show the tenant. After too many bad signatures it says to slow down.
    fn slow_down(&self, tenant: &TenantId, rejected: Rejected) -> Rejected {
        match rejected {
            Rejected::Problem(problem)
                if problem.code == Code::BadSignature && self.tenants.bad_signature(tenant).is_err() =>
            {
                let detail = "too many requests with signatures that do not verify; slow down";
                Problem::new(Code::RateLimited, detail).into()
            }
            other => other,
        }
    }
}

/// Explains to the requester why its request is refused. For a signature that does not verify, it
/// shows every input that the caller can check itself.
fn refused_document(signed: &SignedRequest, error: RequestError) -> Problem {
    if error != RequestError::BadSignature {
        return error.into();
    }
    let (requester, size) = (hex::encode(signed.requester), signed.body.len());
    let sha256 = hex::encode(Sha256::digest(&signed.body));
    let detail = format!(
        "the signature (header Duet-Signature, in a batch `signature`) does not verify: expected Ed25519 by the key \
         {requester} (Duet-Requester, `requester`) over the line `duet/v1/signing-request`, a newline, and the body \
         as it arrived: {size} bytes with SHA-256 {sha256}. docs/signing.md has examples and vectors"
    );
    Problem::new(Code::BadSignature, detail)
}

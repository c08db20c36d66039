//! Accepts jobs: which submissions are refused at once, and when a job counts as accepted.

use duet_bus::{kv::Key, trace};
use duet_queue::plan::{self, Decision, Moment};
use duet_wire::{
    Code, IdempotencyKey, JobEvent, JobId, JobRecord, JobState, Priority, Problem, Refusal, SignedRequest,
    SigningRequest, TenantId, audit::Refused, request::RequestError, validity::TimeError,
};
use sha2::{Digest as _, Sha256};

use crate::{
    admission::Full,
    board::Snapshot,
    directory::{WalletFacts, unknown_wallet},
    jobs::{Changed, Created, request_of},
    orchestrator::Orchestrator,
};

/// How far ahead of this orchestrator's clock a request may be issued, in milliseconds: a day. A
/// request issued between half a minute and a day ahead waits until the parties' clocks reach it.
const MAX_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// Options that a submission states beside the request, without the requester's signature.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// How urgent the job is among its tenant's jobs.
    pub(crate) priority: Priority,
    /// Whether the transaction may be one that another job has signed or will sign.
    pub(crate) repeats_digest: bool,
}

/// The result of an accepted submission.
pub(crate) enum Submitted {
    /// The job is new, and accepted now.
    Accepted(Snapshot),
    /// The job was accepted before, with the same content.
    Known(Box<JobRecord>),
}

/// Why a submission is refused.
pub(crate) enum Rejected {
    /// The key belongs to another request of this tenant.
    Conflict(JobId),
    /// This job of the tenant has the same transaction.
    Duplicate(JobId),
    /// The queue is full.
    Full(Full),
    /// Any other reason.
    Problem(Problem),
}

impl From<Problem> for Rejected {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self::Problem(refusal.into())
    }
}

impl From<crate::jobs::StoreError> for Rejected {
    fn from(error: crate::jobs::StoreError) -> Self {
        tracing::warn!(%error, "a job was not stored");
        Problem::from(error).into()
    }
}

impl Orchestrator {
    /// Accepts `signed` as a job of `tenant` under `key`.
    ///
    /// The job is accepted once its entry has been created. From then on some orchestrator will
    /// process it, even if this one crashes. The announcement that follows is only a wake-up.
    pub(crate) async fn submit(
        &self,
        tenant: &TenantId,
        idempotency_key: &IdempotencyKey,
        signed: SignedRequest,
        manner: Manner,
    ) -> Result<Submitted, Rejected> {
        let submitted = self.accept(tenant, idempotency_key, signed, manner).await?;
        if let Submitted::Accepted(snapshot) = &submitted {
            self.announce_first(tenant, snapshot.value.id).await;
        }
        Ok(submitted)
    }

    /// Returns why a request that names no job of `tenant` is refused.
    pub(crate) async fn submit_unnamed(&self, tenant: &TenantId, signed: SignedRequest) -> Rejected {
        match signed.verify() {
            Err(error) => self.slowed(tenant, refused_document(&signed, error).into()),
            Ok(request) => {
                let key = request.idempotency_key.clone();
                match self.accept(tenant, &key, signed, Manner::default()).await {
                    Err(rejected) => rejected,
                    Ok(_) => Problem::new(
                        Code::Internal,
                        "the orchestrator could not read the request at first; submit it again",
                    )
                    .into(),
                }
            }
        }
    }

    /// Announces a job that was just accepted, to wake an orchestrator.
    pub(crate) async fn announce_first(&self, tenant: &TenantId, job: JobId) {
        if let Err(error) = self.announce(tenant, job, "0").await {
            tracing::warn!(%job, %error, "an accepted job was not announced; the sweeper will");
        }
    }

    /// Accepts a job without announcing it, for a caller that starts on the job at once.
    pub(crate) async fn accept(
        &self,
        tenant: &TenantId,
        idempotency_key: &IdempotencyKey,
        signed: SignedRequest,
        manner: Manner,
    ) -> Result<Submitted, Rejected> {
        let accepted = self.take_in(tenant, idempotency_key, &signed, manner).await;
        if let Err(rejected) = &accepted {
            self.note_refused(Refused::request("job", &signed, rejected.into()));
        }
        accepted.map_err(|rejected| self.slowed(tenant, rejected))
    }

    /// The refusal to show the tenant. After too many bad signatures it says to slow down.
    fn slowed(&self, tenant: &TenantId, rejected: Rejected) -> Rejected {
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

    async fn take_in(
        &self,
        tenant: &TenantId,
        idempotency_key: &IdempotencyKey,
        signed: &SignedRequest,
        manner: Manner,
    ) -> Result<Submitted, Rejected> {
        let request = signed.verify().map_err(|error| refused_document(signed, error))?;
        if request.tenant != *tenant {
            return Err(Problem::new(Code::WrongTenant, "the request names another tenant than the token's")
                .at("tenant")
                .into());
        }
        if request.idempotency_key != *idempotency_key {
            let detail = "the Idempotency-Key header and the request's idempotency_key differ";
            return Err(Problem::new(Code::MalformedJson, detail).at("idempotency_key").into());
        }
        // A repeated submission is answered from the record, even when it would be refused today.
        // The request may have expired since, or its requester may no longer be allowed. The record
        // is fetched first only where the board knows one. Otherwise creating it shows whether
        // there is one.
        let key = Key::from((tenant, request.job()));
        let repeated = async || -> Result<Option<Submitted>, Rejected> {
            let entry = self.jobs.get(&key).await?;
            entry.map(|entry| known(entry.value, signed, &request)).transpose()
        };
        if self.board.state(&key).is_some()
            && let Some(submitted) = repeated().await?
        {
            return Ok(submitted);
        }
        let checked = match self.check(tenant, signed, &request).await {
            // A job that repeats a transaction on purpose claims its digest only if no other job
            // has it.
            Ok(digest) => match self.claim_digest(&request, &digest).await? {
                Some(job) if !manner.repeats_digest => Err(Rejected::Duplicate(job)),
                _ => Ok(()),
            },
            Err(rejected) => Err(rejected),
        };
        if let Err(rejected) = checked {
            return repeated().await?.ok_or(rejected);
        }
        let mut record =
            JobRecord::new(signed.clone(), &request, self.clock.now_ms()).with_priority(manner.priority);
        record.trace = trace::current();
        match self.jobs.create(record).await? {
            Created::Existing(entry) => known(entry.value, signed, &request),
            Created::New(snapshot) => {
                tracing::info!(job = %snapshot.value.id, wallet = %request.wallet, "job accepted");
                self.note_accepted(&snapshot.value, &request);
                Ok(Submitted::Accepted(snapshot))
            }
        }
    }

    /// Refuses requests that could not get a signature, and those that find no room. The parties
    /// repeat these checks and make more. Returns the request's digest.
    async fn check(
        &self,
        tenant: &TenantId,
        signed: &SignedRequest,
        request: &SigningRequest,
    ) -> Result<[u8; 32], Rejected> {
        let now_ms = self.clock.now_ms();
        match request.require_current(now_ms) {
            Err(error @ TimeError::Ahead { by_ms }) => {
                tracing::warn!(ahead_ms = by_ms, "clocks differ: {error}");
                self.metrics.requester_skew(by_ms);
                if by_ms > MAX_AHEAD_MS {
                    return Err(Problem::from(Refusal::from(error)).at("issued_at").into());
                }
            }
            Err(error @ TimeError::Expired { .. }) => {
                // While the broker's nodes do not agree on the time, the request may be valid.
                self.clock.require_agreement()?;
                return Err(Problem::from(Refusal::from(error)).at("expires_at").into());
            }
            judged => {
                judged.map_err(|error| Problem::from(Refusal::from(error)).at("expires_at"))?;
            }
        }
        // Whether the request may be valid for so long depends on pair and policy; the parties
        // decide that.
        request
            .require_lifetime(now_ms, true)
            .map_err(|error| Problem::from(Refusal::from(error)).at("expires_at"))?;
        let digest =
            request.payload.digest().map_err(|error| Problem::from(Refusal::from(error)).at("payload"))?;
        let facts = self.directory.wallet_or_last_word(request.wallet).await;
        if self.check_wallet(signed, request, &facts).is_err() {
            // The obstacle may have been removed since the parties were last asked.
            let facts = self.directory.wallet_anew(request.wallet).await;
            self.check_wallet(signed, request, &facts)?;
        }
        self.broker.require().await?;
        self.admit(tenant).map_err(Rejected::Full)?;
        Ok(digest)
    }

    /// Checks the request against the wallet as its parties describe it.
    fn check_wallet(
        &self,
        signed: &SignedRequest,
        request: &SigningRequest,
        facts: &WalletFacts,
    ) -> Result<(), Rejected> {
        if facts.is_unknown() {
            return Err(Problem::from(unknown_wallet()).at("wallet").into());
        }
        if let Some(refusal) = facts.silence() {
            return Err(refusal.clone().into());
        }
        if !facts.belongs_to(&request.tenant) {
            // Another tenant may have the wallet; this tenant must not learn that.
            return Err(Problem::from(unknown_wallet()).at("wallet").into());
        }
        facts.allows(&signed.requester, request.payload.kind())?;
        facts.derivable(&request.path).map_err(|refusal| Problem::from(refusal).at("path"))?;
        let moment = Moment { now_ms: self.clock.now_ms(), jitter: 1.0 };
        match plan::decide(&request.pairs, &[], |pair| facts.terms(pair).map(drop), &self.queue, moment) {
            // A party that is unreachable or locked now may sign before the job expires.
            Decision::Try(..) | Decision::AwaitOwner(_) | Decision::Wait(_) => Ok(()),
            Decision::Fail(refusal) => Err(Problem::from(refusal).at("pairs").into()),
        }
    }

    /// Withdraws a job, unless it runs or is settled. A running session may already have made the
    /// signature, which cannot be revoked.
    pub(crate) async fn withdraw(&self, tenant: &TenantId, job: JobId) -> Result<Box<JobRecord>, Refusal> {
        let key = Key::from((tenant, job));
        let changed = self
            .jobs
            .change(&key, None, |record| {
                if matches!(record.state, JobState::Cancelled) {
                    return Err(Ok(Box::new(record.clone())));
                }
                record.apply(&JobEvent::Cancel, record.fence, self.clock.now_ms()).map_err(|_| {
                    Err(Refusal::new(
                        Code::Conflict,
                        format!("the job is {}; only one that waits can be cancelled", record.state.name()),
                    ))
                })
            })
            .await?;
        match changed {
            Changed::Applied(snapshot) => {
                tracing::info!(%job, "job cancelled");
                self.attempts.conclude(&snapshot).await;
                Ok(Box::new(snapshot.value.clone()))
            }
            Changed::Declined(result) => result,
            Changed::Missing => Err(Refusal::new(Code::NotFound, "there is no such job")),
        }
    }
}

impl Orchestrator {
    /// Claims the digest of a failed job again. Another job may have claimed it since.
    async fn claim_again(&self, key: &Key) -> Result<(), Refusal> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(()) };
        if !matches!(entry.value.state, JobState::Failed { .. }) {
            return Ok(());
        }
        let request = request_of(&entry.value)?;
        let digest = request.payload.digest().map_err(Refusal::from)?;
        match self.claim_digest(&request, &digest).await? {
            Some(other) => Err(duplicate(other)),
            None => Ok(()),
        }
    }

    /// Puts a dead letter back into the queue and keeps its past attempts. The caller asserts that
    /// the cause of the failure is repaired. A job that was already put back stays as it is.
    pub(crate) async fn put_back(&self, tenant: &TenantId, job: JobId) -> Result<Box<JobRecord>, Refusal> {
        self.broker.require().await?;
        self.admit(tenant).map_err(|full| Refusal::new(Code::QueueFull, full.detail))?;
        let key = Key::from((tenant, job));
        self.claim_again(&key).await?;
        let refuse = |code, why: &str| Err(Err(Refusal::new(code, why)));
        let changed = self
            .jobs
            .change(&key, None, |record| {
                let now_ms = self.clock.now_ms();
                match &record.state {
                    JobState::Failed { code: Code::RejectedByOwner, .. } => refuse(
                        Code::RejectedByOwner,
                        "the owner rejected the job; submit a new one to ask again",
                    ),
                    JobState::Failed { .. } if record.revocation.is_some() => {
                        refuse(Code::Cancelled, "the job's request was revoked; submit a new one")
                    }
                    JobState::Failed { .. } if self.clock.has_passed(record.expires_at_ms) => {
                        refuse(Code::JobExpired, "the job's request has expired; submit a new one")
                    }
                    JobState::Failed { .. } => {
                        let fence = record.fence;
                        record
                            .apply(&JobEvent::Requeue, fence, now_ms)
                            .map_err(|error| Err(Refusal::new(Code::Internal, error.to_string())))
                    }
                    open if record.put_back.is_some() && !open.is_final() => {
                        Err(Ok(Box::new(record.clone())))
                    }
                    other => Err(Err(Refusal::new(
                        Code::Conflict,
                        format!("the job is {}; only a dead letter can be put back", other.name()),
                    ))),
                }
            })
            .await?;
        let snapshot = match changed {
            Changed::Applied(snapshot) => snapshot,
            Changed::Declined(result) => return result,
            Changed::Missing => return Err(Refusal::new(Code::NotFound, "there is no such job")),
        };
        let record = &snapshot.value;
        tracing::info!(%job, attempts = record.attempts_started, "job put back");
        self.note_put_back(record);
        if let Ok(request) = request_of(record) {
            // The parties' answers from before the repair no longer count.
            self.directory.forget(request.wallet);
        }
        let wake_up = format!("back.{}", record.next_attempt_at_ms);
        if let Err(error) = self.announce(tenant, job, &wake_up).await {
            tracing::warn!(%job, %error, "a job that was put back was not announced; the sweeper will");
        }
        Ok(Box::new(record.clone()))
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

/// The refusal of a transaction that the job `of` already has.
pub(crate) fn duplicate(of: JobId) -> Refusal {
    let message = format!(
        "job {of} has the same transaction; follow that job, or submit with Duet-Repeat-Digest: true (in a batch \
         repeat_digest, on the command line --repeat-digest) if this one is meant as well"
    );
    Refusal::new(Code::DuplicateDigest, message)
}

/// Whether the job under the key is the one submitted now.
fn known(record: JobRecord, signed: &SignedRequest, request: &SigningRequest) -> Result<Submitted, Rejected> {
    if same_content(&record, signed, request) {
        Ok(Submitted::Known(Box::new(record)))
    } else {
        Err(Rejected::Conflict(record.id))
    }
}

/// Whether two submissions have the same content: the same document by the same requester, or one
/// that differs only in its times of issue and expiry. A client that submits again after an unclear
/// answer may draw up the request anew.
fn same_content(record: &JobRecord, signed: &SignedRequest, request: &SigningRequest) -> bool {
    if record.request.content_hash() == signed.content_hash() {
        return true;
    }
    record.request.requester == signed.requester
        && SigningRequest::from_json(&record.request.body).is_ok_and(|first| {
            let SigningRequest { version, issued_at, expires_at, .. } = *request;
            SigningRequest { version, issued_at, expires_at, ..first } == *request
        })
}

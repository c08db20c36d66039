//! Submissions and the facts that decide about them, and why a job is not changed as asked.

use std::sync::Arc;

use duet_protocol::{ids::PartyId, transcript};
use duet_wire::{Code, JobId, Priority, Problem, Refusal, SigningRequest, TenantId};

use crate::{
    plan::{self, Decision, Moment},
    room::Full,
    settings::QueueSettings,
    store::{StoreFailure, Version},
    terms::PairTerms,
    verified::VerifiedRequest,
};

/// Options that a submission states beside the request, without the requester's signature.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// How urgent the job is among its tenant's jobs.
    pub priority: Priority,
    /// Whether the transaction may be one that another job has signed or will sign.
    pub repeats_digest: bool,
}

/// A request that its requester submits, or the wallet's owner.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The request.
    pub request: Arc<VerifiedRequest>,
    /// Its options.
    pub manner: Manner,
    /// Whether the process knows a job under the request's key, so that it is looked for first.
    pub may_exist: bool,
    /// The trace in which it is submitted, as a `traceparent`.
    pub trace: Option<String>,
}

/// The result of an accepted submission.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// The job is new, and accepted now.
    Accepted(Version),
    /// The job was accepted before, with the same content.
    Known(Version),
}

/// Why a submission is refused.
#[derive(Debug, Clone)]
pub enum Rejected {
    /// The key belongs to another request of this tenant.
    Conflict(JobId),
    /// This job of the tenant has the same transaction.
    Duplicate(JobId),
    /// The queue is full.
    Full(Full),
    /// The store failed.
    Store(StoreFailure),
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

impl From<StoreFailure> for Rejected {
    fn from(failure: StoreFailure) -> Self {
        Self::Store(failure)
    }
}

impl From<&Rejected> for Refusal {
    fn from(rejected: &Rejected) -> Self {
        match rejected {
            Rejected::Conflict(job) => Self::new(
                Code::Conflict,
                format!("the idempotency key stands for another request, job {job}"),
            ),
            Rejected::Duplicate(job) => duplicate(*job),
            Rejected::Full(full) => Self::new(Code::QueueFull, full.detail.clone()),
            Rejected::Store(failure) => failure.clone().into(),
            Rejected::Problem(problem) => {
                let message = match &problem.path {
                    Some(path) => format!("{path}: {}", problem.detail),
                    None => problem.detail.clone(),
                };
                Self::new(problem.code, message)
            }
        }
    }
}

/// Why a job is not changed as asked.
#[derive(Debug, Clone)]
pub enum Denied {
    /// For this reason.
    Refused(Refusal),
    /// The queue is full.
    Full(Full),
    /// The store failed.
    Store(StoreFailure),
}

impl Denied {
    /// The refusal `code` with an explanation.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    /// There is no such job.
    pub(crate) fn missing() -> Self {
        Self::new(Code::NotFound, "there is no such job")
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreFailure> for Denied {
    fn from(failure: StoreFailure) -> Self {
        Self::Store(failure)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => refusal,
            Denied::Full(full) => Self::new(Code::QueueFull, full.detail),
            Denied::Store(failure) => failure.into(),
        }
    }
}

/// The refusal of a transaction that the job `of` already has.
#[must_use]
pub fn duplicate(of: JobId) -> Refusal {
    let message = format!(
        "job {of} has the same transaction; follow that job, or submit with Duet-Repeat-Digest: true (in a batch \
         repeat_digest, on the command line --repeat-digest) if this one is meant as well"
    );
    Refusal::new(Code::DuplicateDigest, message)
}

/// The refusal when no party has the wallet, or another tenant owns it. This tenant must not learn
/// that.
#[must_use]
pub fn unknown_wallet() -> Refusal {
    Refusal::new(Code::UnknownWallet, "none of the parties here has this wallet")
}

/// What a wallet's parties say that concerns one request.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Whether every party that answered says that it has no such wallet.
    pub is_unknown: bool,
    /// Why it is unknown whether the wallet exists; `None` when it is known.
    pub silence: Option<Refusal>,
    /// Whether the wallet is the tenant's.
    pub is_tenants: bool,
    /// Whether the requester may request signatures over such a payload.
    pub permission: Result<(), Refusal>,
    /// Whether the wallet has the key that the request names.
    pub path: Result<(), Refusal>,
    /// Which pairs can sign.
    pub terms: PairTerms,
}

impl Standing {
    /// The parties were not asked in time.
    pub(crate) fn unanswered() -> Self {
        let away = || Refusal::new(Code::PartyAway, "the wallet's parties gave no answer in time");
        Self {
            is_unknown: false,
            silence: Some(away()),
            is_tenants: false,
            permission: Err(away()),
            path: Err(away()),
            terms: PairTerms::default(),
        }
    }

    /// Refuses a request that could not get a signature from the wallet.
    pub(crate) fn judge(
        &self,
        request: &SigningRequest,
        queue: &QueueSettings,
        now_ms: u64,
    ) -> Result<(), Problem> {
        if self.is_unknown {
            return Err(Problem::from(unknown_wallet()).at("wallet"));
        }
        if let Some(refusal) = &self.silence {
            return Err(refusal.clone().into());
        }
        if !self.is_tenants {
            return Err(Problem::from(unknown_wallet()).at("wallet"));
        }
        self.permission.clone()?;
        self.path.clone().map_err(|refusal| Problem::from(refusal).at("path"))?;
        let usable = |pair| self.terms.of(pair).map(drop);
        match plan::decide(&request.pairs, &[], usable, queue, Moment { now_ms, jitter: 1.0 }) {
            // A party that is unreachable or locked now may sign before the job expires.
            Decision::Try(..) | Decision::AwaitOwner(_) | Decision::Wait(_) => Ok(()),
            Decision::Fail(refusal) => Err(Problem::from(refusal).at("pairs")),
        }
    }
}

/// Names the entry for a digest under the wallet's key that a request names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DigestKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The hash of wallet, path and digest.
    pub of_key: [u8; 32],
}

impl DigestKey {
    /// The entry for `digest` under the key that `request` names.
    #[must_use]
    pub fn new(request: &SigningRequest, digest: &[u8; 32]) -> Self {
        let of_key = transcript::hash("digest-of-key", &(request.wallet, &request.path, digest));
        Self { tenant: request.tenant.clone(), of_key }
    }
}

/// The job that has a transaction's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: JobId,
    /// When it claimed the digest, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Who may revoke a request of a wallet, and who has to hear of it.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    /// The key of the wallet's owner, if a party names it.
    pub owner: Option<[u8; 32]>,
    /// The parties that hold shares. While no party has named them, all parties.
    pub parties: Vec<PartyId>,
}

/// A party's answer to a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The party has stored it.
    Kept,
    /// The party refuses it.
    Refused(Refusal),
    /// There is no answer.
    Silence,
}

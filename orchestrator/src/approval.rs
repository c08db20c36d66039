//! Handles the owner's answers to waiting jobs: `duet.v1.approval.<wallet>`, signed with the key of
//! the device's card.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use duet_bus::{Address, Incoming};
use duet_protocol::{
    codec::{self, Message as _},
    ids::WalletId,
};
use duet_queue::{
    actions::{Begun, NotBegun},
    intake::{Manner, unknown_wallet},
    store::JobKey,
    verified::VerifiedRequest,
};
use duet_wire::{
    Code, JobId, JobRecord, JobState, Refusal, SignedRequest,
    approval::{
        ApprovalAction, ApprovalError, ApprovalReply, ApprovalRequest, MAX_APPROVAL_AGE_MS, SignedApproval,
        WaitingJob,
    },
    audit::Refused,
    gateway::{WaitingAnswer, WaitingQuestion},
    request::MAX_REQUEST_SIZE_BYTES,
};
use tracing::Instrument as _;

use crate::{
    actions::entry_key, board::key_of, jobs::request_of, orchestrator::Orchestrator,
    wallet_facts::WalletFacts,
};

/// How many requests are handled at once. An approval takes as long as an invitation.
pub(crate) const CONCURRENCY: usize = 32;

/// How many waiting jobs one answer contains at most.
const MAX_JOBS_PER_ANSWER: usize = 32;

/// How many bytes of requests one answer contains at most. With its other fields the answer stays
/// below the largest message.
const MAX_REQUEST_BYTES_PER_ANSWER: usize = 3 * MAX_REQUEST_SIZE_BYTES;

/// How many nonces are remembered. Within the minute of a request's validity no honest set of
/// devices sends as many. When it is full of fresh ones, further requests are refused.
const MAX_NONCES: usize = 65_536;

/// The nonces of recently accepted requests. Each orchestrator remembers its own. A request
/// replayed to another orchestrator finds the job in a state that allows no more than its owner
/// requested.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<HashMap<[u8; 16], u64>>);

impl Nonces {
    /// Remembers `nonce`. Returns whether it is new.
    fn take(&self, nonce: [u8; 16], now_ms: u64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_NONCES {
            // A request is valid for up to a minute before and after the time it states.
            seen.retain(|_, taken_at_ms| now_ms.saturating_sub(*taken_at_ms) <= 2 * MAX_APPROVAL_AGE_MS);
        }
        seen.len() < MAX_NONCES && seen.insert(nonce, now_ms).is_none()
    }
}

impl Orchestrator {
    /// Handles one request of a device.
    pub(crate) async fn take_approval(&self, incoming: Incoming) {
        let Address::Approval(wallet) = incoming.address else { return };
        let span = tracing::info_span!("approval", %wallet);
        incoming.continue_trace(&span);
        async {
            let encoded = if incoming.payload.first() == Some(&WaitingQuestion::KIND) {
                // A gateway asks for a number. The answer contains nothing else, so the question is
                // not signed.
                match codec::decode::<WaitingQuestion>(&incoming.payload) {
                    Ok(question) if question.wallet == wallet => {
                        codec::encode(&WaitingAnswer { wallet, jobs: self.board.waiting(wallet) })
                    }
                    _ => return,
                }
            } else {
                let answer = self.answer_owner(wallet, &incoming.payload).await;
                let reply = answer.unwrap_or_else(|refusal| {
                    tracing::info!(code = %refusal.code, message = refusal.message, "owner's request refused");
                    let refused = Refused::new("approval", refusal.clone());
                    self.note_refused(Refused { wallet: Some(wallet), ..refused });
                    ApprovalReply::Refused(refusal)
                });
                codec::encode(&reply)
            };
            match encoded {
                Ok(reply) => {
                    if let Err(error) = incoming.respond(Bytes::from(reply)).await {
                        tracing::debug!(%error, "the device was not answered");
                    }
                }
                Err(error) => tracing::error!(%error, "an answer to a device does not encode"),
            }
        }
        .instrument(span)
        .await;
    }

    async fn answer_owner(&self, wallet: WalletId, payload: &[u8]) -> Result<ApprovalReply, Refusal> {
        let malformed = |error: &dyn core::fmt::Display| {
            Refusal::new(Code::MalformedMessage, format!("the request does not parse: {error}"))
        };
        let signed: SignedApproval = codec::decode(payload).map_err(|error| malformed(&error))?;
        let claimed = signed.unverified().map_err(|error| malformed(&error))?;
        if claimed.wallet != wallet {
            return Err(Refusal::new(Code::MalformedMessage, "the request is about another wallet"));
        }
        let facts = self.directory.wallet(wallet).await;
        if let Some(refusal) = facts.silence() {
            return Err(refusal.clone());
        }
        let request = authenticate(&signed, &facts, self.clock.now_ms())?;
        if !self.nonces.take(request.nonce, self.clock.now_ms()) {
            return Err(Refusal::new(
                Code::Conflict,
                "the device has sent this request before; sign a new one",
            ));
        }
        match request.action {
            ApprovalAction::List => self.waiting_jobs(wallet).await,
            ApprovalAction::Approve { job } => {
                begun(self.attempts.approve(job_key(&facts, job)?, wallet).await)
            }
            ApprovalAction::Reject { job } => {
                self.attempts.reject(job_key(&facts, job)?, wallet).await?;
                tracing::info!(%job, "rejected by the owner");
                Ok(ApprovalReply::Done)
            }
            ApprovalAction::Revoke { job, proof } => {
                self.revoke(&job_key(&facts, job)?, Some(wallet), proof).await?;
                Ok(ApprovalReply::Done)
            }
            ApprovalAction::Sign { request } => self.sign(wallet, &facts, request).await,
            ApprovalAction::Job { job } => job_reply(&self.job_of(wallet, &facts, job).await?),
        }
    }

    async fn waiting_jobs(&self, wallet: WalletId) -> Result<ApprovalReply, Refusal> {
        if self.board.waiting(wallet) == 0 {
            // Every device asks now and then. The count of waiting jobs answers most without a
            // search.
            return Ok(ApprovalReply::Jobs { jobs: Vec::new(), more: false });
        }
        let mut waiting = self.board.select(|job| job.waits_for == Some(wallet));
        waiting.sort_unstable_by_key(|job| (job.created_at_ms, job.job));
        let (mut jobs, mut bytes, mut more) = (Vec::new(), 0, false);
        for summary in waiting {
            let Some(entry) = self.jobs.get(&key_of(&summary)).await? else { continue };
            let record = entry.value;
            if !matches!(record.state, JobState::AwaitingOwner) {
                continue;
            }
            bytes += record.request.body.len();
            if jobs.len() == MAX_JOBS_PER_ANSWER || bytes > MAX_REQUEST_BYTES_PER_ANSWER {
                more = true;
                break;
            }
            jobs.push(WaitingJob {
                job: record.id,
                request: record.request,
                created_at_ms: record.created_at_ms,
            });
        }
        Ok(ApprovalReply::Jobs { jobs, more })
    }

    /// A job of this wallet.
    async fn job_of(&self, wallet: WalletId, facts: &WalletFacts, job: JobId) -> Result<JobRecord, Refusal> {
        let no_job = || Refusal::new(Code::NotFound, "there is no such job for this wallet");
        let entry = self.jobs.get(&entry_key(&job_key(facts, job)?)).await?.ok_or_else(no_job)?;
        if request_of(&entry.value)?.wallet != wallet {
            return Err(no_job());
        }
        Ok(entry.value)
    }

    /// Accepts the owner's own job, and starts the session in which the device signs it.
    async fn sign(
        &self,
        wallet: WalletId,
        facts: &WalletFacts,
        signed: SignedRequest,
    ) -> Result<ApprovalReply, Refusal> {
        let verified = VerifiedRequest::check(&signed).map_err(Refusal::from)?;
        if verified.request().wallet != wallet {
            return Err(Refusal::new(Code::MalformedMessage, "the request is about another wallet"));
        }
        let tenant = facts.tenant().ok_or_else(unknown_wallet)?;
        // The owner has just seen the transaction and approved it on the device.
        let meant = Manner { repeats_digest: true, ..Manner::default() };
        let answer = match self.submission(tenant, verified, meant) {
            Ok(submission) => self.attempts.submit_for_owner(submission).await,
            Err(problem) => Err(NotBegun::Rejected(problem.into())),
        };
        begun(answer.map_err(|error| match error {
            NotBegun::Rejected(rejected) => NotBegun::Rejected(self.refuse(tenant, &signed, rejected)),
            error => error,
        }))
    }
}

/// The key of a job of this wallet.
fn job_key(facts: &WalletFacts, job: JobId) -> Result<JobKey, Refusal> {
    let tenant = facts.tenant().ok_or_else(unknown_wallet)?.clone();
    Ok(JobKey { tenant, job })
}

/// The reply that contains the device's session: its manifest is the device's own invitation.
fn begun(begun: Result<Begun, NotBegun>) -> Result<ApprovalReply, Refusal> {
    match begun {
        Ok(Begun::Session(manifest)) => Ok(ApprovalReply::Session { manifest }),
        Ok(Begun::Known(record)) => job_reply(&record),
        Err(NotBegun::Refused(refusal)) => Err(refusal),
        Err(NotBegun::Rejected(rejected)) => Err((&rejected).into()),
        Err(NotBegun::Moved) => Err(Refusal::new(Code::Conflict, "the job has changed; look at it again")),
        Err(NotBegun::Store(failure)) => Err(failure.into()),
        Err(NotBegun::Internal(reason)) => {
            tracing::error!(reason, "the orchestrator cannot set up a session");
            Err(Refusal::new(Code::Internal, "the orchestrator could not set up the session"))
        }
    }
}

/// The reply that contains `record`.
fn job_reply(record: &JobRecord) -> Result<ApprovalReply, Refusal> {
    ApprovalReply::job(record).map_err(|error| {
        tracing::error!(%error, "a job does not serialise");
        Refusal::new(Code::Internal, "the job cannot be shown")
    })
}

/// The request, if it is signed under a device card that one of the wallet's parties names. A party
/// that names another card gains no signature: the device itself has to take part.
fn authenticate(
    signed: &SignedApproval,
    facts: &WalletFacts,
    now_ms: u64,
) -> Result<ApprovalRequest, Refusal> {
    let keys = facts.device_keys();
    if keys.is_empty() {
        return Err(unknown_wallet());
    }
    let mut reason = None;
    for key in keys {
        match signed.verify(&key, now_ms) {
            Ok(request) => return Ok(request),
            Err(error @ ApprovalError::NotFresh { issued_at_ms, now_ms }) => {
                tracing::warn!(device_ms = issued_at_ms, orchestrator_ms = now_ms, "clocks differ");
                reason = Some(Refusal::new(Code::ClockDiffers, error.to_string()));
            }
            Err(error) => {
                reason.get_or_insert_with(|| Refusal::new(Code::BadSignature, error.to_string()));
            }
        }
    }
    Err(reason.unwrap_or_else(unknown_wallet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_once() {
        let nonces = Nonces::default();
        assert!(nonces.take([1; 16], 5));
        assert!(!nonces.take([1; 16], 6));
        assert!(nonces.take([2; 16], 6));
    }
}

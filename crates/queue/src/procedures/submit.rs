//! Accepts jobs: which submissions are refused at once, and when a job counts as accepted.

use std::sync::Arc;

use duet_wire::{JobRecord, Problem, Refusal, SigningRequest, validity::TimeError};

use super::{change::MAX_CONFLICTS, claim::claim_digest, hand::Hand};
use crate::{
    actions::{Note, Outcome, What},
    intake::{Rejected, Standing, Submission, Submitted},
    store::{JobKey, StoreFailure, Version, Written},
    verified::VerifiedRequest,
};

/// How far ahead of this orchestrator's clock a request may be issued, in milliseconds: a day. A
/// request issued between half a minute and a day ahead waits until the parties' clocks reach it.
const MAX_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// Accepts a request as a job.
///
/// The job is accepted once its entry has been created. From then on some orchestrator will process
/// it, even if this one crashes. The announcement that follows is only a wake-up.
pub(super) async fn submit(hand: &Hand, submission: &Submission) -> Result<Submitted, Rejected> {
    let submitted = accept(hand, submission).await?;
    if let Submitted::Accepted(version) = &submitted {
        announce_first(hand, &JobKey::of(&version.record)).await;
    }
    Ok(submitted)
}

/// Announces a job that was just accepted, to wake an orchestrator.
pub(super) async fn announce_first(hand: &Hand, job: &JobKey) {
    if !hand.announce(job, "0".to_owned()).await {
        let job = job.job;
        hand.note(Note::Trouble(format!("accepted job {job} was not announced; the sweeper will")));
    }
}

/// Accepts a job without announcing it, for a caller that starts on the job at once.
pub(super) async fn accept(hand: &Hand, submission: &Submission) -> Result<Submitted, Rejected> {
    // A repeated submission is answered from the record, even when it would be refused today. The
    // request may have expired since, or its requester may no longer be allowed. The record is
    // fetched first only where the process knows one. Otherwise creating it shows whether there is
    // one.
    let request = &submission.request;
    if submission.may_exist
        && let Some(submitted) = find(hand, request).await?
    {
        return Ok(submitted);
    }
    match check(hand, submission).await {
        Ok(()) => create(hand, submission).await,
        Err(rejected) => find(hand, request).await?.ok_or(rejected),
    }
}

/// The job under the request's key, if it is the one submitted now.
async fn find(hand: &Hand, request: &VerifiedRequest) -> Result<Option<Submitted>, Rejected> {
    let version = hand.read(&request.job(), false).await?;
    version.map(|version| known(version, request)).transpose()
}

fn known(version: Version, request: &VerifiedRequest) -> Result<Submitted, Rejected> {
    if is_same(&version.record, request) {
        Ok(Submitted::Known(version))
    } else {
        Err(Rejected::Conflict(version.record.id))
    }
}

/// Whether two submissions have the same content: the same document by the same requester, or one
/// that differs only in its times of issue and expiry. A client that submits again after an unclear
/// answer may draw up the request anew.
fn is_same(record: &JobRecord, submitted: &VerifiedRequest) -> bool {
    let (signed, request) = (submitted.signed(), submitted.request());
    if record.request.content_hash() == signed.content_hash() {
        return true;
    }
    record.request.requester == signed.requester
        && SigningRequest::from_json(&record.request.body).is_ok_and(|first| {
            let SigningRequest { version, issued_at, expires_at, .. } = *request;
            SigningRequest { version, issued_at, expires_at, ..first } == *request
        })
}

/// Refuses requests that could not get a signature, and those that find no room. The parties repeat
/// these checks and make more.
async fn check(hand: &Hand, submission: &Submission) -> Result<(), Rejected> {
    let (verified, request) = (&submission.request, submission.request.request());
    check_times(hand, request)?;
    let judge = |standing: Standing| standing.judge(request, &hand.queue, hand.now_ms());
    if judge(ask_standing(hand, verified, false).await).is_err() {
        // The obstacle may have been removed since the parties were last asked.
        judge(ask_standing(hand, verified, true).await)?;
    }
    hand.require_broker().await?;
    hand.admit(&request.tenant).await.map_err(Rejected::Full)?;
    match claim_digest(hand, request, verified.digest()).await? {
        // A job that repeats a transaction on purpose claims its digest only if no other job has
        // it.
        Some(job) if !submission.manner.repeats_digest => Err(Rejected::Duplicate(job)),
        _ => Ok(()),
    }
}

fn check_times(hand: &Hand, request: &SigningRequest) -> Result<(), Rejected> {
    let at = |error: TimeError, path| Problem::from(Refusal::from(error)).at(path);
    let now_ms = hand.now_ms();
    match request.require_current(now_ms) {
        Err(error @ TimeError::Ahead { by_ms }) => {
            hand.note(Note::RequesterAhead(by_ms));
            if by_ms > MAX_AHEAD_MS {
                return Err(at(error, "issued_at").into());
            }
        }
        Err(error @ TimeError::Expired { .. }) => {
            // While the broker's nodes do not agree on the time, the request may be valid.
            return Err(hand.dispute().map_or_else(|| at(error, "expires_at").into(), Rejected::from));
        }
        judged => judged.map_err(|error| at(error, "expires_at"))?,
    }
    // Whether the request may be valid for so long depends on pair and policy; the parties decide
    // that.
    Ok(request.require_lifetime(now_ms, true).map_err(|error| at(error, "expires_at"))?)
}

async fn ask_standing(hand: &Hand, request: &Arc<VerifiedRequest>, anew: bool) -> Standing {
    match hand.act(What::AskStanding { request: Arc::clone(request), anew }).await {
        Outcome::Standing(standing) => standing,
        _ => Standing::unanswered(),
    }
}

/// Stores the job. This is its acceptance.
async fn create(hand: &Hand, submission: &Submission) -> Result<Submitted, Rejected> {
    let request = &submission.request;
    let mut record = JobRecord::new(request.signed().clone(), request.request(), hand.now_ms())
        .with_priority(submission.manner.priority);
    record.trace.clone_from(&submission.trace);
    let record = Arc::new(record);
    for _ in 0..MAX_CONFLICTS {
        match hand.create(Arc::clone(&record)).await {
            Written::Stored(revision) => {
                hand.note(Note::Accepted(Arc::clone(&record), Arc::clone(request)));
                return Ok(Submitted::Accepted(Version { record, revision }));
            }
            Written::Conflict => {}
            Written::Failed(failure) => return Err(failure.into()),
        }
        if let Some(submitted) = find(hand, request).await? {
            return Ok(submitted);
        }
    }
    Err(StoreFailure::Contended.into())
}

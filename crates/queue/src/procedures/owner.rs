//! The owner's decisions: to sign a job on the device, or to reject it.

use std::sync::Arc;

use duet_protocol::ids::{ShareIndex, WalletId};
use duet_wire::{Code, JobEvent, JobRecord, JobState, Pair, Refusal, progress::Step};

use super::{
    change::{Changed, change},
    hand::Hand,
    session::{self, NotStarted},
    settle::{conclude, end_attempt},
    submit::{accept, announce_first},
};
use crate::{
    actions::{Answers, Begun, NotBegun, What},
    failure::past_attempts,
    intake::{Denied, Submission, Submitted},
    plan::{self, Decision, Moment},
    store::{JobKey, StoreFailure, Version, request_of},
};

impl From<StoreFailure> for NotBegun {
    fn from(failure: StoreFailure) -> Self {
        Self::Store(failure)
    }
}

impl From<Refusal> for NotBegun {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn no_job() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such job for this wallet")
}

/// Accepts the owner's own job, as if it had been submitted, and starts the session in which the
/// device signs it. The job is announced to the queue only if that fails, because no other
/// orchestrator should process it.
///
/// A device that got no answer sends its request again. While the job waits, the device gets a
/// session; otherwise it gets the record.
pub(super) async fn submit(hand: &Hand, submission: &Submission) -> Result<Begun, NotBegun> {
    let is_the_devices = |pair: &Pair| pair.initiator() == ShareIndex::Device;
    if !submission.request.request().pairs.iter().any(is_the_devices) {
        let message = "the request allows no pair with the device in it";
        return Err(Refusal::new(Code::NoPairAvailable, message).into());
    }
    match accept(hand, submission).await.map_err(NotBegun::Rejected)? {
        Submitted::Accepted(version) => {
            let job = JobKey::of(&version.record);
            let begun = begin(hand, version).await;
            if begun.is_err() {
                announce_first(hand, &job).await;
            }
            begun
        }
        Submitted::Known(version) => match version.record.state {
            JobState::AwaitingOwner | JobState::Queued => begin(hand, version).await,
            _ => Ok(Begun::Known(version.record)),
        },
    }
}

/// Starts the session in which the device signs a job that waits.
pub(super) async fn approve(hand: &Hand, job: &JobKey, wallet: WalletId) -> Result<Begun, NotBegun> {
    let version = hand.read(job, false).await?.ok_or_else(no_job)?;
    if request_of(&version.record)?.wallet != wallet {
        return Err(no_job().into());
    }
    match &version.record.state {
        // A device that approves its own job at once may be quicker than the queue.
        JobState::AwaitingOwner | JobState::Queued => begin(hand, version).await,
        JobState::Expired => Err(Refusal::new(Code::JobExpired, "the job has expired").into()),
        JobState::Cancelled => Err(Refusal::new(Code::Cancelled, "the job was cancelled").into()),
        other => Err(Refusal::new(Code::Conflict, format!("the job is {}", other.name())).into()),
    }
}

/// Ends a job that waits for its owner.
pub(super) async fn reject(hand: &Hand, job: &JobKey, wallet: WalletId) -> Result<Arc<JobRecord>, Denied> {
    let changed = change(hand, job, None, |record| {
        if !request_of(record).is_ok_and(|request| request.wallet == wallet) {
            return Err(no_job());
        }
        let rejected = record.apply(&JobEvent::Reject, record.fence, hand.now_ms());
        rejected.map_err(|error| Refusal::new(Code::Conflict, error.to_string()))
    });
    match changed.await? {
        Changed::Applied(version) => {
            conclude(hand, &version).await;
            Ok(version.record)
        }
        Changed::Declined(refusal) => Err(refusal.into()),
        Changed::Missing => Err(no_job().into()),
    }
}

/// Starts a session with the device in it and invites the responder. Returns the manifest, which is
/// the device's own invitation.
async fn begin(hand: &Hand, version: Version) -> Result<Begun, NotBegun> {
    if hand.has_passed(version.record.expires_at_ms) {
        return Err(Refusal::new(Code::JobExpired, "the job has expired").into());
    }
    hand.require_broker().await?;
    let job = JobKey::of(&version.record);
    let request = Arc::new(request_of(&version.record)?);
    // The owner waits. A party that was silent a moment ago may be back.
    let terms = hand.ask_parties(request.wallet, Answers::Last).await;
    let with_device: Vec<Pair> =
        request.pairs.iter().copied().filter(|pair| pair.initiator() == ShareIndex::Device).collect();
    let past = past_attempts(&version.record);
    let usable = |pair: Pair| terms.of(pair).map(drop);
    let moment = Moment { now_ms: hand.now_ms(), jitter: 1.0 };
    let pair = match plan::decide(&with_device, &past, usable, &hand.queue, moment) {
        Decision::Try(pair, _) | Decision::AwaitOwner(pair) => pair,
        Decision::Wait(refusal) | Decision::Fail(refusal) => return Err(refusal.into()),
    };
    let terms = terms.of(pair)?.clone();
    // The owner waits, so no seat is left to other orchestrators.
    let place = hand.take(&terms.responder.party, request.wallet, true).map_err(Refusal::from)?;
    let started = match session::start(hand, &job, version, &request, pair, terms).await {
        Ok(started) => started,
        Err(NotStarted::Moved) => return Err(NotBegun::Moved),
        Err(NotStarted::Store(failure)) => return Err(failure.into()),
        Err(NotStarted::Internal(reason)) => return Err(NotBegun::Internal(reason)),
    };
    if let Err(failure) = session::invite(hand, &started, &started.responder, place).await {
        let refusal = failure.refusal.clone();
        end_attempt(hand, &job, started.session, failure).await?;
        return Err(refusal.into());
    }
    hand.act(What::Show(started.session, Step::Running)).await;
    Ok(Begun::Session(started.manifest))
}

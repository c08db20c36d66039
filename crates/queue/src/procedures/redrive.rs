//! Puts dead letters back into the queue.

use std::sync::Arc;

use duet_wire::{Code, JobEvent, JobRecord, JobState};

use super::{
    change::{Changed, MAX_CONFLICTS, change},
    claim::claim_digest,
    hand::Hand,
};
use crate::{
    actions::{Note, What},
    intake::{Denied, duplicate},
    store::{JobKey, StoreFailure, request_of},
};

/// Puts a dead letter back into the queue and keeps its past attempts. The caller asserts that the
/// cause of the failure is repaired. A job that was already put back stays as it is.
pub(super) async fn put_back(hand: &Hand, job: &JobKey) -> Result<Arc<JobRecord>, Denied> {
    hand.admit(&job.tenant).await.map_err(Denied::Full)?;
    hand.require_broker().await?;
    let record = match requeue(hand, job).await? {
        Put::Back(record) => record,
        Put::Before(record) => return Ok(record),
    };
    hand.note(Note::PutBack(Arc::clone(&record)));
    if let Ok(request) = request_of(&record) {
        // The parties' answers from before the repair no longer count.
        hand.act(What::ForgetParties { wallet: request.wallet, but_newest: false }).await;
    }
    if !hand.announce(job, format!("back.{}", record.next_attempt_at_ms)).await {
        let job = record.id;
        hand.note(Note::Trouble(format!("job {job} was put back but not announced; the sweeper will")));
    }
    Ok(record)
}

/// A job that is in the queue again.
enum Put {
    /// It was put back now.
    Back(Arc<JobRecord>),
    /// It was put back before.
    Before(Arc<JobRecord>),
}

/// Why a job's record is not changed.
enum Unchanged {
    /// The job was put back before.
    Before(Arc<JobRecord>),
    /// It may not be put back.
    Denied(Denied),
    /// It has failed, and what was read before did not show that: its digest is not claimed.
    Unclaimed,
}

/// Claims the digest of a failed job again, and returns the job to the queue.
async fn requeue(hand: &Hand, job: &JobKey) -> Result<Put, Denied> {
    for _ in 0..MAX_CONFLICTS {
        let failed_at_ms = claim_again(hand, job).await?;
        match change(hand, job, None, |record| edit(hand, record, failed_at_ms)).await? {
            Changed::Applied(version) => return Ok(Put::Back(version.record)),
            Changed::Declined(Unchanged::Before(record)) => return Ok(Put::Before(record)),
            Changed::Declined(Unchanged::Denied(denied)) => return Err(denied),
            Changed::Declined(Unchanged::Unclaimed) => {}
            Changed::Missing => return Err(Denied::missing()),
        }
    }
    Err(StoreFailure::Contended.into())
}

/// Returns a job to the queue that failed at `failed_at_ms`, since when its digest is claimed.
fn edit(hand: &Hand, record: &mut JobRecord, failed_at_ms: Option<u64>) -> Result<(), Unchanged> {
    let deny = |code, why: &str| Err(Unchanged::Denied(Denied::new(code, why)));
    match &record.state {
        JobState::Failed { code: Code::RejectedByOwner, .. } => {
            deny(Code::RejectedByOwner, "the owner rejected the job; submit a new one to ask again")
        }
        JobState::Failed { .. } if record.revocation.is_some() => {
            deny(Code::Cancelled, "the job's request was revoked; submit a new one")
        }
        JobState::Failed { .. } if hand.has_passed(record.expires_at_ms) => {
            deny(Code::JobExpired, "the job's request has expired; submit a new one")
        }
        JobState::Failed { .. } if failed_at_ms != Some(record.updated_at_ms) => Err(Unchanged::Unclaimed),
        JobState::Failed { .. } => record
            .apply(&JobEvent::Requeue, record.fence, hand.now_ms())
            .map_err(|error| Unchanged::Denied(Denied::new(Code::Internal, error.to_string()))),
        open if record.put_back.is_some() && !open.is_final() => {
            Err(Unchanged::Before(Arc::new(record.clone())))
        }
        other => {
            let message = format!("the job is {}; only a dead letter can be put back", other.name());
            deny(Code::Conflict, &message)
        }
    }
}

/// Claims the digest of a failed job again. Another job may have claimed it since. Returns when the
/// job failed; `None` if it has not, as far as this reads.
async fn claim_again(hand: &Hand, job: &JobKey) -> Result<Option<u64>, Denied> {
    let Some(version) = hand.read(job, false).await? else { return Ok(None) };
    if !matches!(version.record.state, JobState::Failed { .. }) {
        return Ok(None);
    }
    let request = request_of(&version.record)?;
    let digest = request.payload.digest().map_err(|error| Denied::Refused(error.into()))?;
    match claim_digest(hand, &request, &digest).await? {
        Some(other) => Err(duplicate(other).into()),
        None => Ok(Some(version.record.updated_at_ms)),
    }
}

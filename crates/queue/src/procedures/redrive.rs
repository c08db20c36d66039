//! Puts dead letters back into the queue.

use std::sync::Arc;

use duet_wire::{Code, JobEvent, JobRecord, JobState};

use super::{
    change::{Changed, change},
    claim::claim_digest,
    hand::Hand,
};
use crate::{
    actions::{Note, What},
    intake::{Denied, duplicate},
    store::{JobKey, request_of},
};

/// Puts a dead letter back into the queue and keeps its past attempts. The caller asserts that the
/// cause of the failure is repaired. A job that was already put back stays as it is.
pub(super) async fn put_back(hand: &Hand, job: &JobKey) -> Result<Arc<JobRecord>, Denied> {
    hand.admit(&job.tenant).await.map_err(Denied::Full)?;
    hand.require_broker().await?;
    claim_again(hand, job).await?;
    let deny = |code, why: &str| Err(Err(Denied::new(code, why)));
    let changed = change(hand, job, None, |record| match &record.state {
        JobState::Failed { code: Code::RejectedByOwner, .. } => {
            deny(Code::RejectedByOwner, "the owner rejected the job; submit a new one to ask again")
        }
        JobState::Failed { .. } if record.revocation.is_some() => {
            deny(Code::Cancelled, "the job's request was revoked; submit a new one")
        }
        JobState::Failed { .. } if hand.has_passed(record.expires_at_ms) => {
            deny(Code::JobExpired, "the job's request has expired; submit a new one")
        }
        JobState::Failed { .. } => record
            .apply(&JobEvent::Requeue, record.fence, hand.now_ms())
            .map_err(|error| Err(Denied::new(Code::Internal, error.to_string()))),
        open if record.put_back.is_some() && !open.is_final() => Err(Ok(Arc::new(record.clone()))),
        other => {
            let message = format!("the job is {}; only a dead letter can be put back", other.name());
            deny(Code::Conflict, &message)
        }
    });
    let record = match changed.await? {
        Changed::Applied(version) => version.record,
        Changed::Declined(unchanged) => return unchanged,
        Changed::Missing => return Err(Denied::missing()),
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

/// Claims the digest of a failed job again. Another job may have claimed it since.
async fn claim_again(hand: &Hand, job: &JobKey) -> Result<(), Denied> {
    let Some(version) = hand.read(job, false).await? else { return Ok(()) };
    if !matches!(version.record.state, JobState::Failed { .. }) {
        return Ok(());
    }
    let request = request_of(&version.record)?;
    let digest = request.payload.digest().map_err(|error| Denied::Refused(error.into()))?;
    match claim_digest(hand, &request, &digest).await? {
        Some(other) => Err(duplicate(other).into()),
        None => Ok(()),
    }
}

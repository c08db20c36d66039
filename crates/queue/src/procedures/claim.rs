//! Claims a transaction's digest for a job. Two jobs with the same transaction pay once, so the
//! digest belongs to the first job that has it, until that job fails, expires or is cancelled.

use duet_wire::{JobId, JobState, Payload, SigningRequest, TenantId};

use super::{
    change::MAX_CONFLICTS,
    hand::{Hand, written},
};
use crate::{
    actions::{Outcome, What},
    intake::{DigestKey, Holder},
    store::{JobKey, StoreFailure, Written},
};

/// How long a claim is valid while its job does not exist yet, or is not put back yet. A process
/// that takes longer has answered with a failure.
const UNBORN_MS: u64 = 60_000;

/// Claims the digest of a transaction for the request's job. Returns the job that already has the
/// digest, if it is another one. Claims nothing for other payloads.
pub(super) async fn claim_digest(
    hand: &Hand,
    request: &SigningRequest,
    digest: &[u8; 32],
) -> Result<Option<JobId>, StoreFailure> {
    if !matches!(request.payload, Payload::Transaction(_)) {
        return Ok(None);
    }
    let key = DigestKey::new(request, digest);
    let holder = Holder { job: request.job(), at_ms: hand.now_ms() };
    let mut follows = None;
    for _ in 0..MAX_CONFLICTS {
        let claim = What::WriteClaim { digest: key.clone(), holder, follows };
        match written(hand.act(claim).await) {
            Written::Stored(_) => return Ok(None),
            Written::Conflict => {}
            Written::Failed(failure) => return Err(failure),
        }
        let Some((held, revision)) = read(hand, &key).await? else {
            follows = None;
            continue;
        };
        // A job renews its own claim. So another process that has just found the job failed does
        // not take over the claim of a job that is being put back.
        if held.job != holder.job && holds(hand, &request.tenant, held).await? {
            return Ok(Some(held.job));
        }
        follows = Some(revision);
    }
    Err(StoreFailure::Contended)
}

async fn read(hand: &Hand, key: &DigestKey) -> Result<Option<(Holder, u64)>, StoreFailure> {
    match hand.act(What::ReadClaim(key.clone())).await {
        Outcome::Holder(holder) => holder,
        _ => Err(StoreFailure::unanswered()),
    }
}

/// Whether the holder is signed or may still get a signature.
async fn holds(hand: &Hand, tenant: &TenantId, holder: Holder) -> Result<bool, StoreFailure> {
    let job = JobKey { tenant: tenant.clone(), job: holder.job };
    let is_new = hand.now_ms().saturating_sub(holder.at_ms) < UNBORN_MS;
    Ok(match hand.read(&job, false).await? {
        Some(version) => match version.record.state {
            JobState::Queued
            | JobState::AwaitingOwner
            | JobState::Running { .. }
            | JobState::Signed { .. }
            | JobState::Unknown(_) => true,
            // It claims the digest anew, and is put back next.
            JobState::Failed { .. } => is_new && holder.at_ms > version.record.updated_at_ms,
            JobState::Expired | JobState::Cancelled => false,
        },
        None => is_new,
    })
}

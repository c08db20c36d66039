//! Ends jobs that are no longer wanted: their tenant cancels them, or their request is revoked. The
//! orchestrator's own state "cancelled" binds no party; a revocation that a party stored does.

use std::sync::Arc;

use duet_protocol::ids::PartyId;
use duet_wire::{
    Code, JobEvent, JobRecord, JobState, Refusal, SignedRevocation,
    error::Class,
    job::{JobRevocation, RevocationRefused},
};

use super::{
    change::{Changed, change},
    hand::Hand,
    settle::conclude,
};
use crate::{
    actions::{Note, Outcome, What},
    intake::{Denied, Holders, Told},
    store::{JobKey, StoreFailure, Version, request_of},
    verified::VerifiedRevocation,
};

/// Why a record stays as it is: it is already as asked, or the request is denied.
type Unchanged = Result<Arc<JobRecord>, Denied>;

/// Withdraws a job, unless it runs or is settled. A running session may already have made the
/// signature, which cannot be revoked.
pub(super) async fn cancel(hand: &Hand, job: &JobKey) -> Result<Arc<JobRecord>, Denied> {
    let changed = change(hand, job, None, |record| {
        if matches!(record.state, JobState::Cancelled) {
            return Err(Unchanged::Ok(Arc::new(record.clone())));
        }
        record.apply(&JobEvent::Cancel, record.fence, hand.now_ms()).map_err(|_| {
            let state = record.state.name();
            let message = format!("the job is {state}; only one that waits can be cancelled");
            Err(Denied::new(Code::Conflict, message))
        })
    });
    match changed.await? {
        Changed::Applied(version) => {
            conclude(hand, &version).await;
            Ok(version.record)
        }
        Changed::Declined(unchanged) => unchanged,
        Changed::Missing => Err(Denied::missing()),
    }
}

/// Records that a job's request is revoked. Cancels the job unless it runs or is settled. Tells the
/// parties once; those that do not answer are told again later.
pub(super) async fn revoke(
    hand: &Hand,
    version: Version,
    revocation: &VerifiedRevocation,
) -> Result<Arc<JobRecord>, Denied> {
    let job = revocation.job();
    let request = request_of(&version.record)?;
    let ask = What::AskHolders { wallet: request.wallet, tenant: request.tenant };
    let Outcome::Holders(Holders { owner, parties }) = hand.act(ask).await else {
        return Err(StoreFailure::unanswered().into());
    };
    let proof = *revocation.proof();
    let is_owner = owner == Some(proof.by);
    if proof.by != version.record.request.requester && !is_owner {
        return Err(Denied::new(
            Code::RequesterNotAllowed,
            "a request is revoked by the key that signed it, or by the wallet's owner",
        ));
    }
    let noted = JobRevocation {
        proof,
        at_ms: hand.now_ms(),
        kept_by: Vec::new(),
        waits_for: parties,
        refused_by: Vec::new(),
    };
    let mut was_open = false;
    let changed = change(hand, job, Some(version), |record| {
        if !revocation.is_of(record) {
            return Err(Err(Denied::missing()));
        }
        if record.revocation.is_some() {
            return Err(Unchanged::Ok(Arc::new(record.clone())));
        }
        was_open = false;
        match record.state {
            JobState::Signed { .. } => {
                let message = "the job is signed; a signature cannot be called back";
                return Err(Err(Denied::new(Code::Conflict, message)));
            }
            JobState::Queued | JobState::AwaitingOwner => {
                let event = match record.state {
                    JobState::AwaitingOwner if is_owner => JobEvent::Reject,
                    _ => JobEvent::Cancel,
                };
                was_open = true;
                record
                    .apply(&event, record.fence, hand.now_ms())
                    .map_err(|error| Err(Denied::new(Code::Internal, error.to_string())))?;
            }
            // The parties end a running session; then no other follows.
            JobState::Running { .. }
            | JobState::Failed { .. }
            | JobState::Expired
            | JobState::Cancelled
            | JobState::Unknown(_) => {}
        }
        record.revocation = Some(noted.clone());
        Ok(())
    });
    let version = match changed.await? {
        Changed::Applied(version) => version,
        Changed::Declined(unchanged) => return unchanged,
        Changed::Missing => return Err(Denied::missing()),
    };
    if was_open {
        conclude(hand, &version).await;
    }
    tell_parties(hand, job).await?;
    // An answer may be older than what is stored.
    let newest = hand.read(job, false).await?.filter(|newest| newest.revision > version.revision);
    Ok(newest.unwrap_or(version).record)
}

/// Whether a party that refuses a revocation with this code would refuse it again.
const fn is_final(code: Code) -> bool {
    match code.class() {
        Class::No | Class::NeverFromASession => true,
        Class::Wait | Class::Tried => false,
    }
}

/// Tells the parties that have not acknowledged the revocation of a job, and records their answers.
pub(super) async fn tell_parties(hand: &Hand, job: &JobKey) -> Result<(), StoreFailure> {
    let Some(version) = hand.read(job, false).await? else { return Ok(()) };
    let record = &version.record;
    let Some(revocation) = &record.revocation else { return Ok(()) };
    if revocation.waits_for.is_empty() || hand.has_passed(record.expires_at_ms) {
        return Ok(());
    }
    let proof = revocation.proof;
    let signed = Arc::new(SignedRevocation { request: record.request.clone(), proof });
    let tell = |party| hand.act(What::Tell(party, Arc::clone(&signed)));
    let asked: Vec<_> =
        revocation.waits_for.iter().map(|party| (party.clone(), tell(party.clone()))).collect();
    let mut answers = Vec::new();
    for (party, told) in asked {
        match told.await {
            Outcome::Told(Told::Kept) => answers.push((party, None)),
            Outcome::Told(Told::Refused(refusal)) if is_final(refusal.code) => {
                hand.note(Note::Trouble(format!("{party} does not keep a revocation: {refusal}")));
                answers.push((party, Some(refusal)));
            }
            // It is told again.
            _ => {}
        }
    }
    if answers.is_empty() {
        return Ok(());
    }
    let noted = change(hand, job, Some(version), |record| {
        let known = record.revocation.as_mut().filter(|known| known.proof == proof);
        let Some(revocation) = known else { return Err(()) };
        for (party, refusal) in &answers {
            note_answer(revocation, party, refusal.clone());
        }
        Ok(())
    });
    noted.await.map(drop)
}

/// Notes that `party` has stored the revocation, or refuses it for good.
fn note_answer(revocation: &mut JobRevocation, party: &PartyId, refusal: Option<Refusal>) {
    let before = revocation.waits_for.len();
    revocation.waits_for.retain(|waiting| waiting != party);
    if revocation.waits_for.len() == before {
        return;
    }
    match refusal {
        Some(refusal) => revocation.refused_by.push(RevocationRefused { party: party.clone(), refusal }),
        None => revocation.kept_by.push(party.clone()),
    }
}

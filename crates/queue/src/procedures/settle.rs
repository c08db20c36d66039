//! How attempts end, how jobs end, and how an end is published.

use core::time::Duration;
use std::sync::Arc;

use duet_protocol::ids::{SessionId, ShareIndex};
use duet_wire::{
    Code, JobEnded, JobEvent, JobRecord, JobState, Refusal,
    job::{AttemptOutcome, Evidence},
    progress::Step,
    session_state::SessionEvent,
};

use super::{
    change::{Changed, change},
    hand::Hand,
};
use crate::{
    actions::{Document, NotSigned, Note, Outcome, Reply, What},
    failure::{Failure, Over, event_after, listed_sessions, running_pair, unlisted_sessions},
    plan::{self, Moment},
    store::{JobKey, StoreFailure, Version, request_of},
    verified::SealedResult,
};

/// Ends the session `session` of a job without a signature. Decides what follows: another attempt
/// later, a wait for the owner, or the job's end. Does nothing when the job is not in that session.
pub(super) async fn end_attempt(
    hand: &Hand,
    job: &JobKey,
    session: SessionId,
    failure: Failure,
) -> Result<(), StoreFailure> {
    let Some(version) = hand.read(job, false).await? else { return Ok(()) };
    if running_pair(&version.record, session).is_none() {
        return Ok(());
    }
    let request = Arc::new(request_of(&version.record)?);
    let wallet = request.wallet;
    match &failure.evidence {
        // The party may have no worker at all, as while its only one restarts.
        Some(Evidence::Silence { of, .. }) => {
            hand.act(What::DoubtParty { party: of.clone(), wallet }).await;
        }
        _ if plan::facts_are_stale(failure.refusal.code) => {
            hand.act(What::ForgetParties { wallet, but_newest: false }).await;
        }
        _ => {}
    }
    let mut unlisted = Vec::new();
    let changed = change(hand, job, Some(version), |record| {
        let pair = running_pair(record, session).ok_or(Over)?;
        let moment = Moment { now_ms: hand.now_ms(), jitter: hand.jitter() };
        let has_expired = hand.has_passed(record.expires_at_ms);
        let event = event_after(&hand.queue, record, pair, &request.pairs, &failure, moment, has_expired);
        let (fence, before) = (record.fence, listed_sessions(record));
        record.apply(&event, fence, hand.now_ms()).map_err(|_| Over)?;
        unlisted = unlisted_sessions(before, record);
        Ok::<(), Over>(())
    })
    .await?;
    let Changed::Applied(version) = changed else { return Ok(()) };
    forget_sessions(hand, &unlisted).await;
    let code = failure.refusal.code;
    let record = Arc::clone(&version.record);
    hand.note(Note::Failed { record, request, session, failure });
    let (event, step) = if matches!(code, Code::Deadline | Code::JobExpired) {
        (SessionEvent::Expire, Step::Expired)
    } else {
        (SessionEvent::Fail, Step::Failed { code })
    };
    hand.act(What::Show(session, step)).await;
    hand.act(What::EndSession(session, event)).await;
    conclude(hand, &version).await;
    Ok(())
}

/// Removes the records of sessions that their job lists no longer, since no later step would.
pub(super) async fn forget_sessions(hand: &Hand, sessions: &[SessionId]) {
    for session in sessions {
        hand.act(What::RemoveSession(*session)).await;
    }
}

/// Stores a job's result. Gives the reply once it is stored, and then publishes it.
pub(super) async fn sign(hand: &Hand, version: Version, sealed: SealedResult) -> Option<Reply> {
    let (job, session, digest) = (JobKey::of(&version.record), sealed.session(), sealed.digest());
    let request = match request_of(&version.record) {
        Ok(request) => Arc::new(request),
        Err(failure) => return Some(Reply::Signed(Err(NotSigned::Store(failure)))),
    };
    let changed = change(hand, &job, Some(version), |record| {
        running_pair(record, session).ok_or(Over)?;
        let (fence, event) = (record.fence, JobEvent::Sign { result: sealed.result().clone() });
        record.apply(&event, fence, hand.now_ms()).map_err(|_| Over)
    })
    .await;
    let version = match changed {
        Ok(Changed::Applied(version)) => version,
        // The write of an earlier report may have been stored although it was not confirmed. An
        // acknowledgement tells the initiator that its signature is stored.
        Ok(Changed::Declined(Over) | Changed::Missing) => {
            return Some(Reply::Signed(match hand.read(&job, false).await {
                Ok(Some(version)) if already_signed(&version.record, session) => Ok(version),
                Ok(_) => Err(NotSigned::Over),
                Err(failure) => Err(NotSigned::Store(failure)),
            }));
        }
        Err(failure) => return Some(Reply::Signed(Err(NotSigned::Store(failure)))),
    };
    hand.note(Note::Signed { record: Arc::clone(&version.record), request, session, digest });
    // The stored record of the job is what counts. The party need not wait for what follows.
    drop(hand.act(What::Reply(Reply::Signed(Ok(version.clone())))));
    hand.act(What::Show(session, Step::Signed)).await;
    let ended = hand.act(What::EndSession(session, SessionEvent::Sign));
    conclude(hand, &version).await;
    ended.await;
    None
}

/// Whether the job's signature was made in `session`.
#[must_use]
pub fn already_signed(record: &JobRecord, session: SessionId) -> bool {
    record
        .attempts
        .iter()
        .any(|attempt| attempt.session == session && attempt.outcome == Some(AttemptOutcome::Signed))
}

/// Gives up a job that does not run.
pub(super) async fn give_up(hand: &Hand, job: &JobKey, refusal: Refusal) -> Result<(), StoreFailure> {
    let Refusal { code, message } = refusal;
    let event = JobEvent::Fail { code, culprit: None, evidence: None, message };
    let changed = change(hand, job, None, |record| match record.state {
        JobState::Queued | JobState::AwaitingOwner => {
            record.apply(&event, record.fence, hand.now_ms()).map_err(drop)
        }
        _ => Err(()),
    })
    .await?;
    if let Changed::Applied(version) = changed {
        conclude(hand, &version).await;
    }
    Ok(())
}

/// Ends an expired job, unless it runs: a running session ends first, no later than the job
/// expires. Returns whether the store has the job.
pub(super) async fn expire(hand: &Hand, job: &JobKey) -> Result<bool, StoreFailure> {
    let changed = change(hand, job, None, |record| match record.state {
        JobState::Queued | JobState::AwaitingOwner if hand.has_passed(record.expires_at_ms) => {
            record.apply(&JobEvent::Expire, record.fence, hand.now_ms()).map_err(drop)
        }
        _ => Err(()),
    })
    .await?;
    if let Changed::Applied(version) = &changed {
        conclude(hand, version).await;
    }
    Ok(!matches!(changed, Changed::Missing))
}

/// Ends the session of a job that no process seems to work on, and announces the job. Returns
/// whether the store has the job.
pub(super) async fn end_stale(hand: &Hand, job: &JobKey) -> Result<bool, StoreFailure> {
    let Some(version) = hand.read(job, false).await? else { return Ok(false) };
    let JobState::Running { session, pair, .. } = version.record.state else { return Ok(true) };
    let initiator = hand.find_session(job, session).await?.map(|found| found.initiator);
    let failure = match initiator {
        // No process waits for the owner's session. Its responder had accepted before the device
        // got the session.
        Some(device) if pair.initiator() == ShareIndex::Device => Failure::no_outcome(device),
        initiator => Failure::abandoned(initiator),
    };
    end_attempt(hand, job, session, failure).await?;
    // The orchestrator that ran it may have died with the announcement; a surplus one does no harm.
    if hand.announce(job, version.record.attempts_started.to_string()).await {
        return Ok(true);
    }
    Err(StoreFailure::Unknown("the job was not announced".to_owned()))
}

/// Records the end of a job that the store has as ended, and publishes it. Subscribers to the
/// tenant's results see it; a failure also goes to the dead letters. Does nothing for open jobs.
///
/// If publishing fails, or the process dies before noting it, the sweeper repeats it
/// ([`publish_again`]).
pub(super) async fn conclude(hand: &Hand, version: &Version) {
    if version.record.state.is_final() && !matches!(version.record.state, JobState::Signed { .. }) {
        hand.note(Note::Ended(Arc::clone(&version.record)));
    }
    publish_end(hand, version).await;
}

async fn publish_end(hand: &Hand, version: &Version) {
    let record = &version.record;
    if record.end_published_at_ms.is_some() || !record.state.is_final() {
        return;
    }
    // A job that an operator put back may end a second time, even before another attempt.
    let message_id = format!("{}.{}", record.id, record.updated_at_ms);
    let dead =
        matches!(record.state, JobState::Failed { .. }).then(|| Document::DeadLetter(Arc::clone(record)));
    let end = match &record.state {
        JobState::Signed { result } => Some(Document::Result(Arc::clone(record), result.clone())),
        _ => JobEnded::of(record).map(|ended| Document::Ended(Arc::clone(record), ended)),
    };
    for document in dead.into_iter().chain(end) {
        let publish = What::Publish { document, message_id: message_id.clone() };
        if !matches!(hand.act(publish).await, Outcome::Published(true)) {
            hand.note(Note::EndPublished(false));
            return;
        }
    }
    hand.note(Note::EndPublished(true));
    note_published(hand, version).await;
}

/// Publishes the end of a job that may have been published already. Within the stream's window for
/// duplicates the stream drops the repetition. Later, this searches the stream first. Returns
/// whether the store has the job.
pub(super) async fn publish_again(hand: &Hand, job: &JobKey) -> Result<bool, StoreFailure> {
    let Some(version) = hand.read(job, false).await? else { return Ok(false) };
    let age = Duration::from_millis(hand.now_ms().saturating_sub(version.record.updated_at_ms));
    if age > hand.duplicate_window / 2 {
        match hand.act(What::FindEnd(Arc::clone(&version.record))).await {
            Outcome::Found(Some(false)) => {}
            Outcome::Found(Some(true)) => {
                note_published(hand, &version).await;
                return Ok(true);
            }
            _ => return Ok(true),
        }
    }
    publish_end(hand, &version).await;
    Ok(true)
}

async fn note_published(hand: &Hand, version: &Version) {
    let job = JobKey::of(&version.record);
    let noted = change(hand, &job, Some(version.clone()), |record| {
        // A job that an operator put back may have ended once more. That end is not published yet.
        let is_this_end = record.state.is_final() && record.updated_at_ms == version.record.updated_at_ms;
        if record.end_published_at_ms.is_some() || !is_this_end {
            return Err(Over);
        }
        record.end_published_at_ms = Some(hand.now_ms());
        Ok(())
    })
    .await;
    if let Err(error) = noted {
        hand.note(Note::Trouble(format!("it was not noted that a job's end was published: {error}")));
    }
}

//! Starts a session: turns an attempt at a job into a manifest, then invites two parties to it, the
//! responder first, and waits for its end.

use core::time::Duration;
use std::sync::Arc;

use duet_protocol::ids::{PartyId, SessionId, WalletId};
use duet_wire::{
    Code, JobEvent, Manifest, Pair, Refusal, Seat, SigningRequest,
    job::Evidence,
    progress::Step,
    record::Kept,
    session_state::{SessionEvent, SessionRecord, SessionState},
    validity,
};

use super::{
    change::{Changed, change},
    hand::{Hand, Place, after, written},
    settle::{already_signed, end_attempt, forget_sessions},
};
use crate::{
    actions::{Invited, Note, Seated, What},
    failure::{Failure, listed_sessions, running_pair, said_by, unlisted_sessions},
    offers::{Lack, Use},
    settings::QueueSettings,
    store::{JobKey, StoreFailure, Version, Written},
    terms::Terms,
    time::{self, difference_ms, until},
};

/// A session that is stored. Its parties may now be invited.
pub(super) struct Started {
    pub(super) session: SessionId,
    wallet: WalletId,
    initiator: Seat,
    pub(super) responder: Seat,
    pub(super) manifest: Vec<u8>,
    expires_at_ms: u64,
    /// When the job's request expires.
    job_expires_at_ms: u64,
    trace: Option<String>,
}

/// The seats in hand for a session that is not stored yet.
pub(super) struct Places {
    initiator: Place,
    responder: Place,
}

/// Takes a seat of both parties.
pub(super) fn take_places(hand: &Hand, terms: &Terms, wallet: WalletId) -> Result<Places, Lack> {
    let responder = hand.take(&terms.responder.party, wallet, false)?;
    let initiator = hand.take(&terms.initiator.party, wallet, false)?;
    Ok(Places { initiator, responder })
}

/// Why no session was started.
pub(super) enum NotStarted {
    /// Another process has changed the job meanwhile.
    Moved,
    /// An internal step failed.
    Internal(String),
    /// The store failed.
    Store(StoreFailure),
}

/// Begins an attempt of `pair` at a job. Draws a session id. Then stores, side by side, that the
/// job runs in the session and the session itself.
///
/// If two processes start the job at the same time, one loses the compare-and-swap and invites no
/// party to its session.
pub(super) async fn start(
    hand: &Hand,
    job: &JobKey,
    version: Version,
    request: &Arc<SigningRequest>,
    pair: Pair,
    terms: Terms,
) -> Result<Started, NotStarted> {
    let internal = |error: &dyn core::fmt::Display| NotStarted::Internal(error.to_string());
    let Terms { epoch, paillier_key, initiator, responder } = terms;
    let (session, now) = (hand.draw_session(), hand.now_ms());
    let record = &version.record;
    let expires_at_ms = after(now, hand.queue.session_timeout).min(record.expires_at_ms);
    let attempt = record.attempts_started.saturating_add(1);
    let manifest = Manifest {
        session,
        job: record.id,
        attempt,
        wallet: request.wallet,
        epoch,
        paillier_key,
        initiator: initiator.clone(),
        responder: responder.clone(),
        request: record.request.clone(),
        expires_at_ms,
    }
    .encode()
    .map_err(|error| internal(&error))?;
    let mut stored = SessionRecord {
        session,
        tenant: request.tenant.clone(),
        job: record.id,
        attempt,
        wallet: request.wallet,
        initiator: initiator.clone(),
        responder: responder.clone(),
        state: SessionState::Created,
        kept: Kept::default(),
        created_at_ms: now,
        updated_at_ms: now,
        expires_at_ms,
    };
    // The invitations follow the manifest at once, so one write covers both steps.
    stored.apply(SessionEvent::Invite, now).map_err(|error| internal(&error))?;
    let stored = hand.act(What::CreateSession(Box::new(stored)));
    let (fence, job_expires_at_ms) = (record.fence, record.expires_at_ms);
    let mut unlisted = Vec::new();
    let started = change(hand, job, Some(version), |job| {
        // The manifest was made for the record as first read, so a newer record is declined.
        if job.fence != fence || job.attempts_started.saturating_add(1) != attempt {
            return Err(());
        }
        let before = listed_sessions(job);
        job.apply(&JobEvent::Start { session, pair }, fence, now).map_err(|_| ())?;
        unlisted = unlisted_sessions(before, job);
        Ok(())
    })
    .await;
    let stored = written(stored.await);
    let record = match started.map_err(NotStarted::Store)? {
        Changed::Applied(version) => version.record,
        Changed::Declined(()) | Changed::Missing => {
            // No attempt names this session, so no later step would remove it.
            hand.act(What::RemoveSession(session)).await;
            return Err(NotStarted::Moved);
        }
    };
    let trace = record.trace.clone();
    hand.note(Note::Started { record, request: Arc::clone(request), session, pair });
    match stored {
        Written::Stored(_) => {}
        Written::Conflict => return Err(NotStarted::Store(StoreFailure::Contended)),
        Written::Failed(failure) => return Err(NotStarted::Store(failure)),
    }
    forget_sessions(hand, &unlisted).await;
    hand.act(What::Show(session, Step::Inviting)).await;
    let wallet = request.wallet;
    Ok(Started { session, wallet, initiator, responder, manifest, expires_at_ms, job_expires_at_ms, trace })
}

/// Invites both parties of a session that just began to the seats in hand, and waits for its end.
pub(super) async fn run(
    hand: &Hand,
    job: &JobKey,
    started: &Started,
    places: Places,
) -> Result<(), StoreFailure> {
    let session = started.session;
    hand.act(What::Enter { session, trace: started.trace.clone() }).await;
    // The responder comes first: it has to listen before the initiator speaks.
    let seated = match invite(hand, started, &started.responder, places.responder).await {
        Ok(seated) => seated,
        Err(failure) => return end_attempt(hand, job, session, failure).await,
    };
    let initiating = match invite(hand, started, &started.initiator, places.initiator).await {
        Ok(initiating) => initiating,
        Err(failure) => {
            release(hand, session, seated).await;
            return end_attempt(hand, job, session, failure).await;
        }
    };
    hand.act(What::Show(session, Step::Running)).await;
    let failure = Failure::no_outcome(started.initiator.party.clone());
    let left = time_left(&hand.queue, started.expires_at_ms, hand.now_ms());
    let signed = wait_for_end(hand, job, session, left, failure).await;
    if matches!(signed, Ok(true)) {
        for seated in [seated, initiating].into_iter().flatten() {
            hand.note_signed(seated, started.wallet);
        }
    } else {
        // One of them may still wait for the other.
        release(hand, session, seated).await;
        release(hand, session, initiating).await;
    }
    signed.map(drop)
}

/// Waits for the end of a session that another process began.
pub(super) async fn see_through(hand: &Hand, job: &JobKey, session: SessionId) -> Result<(), StoreFailure> {
    let now = hand.now_ms();
    let (left, initiator) = match hand.find_session(job, session).await? {
        // The other's clock may differ by more than a session lasts.
        Some(found) => {
            let ends_at_ms = after(found.seen_at_ms.unwrap_or(now), hand.queue.session_timeout);
            (time_left(&hand.queue, ends_at_ms, now), Some(found.initiator))
        }
        // The session was never stored, so no party was invited to it.
        None => (Duration::ZERO, None),
    };
    wait_for_end(hand, job, session, left, Failure::abandoned(initiator)).await.map(drop)
}

/// Waits until the job is no longer in `session`. Ends the attempt with `failure` when the time
/// `left` has passed. Returns whether the session made the job's signature.
async fn wait_for_end(
    hand: &Hand,
    job: &JobKey,
    session: SessionId,
    left: Duration,
    failure: Failure,
) -> Result<bool, StoreFailure> {
    let until = hand.steady().saturating_add(left);
    while let Some(version) = hand.change_within(hand.time_until(until)).await {
        if running_pair(&version.record, session).is_none() {
            return Ok(already_signed(&version.record, session));
        }
    }
    // The end may have been missed; then the compare-and-swap declines.
    end_attempt(hand, job, session, failure).await?;
    Ok(false)
}

/// How long the outcome of a session may still take that ends at `expires_at_ms`. This process's
/// clock may have been set back since: no session lasts longer than sessions may.
fn time_left(queue: &QueueSettings, expires_at_ms: u64, now_ms: u64) -> Duration {
    until(expires_at_ms, now_ms).min(queue.session_timeout) + queue.outcome_grace
}

/// Invites `seat`. The party answers once its worker listens. Returns the worker's seat; `None` if
/// the worker's name cannot be part of a subject.
///
/// An invitation that a worker may have is not sent again, which could put two workers into the
/// session. So without an answer the session is over. A worker that accepts later is released.
pub(super) async fn invite(
    hand: &Hand,
    started: &Started,
    seat: &Seat,
    place: Place,
) -> Result<Option<Seated>, Failure> {
    let party = &seat.party;
    let silent = |code, message: String| Failure {
        refusal: Refusal::new(code, message),
        culprit: None,
        evidence: Some(Evidence::Silence { of: party.clone(), before_acceptance: true }),
    };
    let invitation = What::Invite {
        seat: seat.clone(),
        instance: place.instance.clone(),
        session: started.session,
        manifest: started.manifest.clone(),
        lasts: hand.queue.invitation_timeout.max(until(started.expires_at_ms, hand.now_ms())),
    };
    let invited = hand.invited(invitation).await;
    place.settle(match &invited {
        Some(Invited::Refused { refusal, .. }) if refusal.code == Code::NoSeat => Use::Full,
        Some(Invited::Refused { .. } | Invited::NotSent(_)) => Use::None,
        Some(Invited::NoWorker) => Use::Gone,
        Some(Invited::Accepted(_) | Invited::Silence | Invited::Malformed { .. }) | None => Use::Taken,
    });
    match invited {
        Some(Invited::Accepted(instance)) => {
            hand.note(Note::ClockSkew(seat.index, 0));
            Ok(seated(party, &instance))
        }
        Some(Invited::Refused { refusal, times }) => {
            let refusal = match times {
                Some((theirs_ms, ours_ms)) => {
                    hand.note(Note::ClockSkew(seat.index, difference_ms(theirs_ms, ours_ms)));
                    let has_expired = hand.has_passed(started.job_expires_at_ms);
                    judged_by_time(party, refusal, (theirs_ms, ours_ms), has_expired)
                }
                None => refusal,
            };
            Err(Failure {
                refusal: said_by(seat.index, refusal),
                culprit: None,
                evidence: Some(Evidence::Refusal { by: party.clone() }),
            })
        }
        Some(Invited::NoWorker) => Err(silent(Code::NoSeat, format!("no worker of {party} is free"))),
        Some(Invited::NotSent(refusal)) => Err(silent(refusal.code, refusal.message)),
        Some(Invited::Malformed { sha256, reason }) => Err(Failure {
            refusal: Refusal::new(
                Code::PeerMisbehaved,
                format!("the answer of {party} to an invitation does not parse: {reason}"),
            ),
            culprit: Some(party.clone()),
            evidence: Some(Evidence::Nonsense { by: party.clone(), sha256 }),
        }),
        None if !hand.is_connected() => {
            Err(silent(Code::BrokerUnreachable, "the broker cannot be reached".to_owned()))
        }
        Some(Invited::Silence) | None => {
            Err(silent(Code::Deadline, format!("{party} did not answer the invitation in time")))
        }
    }
}

/// The worker of `party` that accepted under the name `instance`.
pub(super) fn seated(party: &PartyId, instance: &str) -> Option<Seated> {
    Some(Seated { party: party.clone(), instance: instance.parse().ok()? })
}

/// Takes the seat back for a session that does not go on. The message may be lost: then the worker
/// waits until its own deadline, as it does if it is older than this message.
async fn release(hand: &Hand, session: SessionId, seated: Option<Seated>) {
    if let Some(seated) = seated {
        hand.act(What::Release(session, seated)).await;
    }
}

/// From this difference on, in milliseconds, a refusal for time is attributed to the party's clock.
const NOTEWORTHY_SKEW_MS: u64 = 2_000;

/// Turns a party's refusal for time into one that says both times, and which clock is off if they
/// differ. A job that has not expired by the broker's time waits, whatever reason the party gave.
fn judged_by_time(
    party: &PartyId,
    refusal: Refusal,
    (theirs_ms, ours_ms): (u64, u64),
    has_expired: bool,
) -> Refusal {
    let do_differ = theirs_ms.abs_diff(ours_ms) >= NOTEWORTHY_SKEW_MS;
    if has_expired && !do_differ {
        return refusal;
    }
    let code = if has_expired { refusal.code } else { Code::ClockDiffers };
    let (theirs, ours) = (time::written(theirs_ms), time::written(ours_ms));
    let message = if do_differ {
        let relation = validity::relation(theirs_ms, ours_ms);
        format!(
            "the clock of {party} is {relation} the broker's ({theirs} and {ours}); it says: {}",
            refusal.message
        )
    } else {
        format!("{} ({party}: {theirs}, the broker: {ours})", refusal.message)
    };
    Refusal::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::whole_millis;

    #[test]
    fn a_session_that_a_clock_ahead_noted_lasts_no_longer_than_others() {
        let queue = QueueSettings::default();
        let longest = queue.session_timeout + queue.outcome_grace;
        let session_ms = whole_millis(queue.session_timeout);
        assert_eq!(time_left(&queue, 1_000 + session_ms, 1_000), longest);
        assert_eq!(time_left(&queue, 301_000 + session_ms, 1_000), longest);
        assert_eq!(time_left(&queue, 1_000, 1_000), queue.outcome_grace);
    }

    #[test]
    fn a_refusal_for_time_says_both_times_and_waits_until_the_job_has_expired() {
        let party: PartyId = "partner".parse().unwrap();
        let expired = || Refusal::new(Code::JobExpired, "the request expired 4 s ago");
        let ours_ms = 1_796_047_622_000;
        let judged = |ahead_ms, has_expired| {
            judged_by_time(&party, expired(), (ours_ms + ahead_ms, ours_ms), has_expired)
        };
        let named = judged(40_000, false);
        assert_eq!(named.code, Code::ClockDiffers);
        let said = "the clock of partner is 40 s ahead of the broker's (2026-11-30T14:07:42Z and 2026-11-30T14:07:02Z)";
        assert!(named.message.starts_with(said), "{named}");
        // Clocks that agree are not blamed, but the job waits all the same.
        let named = judged(1_000, false);
        assert_eq!(named.code, Code::ClockDiffers);
        assert!(named.message.starts_with("the request expired 4 s ago (partner: 2026"), "{named}");
        assert_eq!(judged(1_000, true), expired());
        assert_eq!(judged(40_000, true).code, Code::JobExpired);
    }
}

//! Takes a job in hand as far as it goes now.

use core::time::Duration;
use std::sync::Arc;

use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, JobEvent, JobState, Pair, Refusal, SigningRequest};

use super::{
    change::{Changed, change},
    hand::{Hand, after},
    session::{self, NotStarted, Places},
    settle::{end_attempt, expire, give_up},
};
use crate::{
    actions::{Answers, Looked, Note, Outcome, What},
    failure::past_attempts,
    offers::Lack,
    plan::{self, Decision, Moment},
    reasons,
    store::{JobKey, StoreFailure, Version, request_of},
    terms::{PairTerms, Terms},
    time::until,
};

/// How often an orchestrator looks for a job that is announced but not found.
const MAX_LOOKS_FOR_A_MISSING_JOB: i64 = 5;

/// How far a queued job was taken.
enum Advanced {
    /// A session of the job has ended.
    Tried,
    /// The job needs no announcement any more.
    Over,
    /// The job rests for this long.
    Wait(Duration),
    /// A party has no seat for it.
    Parked,
    /// Another process was quicker.
    Moved,
}

/// Takes `job` as far as it goes now. Its announcement was delivered `deliveries` times.
pub(super) async fn work(hand: &Hand, job: &JobKey, deliveries: i64) -> Looked {
    match carry_on(hand, job, deliveries).await {
        Ok(looked) => looked,
        Err(StoreFailure::Corrupt(reason) | StoreFailure::Newer(reason)) => Looked::Unreadable(reason),
        Err(error) => {
            hand.note(Note::Trouble(format!("a job cannot be worked on now: {error}")));
            Looked::Later(hand.queue.max_retry_pause.mul_f64(0.5 + hand.jitter() / 2.0))
        }
    }
}

/// After a failure of this process at a job: ends the job's running attempt, or gives up a job that
/// does not run.
pub(super) async fn end_or_give_up(hand: &Hand, job: &JobKey) -> Looked {
    let refusal = Refusal::new(Code::Internal, "the orchestrator failed while it worked on the job");
    let ended = async {
        let Some(version) = hand.read(job, false).await? else { return Ok(()) };
        match version.record.state {
            JobState::Running { session, .. } => end_attempt(hand, job, session, refusal.into()).await,
            _ => give_up(hand, job, refusal).await,
        }
    };
    match ended.await {
        Ok(()) => Looked::Worked,
        Err(_) => Looked::Later(hand.queue.max_retry_pause),
    }
}

async fn carry_on(hand: &Hand, job: &JobKey, deliveries: i64) -> Result<Looked, StoreFailure> {
    let mut worked = false;
    // A job accepted just now need not be read from the store. If another process was quicker, the
    // compare-and-swap fails, and the next look reads the entry itself.
    let mut may_be_behind = deliveries <= 1;
    let done = |worked| if worked { Looked::Worked } else { Looked::Nothing };
    loop {
        if worked && hand.saw_it_settled() {
            return Ok(Looked::Worked);
        }
        let Some(version) = hand.read(job, core::mem::take(&mut may_be_behind)).await? else {
            // In a cluster the server that answers may not have a new entry yet.
            let again = !worked && deliveries < MAX_LOOKS_FOR_A_MISSING_JOB;
            return Ok(if again { Looked::Later(hand.queue.retry_pause) } else { done(worked) });
        };
        let record = &version.record;
        let now = hand.now_ms();
        match &record.state {
            JobState::Running { session, pair, .. }
                if !worked && deliveries > 1 && pair.initiator() != ShareIndex::Device =>
            {
                let session = *session;
                // The orchestrator that began the session may have died.
                session::see_through(hand, job, session).await?;
                worked = true;
            }
            JobState::Queued if hand.has_passed(record.expires_at_ms) => {
                expire(hand, job).await?;
                worked = true;
            }
            JobState::Queued => {
                let pause = until(record.next_attempt_at_ms, now);
                // A clock that was ahead noted the time: the process has held the job back for as
                // long as the job had to rest.
                let is_ahead = record.updated_at_ms > now || pause > hand.queue.longest_pause();
                if !pause.is_zero() && !is_ahead {
                    return Ok(Looked::Later(pause));
                }
                let request = match request_of(record) {
                    Ok(request) => Arc::new(request),
                    // An orchestrator of the release that accepted it reads it.
                    Err(error @ StoreFailure::Newer(_)) => return Err(error),
                    Err(_) => {
                        give_up(hand, job, unreadable()).await?;
                        return Ok(Looked::Worked);
                    }
                };
                match advance(hand, job, version, &request).await? {
                    Advanced::Tried => worked = true,
                    Advanced::Over => return Ok(Looked::Worked),
                    Advanced::Wait(pause) => return Ok(Looked::Later(pause)),
                    Advanced::Parked => return Ok(Looked::Parked),
                    // The next look reads the other's record.
                    Advanced::Moved => {}
                }
            }
            // Not right after a failed attempt: the job is looked at again later.
            JobState::AwaitingOwner if !worked && now < record.expires_at_ms => {
                let request = Arc::new(request_of(record)?);
                if !go_without_owner(hand, job, version, &request).await? {
                    return Ok(Looked::Nothing);
                }
                worked = true;
            }
            // Either the owner's device does the work and the sweeper watches the clock, or another
            // orchestrator processes the job, or it is settled, or an orchestrator of a later
            // release knows what its state means.
            JobState::Running { .. }
            | JobState::AwaitingOwner
            | JobState::Signed { .. }
            | JobState::Failed { .. }
            | JobState::Expired
            | JobState::Cancelled
            | JobState::Unknown(_) => {
                // The job must not be offered again before its change is heard of.
                hand.act(What::Learn(version)).await;
                return Ok(done(worked));
            }
        }
    }
}

/// Takes a queued job one step on: an attempt, a wait for its owner, or its end.
async fn advance(
    hand: &Hand,
    job: &JobKey,
    version: Version,
    request: &Arc<SigningRequest>,
) -> Result<Advanced, StoreFailure> {
    if !is_broker_safe(hand).await {
        // No further announcement is pulled until the broker is safe.
        return Ok(Advanced::Wait(hand.queue.retry_pause));
    }
    if hand.now_ms() >= version.record.expires_at_ms
        && let Some(dispute) = hand.dispute()
    {
        return wait(hand, job, version, request, dispute).await;
    }
    let mut terms = hand.ask_parties(request.wallet, Answers::OfPresent).await;
    let past = past_attempts(&version.record);
    let moment = Moment { now_ms: hand.now_ms(), jitter: 1.0 };
    let decide = |terms: &PairTerms| {
        plan::decide(&request.pairs, &past, |pair| terms.of(pair).map(drop), &hand.queue, moment)
    };
    let mut decision = decide(&terms);
    if matches!(decision, Decision::Fail(_)) {
        // The obstacle may have been removed since, and another process may know.
        terms = hand.ask_parties(request.wallet, Answers::New).await;
        decision = decide(&terms);
    }
    match decision {
        // The job is due, but for a pair that cannot sign now. This one still has to rest.
        Decision::Try(_, pause) if !pause.is_zero() => Ok(Advanced::Wait(pause)),
        Decision::Try(pair, _) => match terms.of(pair) {
            Ok(terms) => match session::take_places(hand, terms, request.wallet) {
                Ok(places) => {
                    let tried = attempt(hand, job, version, request, pair, (terms.clone(), places)).await?;
                    Ok(if tried { Advanced::Tried } else { Advanced::Moved })
                }
                Err(Lack::Full(party)) => {
                    hand.park(job, party);
                    Ok(Advanced::Parked)
                }
                Err(lack @ Lack::Away(_)) => wait(hand, job, version, request, lack.into()).await,
            },
            Err(refusal) => wait(hand, job, version, request, refusal).await,
        },
        Decision::AwaitOwner(_) => {
            let park = change(hand, job, Some(version), |record| {
                record.apply(&JobEvent::Park, record.fence, hand.now_ms())
            });
            Ok(if matches!(park.await?, Changed::Applied(_)) { Advanced::Over } else { Advanced::Moved })
        }
        Decision::Wait(refusal) => wait(hand, job, version, request, refusal).await,
        Decision::Fail(refusal) => {
            give_up(hand, job, refusal).await?;
            Ok(Advanced::Over)
        }
    }
}

/// Whether sessions may begin.
async fn is_broker_safe(hand: &Hand) -> bool {
    matches!(hand.act(What::AskBroker).await, Outcome::Broker(Ok(())))
}

/// Tries a job that waits for its owner with a pair that its request prefers, if such a pair can
/// sign now. Returns whether it started an attempt.
async fn go_without_owner(
    hand: &Hand,
    job: &JobKey,
    version: Version,
    request: &Arc<SigningRequest>,
) -> Result<bool, StoreFailure> {
    if !plan::prefers_backends(&request.pairs) || !is_broker_safe(hand).await {
        return Ok(false);
    }
    let terms = hand.ask_parties(request.wallet, Answers::OfPresent).await;
    let past = past_attempts(&version.record);
    let usable = |pair: Pair| terms.of(pair).map(drop);
    let Some(pair) = plan::without_owner(&request.pairs, &past, usable, &hand.queue) else {
        return Ok(false);
    };
    let Ok(terms) = terms.of(pair) else { return Ok(false) };
    let Ok(places) = session::take_places(hand, terms, request.wallet) else { return Ok(false) };
    attempt(hand, job, version, request, pair, (terms.clone(), places)).await
}

/// Runs one attempt of `pair` to its end. Returns false when another process had changed the job
/// first.
async fn attempt(
    hand: &Hand,
    job: &JobKey,
    version: Version,
    request: &Arc<SigningRequest>,
    pair: Pair,
    (terms, places): (Terms, Places),
) -> Result<bool, StoreFailure> {
    match session::start(hand, job, version, request, pair, terms).await {
        Ok(started) => session::run(hand, job, &started, places).await?,
        Err(NotStarted::Moved) => return Ok(false),
        Err(NotStarted::Store(error)) => return Err(error),
        Err(NotStarted::Internal(reason)) => {
            hand.note(Note::Trouble(format!("the orchestrator cannot set up a session: {reason}")));
            let message = "the orchestrator could not set up the session";
            give_up(hand, job, Refusal::new(Code::Internal, message)).await?;
        }
    }
    Ok(true)
}

/// Lets the job rest while no pair can sign. The parties are asked anew after that. The job shows
/// the reason: it is written when it changes, not at each look.
async fn wait(
    hand: &Hand,
    job: &JobKey,
    version: Version,
    request: &SigningRequest,
    refusal: Refusal,
) -> Result<Advanced, StoreFailure> {
    if !reasons::is_silence(refusal.code) {
        hand.act(What::ForgetParties { wallet: request.wallet, but_newest: true }).await;
    }
    let (record, now) = (&version.record, hand.now_ms());
    // The longer the job has waited, the longer the next pause.
    let waited = record.waiting.as_ref().map_or(Duration::ZERO, |waiting| until(now, waiting.since_ms));
    let pause = waited.clamp(hand.queue.retry_pause, hand.queue.max_retry_pause);
    let pause = pause.mul_f64(1.0 - hand.jitter() / 2.0);
    // Past its expiry it waits until the broker's nodes agree on the time.
    let left = Some(until(record.expires_at_ms, now)).filter(|left| !left.is_zero());
    let pause = left.map_or(pause, |left| pause.min(left));
    if record.waiting.as_ref().is_some_and(|waiting| waiting.code == refusal.code) {
        return Ok(Advanced::Wait(pause));
    }
    let event = JobEvent::Wait {
        code: refusal.code,
        message: refusal.message.clone(),
        next_attempt_at_ms: after(now, pause),
    };
    let noted = change(hand, job, Some(version), |record| record.apply(&event, record.fence, now)).await?;
    Ok(match noted {
        Changed::Applied(_) => {
            hand.note(Note::Waits(refusal));
            Advanced::Wait(pause)
        }
        Changed::Declined(_) | Changed::Missing => Advanced::Moved,
    })
}

/// The refusal of a job whose stored request does not parse. Without it the job would be looked at
/// for ever.
fn unreadable() -> Refusal {
    Refusal::new(Code::Internal, "the stored request cannot be read by this version")
}

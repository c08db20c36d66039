//! Begins the session in which the owner's device signs.

use std::sync::Arc;

use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, Pair, Refusal, progress::Step};

use super::{
    hand::Hand,
    session::{self, NotStarted},
    settle::end_attempt,
};
use crate::{
    actions::{Answers, NotBegun, Outcome, What},
    failure::past_attempts,
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

/// Starts a session with the device in it and invites the responder. Returns the manifest, which is
/// the device's own invitation.
pub(super) async fn begin(hand: &Hand, version: Version) -> Result<Vec<u8>, NotBegun> {
    if hand.has_passed(version.record.expires_at_ms) {
        return Err(Refusal::new(Code::JobExpired, "the job has expired").into());
    }
    match hand.act(What::AskBroker).await {
        Outcome::Broker(Ok(())) => {}
        Outcome::Broker(Err(refusal)) => return Err(refusal.into()),
        _ => return Err(Refusal::new(Code::BrokerUnreachable, "the broker cannot be reached").into()),
    }
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
    Ok(started.manifest)
}

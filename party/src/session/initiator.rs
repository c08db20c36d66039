//! The initiator's driver: two trips, each a request, then the gate.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use duet_bus::{Address, Bus, RequestError};
use duet_protocol::{
    initiator::{Initiator, InitiatorSetup},
    paillier_key::PaillierKey,
};
use duet_wire::{Code, Refusal, progress::Step};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use super::{
    Accepted, Cut, Ended, Reporter, SessionLimits, Trace,
    checks::locked_message,
    gate::{Blame, Released, release},
    pending,
};
use crate::{
    compute::system_rng,
    context::Context,
    error::PartyError,
    metrics::StoreDecision,
    store::{PaillierState, StoreError},
};

/// Runs a session to its end, or until `cut` ends it. Whatever happens, the nonce is gone
/// afterwards.
///
/// # Cancel safety
/// Dropping the future ends the session; a lock that has to be written is written nevertheless.
pub(crate) async fn initiate(
    context: &Context,
    bus: &Bus,
    accepted: &Accepted,
    paillier: Arc<PaillierKey>,
    limits: SessionLimits,
    cut: &Cut,
) -> Ended {
    let own = accepted.own();
    let reporter = Reporter::new(bus, &context.clock, accepted.manifest.session, &own.party);
    let end = Instant::now() + limits.session.min(accepted.remaining(context.clock.now_ms()));
    let running = timeout_at(end, run(context, bus, accepted, paillier, limits.round, &reporter));
    let ran = tokio::select! {
        biased;
        ran = running => ran,
        ended = cut.ended() => return ended,
    };
    let (gate, nonce) = match ran {
        Ok(Ok(under_way)) => under_way,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::failed(Code::Deadline, "the session took too long"),
    };
    // No deadline from here on, and no cut: a report that the session took too long, while a lock
    // is being written, would tell that there is one. The store's own deadlines end in silence.
    match gate.await {
        Ok(Ok(released)) => settle(released, nonce),
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Silent,
    }
}

/// The task that turns message 4 into what may be said. Beside it goes the hash of the nonce.
type GateTask = JoinHandle<Result<Result<Released, StoreError>, Ended>>;

async fn run(
    context: &Context,
    bus: &Bus,
    accepted: &Accepted,
    paillier: Arc<PaillierKey>,
    round: Duration,
    reporter: &Reporter,
) -> Result<(GateTask, [u8; 32]), Ended> {
    let setup = InitiatorSetup {
        manifest: accepted.bytes.clone(),
        session: accepted.manifest.session,
        digest: accepted.digest,
        path: accepted.request.path.clone(),
        share: Arc::clone(&accepted.share),
        paillier,
        keys: Arc::clone(&accepted.identity.keys),
        card: Arc::clone(&accepted.identity.card),
        responder_index: accepted.peer().index,
        responder: Arc::clone(&accepted.peer_card),
    };
    let address = Address::Round {
        session: accepted.manifest.session,
        from: accepted.own().party.clone(),
        to: accepted.peer().party.clone(),
    };
    let compute = &context.compute;
    let abandoned = |error| Ended::from(PartyError::from(error));

    let (state, message1) =
        compute.run(move || Initiator::start(setup, &mut system_rng())).await.map_err(abandoned)??;
    let nonce = state.nonce_hash();
    reporter.step(Step::Sent { message: 1 }).await;
    let message2 = bus.request_resending(&address, message1, round).await.map_err(unanswered)?;
    let (state, message3) =
        compute.run(move || state.receive(&message2, &mut system_rng())).await.map_err(abandoned)??;
    reporter.step(Step::Received { message: 2 }).await;
    // Never sent again: the responder may have answered it.
    let message4: Bytes = bus.request(&address, message3, round).await.map_err(unanswered)?;
    // From the decryption to the store's answer no progress is told, good or bad. In a task of its
    // own: a session that is dropped now must not take a lock with it.
    let context = context.clone();
    let blame = Blame {
        wallet: accepted.manifest.wallet,
        card: accepted.peer_card.fingerprint(),
        event: accepted.locked(accepted.manifest.paillier_key),
    };
    let answers = accepted.answers();
    let gate = async move {
        // What stops in the middle of a verdict says nothing about it.
        let answer =
            context.compute.run(move || state.authenticate(&message4)).await.map_err(|_| Ended::Silent)??;
        let unfinished = answer.pending();
        let writing = pending::write(&context, &unfinished, &blame, answers);
        let written = context.metrics.stored(StoreDecision::Pending, writing).await;
        let written = written.map_err(|error| match error {
            PartyError::Store(
                StoreError::TooManyAnswers | StoreError::OtherPayload { .. } | StoreError::Quarantined(_),
            ) => error.into(),
            error => {
                tracing::error!(%error, "a pending verdict cannot be written; nothing is decrypted");
                Ended::Silent
            }
        })?;
        let verdict = context
            .compute
            .run(move || answer.decrypt(&written, &mut system_rng()))
            .await
            .map_err(|_| Ended::Silent)??;
        let key = verdict.paillier_key();
        let releasing = release(&**context.store(), verdict, &context.clock, blame);
        let released = context.metrics.stored(StoreDecision::Release, releasing).await;
        if let Ok(Released::BadSignature(_)) = &released {
            context.metrics.locked();
            context.witness.locked();
            context.forget_key(key);
        }
        Ok(released)
    };
    Ok((tokio::spawn(gate.in_current_span()), nonce))
}

fn settle(released: Result<Released, StoreError>, nonce: [u8; 32]) -> Ended {
    match released {
        Ok(Released::Signature { signature, answer }) => {
            Ended::Signed { signature, trace: Trace { nonce, answer } }
        }
        Ok(Released::BadSignature(report)) => {
            tracing::error!(culprit = %report.culprit(), "bad signature: the Paillier key is locked");
            Ended::Failed {
                culprit: Some(report.culprit().clone()),
                refusal: Refusal::new(
                    Code::PeerMisbehaved,
                    format!("{} answered with a bad signature; the Paillier key is locked", report.culprit()),
                ),
            }
        }
        Ok(Released::Closed(PaillierState::NeedsRotation)) => Ended::failed(
            Code::NeedsRotation,
            "the share store was restored; rotate the Paillier key before this party initiates",
        ),
        Ok(Released::Closed(_)) => Ended::failed(Code::Locked, locked_message()),
        Err(error) => {
            tracing::error!(%error, "a verdict cannot be released; nothing is reported");
            Ended::Silent
        }
    }
}

fn unanswered(error: RequestError) -> Ended {
    match error {
        RequestError::TimedOut { .. } | RequestError::NoResponders { .. } => {
            Ended::failed(Code::Deadline, "the responder did not answer in time")
        }
        other => PartyError::from(other).into(),
    }
}

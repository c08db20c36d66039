//! The initiator's driver: two trips, each a request, then the gate.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use duet_wire::{Code, Refusal, progress::Step};

use super::{
    Accepted, Ended, SessionLimits, Trace,
    checks::locked_message,
    engine::Engine,
    gate::{Blame, Released, release},
    host::{Host, bounded},
    pending,
};
use crate::{
    context::Context,
    error::PartyError,
    metrics::StoreDecision,
    store::{AnswersOf, PaillierState, StoreError},
};

/// Runs a session to its end, or until `cut` ends it. Whatever happens, the nonce is gone
/// afterwards.
pub(super) async fn initiate<H: Host>(
    context: &Context,
    host: &H,
    accepted: &Accepted<H::Engine>,
    paillier: &Arc<<H::Engine as Engine>::Key>,
    limits: SessionLimits,
    cut: impl Future<Output = Ended> + Send,
) -> Ended {
    let time = limits.session.min(accepted.remaining(context.clock.now_ms()));
    let running = exchange(context, host, accepted, Arc::clone(paillier), limits.round);
    let (opened, nonce, message4) = match bounded(host, time, running, cut).await {
        Ok(exchanged) => exchanged,
        Err(ended) => return ended,
    };
    // No deadline from here on, and no cut: a report that the session took too long, while a lock
    // is being written, would tell that there is one. The store's own deadlines end in silence. In
    // a task of its own: a session that is dropped now must not take a lock with it.
    let gate = judge::<H::Engine>(context.clone(), opened, message4, Blame::of(accepted), accepted.answers());
    match host.apart(gate).await {
        Some(Ok(released)) => settle(released, nonce),
        Some(Err(ended)) => ended,
        None => Ended::Silent,
    }
}

/// The two trips. Returns the state that message 4 is for, the hash of the nonce, and message 4.
async fn exchange<H: Host>(
    context: &Context,
    host: &H,
    accepted: &Accepted<H::Engine>,
    paillier: Arc<<H::Engine as Engine>::Key>,
    round: Duration,
) -> Result<(<H::Engine as Engine>::Opened, [u8; 32], Bytes), Ended> {
    let side = accepted.side();
    let (state, message1) = context
        .compute
        .draw(move |entropy| H::Engine::start(side, paillier, entropy))
        .await
        .map_err(PartyError::from)??;
    let nonce = H::Engine::nonce_hash(&state);
    host.tell(context, accepted, Step::Sent { message: 1 }).await;
    let message2 = host.ask(accepted, message1, round, true).await?;
    let (state, message3) = context
        .compute
        .draw(move |entropy| H::Engine::open(state, &message2, entropy))
        .await
        .map_err(PartyError::from)??;
    host.tell(context, accepted, Step::Received { message: 2 }).await;
    // Never sent again: the responder may have answered it.
    let message4 = host.ask(accepted, message3, round, false).await?;
    Ok((state, nonce, message4))
}

/// Turns message 4 into what may be said. From the decryption to the store's answer no progress is
/// told, good or bad.
async fn judge<E: Engine>(
    context: Context,
    state: E::Opened,
    message4: Bytes,
    blame: Blame,
    answers: AnswersOf,
) -> Result<Released, Ended> {
    // What stops in the middle of a verdict says nothing about it.
    let answer = context
        .compute
        .draw(move |_| E::authenticate(state, &message4))
        .await
        .map_err(|_| Ended::Silent)??;
    let unfinished = E::pending(&answer);
    let writing = pending::write::<E>(&context, &unfinished, &blame, answers);
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
        .draw(move |entropy| E::decrypt(answer, &written, entropy))
        .await
        .map_err(|_| Ended::Silent)??;
    let key = blame.key;
    let releasing = release(&**context.store(), verdict, &context.clock, blame);
    let released = context.metrics.stored(StoreDecision::Release, releasing).await.map_err(|error| {
        tracing::error!(%error, "a verdict cannot be released; nothing is reported");
        Ended::Silent
    })?;
    if let Released::BadSignature(_) = &released {
        context.metrics.locked();
        context.witness.locked();
        context.forget_key(key);
    }
    Ok(released)
}

fn settle(released: Released, nonce: [u8; 32]) -> Ended {
    match released {
        Released::Signature { signature, answer } => {
            Ended::Signed { signature, trace: Trace { nonce, answer } }
        }
        Released::BadSignature(culprit) => {
            tracing::error!(%culprit, "bad signature: the Paillier key is locked");
            let message = format!("{culprit} answered with a bad signature; the Paillier key is locked");
            Ended::Failed { culprit: Some(culprit), refusal: Refusal::new(Code::PeerMisbehaved, message) }
        }
        Released::Closed(PaillierState::NeedsRotation) => Ended::failed(
            Code::NeedsRotation,
            "the share store was restored; rotate the Paillier key before this party initiates",
        ),
        Released::Closed(_) => Ended::failed(Code::Locked, locked_message()),
    }
}

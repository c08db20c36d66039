//! The responder's driver: answers two messages, and the second one only once, ever.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use duet_protocol::session::SessionError;
use duet_wire::{Code, progress::Step};
use futures::future::{Either, select};

use super::{
    Accepted, Ended, SessionLimits,
    engine::Engine,
    gate,
    host::{Host, RoundMessage as _, Rounds, bounded},
};
use crate::{context::Context, error::PartyError, metrics::StoreDecision, store::Charge};

/// Forged first messages that are ignored before the session is given up. The broker lets only the
/// initiator's role publish there, so one is rare already.
const MAX_FORGED_MESSAGES: u32 = 8;

/// Runs a session to its end, or until `cut` ends it. `rounds` was registered before the invitation
/// was accepted. Whatever happens, the nonce is gone afterwards.
///
/// # Cancel safety
/// Dropping the future ends the session.
pub(super) async fn respond<H: Host>(
    context: &Context,
    host: &H,
    accepted: &Accepted<H::Engine>,
    enrolment: &Arc<<H::Engine as Engine>::Enrolment>,
    rounds: H::Rounds,
    limits: SessionLimits,
    cut: impl Future<Output = Ended> + Send,
) -> Ended {
    let time = limits.session.min(accepted.remaining(context.clock.now_ms()));
    let driver = Driver { context, host, accepted, enrolment, rounds, round: limits.round };
    match bounded(host, time, driver.run(), cut).await {
        Ok(()) => Ended::Answered,
        Err(ended) => ended,
    }
}

type Message<H> = <<H as Host>::Rounds as Rounds>::Message;
type Listening<H> = <<H as Host>::Engine as Engine>::Listening;

struct Driver<'a, H: Host> {
    context: &'a Context,
    host: &'a H,
    accepted: &'a Accepted<H::Engine>,
    enrolment: &'a Arc<<H::Engine as Engine>::Enrolment>,
    rounds: H::Rounds,
    round: Duration,
}

impl<H: Host> Driver<'_, H> {
    async fn run(mut self) -> Result<(), Ended> {
        let Self { context, host, accepted, enrolment, .. } = self;
        let (state, message1, message2) = self.first().await?;
        let begun = host.begin(context, &state, enrolment);
        host.tell(context, accepted, Step::Received { message: 1 }).await;
        let opening = self.opening(&message1, &message2).await?;
        let payload = opening.payload().clone();
        let randomizer = host.take(begun, enrolment).await.map_err(PartyError::from)?;
        // Computed before it is charged, so that the charge is recorded together with the answer's
        // hash. It cannot leave before.
        let answer = context
            .compute
            .draw(move |entropy| H::Engine::answer(state, &payload, randomizer, entropy))
            .await
            .map_err(PartyError::from)??;
        let (session, wallet, digest) = H::Engine::charge(&answer);
        let charge = Charge { session, wallet, digest, charged_at_ms: context.clock.now_ms() };
        let path = &accepted.request.path;
        let spending = accepted.ruling.spending(&accepted.manifest, path, digest, charge.charged_at_ms);
        let event = accepted.charged(H::Engine::trace(&answer));
        let store = &**context.store();
        let charging = gate::charge(store, &charge, spending, accepted.answers(), event);
        let charged = context
            .metrics
            .stored(StoreDecision::Charge, charging)
            .await
            .map_err(PartyError::from)?
            .ok_or_else(|| Ended::failed(Code::SessionReplayed, "the session was answered before"))?;
        let message4 = H::Engine::charged(answer, charged)?;
        // With the answer, so that telling costs no write of its own.
        host.tell(context, accepted, Step::Received { message: 3 }).await;
        opening.respond(message4.into()).await?;
        host.tell(context, accepted, Step::Sent { message: 4 }).await;
        host.answered(context, enrolment);
        Ok(())
    }

    /// Waits for an authentic message 1 and answers it. A forgery is ignored: nothing was done for
    /// it, and it must not end the session of those who were invited.
    async fn first(&mut self) -> Result<(Listening<H>, Bytes, Bytes), Ended> {
        // The initiator is invited after this party: it may take as long as the session.
        let mut forged = 0;
        loop {
            let message = self.rounds.next().await.ok_or_else(closed)?;
            let (side, enrolment) = (self.accepted.side(), Arc::clone(self.enrolment));
            let payload = message.payload().clone();
            let accepted = self
                .context
                .compute
                .draw(move |entropy| H::Engine::accept(side, enrolment, &payload, entropy))
                .await
                .map_err(PartyError::from)?;
            match accepted {
                Ok((state, answer)) => {
                    let answer = Bytes::from(answer);
                    message.respond(answer.clone()).await?;
                    return Ok((state, message.payload().clone(), answer));
                }
                Err(SessionError::NotAuthentic(round)) if forged < MAX_FORGED_MESSAGES => {
                    tracing::warn!(%round, "a message that is not authentic was ignored");
                    forged += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for message 3. The initiator sends message 1 again while no party seems to listen. The
    /// same bytes get the same answer, which tells nothing new.
    async fn opening(&mut self, message1: &Bytes, message2: &Bytes) -> Result<Message<H>, Ended> {
        let mut over = pin!(self.host.sleep(self.round));
        loop {
            let next = pin!(self.rounds.next());
            let message = match select(next, &mut over).await {
                Either::Left((message, _)) => message.ok_or_else(closed)?,
                Either::Right(_) => {
                    return Err(Ended::failed(Code::Deadline, "the initiator did not answer in time"));
                }
            };
            if message.payload() != message1 {
                return Ok(message);
            }
            message.respond(message2.clone()).await?;
        }
    }
}

fn closed() -> Ended {
    Ended::failed(Code::BrokerUnreachable, "the connection was closed")
}

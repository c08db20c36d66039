//! The responder's driver: answers two messages, and the second one only once, ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use duet_bus::{Bus, Incoming, Subscription};
use duet_protocol::{
    enrolment::VerifiedEnrolment,
    responder::{AwaitingOpening, Responder, ResponderSetup},
    session::SessionError,
};
use duet_wire::{Code, progress::Step};
use tokio::time::{Instant, timeout_at};

use super::{Accepted, Cut, Ended, Reporter, SessionLimits, Trace, gate};
use crate::{
    compute::system_rng,
    context::Context,
    error::PartyError,
    metrics::StoreDecision,
    randomizers::{Randomizers, Taken},
    store::Charge,
};

/// Forged first messages that are ignored before the session is given up. The broker lets only the
/// initiator's role publish there, so one is rare already.
const MAX_FORGED_MESSAGES: u32 = 8;

/// Runs a session to its end, or until `cut` ends it. `rounds` was registered at the broker
/// before the invitation was accepted. Whatever happens, the nonce is gone afterwards.
///
/// # Cancel safety
/// Dropping the future ends the session.
#[expect(clippy::too_many_arguments, reason = "what a session is made of, from three owners")]
pub(crate) async fn respond(
    context: &Context,
    bus: &Bus,
    accepted: &Accepted,
    enrolment: Arc<VerifiedEnrolment>,
    rounds: Subscription,
    randomizers: &Randomizers,
    limits: SessionLimits,
    cut: &Cut,
) -> Ended {
    let own = accepted.own();
    let reporter = Reporter::new(bus, &context.clock, accepted.manifest.session, &own.party);
    let end = Instant::now() + limits.session.min(accepted.remaining(context.clock.now_ms()));
    let driver = Driver { context, accepted, enrolment, rounds, round: limits.round, reporter };
    let ran = tokio::select! {
        biased;
        ran = timeout_at(end, driver.run(randomizers)) => ran,
        ended = cut.ended() => return ended,
    };
    match ran {
        Ok(Ok(())) => Ended::Answered,
        Ok(Err(ended)) => ended,
        Err(_) => Ended::failed(Code::Deadline, "the session took too long"),
    }
}

struct Driver<'a> {
    context: &'a Context,
    accepted: &'a Accepted,
    enrolment: Arc<VerifiedEnrolment>,
    rounds: Subscription,
    round: Duration,
    reporter: Reporter,
}

impl Driver<'_> {
    async fn run(mut self, randomizers: &Randomizers) -> Result<(), Ended> {
        let (state, message1, message2) = self.first().await?;
        let begun = randomizers.begin(&state, &self.enrolment, &self.context.compute);
        self.reporter.step(Step::Received { message: 1 }).await;
        let opening = self.opening(&message1, &message2).await?;
        let payload = opening.payload.clone();
        let taken = randomizers.take(begun, &self.enrolment).await.map_err(abandoned)?;
        // Computed before it is charged, so that the charge is recorded together with the answer's
        // hash. It cannot leave before.
        let answer = self
            .context
            .compute
            .run(move || {
                let mut rng = system_rng();
                let state = state.receive(&payload)?;
                let randomizer = match taken {
                    Taken::Computed(randomizer) => Some(randomizer),
                    Taken::Table(table) => Some(state.draw_randomizer(&mut rng).choose(&table)),
                    Taken::Nothing => None,
                };
                state.answer(randomizer, &mut rng)
            })
            .await
            .map_err(abandoned)??;
        let (session, wallet, digest) = answer.charge();
        let charge = Charge { session, wallet, digest, charged_at_ms: self.context.clock.now_ms() };
        let accepted = self.accepted;
        let path = &accepted.request.path;
        let spending = accepted.ruling.spending(&accepted.manifest, path, digest, charge.charged_at_ms);
        let trace = Trace { nonce: answer.nonce_hash(), answer: answer.ciphertext_hash() };
        let answers = accepted.answers();
        let store = &**self.context.store();
        let charging = gate::charge(store, &charge, spending, answers, accepted.charged(trace));
        let charged = self
            .context
            .metrics
            .stored(StoreDecision::Charge, charging)
            .await
            .map_err(PartyError::from)?
            .ok_or_else(|| Ended::failed(Code::SessionReplayed, "the session was answered before"))?;
        let (message4, _) = answer.release(charged)?;
        // With the answer, so that telling costs no write of its own.
        self.reporter.step(Step::Received { message: 3 }).await;
        opening.respond(message4).await.map_err(unsent)?;
        self.reporter.step(Step::Sent { message: 4 }).await;
        randomizers.keep_up(&self.enrolment, &self.context.compute);
        Ok(())
    }

    /// Waits for an authentic message 1 and answers it. A forgery is ignored: nothing was done for
    /// it, and it must not end the session of those who were invited.
    async fn first(&mut self) -> Result<(AwaitingOpening, Bytes, Bytes), Ended> {
        // The initiator is invited after this party: it may take as long as the session.
        let mut forged = 0;
        loop {
            let message = self.next(None).await?;
            let setup = self.setup();
            let payload = message.payload.clone();
            let accepted = self
                .context
                .compute
                .run(move || Responder::accept(setup, &payload, &mut system_rng()))
                .await
                .map_err(abandoned)?;
            match accepted {
                Ok((state, answer)) => {
                    let answer = Bytes::from(answer);
                    message.respond(answer.clone()).await.map_err(unsent)?;
                    return Ok((state, message.payload.clone(), answer));
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
    async fn opening(&mut self, message1: &Bytes, message2: &Bytes) -> Result<Incoming, Ended> {
        let end = Instant::now() + self.round;
        loop {
            let message = self.next(Some(end)).await?;
            if message.payload != *message1 {
                return Ok(message);
            }
            message.respond(message2.clone()).await.map_err(unsent)?;
        }
    }

    async fn next(&mut self, end: Option<Instant>) -> Result<Incoming, Ended> {
        let deadline = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = self.rounds.next() => {
                message.ok_or_else(|| Ended::failed(Code::BrokerUnreachable, "the connection was closed"))
            }
            () = deadline => Err(Ended::failed(Code::Deadline, "the initiator did not answer in time")),
        }
    }

    fn setup(&self) -> ResponderSetup {
        ResponderSetup {
            manifest: self.accepted.bytes.clone(),
            session: self.accepted.manifest.session,
            digest: self.accepted.digest,
            path: self.accepted.request.path.clone(),
            share: Arc::clone(&self.accepted.share),
            enrolment: Arc::clone(&self.enrolment),
            keys: Arc::clone(&self.accepted.identity.keys),
            card: Arc::clone(&self.accepted.identity.card),
            initiator: Arc::clone(&self.accepted.peer_card),
        }
    }
}

fn abandoned(error: crate::compute::Abandoned) -> Ended {
    PartyError::from(error).into()
}

fn unsent(error: duet_bus::PublishError) -> Ended {
    Ended::failed(Code::BrokerUnreachable, format!("an answer could not be sent: {error}"))
}

//! A party's own process: sessions over the broker, on the runtime's clock and tasks.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use duet_bus::{Address, Bus, Filter, Incoming, RequestError, Subscription};
use duet_protocol::{enrolment::VerifiedEnrolment, responder::AwaitingOpening};
use duet_wire::{Code, progress::Step};
use tracing::Instrument as _;

use super::{
    Accepted, Ended, Reporter,
    host::{Host, RoundMessage, Rounds},
    protocol::Protocol,
};
use crate::{
    compute::Abandoned,
    context::Context,
    error::PartyError,
    randomizers::{Begun, Randomizers, Taken},
};

/// How long the broker may take to register a subscription.
const BARRIER: Duration = Duration::from_secs(5);

/// A process on the broker.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    bus: Bus,
    randomizers: Randomizers,
}

impl Online {
    pub(crate) fn new(bus: &Bus, randomizers: &Randomizers) -> Self {
        Self { bus: bus.clone(), randomizers: randomizers.clone() }
    }
}

impl Host for Online {
    type Engine = Protocol;
    type Rounds = Subscription;
    type Begun = Begun;

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        let task = tokio::spawn(work.in_current_span());
        async { task.await.ok() }
    }

    async fn listen(&self, accepted: &Accepted) -> Result<Subscription, PartyError> {
        let (session, from, to) = (accepted.manifest.session, &accepted.peer().party, &accepted.own().party);
        Ok(self.bus.subscribe_registered(&Filter::rounds(session, from, to), BARRIER).await?)
    }

    async fn ask(
        &self,
        accepted: &Accepted,
        message: Vec<u8>,
        within: Duration,
        is_repeatable: bool,
    ) -> Result<Bytes, Ended> {
        let address = Address::Round {
            session: accepted.manifest.session,
            from: accepted.own().party.clone(),
            to: accepted.peer().party.clone(),
        };
        let answered = if is_repeatable {
            self.bus.request_resending(&address, message, within).await
        } else {
            self.bus.request(&address, message, within).await
        };
        answered.map_err(unanswered)
    }

    async fn tell(&self, context: &Context, accepted: &Accepted, step: Step) {
        let own = &accepted.own().party;
        Reporter::new(&self.bus, &context.clock, accepted.manifest.session, own).step(step).await;
    }

    fn begin(&self, context: &Context, state: &AwaitingOpening, enrolment: &VerifiedEnrolment) -> Begun {
        self.randomizers.begin(state, enrolment, &context.compute)
    }

    async fn take(&self, begun: Begun, enrolment: &VerifiedEnrolment) -> Result<Taken, Abandoned> {
        self.randomizers.take(begun, enrolment).await
    }

    fn answered(&self, context: &Context, enrolment: &Arc<VerifiedEnrolment>) {
        self.randomizers.keep_up(enrolment, &context.compute);
    }
}

impl Rounds for Subscription {
    type Message = Incoming;

    async fn next(&mut self) -> Option<Incoming> {
        Self::next(self).await
    }
}

impl RoundMessage for Incoming {
    fn payload(&self) -> &Bytes {
        &self.payload
    }

    async fn respond(&self, answer: Bytes) -> Result<(), Ended> {
        Self::respond(self, answer).await.map_err(|error| {
            Ended::failed(Code::BrokerUnreachable, format!("an answer could not be sent: {error}"))
        })
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

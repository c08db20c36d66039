//! A process of a party as the host of its sessions: rounds over the hostile network.

use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;
use duet_protocol::ids::{PartyId, SessionId};
use duet_wire::{Code, progress::Step};
use futures::{
    StreamExt as _,
    channel::{mpsc, oneshot},
    future::{Either, select},
};

use super::{
    engines::{Sent, WorldEngine},
    executor::ProcessId,
    judge::Seat,
    network::{Delivered, Network},
};
use crate::{
    compute::Abandoned,
    context::Context,
    error::PartyError,
    session::{Accepted, Ended, Host, RoundMessage, Rounds},
};

/// A process of a party.
#[derive(Debug)]
pub(super) struct WorldHost<E> {
    network: Network,
    /// Which start of a process.
    process: ProcessId,
    /// Which of the two holders.
    holder: usize,
    engine: PhantomData<fn() -> E>,
}

impl<E> Clone for WorldHost<E> {
    fn clone(&self) -> Self {
        Self { network: self.network.clone(), engine: PhantomData, ..*self }
    }
}

impl<E: WorldEngine> WorldHost<E> {
    pub(super) fn new(network: &Network, process: ProcessId, holder: usize) -> Self {
        Self { network: network.clone(), process, holder, engine: PhantomData }
    }

    fn seat(&self, accepted: &Accepted<E>) -> Seat {
        let manifest = &accepted.manifest;
        let (session, job, digest) = (manifest.session, manifest.job, accepted.digest);
        Seat { holder: self.holder, process: self.process, session, job, digest }
    }
}

impl<E: WorldEngine> Host for WorldHost<E> {
    type Engine = E;
    type Rounds = WorldRounds<E>;
    type Begun = ();

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.network.executor.sleep(duration)
    }

    fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        let (sender, receiver) = oneshot::channel();
        self.network.executor.spawn(Some(self.process), async move {
            drop(sender.send(work.await));
        });
        async { receiver.await.ok() }
    }

    async fn listen(&self, accepted: &Accepted<E>) -> Result<WorldRounds<E>, PartyError> {
        let executor = &self.network.executor;
        executor.sleep_ms(executor.below(20)).await;
        let to = &accepted.own().party;
        let messages = self.network.listen(accepted.manifest.session, to);
        let (network, seat) = (self.network.clone(), self.seat(accepted));
        Ok(WorldRounds { network, seat, messages, engine: PhantomData })
    }

    async fn ask(
        &self,
        accepted: &Accepted<E>,
        message: Vec<u8>,
        within: Duration,
        is_repeatable: bool,
    ) -> Result<Bytes, Ended> {
        let (network, executor) = (&self.network, &self.network.executor);
        let sent = if is_repeatable { Sent::First } else { Sent::Second };
        network.judge(|judge| judge.sent(&self.seat(accepted), E::seen(&message, sent)));
        let silence = || Ended::failed(Code::Deadline, "the responder did not answer in time");
        let to: (SessionId, PartyId) = (accepted.manifest.session, accepted.peer().party.clone());
        let end_ms = executor.now_ms() + u64::try_from(within.as_millis()).unwrap();
        while !network.is_heard(&to) {
            if !is_repeatable || executor.now_ms() >= end_ms {
                return Err(silence());
            }
            executor.sleep_ms(200).await;
        }
        let answer = network.send(to, message.into());
        let left_ms = end_ms.saturating_sub(executor.now_ms());
        match select(answer, executor.sleep_ms(left_ms)).await {
            Either::Left((Ok(answer), _)) => Ok(answer),
            Either::Left((Err(_), sleep)) => {
                sleep.await;
                Err(silence())
            }
            Either::Right(_) => Err(silence()),
        }
    }

    async fn tell(&self, _: &Context, accepted: &Accepted<E>, step: Step) {
        self.network.executor.trace(format_args!("{:?} {step:?}", self.seat(accepted)));
    }

    fn begin(&self, _: &Context, _: &E::Listening, _: &E::Enrolment) {}

    async fn take(&self, (): (), _: &E::Enrolment) -> Result<E::Randomizer, Abandoned> {
        Ok(E::randomizer(self.network.is_honest()))
    }

    fn answered(&self, _: &Context, _: &Arc<E::Enrolment>) {}
}

/// The messages that come to a responder.
pub(super) struct WorldRounds<E> {
    network: Network,
    seat: Seat,
    messages: mpsc::UnboundedReceiver<Delivered>,
    engine: PhantomData<fn() -> E>,
}

impl<E: WorldEngine> Rounds for WorldRounds<E> {
    type Message = WorldMessage<E>;

    async fn next(&mut self) -> Option<WorldMessage<E>> {
        let delivered = self.messages.next().await?;
        Some(WorldMessage { network: self.network.clone(), seat: self.seat, delivered, engine: PhantomData })
    }
}

/// A message that came.
pub(super) struct WorldMessage<E> {
    network: Network,
    seat: Seat,
    delivered: Delivered,
    engine: PhantomData<fn() -> E>,
}

impl<E: WorldEngine> RoundMessage for WorldMessage<E> {
    fn payload(&self) -> &Bytes {
        &self.delivered.payload
    }

    async fn respond(&self, answer: Bytes) -> Result<(), Ended> {
        self.network.judge(|judge| judge.sent(&self.seat, E::seen(&answer, Sent::Answer)));
        self.network.answer(self.delivered.question, answer);
        Ok(())
    }
}

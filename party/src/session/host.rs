//! What a session runs on: rounds, timers and tasks. A party's own process is one
//! ([`Online`](super::Online)), the seeded world of the tests another. The order of a session's
//! checks and decisions is in neither.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use duet_wire::{Code, progress::Step};
use futures::future::{Either, select};

use super::{Accepted, Ended, engine::Engine};
use crate::{compute::Abandoned, context::Context, error::PartyError};

/// What a session runs on.
pub(crate) trait Host: Clone + fmt::Debug + Send + Sync + 'static {
    /// What its sessions compute.
    type Engine: Engine;
    /// The messages that come to a responder.
    type Rounds: Rounds;
    /// A randomizer that was begun before message 3.
    type Begun: Send;

    /// Returns after `duration`, which counts from the call.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
    /// Runs `work` to its end, even if the returned future is dropped. `None`: the process stops.
    fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send;
    /// Begins to listen for the messages of the session's initiator, before the party accepts.
    fn listen(
        &self,
        accepted: &Accepted<Self::Engine>,
    ) -> impl Future<Output = Result<Self::Rounds, PartyError>> + Send;
    /// Sends a message to the session's responder, and returns the answer. Sends it again while no
    /// party seems to listen, if `is_repeatable`.
    fn ask(
        &self,
        accepted: &Accepted<Self::Engine>,
        message: Vec<u8>,
        within: Duration,
        is_repeatable: bool,
    ) -> impl Future<Output = Result<Bytes, Ended>> + Send;
    /// Tells the clients that follow the session how far it is. May be lost.
    fn tell(
        &self,
        context: &Context,
        accepted: &Accepted<Self::Engine>,
        step: Step,
    ) -> impl Future<Output = ()> + Send;
    /// Begins the randomizer of a session after its message 1, if there is room.
    fn begin(
        &self,
        context: &Context,
        state: &<Self::Engine as Engine>::Listening,
        enrolment: &<Self::Engine as Engine>::Enrolment,
    ) -> Self::Begun;
    /// Waits for the randomizer.
    fn take(
        &self,
        begun: Self::Begun,
        enrolment: &<Self::Engine as Engine>::Enrolment,
    ) -> impl Future<Output = Result<<Self::Engine as Engine>::Randomizer, Abandoned>> + Send;
    /// Notes that an answer has left.
    fn answered(&self, context: &Context, enrolment: &Arc<<Self::Engine as Engine>::Enrolment>);
}

/// The messages that come to a responder.
pub(crate) trait Rounds: Send {
    type Message: RoundMessage;
    /// The next one. `None`: no more will come.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Self::Message>> + Send;
}

/// A message that came, and can be answered.
pub(crate) trait RoundMessage: Send + Sync {
    fn payload(&self) -> &Bytes;
    fn respond(&self, answer: Bytes) -> impl Future<Output = Result<(), Ended>> + Send;
}

/// What `running` returns, unless the session's time is over before, or `cut` ends it.
pub(super) async fn bounded<H: Host, T: Send>(
    host: &H,
    time: Duration,
    running: impl Future<Output = Result<T, Ended>> + Send,
    cut: impl Future<Output = Ended> + Send,
) -> Result<T, Ended> {
    let (running, over, cut) = (pin!(running), pin!(host.sleep(time)), pin!(cut));
    match select(running, select(over, cut)).await {
        Either::Left((ran, _)) => ran,
        Either::Right((Either::Left(_), _)) => {
            Err(Ended::failed(Code::Deadline, "the session took too long"))
        }
        Either::Right((Either::Right((ended, _)), _)) => Err(ended),
    }
}

//! What all handlers of a worker share.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use duet_bus::{Bus, Incoming};
use duet_protocol::codec::{self, Message};
use duet_wire::Refusal;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    audit::Journal, compute, enrolment::Enroller, error::PartyError, party::Party, randomizers::Randomizers,
    resumption::Noticed,
};

/// Counts the sessions of a worker.
#[derive(Debug)]
pub(super) struct Seats {
    all: u32,
    taken: AtomicU32,
}

impl Seats {
    /// `all` free seats.
    pub(super) fn new(all: usize) -> Self {
        Self { all: u32::try_from(all).unwrap_or(u32::MAX), taken: AtomicU32::new(0) }
    }

    /// Counts one session until the guard is dropped.
    pub(super) fn take(&self) -> TakenSeat<'_> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        TakenSeat(self)
    }

    /// All seats, and the free ones.
    pub(super) fn count(&self) -> (u32, u32) {
        (self.all, self.all.saturating_sub(self.taken.load(Ordering::Relaxed)))
    }
}

/// One session's seat.
#[derive(Debug)]
pub(super) struct TakenSeat<'a>(&'a Seats);

impl Drop for TakenSeat<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// State that all handlers of a worker share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) party: Party,
    pub(super) bus: Bus,
    pub(super) instance: String,
    pub(super) seats: Seats,
    pub(super) enroller: Enroller,
    pub(super) randomizers: Randomizers,
    pub(super) journal: Journal,
    /// Wakes the housekeeping because a wallet needs an enrolment.
    pub(super) wake: Notify,
    /// Tells all sessions to fail now, because the worker stops.
    pub(super) cut: CancellationToken,
    /// Tells the present sessions to fail. It is replaced when the machine was resumed or copied.
    pub(super) open: Mutex<CancellationToken>,
    /// Reports of outcomes, which continue after their sessions.
    pub(super) reports: TaskTracker,
}

impl Shared {
    /// The token that tells present sessions to fail.
    pub(super) fn session_cut(&self) -> CancellationToken {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the present sessions and drops prepared values from memory. Another process may have a
    /// copy of them.
    pub(super) fn resumed(&self, noticed: &Noticed) {
        tracing::error!(%noticed, "this machine was resumed or copied: every open session ends");
        compute::renew_process();
        let context = &self.party.context;
        context.forget_keys();
        context.metrics.resumed(noticed);
        let next = self.cut.child_token();
        let before = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *open, next)
        };
        before.cancel();
    }
}

/// Answers a request. If the answer cannot be sent, the requester times out.
pub(super) async fn answer<M: Message>(message: &Incoming, reply: &M) {
    match codec::encode(reply) {
        Ok(bytes) => {
            if let Err(error) = message.respond(bytes).await {
                tracing::warn!(%error, "an answer was not sent");
            }
        }
        Err(error) => tracing::error!(%error, "an answer cannot be encoded"),
    }
}

/// Logs a failure of this party itself. Returns the part that others may know.
pub(super) fn refusal(error: &PartyError) -> Refusal {
    match error {
        PartyError::Refused(refusal) | PartyError::RefusedByPolicy { refusal, .. } => {
            tracing::info!(%refusal, "refused");
        }
        other => tracing::warn!(error = %other, "a request failed"),
    }
    error.to_refusal()
}

//! What all handlers of a worker share.

use std::sync::{Mutex, PoisonError};

use duet_bus::{Bus, Incoming};
use duet_protocol::codec::{self, Message};
use duet_wire::{InstanceId, Refusal};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::seats::Seats;
use crate::{
    audit::Journal, compute, enrolment::Enroller, error::PartyError, party::Party, randomizers::Randomizers,
    resumption::Noticed,
};

/// State that all handlers of a worker share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) party: Party,
    pub(super) bus: Bus,
    pub(super) instance: InstanceId,
    pub(super) enroller: Enroller,
    pub(super) randomizers: Randomizers,
    pub(super) journal: Journal,
    /// Wakes the housekeeping because a wallet needs an enrolment.
    pub(super) wake: Notify,
    /// Tells all sessions to fail now, because the worker stops.
    pub(super) cut: CancellationToken,
    /// Tells the present sessions to fail. It is replaced when the machine was resumed or copied.
    pub(super) open: Mutex<CancellationToken>,
    /// The sessions of this worker, with what ends each when its seat is released.
    pub(super) seats: Seats,
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

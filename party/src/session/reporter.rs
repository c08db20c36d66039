//! Tells the clients that follow a session how far it is.

use duet_bus::{Address, Bus};
use duet_protocol::ids::{PartyId, SessionId};
use duet_wire::progress::{Progress, Step};

use crate::clock::Clock;

/// Tells the clients that follow a session's events how far it is. May be lost.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    bus: Bus,
    clock: Clock,
    session: SessionId,
    from: PartyId,
}

impl Reporter {
    pub(crate) fn new(bus: &Bus, clock: &Clock, session: SessionId, from: &PartyId) -> Self {
        Self { bus: bus.clone(), clock: clock.clone(), session, from: from.clone() }
    }

    pub(crate) async fn step(&self, step: Step) {
        let progress = Progress { session: self.session, step, at_ms: self.clock.now_ms() };
        let address = Address::Event { session: self.session, from: (&self.from).into() };
        if let Err(error) = self.bus.publish(&address, progress.to_json()).await {
            tracing::debug!(%error, "progress was not published");
        }
    }
}

//! `duet.v1.release.<party>.<instance>`: takes a seat back from a session that does not go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use duet_bus::Incoming;
use duet_protocol::{codec, ids::SessionId};
use duet_wire::Release;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// A worker's sessions, each with what ends it when its seat is released. There are as many as the
/// worker has seats.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<SessionId, CancellationToken>>>);

impl Seats {
    /// Notes a session before the worker accepts it. So a release, which follows the acceptance,
    /// finds it.
    pub(super) fn take(&self, session: SessionId) -> Seat {
        let released = CancellationToken::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(session, released.clone());
        Seat { seats: self.clone(), session, released }
    }

    /// Ends a session of this worker. Ignores one that it does not know.
    fn release(&self, session: SessionId) -> bool {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.get(&session).map(CancellationToken::cancel).is_some()
    }
}

/// A seat that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    session: SessionId,
    released: CancellationToken,
}

impl Seat {
    /// Is cancelled when the seat is released.
    pub(super) const fn released(&self) -> &CancellationToken {
        &self.released
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

pub(super) async fn serve(shared: Arc<Shared>, message: Incoming) {
    match codec::decode::<Release>(&message.payload) {
        Ok(Release { session }) => {
            if shared.seats.release(session) {
                tracing::info!(%session, "the seat is released");
            } else {
                tracing::debug!(%session, "released a session that is not here");
            }
        }
        Err(error) => tracing::debug!(%error, "a release does not parse"),
    }
}

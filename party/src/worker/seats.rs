//! `duet.v1.release.<party>.<instance>`: takes a seat back from a session that does not go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_bus::Incoming;
use duet_protocol::{codec, ids::SessionId};
use duet_wire::Release;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// A worker's seats, and its sessions, each with what ends it when its seat is released.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    all: u32,
    taken: Arc<Mutex<HashMap<SessionId, CancellationToken>>>,
}

impl Seats {
    /// `all` free seats.
    pub(super) fn new(all: usize) -> Self {
        Self { all: u32::try_from(all).unwrap_or(u32::MAX), taken: Arc::default() }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<SessionId, CancellationToken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All seats, and the free ones.
    pub(super) fn count(&self) -> (u32, u32) {
        let taken = u32::try_from(self.taken().len()).unwrap_or(u32::MAX);
        (self.all, self.all.saturating_sub(taken))
    }

    /// Notes a session before the worker accepts it. So a release, which follows the acceptance,
    /// finds it.
    pub(super) fn take(&self, session: SessionId) -> Seat {
        let released = CancellationToken::new();
        self.taken().insert(session, released.clone());
        Seat { seats: self.clone(), session, released }
    }

    /// Ends a session of this worker. Ignores one that it does not know.
    fn release(&self, session: SessionId) -> bool {
        self.taken().get(&session).map(CancellationToken::cancel).is_some()
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
        self.seats.taken().remove(&self.session);
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

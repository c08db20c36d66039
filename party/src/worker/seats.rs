//! The seats of a worker, each with what ends its session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_protocol::ids::SessionId;
use tokio_util::sync::CancellationToken;

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
    pub(super) fn release(&self, session: SessionId) -> bool {
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

//! The seats of a worker, each with what ends its session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_protocol::ids::SessionId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A worker's seats, and its sessions, each with what ends it when its seat is released.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    all: u32,
    taken: watch::Sender<u32>,
    sessions: Arc<Mutex<HashMap<SessionId, CancellationToken>>>,
}

impl Seats {
    /// `all` free seats.
    pub(super) fn new(all: usize) -> Self {
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        Self { all, taken: watch::Sender::new(0), sessions: Arc::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, CancellationToken>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All seats, and the free ones.
    pub(super) fn count(&self) -> (u32, u32) {
        (self.all, self.all.saturating_sub(*self.taken.borrow()))
    }

    /// Changes when a seat is taken and when one becomes free.
    pub(super) fn changes(&self) -> watch::Receiver<u32> {
        self.taken.subscribe()
    }

    /// Takes a seat, if one is free.
    pub(super) fn take(&self) -> Option<Seat> {
        let is_free = self.taken.send_if_modified(|taken| {
            let is_free = *taken < self.all;
            *taken += u32::from(is_free);
            is_free
        });
        is_free.then(|| Seat { seats: self.clone(), session: None, released: CancellationToken::new() })
    }

    /// Ends a session of this worker. Ignores one that it does not know.
    pub(super) fn release(&self, session: SessionId) -> bool {
        self.sessions().get(&session).map(CancellationToken::cancel).is_some()
    }
}

/// A seat that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    session: Option<SessionId>,
    released: CancellationToken,
}

impl Seat {
    /// Notes the seat's session before the worker accepts it. So a release, which follows the
    /// acceptance, finds it.
    pub(super) fn note(&mut self, session: SessionId) {
        self.session = Some(session);
        self.seats.sessions().insert(session, self.released.clone());
    }

    /// Is cancelled when the seat is released.
    pub(super) const fn released(&self) -> &CancellationToken {
        &self.released
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.seats.sessions().remove(&session);
        }
        self.seats.taken.send_modify(|taken| *taken = taken.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_taken_once_and_come_back() {
        let seats = Seats::new(2);
        let mut first = seats.take().unwrap();
        let second = seats.take().unwrap();
        assert_eq!((seats.take().is_none(), seats.count()), (true, (2, 0)));
        first.note(SessionId([1; 16]));
        assert!(seats.release(SessionId([1; 16])) && first.released().is_cancelled());
        assert!(!seats.release(SessionId([2; 16])));
        let mut changes = seats.changes();
        drop((first, second));
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 0);
        assert!(!seats.release(SessionId([1; 16])));
    }
}

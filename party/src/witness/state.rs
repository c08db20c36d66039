//! Whether this process may initiate yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Whether this process may initiate yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness(Arc<State>);

#[derive(Debug, Default)]
struct State {
    pending: AtomicBool,
    locked: Notify,
}

impl Witness {
    /// Whether the store has yet to be compared with what others know of it.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.pending.load(Ordering::Acquire)
    }

    pub(super) fn set_pending(&self, pending: bool) {
        self.0.pending.store(pending, Ordering::Release);
    }

    /// A key was locked: those who keep heads are told at once.
    pub(crate) fn locked(&self) {
        self.0.locked.notify_one();
    }

    /// Returns when a key was locked. Cancel safe.
    pub(crate) async fn until_locked(&self) {
        self.0.locked.notified().await;
    }
}

//! What ends a session before its time.

use tokio_util::sync::CancellationToken;

use super::Ended;

/// What ends a session before its time: the worker stops or its machine was resumed, or the
/// orchestrator takes the seat back.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    stopped: CancellationToken,
    released: CancellationToken,
}

impl Cut {
    /// A session that ends when `stopped` or `released` is cancelled.
    pub(crate) fn new(stopped: CancellationToken, released: CancellationToken) -> Self {
        Self { stopped, released }
    }

    /// How the session ends, once something ends it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn ended(&self) -> Ended {
        tokio::select! {
            biased;
            () = self.stopped.cancelled() => Ended::cut_off(),
            () = self.released.cancelled() => Ended::Released,
        }
    }
}

//! Where the arithmetic runs: off the async threads, and no more of it at once than there are cores.

use std::sync::Arc;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use tokio::sync::Semaphore;

/// The work was not done: the runtime is stopping, or the work itself panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the computation was abandoned; the process is stopping")]
pub struct Abandoned;

/// Runs CPU-bound work on the runtime's blocking threads, at most so many at a time. Whoever waits
/// for a turn is itself one of a bounded number: a session, a request being served.
#[derive(Debug, Clone)]
pub struct Compute {
    turns: Arc<Semaphore>,
}

impl Compute {
    /// As many at a time as there are cores.
    #[must_use]
    pub fn per_core() -> Self {
        Self::limited(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// At most `limit` at a time, at least one.
    #[must_use]
    pub fn limited(limit: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(limit.max(1))) }
    }

    /// Runs `work` when there is a turn.
    ///
    /// # Errors
    /// When the runtime stops before it is done, or `work` panics.
    ///
    /// # Cancel safety
    /// Before its turn, dropping the future drops the work. Once it runs, it runs to its end, and its
    /// result is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Abandoned)?;
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            span.in_scope(work)
        })
        .await
        .map_err(|_| Abandoned)
    }

    /// Whether a turn is free right now: work that is not urgent waits for that.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.available_permits() > 0
    }
}

/// The operating system's generator. A failure of it ends the work in a panic, which [`Compute`]
/// contains: there is nothing to fall back on.
#[must_use]
pub fn system_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

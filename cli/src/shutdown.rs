//! Stops a server in order on SIGTERM or SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{CliError, ErrorCode};

/// The signals that ask a server to stop.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Starts to listen for the signals.
    ///
    /// # Errors
    /// When the operating system refuses to deliver the signals.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::internal(format!("signals cannot be listened to: {error}")))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Returns at the next signal.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The result of `starting`, unless a signal comes first.
    ///
    /// # Errors
    /// When a signal comes first.
    pub(crate) async fn unless_requested<T>(
        &mut self,
        starting: impl Future<Output = T>,
    ) -> Result<T, CliError> {
        tokio::select! {
            started = starting => Ok(started),
            () = self.requested() => {
                Err(CliError::new(ErrorCode::Interrupted, "stopped before it was ready"))
            }
        }
    }

    /// The result of `serving`. The first signal cancels `stop`, so that `serving` drains. A second
    /// signal ends the wait and returns `None`.
    pub(crate) async fn drain<T>(
        &mut self,
        stop: &CancellationToken,
        serving: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => return Some(ended),
            () = self.requested() => {
                tracing::info!("draining");
                stop.cancel();
            }
        }
        tokio::select! {
            ended = &mut serving => Some(ended),
            () = self.requested() => {
                tracing::warn!("a second signal: stopping at once");
                None
            }
        }
    }
}

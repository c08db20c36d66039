//! Stopping in order on SIGTERM or SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// The signals that ask a server to stop.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
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
}

//! How long a session may take.

use std::time::Duration;

/// How long things may take. All are upper bounds; a manifest's own expiry comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// For one round: from a message that was sent to its answer. Default 10 s.
    pub round: Duration,
    /// For a whole session. Default 30 s.
    pub session: Duration,
    /// For the report of an outcome to be acknowledged. Default 30 s.
    pub outcome: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            round: Duration::from_secs(10),
            session: Duration::from_secs(30),
            outcome: Duration::from_secs(30),
        }
    }
}

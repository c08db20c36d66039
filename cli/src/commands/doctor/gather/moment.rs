//! This machine's clock.

use std::time::Duration;

use crate::duration::since_1970;

/// The time, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    milliseconds(since_1970())
}

/// A duration in milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! The wall clock, for deadlines that several processes share.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 on a clock set before that.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, whole_millis)
}

/// A duration in milliseconds, at most `u64::MAX`.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long it is from `now_ms` until `moment_ms`; zero when that has passed.
pub(crate) const fn until(moment_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(moment_ms.saturating_sub(now_ms))
}

//! Times and durations in milliseconds.

use core::time::Duration;

/// A duration in milliseconds, at most `u64::MAX`.
#[must_use]
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long it is from `now_ms` until `moment_ms`; zero when that has passed.
#[must_use]
pub const fn until(moment_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(moment_ms.saturating_sub(now_ms))
}

//! Times and durations in milliseconds.

use core::time::Duration;

use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};

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

/// A moment in milliseconds since 1970, as people write it: RFC 3339, in UTC.
#[must_use]
pub fn written(moment_ms: u64) -> String {
    let moment = i64::try_from(moment_ms / 1000).ok().map(OffsetDateTime::from_unix_timestamp);
    moment
        .and_then(Result::ok)
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{moment_ms} ms since 1970"))
}

/// How far `theirs_ms` is ahead of `ours_ms`, in milliseconds.
#[must_use]
pub fn difference_ms(theirs_ms: u64, ours_ms: u64) -> i64 {
    let distance = i64::try_from(theirs_ms.abs_diff(ours_ms)).unwrap_or(i64::MAX);
    if theirs_ms >= ours_ms { distance } else { -distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_for_people() {
        assert_eq!(written(1_796_047_622_798), "2026-11-30T14:07:02Z");
        assert_eq!([difference_ms(5, 2), difference_ms(2, 5)], [3, -3]);
    }
}

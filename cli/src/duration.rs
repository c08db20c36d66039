//! Durations on the command line: `10m`, `1h 30m`, `45s`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses a duration of at least one millisecond and at most a hundred years.
///
/// # Errors
/// When the text is no duration, or when it is outside these bounds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    let duration = humantime::parse_duration(text).map_err(|e| format!("{e}; write 45s, 10m or 1h"))?;
    if duration < Duration::from_millis(1) || duration > MAX {
        return Err("a duration is at least 1ms and at most 100 years".to_owned());
    }
    Ok(duration)
}

/// The time since 1970.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept() {
        assert_eq!(parse("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "0s", "10", "-1s", "101years"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

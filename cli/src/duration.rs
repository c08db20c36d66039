//! Durations and moments on the command line: `10m`, `1h 30m`, `2026-11-30T12:00:00Z`.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A duration that a command line states or has as its default. [`parse`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).map(Self)
    }
}

/// The text is a whole number of the largest unit that allows it, for example `400d`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let millis = self.0.as_millis();
        let unit = UNITS.into_iter().find(|(_, length)| millis >= *length && millis.is_multiple_of(*length));
        let (unit, length) = unit.unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / length)
    }
}

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

/// Parses a moment, as the time since 1970: a duration ago, or in the form of RFC 3339.
///
/// # Errors
/// When the text is neither.
pub(crate) fn parse_moment(text: &str) -> Result<Duration, String> {
    if let Ok(ago) = parse(text) {
        return Ok(since_1970().saturating_sub(ago));
    }
    let moment = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "write a time ago, for example 2h, or 2026-11-30T12:00:00Z".to_owned())?;
    moment.duration_since(UNIX_EPOCH).map_err(|_| "the moment is before 1970".to_owned())
}

/// Milliseconds since 1970 as a date and time of day, in the form of RFC 3339.
pub(crate) fn moment(ms: u64) -> impl fmt::Display {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms))
}

/// The time since 1970.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_ago_or_a_date() {
        assert_eq!(parse_moment("1970-01-02T00:00:01Z"), Ok(Duration::from_secs(86_401)));
        let (before, hour) = (since_1970(), Duration::from_secs(3_600));
        let ago = parse_moment("1h").unwrap();
        assert!((before - hour..=since_1970() - hour).contains(&ago));
        for bad in ["", "yesterday", "1969-12-31T23:59:59Z"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(parse("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "0s", "10", "-1s", "101years"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_shown_as_they_may_be_written() {
        for text in ["400d", "90m", "10m", "36h", "5s", "1500ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!(Span(Duration::from_secs(7 * 86_400)).to_string(), "7d");
    }
}

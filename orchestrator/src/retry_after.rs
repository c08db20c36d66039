//! `Retry-After` (RFC 9110, section 10.2.3): a number of seconds, or a date.

use core::time::Duration;
use std::time::SystemTime;

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// How long the sender of `headers` asks the client to wait. `None` when the header is missing or
/// cannot be parsed.
///
/// A date is compared with the answer's own `Date`, so that differing clocks do not matter; without
/// that, with `now`. A date in the past asks for no pause. The caller bounds the pause.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER)?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let from = self::text(headers, DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(from).unwrap_or_default())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, in seconds since 1970.
    const EXAMPLE: u64 = 784_111_777;

    fn asked(retry_after: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(EXAMPLE);
        super::retry_after(&headers, now).map(|pause| pause.as_secs())
    }

    #[test]
    fn seconds_and_the_three_forms_of_a_date_are_read() {
        assert_eq!(asked("120", None), Some(120));
        assert_eq!(asked(" 7 ", None), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:51:37 GMT", None), Some(120));
        assert_eq!(asked("Sunday, 06-Nov-94 08:51:37 GMT", None), Some(120));
        assert_eq!(asked("Sun Nov  6 08:51:37 1994", None), Some(120));
    }

    #[test]
    fn a_date_is_measured_by_the_senders_own_clock() {
        let date = Some("Sun, 06 Nov 1994 08:49:00 GMT");
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:30 GMT", date), Some(30));
        assert_eq!(asked("30", date), Some(30));
        assert_eq!(asked("Sun, 06 Nov 1994 08:51:37 GMT", Some("yesterday")), Some(120));
    }

    #[test]
    fn what_has_passed_asks_for_nothing_and_nonsense_says_nothing() {
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", None), Some(0));
        for nonsense in ["", "soon", "-5", "1.5", "06 Nov 1994", "Sun, 06 Nov 1994 08:51:37"] {
            assert_eq!(asked(nonsense, None), None, "{nonsense}");
        }
        assert_eq!(super::retry_after(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
    }
}

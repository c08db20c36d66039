//! How long a request and an approval are valid, by the clock of the machine that checks.
//!
//! Each party judges by its own clock, with [`CLOCK_GRACE_MS`] at both ends. So an orchestrator
//! that withholds a request cannot have it signed later than its requester meant. All limits count
//! from the time of issue, which is signed. Orchestrators judge by the broker's clock, without
//! grace.

use crate::{
    error::{Code, Refusal},
    request::SigningRequest,
};

/// How far another machine's clock may be off, in milliseconds. A party takes a request or a
/// session that begins this much later by its own clock, or ended this much earlier.
pub const CLOCK_GRACE_MS: u64 = 30_000;

/// How long a request may be valid, in seconds: a day. Version 2 counts from its issue; version 1,
/// which has no date, counts from now.
pub const MAX_VALID_S: u64 = 24 * 60 * 60;

/// How long a request may be valid, in seconds, if the owner's device initiates or the policy's
/// rule required an approval: thirty days.
pub const MAX_VALID_WITH_APPROVAL_S: u64 = 30 * 24 * 60 * 60;

/// How long an approval is valid from its issue, in seconds: a day.
pub const APPROVAL_VALID_S: u64 = 24 * 60 * 60;

/// Why a request's times do not allow a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It has expired.
    #[error("the request expired {} ago", span(*.by_ms))]
    Expired {
        /// By how much, in milliseconds.
        by_ms: u64,
    },
    /// It was issued in the future: the requester's clock or this one is wrong.
    #[error(
        "the request was issued {} ahead of this clock: the requester's clock and this one differ; at \
         most {} are allowed",
        span(*.by_ms),
        span(CLOCK_GRACE_MS)
    )]
    Ahead {
        /// By how much, in milliseconds.
        by_ms: u64,
    },
    /// The requester made it valid for too long.
    #[error(
        "the request is valid for {} from its issue; at most {} are allowed here; submit one that ends earlier",
        span(.valid_s.saturating_mul(1000)),
        span(.max_s.saturating_mul(1000))
    )]
    ValidTooLong {
        /// How long it is valid, in seconds.
        valid_s: u64,
        /// How long it may be, in seconds.
        max_s: u64,
    },
    /// It is of version 1 and expires too late.
    #[error(
        "a request of version 1 has to end within {}; write version 2, which states issued_at",
        span(MAX_VALID_S * 1000)
    )]
    UndatedTooLong,
}

impl TimeError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Expired { .. } => Code::JobExpired,
            Self::Ahead { .. } => Code::ClockDiffers,
            Self::ValidTooLong { .. } | Self::UndatedTooLong => Code::ValidTooLong,
        }
    }
}

impl From<TimeError> for Refusal {
    fn from(error: TimeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl SigningRequest {
    /// Checks that the request is neither expired nor issued in the future at `now_ms`
    /// (milliseconds since 1970).
    ///
    /// # Errors
    /// [`TimeError::Expired`] and [`TimeError::Ahead`].
    pub fn require_current(&self, now_ms: u64) -> Result<(), TimeError> {
        self.require_current_until(now_ms, 0)
    }

    /// As [`Self::require_current`], by a party's own clock, which may be off: a request counts as
    /// expired [`CLOCK_GRACE_MS`] after its expiry.
    ///
    /// # Errors
    /// [`TimeError::Expired`] and [`TimeError::Ahead`].
    pub fn require_current_for_party(&self, now_ms: u64) -> Result<(), TimeError> {
        self.require_current_until(now_ms, CLOCK_GRACE_MS)
    }

    fn require_current_until(&self, now_ms: u64, grace_ms: u64) -> Result<(), TimeError> {
        let expires_at_ms = self.expires_at.saturating_mul(1000);
        if now_ms >= expires_at_ms.saturating_add(grace_ms) {
            return Err(TimeError::Expired { by_ms: now_ms - expires_at_ms });
        }
        let ahead_ms = self.issued_at.map_or(0, |at| at.saturating_mul(1000).saturating_sub(now_ms));
        if ahead_ms > CLOCK_GRACE_MS {
            return Err(TimeError::Ahead { by_ms: ahead_ms });
        }
        Ok(())
    }

    /// Checks that the request is not valid for too long. `is_approved` means that the owner's
    /// device initiates, or that the dated approval exists which the deciding rule requires.
    ///
    /// # Errors
    /// [`TimeError::ValidTooLong`] and [`TimeError::UndatedTooLong`].
    pub fn require_lifetime(&self, now_ms: u64, is_approved: bool) -> Result<(), TimeError> {
        let Some(issued_at) = self.issued_at else {
            let latest_ms = now_ms.saturating_add(MAX_VALID_S * 1000);
            return if self.expires_at.saturating_mul(1000) <= latest_ms {
                Ok(())
            } else {
                Err(TimeError::UndatedTooLong)
            };
        };
        let max_s = if is_approved { MAX_VALID_WITH_APPROVAL_S } else { MAX_VALID_S };
        let valid_s = self.expires_at.saturating_sub(issued_at);
        if valid_s > max_s { Err(TimeError::ValidTooLong { valid_s, max_s }) } else { Ok(()) }
    }
}

/// A span of milliseconds for people, for example `40 s`, `12 min`, `30 h`.
#[must_use]
pub fn span(milliseconds: u64) -> String {
    let seconds = milliseconds.div_ceil(1000);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..259_200 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How one clock's time `theirs_ms` relates to another's `ours_ms`, for example `40 s ahead of`.
#[must_use]
pub fn relation(theirs_ms: u64, ours_ms: u64) -> String {
    let side = if theirs_ms >= ours_ms { "ahead of" } else { "behind" };
    format!("{} {side}", span(theirs_ms.abs_diff(ours_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{REQUEST_VERSION, UNDATED_REQUEST_VERSION};

    const NOW_S: u64 = 1_800_000_000;
    const DAY_S: u64 = 86_400;

    fn request(issued_at: Option<u64>, expires_at: u64) -> SigningRequest {
        let version = if issued_at.is_some() { REQUEST_VERSION } else { UNDATED_REQUEST_VERSION };
        let issued = issued_at.map_or_else(String::new, |at| format!(r#""issued_at":{at},"#));
        let document = format!(
            r#"{{"version":{version},"tenant":"acme","wallet":"{}","payload":{{"kind":"personal_message","text":"hi"}},"idempotency_key":"k",{issued}"expires_at":{expires_at}}}"#,
            "11".repeat(32)
        );
        SigningRequest::from_json(document.as_bytes()).unwrap()
    }

    fn judged(request: &SigningRequest, now_s: u64, is_approved: bool) -> Option<Code> {
        let judged = request.require_current(now_s * 1000);
        judged.and_then(|()| request.require_lifetime(now_s * 1000, is_approved)).err().map(TimeError::code)
    }

    #[test]
    fn a_dated_request_counts_from_its_issue() {
        let day = request(Some(NOW_S), NOW_S + DAY_S);
        assert_eq!(judged(&day, NOW_S, false), None);
        assert_eq!(judged(&day, NOW_S + DAY_S - 1, false), None);
        assert_eq!(judged(&day, NOW_S + DAY_S, false), Some(Code::JobExpired));
        let longer = request(Some(NOW_S), NOW_S + DAY_S + 1);
        assert_eq!(judged(&longer, NOW_S, false), Some(Code::ValidTooLong));
        assert_eq!(judged(&longer, NOW_S + DAY_S, false), Some(Code::ValidTooLong), "waiting does not help");
        assert_eq!(judged(&longer, NOW_S, true), None);
        assert_eq!(judged(&request(Some(NOW_S), NOW_S + 30 * DAY_S), NOW_S, true), None);
        assert_eq!(
            judged(&request(Some(NOW_S), NOW_S + 30 * DAY_S + 1), NOW_S, true),
            Some(Code::ValidTooLong)
        );
    }

    #[test]
    fn an_undated_request_has_to_end_within_a_day_even_if_the_owner_approves_it() {
        let request = request(None, NOW_S + 2 * DAY_S);
        assert_eq!(judged(&request, NOW_S, false), Some(Code::ValidTooLong));
        assert_eq!(judged(&request, NOW_S, true), Some(Code::ValidTooLong));
        assert_eq!(judged(&request, NOW_S + DAY_S, false), None);
    }

    #[test]
    fn half_a_minute_between_clocks_is_allowed() {
        let ahead = request(Some(NOW_S + 30), NOW_S + 60);
        assert_eq!(judged(&ahead, NOW_S, false), None);
        let further = request(Some(NOW_S + 31), NOW_S + 60);
        assert_eq!(judged(&further, NOW_S, false), Some(Code::ClockDiffers));
        let error = further.require_current(NOW_S * 1000).unwrap_err();
        assert!(error.to_string().contains("31 s ahead of this clock"), "{error}");
        assert_eq!(relation(40_000, 0), "40 s ahead of");
        assert_eq!(relation(0, 600_000), "10 min behind");
    }

    #[test]
    fn a_party_gives_half_a_minute_at_both_ends_and_an_orchestrator_none_after_the_expiry() {
        let request = request(Some(NOW_S), NOW_S + 60);
        let ms = |after_s: u64| (NOW_S + after_s) * 1000;
        for (now_ms, by_party, by_orchestrator) in [
            (ms(0) - 30_000, None, None),
            (ms(0) - 30_001, Some(Code::ClockDiffers), Some(Code::ClockDiffers)),
            (ms(60) - 1, None, None),
            (ms(60), None, Some(Code::JobExpired)),
            (ms(90) - 1, None, Some(Code::JobExpired)),
            (ms(90), Some(Code::JobExpired), Some(Code::JobExpired)),
        ] {
            let judged = [request.require_current_for_party(now_ms), request.require_current(now_ms)];
            let codes = judged.map(|judged| judged.err().map(TimeError::code));
            assert_eq!(codes, [by_party, by_orchestrator], "{now_ms}");
        }
    }

    #[test]
    fn spans_are_said_in_the_largest_unit_that_fits() {
        assert_eq!([0, 1, 30_000, 119_000].map(span), ["0 s", "1 s", "30 s", "119 s"]);
        assert_eq!([120_000, 7_199_000].map(span), ["2 min", "119 min"]);
        assert_eq!([86_400_000, 2_592_000_000].map(span), ["24 h", "30 days"]);
    }
}

//! When a delivery that failed is tried again, and a failing endpoint is probed.

use core::time::Duration;

use super::WebhookSettings;

/// The longest pause between two attempts, before jitter shortens it.
const LONGEST_PAUSE: Duration = Duration::from_secs(8 * 3600);

/// Each pause is this many times the previous one.
const GROWTH: u32 = 4;

/// The longest pause between two probes, before jitter shortens it. An endpoint that recovers waits
/// no longer for its results.
const LONGEST_PROBE_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that an endpoint may request with `Retry-After`.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The pause after attempt number `attempt`, from 1, failed; `None` when it was the last. `chance`,
/// from 0 to 1, takes off up to half of the pause. `asked` is the pause that the endpoint
/// requested.
pub(super) fn pause_after(
    attempt: u32,
    settings: &WebhookSettings,
    asked: Option<Duration>,
    chance: f64,
) -> Option<Duration> {
    if attempt >= settings.max_attempts {
        return None;
    }
    Some(growing(attempt, settings, LONGEST_PAUSE, chance).max(self::asked(asked)))
}

/// The pause after a failing endpoint was tried `attempts` times in a row. `chance`, from 0 to 1,
/// takes off up to half of it.
pub(super) fn probe_after(attempts: u32, settings: &WebhookSettings, chance: f64) -> Duration {
    growing(attempts, settings, LONGEST_PROBE_PAUSE, chance)
}

/// The pause that an endpoint requested, as far as it is honoured.
pub(super) fn asked(asked: Option<Duration>) -> Duration {
    asked.unwrap_or_default().min(LONGEST_ASKED)
}

fn growing(attempt: u32, settings: &WebhookSettings, longest: Duration, chance: f64) -> Duration {
    let factor = GROWTH.saturating_pow(attempt.saturating_sub(1));
    settings.first_pause.saturating_mul(factor).min(longest).mul_f64(1.0 - chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_hours_and_end() {
        let settings = WebhookSettings::default();
        let pauses: Vec<u64> = (1..20)
            .map_while(|n| pause_after(n, &settings, None, 0.0))
            .map(|pause| pause.as_secs())
            .collect();
        assert_eq!(pauses, [5, 20, 80, 320, 1280, 5120, 20_480, 28_800, 28_800]);
        assert_eq!(pause_after(1, &settings, None, 1.0), Some(Duration::from_millis(2500)));
        assert_eq!(pause_after(u32::MAX, &settings, None, 0.0), None);
    }

    #[test]
    fn an_endpoint_may_ask_for_an_hour_at_most() {
        let settings = WebhookSettings::default();
        let asked =
            |seconds| pause_after(1, &settings, Some(Duration::from_secs(seconds)), 0.0).unwrap().as_secs();
        assert_eq!((asked(1), asked(60), asked(86_400)), (5, 60, 3600));
    }
}

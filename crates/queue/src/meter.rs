//! Measures how fast something happens, to tell callers how long they have to wait.

use core::time::Duration;

/// How far back the meter looks, in milliseconds.
const WINDOW_MS: u64 = 30_000;

/// The longest wait that a caller is told. Beyond it the rate predicts little.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The wait that a caller is told when nothing has happened lately.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);

/// Counts events of the last half minute in two numbers: those of the current window, and those of
/// the previous one. Of the latter only the recent part counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    window: u64,
    present: u32,
    before: u32,
}

impl Meter {
    fn at(self, now_ms: u64) -> Self {
        let window = now_ms / WINDOW_MS;
        match window.checked_sub(self.window) {
            // A clock that was set back changes nothing.
            None | Some(0) => self,
            Some(1) => Self { window, present: 0, before: self.present },
            Some(_) => Self { window, present: 0, before: 0 },
        }
    }

    /// Counts one event.
    pub fn count(&mut self, now_ms: u64) {
        *self = self.at(now_ms);
        self.present = self.present.saturating_add(1);
    }

    /// About how many events there were in the last half minute.
    fn lately(self, now_ms: u64) -> f64 {
        let meter = self.at(now_ms);
        let gone = Duration::from_millis(now_ms % WINDOW_MS).as_secs_f64()
            / Duration::from_millis(WINDOW_MS).as_secs_f64();
        f64::from(meter.present) + f64::from(meter.before) * (1.0 - gone)
    }

    /// How long `count` more events take at the recent rate: whole seconds, from 1 to 60.
    pub fn time_for(self, count: usize, now_ms: u64) -> Duration {
        let lately = self.lately(now_ms);
        if lately < 1.0 {
            return UNKNOWN_WAIT;
        }
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let seconds = count * Duration::from_millis(WINDOW_MS).as_secs_f64() / lately;
        Duration::from_secs_f64(seconds.ceil().clamp(1.0, MAX_WAIT.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_rate() {
        let mut meter = Meter::default();
        assert_eq!(meter.time_for(1, 0), UNKNOWN_WAIT);
        // Ten a second for a whole window.
        for event in 0..300 {
            meter.count(30_000 + event * 100);
        }
        assert_eq!(meter.time_for(1, 59_999), Duration::from_secs(1));
        assert_eq!(meter.time_for(100, 60_000), Duration::from_secs(10));
        assert_eq!(meter.time_for(1_000_000, 60_000), MAX_WAIT);
        // Half of them are too old, later all of them.
        assert_eq!(meter.time_for(100, 75_000), Duration::from_secs(20));
        assert_eq!(meter.time_for(100, 120_000), UNKNOWN_WAIT);
    }

    #[test]
    fn a_clock_that_is_set_back_is_survived() {
        let mut meter = Meter::default();
        meter.count(90_000);
        meter.count(10);
        assert_eq!(meter.present, 2);
    }
}

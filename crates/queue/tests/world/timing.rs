//! How long the core takes for its events.

use core::{fmt, time::Duration};
#[expect(clippy::disallowed_types, reason = "no decision of a run depends on it")]
use std::time::Instant;

/// The upper ends of the counted ranges, in microseconds.
const RANGES_US: [u64; 8] = [5, 10, 20, 50, 100, 200, 500, u64::MAX];

/// How long events took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    events: u64,
    whole: Duration,
    in_range: [u64; RANGES_US.len()],
}

impl Timing {
    /// Runs `handle`, which is one event.
    #[expect(clippy::disallowed_types, reason = "no decision of a run depends on it")]
    pub(crate) fn measure<R>(&mut self, handle: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = handle();
        let took = began.elapsed();
        self.events += 1;
        self.whole += took;
        let range = RANGES_US.iter().position(|upper_us| took.as_micros() < u128::from(*upper_us));
        self.in_range[range.unwrap_or_default()] += 1;
        result
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.whole += other.whole;
        for (sum, more) in self.in_range.iter_mut().zip(other.in_range) {
            *sum += more;
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean_us = self.whole.as_secs_f64() * 1e6 / self.events.max(1) as f64;
        writeln!(f, "{} events, {mean_us:.1} us an event", self.events)?;
        let mut below = 0;
        for (upper_us, count) in RANGES_US.iter().zip(self.in_range) {
            below += count;
            let percent = below as f64 * 100.0 / self.events.max(1) as f64;
            if *upper_us < u64::MAX {
                writeln!(f, "below {upper_us} us: {percent:.3} %")?;
            }
        }
        Ok(())
    }
}

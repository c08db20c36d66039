//! Counts the outcomes of jobs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::report::{Offered, Quantiles, SIGNED, Step, Timing};
use crate::error::{CliError, ErrorCode};

/// The longest time that the histogram distinguishes, in microseconds: two days, longer than any
/// job may take.
const LONGEST_US: u64 = 2 * 24 * 3600 * 1_000_000;

/// Significant digits of recorded times.
const DIGITS: u8 = 3;

/// The outcome and times of one job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// When the job was due.
    pub(super) due: Instant,
    /// When the client sent it.
    pub(super) sent: Instant,
    /// When the client learned of its end.
    pub(super) ended: Instant,
    /// Whether its signature was verified, or the code of its error.
    pub(super) outcome: Result<bool, ErrorCode>,
}

/// Collects the samples of one step.
pub(super) struct Recorder {
    counts_from: Instant,
    counts_until: Instant,
    start: Instant,
    counts: Mutex<Counts>,
}

struct Counts {
    due: u64,
    outcomes: BTreeMap<&'static str, u64>,
    verified: u64,
    signed_meanwhile: u64,
    signed_in_each_s: Vec<u64>,
    latency: Histogram<u64>,
    service: Histogram<u64>,
}

impl Recorder {
    /// A recorder for a step that starts at `start`.
    ///
    /// # Errors
    /// Never, with the constant bounds of the histogram.
    pub(super) fn new(start: Instant, timing: &Timing) -> Result<Self, CliError> {
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST_US, DIGITS)
                .map_err(|error| CliError::internal(format!("no histogram: {error}")))
        };
        Ok(Self {
            start,
            counts_from: start + timing.warm_up(),
            counts_until: start + timing.running(),
            counts: Mutex::new(Counts {
                due: 0,
                outcomes: BTreeMap::new(),
                verified: 0,
                signed_meanwhile: 0,
                signed_in_each_s: Vec::new(),
                latency: histogram()?,
                service: histogram()?,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When counting begins and when it ends.
    pub(super) const fn counted(&self) -> (Instant, Instant) {
        (self.counts_from, self.counts_until)
    }

    /// Signatures finished so far while the step counts.
    pub(super) fn signed_meanwhile(&self) -> u64 {
        self.lock().signed_meanwhile
    }

    /// Adds one sample.
    pub(super) fn take(&self, sample: &Sample) {
        let counted = self.counts_from..self.counts_until;
        let mut counts = self.lock();
        let verified = sample.outcome == Ok(true);
        counts.verified += u64::from(verified);
        if sample.outcome.is_ok() {
            counts.signed_meanwhile += u64::from(counted.contains(&sample.ended));
            let second = sample.ended.saturating_duration_since(self.start).as_secs();
            let second = usize::try_from(second).unwrap_or(usize::MAX);
            // One entry for each second of the step: its duration bounds the list.
            if second >= counts.signed_in_each_s.len() {
                counts.signed_in_each_s.resize(second.saturating_add(1), 0);
            }
            if let Some(count) = counts.signed_in_each_s.get_mut(second) {
                *count += 1;
            }
        }
        if !counted.contains(&sample.due) {
            return;
        }
        counts.due += 1;
        let outcome = sample.outcome.map_or_else(ErrorCode::as_str, |_| SIGNED);
        *counts.outcomes.entry(outcome).or_default() += 1;
        if sample.outcome.is_ok() {
            counts.latency.saturating_record(microseconds(sample.ended - sample.due));
            counts.service.saturating_record(microseconds(sample.ended - sample.sent));
        }
    }

    /// The measured step, without the usage of processes.
    pub(super) fn step(&self, offered: Offered, timing: &Timing) -> Step {
        let counts = self.lock();
        let signed_per_s = thousandth(to_f64(counts.signed_meanwhile) / timing.measured_s);
        let all_signed = counts.outcomes.get(SIGNED).copied().unwrap_or(0) == counts.due;
        Step {
            offered,
            due: counts.due,
            outcomes: counts.outcomes.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            verified: counts.verified,
            signed_per_s,
            sustained: all_signed && offered.is_sustained_by(signed_per_s),
            latency_ms: quantiles(&counts.latency),
            service_ms: quantiles(&counts.service),
            signed_in_each_s: counts.signed_in_each_s.clone(),
            busy_cores: None,
            processes: Vec::new(),
        }
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(super) const fn to_f64(count: u64) -> f64 {
    count as f64
}

/// `number`, rounded to a thousandth.
pub(super) fn thousandth(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let milliseconds = |microseconds: u64| thousandth(to_f64(microseconds) / 1e3);
    let quantile = |quantile: f64| milliseconds(histogram.value_at_quantile(quantile));
    Quantiles {
        min: milliseconds(histogram.min()),
        mean: thousandth(histogram.mean() / 1e3),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: milliseconds(histogram.max()),
    }
}

#[cfg(test)]
mod tests {
    use duet_wire::Code;

    use super::*;

    const TIMING: Timing = Timing { warm_up_s: 1.0, measured_s: 10.0, job_timeout_s: 30.0 };

    fn sample(start: Instant, due: u64, sent: u64, ended: u64) -> Sample {
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        Sample { due: at(due), sent: at(sent), ended: at(ended), outcome: Ok(true) }
    }

    #[test]
    fn time_counts_from_when_a_job_was_due() {
        let start = Instant::now();
        let recorder = Recorder::new(start, &TIMING).unwrap();
        // A stall of one second: jobs due in it are sent late.
        recorder.take(&sample(start, 2000, 3000, 3020));
        let step = recorder.step(Offered::Open { per_second: 1.0 }, &TIMING);
        assert!((1019.0..=1021.0).contains(&step.latency_ms.p50), "{step:?}");
        assert!((19.9..=20.1).contains(&step.service_ms.p50), "{step:?}");
    }

    #[test]
    fn what_is_due_in_the_warm_up_does_not_count_but_its_end_is_throughput() {
        let start = Instant::now();
        let recorder = Recorder::new(start, &TIMING).unwrap();
        recorder.take(&sample(start, 500, 500, 600));
        recorder.take(&sample(start, 900, 900, 1100));
        recorder.take(&sample(start, 10_900, 10_900, 11_100));
        let step = recorder.step(Offered::Open { per_second: 1.0 }, &TIMING);
        assert_eq!((step.due, step.signed(), step.verified), (1, 1, 3));
        assert_eq!(step.signed_per_s, 0.1);
        assert_eq!(step.signed_in_each_s.iter().sum::<u64>(), 3);
    }

    #[test]
    fn failures_are_counted_by_their_code_and_keep_a_rate_from_counting_as_sustained() {
        let start = Instant::now();
        let recorder = Recorder::new(start, &TIMING).unwrap();
        for due in 1000..1010 {
            recorder.take(&sample(start, due, due, due + 5));
        }
        assert!(recorder.step(Offered::Open { per_second: 1.0 }, &TIMING).sustained);
        recorder.take(&Sample { outcome: Err(Code::QueueFull.into()), ..sample(start, 1011, 1011, 1012) });
        let step = recorder.step(Offered::Open { per_second: 1.0 }, &TIMING);
        assert_eq!(step.outcomes.get("queue-full"), Some(&1));
        assert_eq!(step.signed(), 10);
        assert!(!step.sustained);
        assert!(!recorder.step(Offered::Open { per_second: 1.1 }, &TIMING).sustained);
    }
}

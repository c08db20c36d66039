//! The outcome of a run: a JSON document, and text for people.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use duet_wire::{Code, Pair};
use serde::{Deserialize, Serialize};

use crate::{duration, error::CliError};

/// The version of the report's format.
const VERSION: u8 = 1;

/// The outcome of a successful job. All other outcomes are error codes.
pub(super) const SIGNED: &str = "signed";

/// A rate counts as sustained if at least this share of the jobs is signed while the step counts.
/// It is less than 1 because some jobs are still under way when counting ends.
const SUSTAINED_SHARE: f64 = 0.98;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// The version of the format.
    pub(crate) version: u8,
    /// When the run began, in milliseconds since 1970.
    pub(crate) started_at_ms: u64,
    /// The run's name.
    pub(crate) label: String,
    /// Where the generator ran.
    pub(crate) machine: Machine,
    /// The settings of the run.
    pub(crate) settings: Settings,
    /// The steps in the order in which they ran.
    pub(crate) steps: Vec<Step>,
}

/// The machine, as Linux describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Its processor.
    pub(crate) processor: String,
    /// How many threads can run at once.
    pub(crate) cores: usize,
    /// Its memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Its kernel.
    pub(crate) kernel: String,
    /// The load average over one minute before the run.
    pub(crate) load_before: f64,
}

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The URL of the orchestrator's interface.
    pub(crate) api_url: String,
    /// The number of wallets used in turn.
    pub(crate) wallets: usize,
    /// The number of workers of each party, as the user stated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workers_per_party: Option<u32>,
    /// The pairs that may sign.
    pub(crate) pairs: Vec<Pair>,
    /// The size of each message in bytes.
    pub(crate) message_bytes: u32,
    /// The share of the signatures to verify.
    pub(crate) verified_share: f64,
    /// The most jobs open at once in an open loop.
    pub(crate) max_open_jobs: usize,
    /// The durations of a step.
    #[serde(flatten)]
    pub(crate) timing: Timing,
}

/// How long a step takes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// Warm-up, before the step counts.
    pub(crate) warm_up_s: f64,
    /// While the step counts.
    pub(crate) measured_s: f64,
    /// The deadline of one job, from its due time.
    pub(crate) job_timeout_s: f64,
}

impl Timing {
    /// The timing with these durations.
    pub(crate) fn new(warm_up: Duration, measured: Duration, job_timeout: Duration) -> Self {
        Self {
            warm_up_s: warm_up.as_secs_f64(),
            measured_s: measured.as_secs_f64(),
            job_timeout_s: job_timeout.as_secs_f64(),
        }
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s)
    }

    /// How long the step starts jobs.
    pub(crate) fn running(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s + self.measured_s)
    }

    pub(crate) fn job_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.job_timeout_s)
    }

    /// The longest time that the step may take.
    pub(crate) fn longest(&self) -> Duration {
        self.running() + self.job_timeout()
    }
}

/// The load offered in a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "snake_case")]
pub(crate) enum Offered {
    /// Jobs arrive at a constant rate, even while earlier ones are unfinished.
    Open {
        /// The rate, in jobs a second.
        per_second: f64,
    },
    /// A constant number of jobs is open.
    Closed {
        /// The number of open jobs.
        in_flight: usize,
    },
}

/// The measurements of one step. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The load that was offered.
    #[serde(flatten)]
    pub(crate) offered: Offered,
    /// The number of jobs due while the step counted.
    pub(crate) due: u64,
    /// The number of those jobs by outcome: `signed`, or an error code.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// The number of all signatures that were verified.
    pub(crate) verified: u64,
    /// Signatures a second, finished while the step counted.
    pub(crate) signed_per_s: f64,
    /// Whether the deployment kept up with an open loop: no job failed, and signatures kept pace
    /// with arrivals.
    pub(crate) sustained: bool,
    /// Time from when a job was due to its signature. So waiting for other jobs counts. In a closed
    /// loop a job is due when its predecessor ends: it never waits, and the figure says less.
    pub(crate) latency_ms: Quantiles,
    /// Time from sending the submission to the signature.
    pub(crate) service_ms: Quantiles,
    /// Signatures finished in each second of the step, warm-up included.
    pub(crate) signed_in_each_s: Vec<u64>,
    /// The average number of busy processors, for all processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy_cores: Option<f64>,
    /// The use of the named processes, and of this one as `load`.
    pub(crate) processes: Vec<ProcessUse>,
}

/// The use of one process while a step counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessUse {
    /// The name of the process.
    pub(crate) name: String,
    /// Processor time in milliseconds, of all its threads.
    pub(crate) cpu_ms: f64,
    /// Processor time per signature, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ms_per_signature: Option<f64>,
    /// Resident memory at the end, in bytes.
    pub(crate) resident_bytes: u64,
}

/// The distribution of some times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// The minimum.
    pub(crate) min: f64,
    /// The mean.
    pub(crate) mean: f64,
    /// The median.
    pub(crate) p50: f64,
    /// The 90th percentile.
    pub(crate) p90: f64,
    /// The 99th percentile.
    pub(crate) p99: f64,
    /// The 99.9th percentile.
    pub(crate) p999: f64,
    /// The maximum.
    pub(crate) max: f64,
}

impl Offered {
    /// Whether an open loop counts as sustained at this rate of signatures, if no due job fails. A
    /// closed loop never does.
    pub(crate) fn is_sustained_by(&self, signed_per_s: f64) -> bool {
        match self {
            Self::Open { per_second } => signed_per_s >= SUSTAINED_SHARE * per_second,
            Self::Closed { .. } => false,
        }
    }
}

impl Machine {
    /// Reads the description of this machine.
    pub(crate) fn read() -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let kibibytes = value(&file("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            processor: value(&file("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes.unwrap_or(0).saturating_mul(1024),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: file("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

impl Step {
    /// The number of due jobs that got a signature.
    pub(crate) fn signed(&self) -> u64 {
        self.outcomes.get(SIGNED).copied().unwrap_or(0)
    }
}

impl LoadReport {
    /// A report of a run that begins now.
    pub(crate) fn new(label: String, machine: Machine, settings: Settings) -> Self {
        let started_at_ms = u64::try_from(duration::since_1970().as_millis()).unwrap_or(u64::MAX);
        Self { version: VERSION, started_at_ms, label, machine, settings, steps: Vec::new() }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the file cannot be read or is no report.
    pub(crate) fn read(file: &Path) -> Result<Self, CliError> {
        let name = file.display().to_string();
        let text = fs::read(file).map_err(|error| CliError::io(&name, &error))?;
        let report: Self = serde_json::from_slice(&text)
            .map_err(|error| CliError::input(format!("{name} is no report of `duet load run`: {error}")))?;
        if report.version == VERSION {
            Ok(report)
        } else {
            Err(CliError::new(Code::UnsupportedVersion, format!("{name} is of another version"))
                .at("version"))
        }
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// Never: all its numbers are finite.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, CliError> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| CliError::internal(format!("the report has no JSON form: {error}")))?;
        json.push(b'\n');
        Ok(json)
    }

    /// The highest rate of signatures of all steps.
    pub(crate) fn most_signed_per_s(&self) -> f64 {
        self.steps.iter().map(|step| step.signed_per_s).fold(0.0, f64::max)
    }

    /// Checks that something was signed and that no signature was invalid.
    ///
    /// # Errors
    /// When a check fails.
    pub(crate) fn result(&self) -> Result<(), CliError> {
        let count =
            |outcome: &str| -> u64 { self.steps.iter().filter_map(|step| step.outcomes.get(outcome)).sum() };
        let wrong = count(Code::BadSignature.as_str());
        if wrong > 0 {
            return Err(CliError::new(Code::BadSignature, format!("{wrong} signatures do not verify")));
        }
        if count(SIGNED) == 0 {
            let codes: Vec<&str> =
                self.steps.iter().flat_map(|step| step.outcomes.keys()).map(String::as_str).collect();
            return Err(CliError::new(
                Code::NoPairAvailable,
                format!("nothing was signed; the jobs ended with: {}", codes.join(", ")),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { per_second } => write!(f, "{per_second}/s arriving"),
            Self::Closed { in_flight } => write!(f, "{in_flight} in flight"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantiles { p50, p90, p99, p999, max, .. } = self.latency_ms;
        write!(f, "{}: {:.1}/s signed; ", self.offered, self.signed_per_s)?;
        write!(f, "p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, most {max:.1} ms")?;
        for (outcome, count) in self.outcomes.iter().filter(|(outcome, _)| *outcome != SIGNED) {
            write!(f, "; {count} {outcome}")?;
        }
        if !self.processes.is_empty() {
            f.write_str("\n  processor time per signature:")?;
        }
        for process in &self.processes {
            match process.cpu_ms_per_signature {
                Some(cpu) => write!(f, " {} {cpu:.2} ms", process.name)?,
                None => write!(f, " {} –", process.name)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{step}")?;
        }
        Ok(())
    }
}

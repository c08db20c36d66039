//! What a run found, as the JSON document that it leaves and as text.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use duet_wire::{Code, Pair};
use serde::{Deserialize, Serialize};

use crate::{duration, error::CliError};

/// The version of the report's form.
const VERSION: u8 = 1;

/// The outcome that counts as a success, beside error codes.
pub(super) const SIGNED: &str = "signed";

/// How much of what arrives has to be signed meanwhile for a rate to count as sustained: all, but
/// for what is under way when counting ends.
const SUSTAINED_SHARE: f64 = 0.98;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// The form's version.
    pub(crate) version: u8,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_at_ms: u64,
    /// What it is called.
    pub(crate) label: String,
    /// Where the generator ran.
    pub(crate) machine: Machine,
    /// What it was told.
    pub(crate) settings: Settings,
    /// What it found, in the order in which it was run.
    pub(crate) steps: Vec<Step>,
}

/// The machine, as far as Linux says.
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
    /// How many wanted to run, on average over a minute, before the run.
    pub(crate) load_before: f64,
}

/// What a run was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The interface.
    pub(crate) api_url: String,
    /// How many wallets took turns.
    pub(crate) wallets: usize,
    /// How many workers each party has, as stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workers_per_party: Option<u32>,
    /// The pairs that could sign.
    pub(crate) pairs: Vec<Pair>,
    /// The size of each message in bytes.
    pub(crate) message_bytes: u32,
    /// The share of the signatures that was verified.
    pub(crate) verified_share: f64,
    /// The most jobs that were open at once in an open loop.
    pub(crate) max_open_jobs: usize,
    /// How long everything took.
    #[serde(flatten)]
    pub(crate) timing: Timing,
}

/// How long a step takes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// Before it counts.
    pub(crate) warm_up_s: f64,
    /// While it counts.
    pub(crate) measured_s: f64,
    /// For one job, from when it was due.
    pub(crate) job_timeout_s: f64,
}

impl Timing {
    /// With these durations.
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

    /// Until no further job is started.
    pub(crate) fn running(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s + self.measured_s)
    }

    pub(crate) fn job_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.job_timeout_s)
    }

    /// The longest that a step may take.
    pub(crate) fn longest(&self) -> Duration {
        self.running() + self.job_timeout()
    }
}

/// What was offered in a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "snake_case")]
pub(crate) enum Offered {
    /// Jobs arrive at a constant rate, whatever becomes of those before.
    Open {
        /// Their rate.
        per_second: f64,
    },
    /// So many jobs are open at a time.
    Closed {
        /// Their number.
        in_flight: usize,
    },
}

/// What one step found. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// What was offered.
    #[serde(flatten)]
    pub(crate) offered: Offered,
    /// How many jobs were due while it counted.
    pub(crate) due: u64,
    /// What became of those: `signed`, or the code of their error.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// How many of all signatures were verified.
    pub(crate) verified: u64,
    /// Signatures per second that were finished while it counted.
    pub(crate) signed_per_s: f64,
    /// Of an open loop, whether the deployment kept up with it: nothing failed, and as much was
    /// signed as arrived.
    pub(crate) sustained: bool,
    /// From when a job was due until its signature was there: what is missed while others wait
    /// counts. In a closed loop a job is due when the one before it is done, so nothing can be
    /// missed and this says less.
    pub(crate) latency_ms: Quantiles,
    /// From when its submission was sent.
    pub(crate) service_ms: Quantiles,
    /// Signatures finished in each second of the step, the warm-up included.
    pub(crate) signed_in_each_s: Vec<u64>,
    /// How many processors worked on average, for whomever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy_cores: Option<f64>,
    /// What the named processes used, and this one as `load`.
    pub(crate) processes: Vec<ProcessUse>,
}

/// What one process used while a step counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessUse {
    /// Which.
    pub(crate) name: String,
    /// Processor time in milliseconds, of all its threads.
    pub(crate) cpu_ms: f64,
    /// The same per signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ms_per_signature: Option<f64>,
    /// Resident memory at the end, in bytes.
    pub(crate) resident_bytes: u64,
}

/// How some times are distributed, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// The least.
    pub(crate) min: f64,
    /// On average.
    pub(crate) mean: f64,
    /// Half of them take at most this.
    pub(crate) p50: f64,
    /// 90 of 100.
    pub(crate) p90: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1000.
    pub(crate) p999: f64,
    /// The most.
    pub(crate) max: f64,
}

impl Offered {
    /// Whether a deployment keeps up that signs so many per second, if all that was due is signed.
    pub(crate) fn is_sustained_by(&self, signed_per_s: f64) -> bool {
        match self {
            Self::Open { per_second } => signed_per_s >= SUSTAINED_SHARE * per_second,
            Self::Closed { .. } => false,
        }
    }
}

impl Machine {
    /// This machine.
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
    /// How many of the jobs that were due came to a signature.
    pub(crate) fn signed(&self) -> u64 {
        self.outcomes.get(SIGNED).copied().unwrap_or(0)
    }
}

impl LoadReport {
    /// A run that begins now.
    pub(crate) fn new(label: String, machine: Machine, settings: Settings) -> Self {
        let started_at_ms = u64::try_from(duration::since_1970().as_millis()).unwrap_or(u64::MAX);
        Self { version: VERSION, started_at_ms, label, machine, settings, steps: Vec::new() }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the file cannot be read or is none.
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

    /// The report as a document.
    ///
    /// # Errors
    /// Never with numbers that are finite.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, CliError> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| CliError::internal(format!("the report has no JSON form: {error}")))?;
        json.push(b'\n');
        Ok(json)
    }

    /// The most signatures per second of all steps.
    pub(crate) fn most_signed_per_s(&self) -> f64 {
        self.steps.iter().map(|step| step.signed_per_s).fold(0.0, f64::max)
    }

    /// Whether the run served its purpose: something was signed, and nothing was signed wrongly.
    ///
    /// # Errors
    /// When not.
    pub(crate) fn verdict(&self) -> Result<(), CliError> {
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

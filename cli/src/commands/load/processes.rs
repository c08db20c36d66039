//! Resource use of processes on this machine, from Linux's `/proc` (proc(5)).

use std::{fs, str::FromStr};

/// Clock ticks a second in `/proc`, a constant of Linux's user-space interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process, named for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedProcess {
    /// Its name in the report.
    pub(crate) name: String,
    /// Its process id.
    pub(crate) id: u32,
}

impl FromStr for NamedProcess {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .and_then(|(name, id)| Some(Self { name: name.to_owned(), id: id.parse().ok()? }))
            .ok_or_else(|| "expected NAME=PID, for example orchestrator=4711".to_owned())
    }
}

/// Processor time and memory of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Processor time so far in milliseconds, over all its threads, ended ones included.
    pub(crate) cpu_ms: f64,
    /// Resident memory in bytes.
    pub(crate) resident_bytes: u64,
}

/// What the process `id` has used so far. `None` when there is no such process, or no `/proc`.
pub(crate) fn usage(id: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    Some(Usage {
        cpu_ms: process_ticks(&stat)? * 1000.0 / TICKS_PER_SECOND,
        resident_bytes: resident(&status),
    })
}

/// The time that all processors have worked so far, in milliseconds, for all processes together.
pub(crate) fn machine_cpu_ms() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    Some(machine_ticks(&stat)? * 1000.0 / TICKS_PER_SECOND)
}

/// `utime` and `stime`, fields 14 and 15. The name, field 2, may hold anything but ends with the
/// last parenthesis.
fn process_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// The ticks that all processors worked: `user nice system idle iowait irq softirq steal …` without
/// `idle` and `iowait`.
fn machine_ticks(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> =
        line.split_ascii_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Some(ticks.iter().sum::<f64>() - idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1000";
        assert_eq!(process_ticks(stat), Some(300.0));
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), 2 * 1024 * 1024);
        assert_eq!(machine_ticks("cpu  10 1 5 1000 7 0 2 3 0 0\ncpu0 1\n"), Some(21.0));
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 0);
        assert!(machine_cpu_ms().unwrap() >= usage.cpu_ms);
    }

    #[test]
    fn a_process_is_named() {
        assert_eq!("a=1".parse(), Ok(NamedProcess { name: "a".to_owned(), id: 1 }));
        assert!("=1".parse::<NamedProcess>().is_err() && "a".parse::<NamedProcess>().is_err());
    }
}

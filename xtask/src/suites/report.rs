//! What a run of suites ends with, and suites that run beside others.

use std::{
    env, fs,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;

use super::suite::Suite;
use crate::{
    run::{Counts, command, human, target_folder},
    wasm,
};

/// The variable that names the file for a run's report. [`Beside`] reads it.
pub(super) const REPORT: &str = "DUET_XTASK_REPORT";

/// How one suite ended.
pub(super) struct Report {
    suite: Suite,
    duration: Duration,
    counts: Counts,
    is_ok: bool,
}

impl Report {
    /// Runs a suite to its end, and prints why it failed. `program` is this program.
    pub(super) fn of(suite: Suite, program: &clap::Command) -> Self {
        println!("\n=== {} ===", suite.name());
        let started = Instant::now();
        let mut counts = Counts::default();
        let result = suite.run(&mut counts, program);
        if let Err(error) = &result {
            println!("{} failed: {error:#}", suite.name());
        }
        Self { suite, duration: started.elapsed(), counts, is_ok: result.is_ok() }
    }

    /// The report as one line, for [`Self::parse`].
    pub(super) fn line(&self) -> String {
        let Counts { passed, failed, skipped, flaky } = self.counts;
        let (name, millis) = (self.suite.name(), self.duration.as_millis());
        format!("{name} {millis} {passed} {failed} {skipped} {flaky} {}\n", self.is_ok)
    }

    /// Whether the suite `suite` ran and succeeded.
    pub(super) fn is_success_of(&self, suite: Suite) -> bool {
        self.suite == suite && self.is_ok
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let suite = Suite::from_str(words.next()?, true).ok()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let duration = Duration::from_millis(number()?);
        let counts = Counts { passed: number()?, failed: number()?, skipped: number()?, flaky: number()? };
        Some(Self { suite, duration, counts, is_ok: words.next()? == "true" })
    }
}

/// Suites that run in a second process, beside those of this one.
pub(super) struct Beside {
    suites: Vec<Suite>,
    process: Child,
    log: PathBuf,
    report: PathBuf,
}

impl Beside {
    /// Starts the suites. Everything that they need must be installed. `is_built` tells whether
    /// this run has built the page and the modules.
    pub(super) fn start(suites: &[Suite], is_built: bool) -> Result<Self> {
        let folder = target_folder().join("suites");
        fs::create_dir_all(&folder)?;
        let (log, report) = (folder.join("beside.log"), folder.join("beside.report"));
        let _ = fs::remove_file(&report);
        let output = fs::File::create(&log)?;
        let mut process = command(env::current_exe()?);
        process.args(["test", "--no-install"]).args(suites.iter().map(|suite| suite.name()));
        process.env(REPORT, &report).stdin(Stdio::null());
        if is_built {
            process.env(wasm::BUILT_BEFORE, "1");
        }
        let process = process.stdout(output.try_clone()?).stderr(output).spawn()?;
        let names: Vec<&str> = suites.iter().map(|suite| suite.name()).collect();
        println!("\nBeside the next suites run: {}. Their output: {}", names.join(", "), log.display());
        Ok(Self { suites: suites.to_vec(), process, log, report })
    }

    /// Waits for the suites, and prints what they printed.
    pub(super) fn finish(mut self) -> Result<Vec<Report>> {
        let status = self.process.wait()?;
        println!("{}", String::from_utf8_lossy(&fs::read(&self.log)?));
        let text = fs::read_to_string(&self.report)
            .with_context(|| format!("the suites beside these did not end by themselves: {status}"))?;
        let reports: Vec<Report> = text.lines().filter_map(Report::parse).collect();
        if reports.len() != self.suites.len() {
            bail!("{} of {} suites beside these reported an end", reports.len(), self.suites.len());
        }
        Ok(reports)
    }
}

/// Prints a table of the suites. Fails if one of them failed.
pub(super) fn summary(reports: &[Report], elapsed: Duration) -> Result<()> {
    println!("\n=== summary ===");
    let mut sum = Counts::default();
    for Report { suite, duration, counts, is_ok } in reports {
        let word = if *is_ok { "ok" } else { "FAILED" };
        let line = suite.line_seconds();
        let over =
            if duration.as_secs() > line { format!("  over its line of {line} s") } else { String::new() };
        let tests = match counts.passed + counts.failed + counts.skipped {
            0 => String::new(),
            _ => format!("  {} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped),
        };
        let again = match counts.flaky {
            0 => String::new(),
            flaky => format!("  {flaky} passed only when run again"),
        };
        println!("{:<8} {word:<7} {:>13}{tests}{again}{over}", suite.name(), human(*duration));
        sum += *counts;
    }
    println!("{:<8} {:<7} {:>13}", "total", "", human(elapsed));
    let failures = reports.iter().filter(|report| !report.is_ok).count();
    if sum != Counts::default() {
        println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    }
    if failures > 0 {
        bail!("{failures} of {} suites failed", reports.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let counts = Counts { passed: 5, failed: 1, skipped: 2, flaky: 3 };
        let duration = Duration::from_millis(1234);
        let written = Report { suite: Suite::Browser, duration, counts, is_ok: false };
        let read = Report::parse(written.line().trim_end()).unwrap();
        assert_eq!((read.suite, read.duration, read.counts), (Suite::Browser, duration, counts));
        assert!(!read.is_ok);
        assert!(Report::parse("browser 12").is_none());
    }

    #[test]
    fn contributing_has_the_line_of_each_suite() {
        let text = fs::read_to_string(crate::run::root().join("CONTRIBUTING.md")).unwrap();
        for suite in Suite::value_variants() {
            let cell = format!("| `{}` | {} |", suite.name(), suite.line_seconds());
            assert!(text.contains(&cell), "CONTRIBUTING.md has no line: {cell}");
        }
    }
}

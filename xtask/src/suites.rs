//! `cargo xtask test`: runs the suites of continuous integration, all of them or the named ones.
//!
//! [`Suite`] names and runs them. When all run, those that use no port or file of others run beside
//! the tests in Rust ([`Beside`]).

mod native;
mod report;
mod suite;

use std::{env, fs, time::Instant};

use anyhow::{Context, Result};

use self::report::{Beside, REPORT, Report, summary};
pub(crate) use self::suite::{BROWSER, Suite, browser_environment};
use crate::install::{self, Need};

const ALL: &[Suite] = &[
    Suite::Fmt,
    Suite::Lint,
    Suite::Deny,
    Suite::Build,
    Suite::Unit,
    Suite::Wasm,
    Suite::E2e,
    Suite::Browser,
];

/// Runs the named suites to the end, or all suites. Then prints a summary. `program` is this
/// program: documents may name its tasks.
pub(crate) fn test(suites: &[Suite], no_install: bool, program: &clap::Command) -> Result<()> {
    let suites = if suites.is_empty() { ALL } else { suites };
    let mut needs: Vec<Need> = Vec::new();
    for need in suites.iter().flat_map(|suite| suite.needs()) {
        if !needs.contains(need) {
            needs.push(*need);
        }
    }
    install::ensure(&needs, no_install)?;

    let started = Instant::now();
    let mut reports = Vec::new();
    let mut beside = None;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for &suite in suites {
        if suite.runs_beside() { second.push(suite) } else { first.push(suite) }
    }
    for suite in first {
        // Before the suites that wait much everything is compiled, and the processor is free.
        if suite.leaves_room() && beside.is_none() && !second.is_empty() {
            let is_built = reports.iter().any(|report: &Report| report.is_success_of(Suite::Build));
            beside = Some(Beside::start(&std::mem::take(&mut second), is_built)?);
        }
        reports.push(Report::of(suite, program));
    }
    if let Some(beside) = beside {
        reports.extend(beside.finish()?);
    }
    reports.extend(second.into_iter().map(|suite| Report::of(suite, program)));
    if let Some(file) = env::var_os(REPORT) {
        let lines: String = reports.iter().map(Report::line).collect();
        fs::write(file, lines).context("the report cannot be written")?;
    }
    summary(&reports, started.elapsed())
}

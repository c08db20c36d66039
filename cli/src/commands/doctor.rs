//! `duet doctor`: names the cause when signing stalls.
//!
//! 1. [`gather`] asks the broker, processes and files, and notes what is not answered ([`facts`]).
//! 2. [`checks`] judges the facts. Every check is a function from facts to findings ([`finding`]).
//! 3. [`report`] prints one line per check, and what to do about each that is not ok.

mod checks;
mod command;
mod facts;
mod finding;
mod gather;
mod report;
#[cfg(test)]
mod samples;

use serde_json::Value;

pub(crate) use self::command::DoctorCommand;
use self::report::Report;
use crate::{
    error::{CliError, ErrorCode},
    output::Output,
};

/// Runs all checks and prints their report.
///
/// # Errors
/// `unhealthy` when a check failed; `usage` when an address is no URL.
pub(crate) async fn run(command: DoctorCommand, output: Output) -> Result<(), CliError> {
    let report = Report::new(checks::all(&Box::pin(gather::all(&command)).await?));
    let failed = report.failed();
    if failed.is_empty() {
        return output.emit(&report);
    }
    // As JSON, the error is the only document.
    if !output.is_json() {
        output.emit(&report)?;
    }
    let details = serde_json::to_value(&report).unwrap_or(Value::Null);
    Err(CliError::new(ErrorCode::Unhealthy, format!("these checks failed: {}", failed.join(", ")))
        .details(details))
}

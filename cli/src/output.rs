//! What a command prints: one report, as text for people or as one JSON document.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use crate::error::CliError;

/// Where results go. Logs and progress never pass through here: they go to standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON documents.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are printed as JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether progress may be drawn: not in JSON mode, and only on a terminal.
    pub(crate) fn draws_progress(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Prints a command's report.
    ///
    /// # Errors
    /// When standard output cannot be written. A reader that went away is no error.
    pub(crate) fn emit(self, report: &(impl Serialize + Display)) -> Result<(), CliError> {
        if self.json { self.line(&to_json(report)?) } else { self.line(&report.to_string()) }
    }

    /// Prints text that is the command's product in either mode, for example a completion script.
    ///
    /// # Errors
    /// As for [`Output::emit`].
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::io("standard output", &error))
            }
            _ => Ok(()),
        }
    }
}

fn to_json(report: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(report)
        .map_err(|error| CliError::internal(format!("the result has no JSON form: {error}")))
}

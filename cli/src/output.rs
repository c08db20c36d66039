//! Prints one report of a command, as text for people or as one JSON document.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use crate::error::CliError;

/// Where results go. Logs and progress go to standard error instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// An output of text or of JSON documents.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are printed as JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether progress may be drawn: only in text mode and on a terminal.
    pub(crate) fn draws_progress(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Prints a command's report.
    ///
    /// # Errors
    /// When standard output cannot be written. A reader that closed it is no error.
    pub(crate) fn emit(self, report: &(impl Serialize + Display)) -> Result<(), CliError> {
        if self.json { self.line(&to_json(report)?) } else { self.line(&report.to_string()) }
    }

    /// Prints text that is the command's product in either mode, such as a completion script.
    ///
    /// # Errors
    /// As [`Output::emit`].
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

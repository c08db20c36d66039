//! `duet exit-codes`: what the process's exit code and the error codes mean.

use std::fmt;

use serde::Serialize;

use crate::{
    error::{CliError, ErrorCode},
    output::Output,
};

#[derive(Debug, Serialize)]
struct Row {
    exit_code: u8,
    code: &'static str,
    title: &'static str,
}

/// The table of all codes.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    exit_codes: Vec<Row>,
}

/// The table of all codes, ordered by exit code.
pub(crate) fn table() -> Table {
    let mut exit_codes: Vec<Row> = ErrorCode::all()
        .map(|code| Row { exit_code: code.exit_code(), code: code.as_str(), title: code.title() })
        .collect();
    exit_codes.sort_by_key(|row| row.exit_code);
    Table { exit_codes }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| exit | code | meaning |\n|---|---|---|\n| 0 | – | Success |")?;
        for Row { exit_code, code, title } in &self.exit_codes {
            writeln!(f, "| {exit_code} | `{code}` | {title} |")?;
        }
        Ok(())
    }
}

/// Prints the table.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn run(output: Output) -> Result<(), CliError> {
    output.emit(&table())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_manual_has_the_same_table() {
        duet_test_docs::part("docs/cli.md", "exit codes", &super::table().to_string()).unwrap();
    }
}

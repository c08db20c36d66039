//! The `duet` command as users run it: as a process of its own, with `--json`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::{process, programs};

/// The longest that a command may take if it ends by itself: key generation on a busy machine.
/// Making a party's safe primes has a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(180);

/// The command, with settings in its environment.
#[derive(Clone, Debug)]
pub struct Duet {
    /// The program of another version; `None` for the one under test.
    program: Option<PathBuf>,
    variables: Vec<(String, String)>,
    deadline: Duration,
}

/// The failure of a command, from its JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code, for example `unknown-wallet`.
    pub code: String,
    /// The message for the user.
    pub message: String,
    /// The process's exit code.
    pub exit_code: i32,
}

impl Duet {
    /// The command, with the credentials in `directory`.
    #[must_use]
    pub fn new(credentials: &Path) -> Self {
        Self { program: None, variables: Vec::new(), deadline: DEADLINE }
            .with("DUET_CREDENTIALS", &credentials.to_string_lossy())
    }

    /// This command, with the program of another version.
    #[must_use]
    pub fn of(mut self, program: &Path) -> Self {
        self.program = Some(program.to_path_buf());
        self
    }

    /// This command, with one more environment variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// This command, without an environment variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    /// The settings, as environment variables.
    #[must_use]
    pub fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// This command, with another deadline.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The process to start, with `--json`.
    ///
    /// # Errors
    /// When the program has not been built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => Command::new(programs::duet()?),
        };
        // Drop the test user's own Duet settings.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DUET_") {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().cloned()).arg("--json").args(arguments);
        Ok(command)
    }

    /// Runs a command that must succeed. Returns the document that it prints.
    ///
    /// # Errors
    /// When it fails, or prints anything but one JSON document.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.json_from(arguments, "").await
    }

    /// Runs a command that must succeed, with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub async fn json_from(&self, arguments: &[&str], input: &str) -> Result<Value> {
        let line = arguments.join(" ");
        let output = process::run(self.command(arguments)?, input, self.deadline).await?;
        if !output.status.success() {
            bail!("duet {line}: {}\n{}{}", output.status, output.stdout, output.stderr);
        }
        serde_json::from_str(&output.stdout).with_context(|| {
            format!("duet {line} printed no JSON document:\n{}\n{}", output.stdout, output.stderr)
        })
    }

    /// Runs a command that must fail. Returns its error.
    ///
    /// # Errors
    /// When it succeeds, or fails without a JSON document.
    pub async fn refused(&self, arguments: &[&str]) -> Result<Refusal> {
        self.refused_from(arguments, "").await
    }

    /// Runs a command that must fail, with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Self::refused`].
    pub async fn refused_from(&self, arguments: &[&str], input: &str) -> Result<Refusal> {
        let line = arguments.join(" ");
        let output = process::run(self.command(arguments)?, input, self.deadline).await?;
        if output.status.success() {
            bail!("duet {line} succeeded: {}", output.stdout);
        }
        let document: Value = serde_json::from_str(&output.stdout).with_context(|| {
            format!("duet {line} printed no JSON document:\n{}\n{}", output.stdout, output.stderr)
        })?;
        let member = |name: &str| {
            let value = document.pointer(&format!("/error/{name}")).and_then(Value::as_str);
            value.map(str::to_owned).ok_or_else(|| anyhow!("duet {line}: no error.{name} in {document}"))
        };
        let exit_code = output.status.code().context("duet was killed by a signal")?;
        Ok(Refusal { code: member("code")?, message: member("message")?, exit_code })
    }
}

/// The text at a JSON pointer.
///
/// # Errors
/// When the document has no text there.
pub fn text<'a>(document: &'a Value, pointer: &str) -> Result<&'a str> {
    document
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no text at {pointer} in {document}"))
}

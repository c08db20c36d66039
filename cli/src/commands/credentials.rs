//! `duet credentials`: exchanges the credentials of `duet init` without stopping the deployment.

use std::{fmt, path::PathBuf};

use clap::{Args, Subcommand};
use duet_credentials::{
    Layout,
    rotation::{Credential, RotationError, Standing, Step},
};
use duet_wire::Code;
use serde::Serialize;

use crate::{commands::init::init_error, error::CliError, output::Output};

/// A step of an exchange.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Show how far the exchange of each credential is
    Status(Directory),
    /// Make the next credentials, accepted beside those in use
    Prepare(Exchanged),
    /// Put the next credentials into use; the old ones are still accepted
    Switch(Exchanged),
    /// Stop accepting the old credentials
    Retire(Exchanged),
}

/// The directory of the credentials.
#[derive(Debug, Clone, Args)]
pub(crate) struct Directory {
    /// The directory that `duet init` made
    #[arg(long, value_name = "DIR", env = "DUET_CREDENTIALS")]
    dir: PathBuf,
}

/// The credentials that a step applies to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Exchanged {
    /// nkey/ROLE, token/TENANT, orchestrator-key, gateway-key, tls or route-tls; or `all`
    #[arg(value_name = "WHAT", required = true, value_parser = parse_what)]
    what: Vec<What>,
    #[command(flatten)]
    directory: Directory,
}

/// One credential, or every one.
#[derive(Debug, Clone)]
enum What {
    One(Credential),
    All,
}

fn parse_what(text: &str) -> Result<What, String> {
    if text == "all" {
        return Ok(What::All);
    }
    text.parse()
        .map(What::One)
        .map_err(|error: duet_credentials::rotation::UnknownCredential| error.to_string())
}

#[derive(Debug, Serialize)]
struct Report {
    credentials: Vec<Standing>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, standing) in self.credentials.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{} is {}", standing.credential, standing.stage)?;
            if let Some(key) = &standing.in_use {
                write!(f, "\n  in use           {key}")?;
            }
            if let Some(key) = &standing.other {
                write!(f, "\n  accepted as well {key}")?;
            }
            for file in &standing.files {
                write!(f, "\n  written          {}", file.display())?;
            }
            if !standing.restart.is_empty() {
                write!(f, "\n  start again      {}", standing.restart.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// When a step is out of turn, or when files cannot be read or written. Earlier steps of the same
/// call stay done.
pub(crate) fn run(command: CredentialsCommand, output: Output) -> Result<(), CliError> {
    let (step, exchanged) = match command {
        CredentialsCommand::Status(directory) => {
            let layout = Layout::new(&directory.dir);
            let all = Credential::all(&layout).map_err(failed)?;
            let standing = all.iter().map(|credential| credential.standing(&layout));
            let credentials = standing.collect::<Result<_, _>>().map_err(failed)?;
            return output.emit(&Report { credentials });
        }
        CredentialsCommand::Prepare(exchanged) => (Step::Prepare, exchanged),
        CredentialsCommand::Switch(exchanged) => (Step::Switch, exchanged),
        CredentialsCommand::Retire(exchanged) => (Step::Retire, exchanged),
    };
    let layout = Layout::new(&exchanged.directory.dir);
    let mut chosen = Vec::new();
    for what in exchanged.what {
        match what {
            What::One(credential) => chosen.push(credential),
            What::All => chosen.extend(Credential::all(&layout).map_err(failed)?),
        }
    }
    // Each credential once: a second time would be the same step twice.
    chosen.sort_unstable();
    chosen.dedup();
    let taken = chosen.iter().map(|credential| credential.take(&layout, step));
    let credentials = taken.collect::<Result<_, _>>().map_err(failed)?;
    output.emit(&Report { credentials })
}

fn failed(error: RotationError) -> CliError {
    match error {
        RotationError::File(error) => init_error(error),
        RotationError::OutOfTurn { .. } => CliError::new(Code::Conflict, error.to_string())
            .remedy("`duet credentials status` shows how far each one is."),
        RotationError::NoNodes => CliError::usage(error.to_string()),
    }
}

//! `duet requester`: makes and shows the Ed25519 keys with which teams sign their requests.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use duet_wire::signing::SigningKey;
use serde::Serialize;

use crate::{error::CliError, output::Output, secrets};

/// A command about request keys.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RequesterCommand {
    /// Make a request key; give its public half to the wallet's owner
    New {
        /// The file to write the key to; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show the public half of a request key
    Show {
        /// The file with the key
        #[arg(value_name = "FILE", env = "DUET_REQUESTER_KEY")]
        file: PathBuf,
    },
}

#[derive(Debug, Serialize)]
struct RequesterKey {
    public_key: String,
    file: PathBuf,
}

impl fmt::Display for RequesterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request key {}\nin {}", self.public_key, self.file.display())
    }
}

/// Runs the command.
///
/// # Errors
/// When the key file cannot be written or read.
pub(crate) fn run(command: RequesterCommand, output: Output) -> Result<(), CliError> {
    let file = match command {
        RequesterCommand::New { out } => {
            secrets::create_key_file(&out)?;
            out
        }
        RequesterCommand::Show { file } => file,
    };
    let public_key = hex::encode(read_key(&file)?.verifying_key().as_bytes());
    output.emit(&RequesterKey { public_key, file })
}

/// Reads a request key.
///
/// # Errors
/// When the file cannot be read or contains no key.
pub(crate) fn read_key(file: &Path) -> Result<SigningKey, CliError> {
    secrets::read_key_file(file).map(|key| SigningKey::from_bytes(&key))
}

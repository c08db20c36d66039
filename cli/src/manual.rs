//! Compares the documents about the command with the command.

mod commands;
mod settings;

use clap::{Command, CommandFactory as _};

use crate::cli::Cli;

/// The whole command, with the options that each subcommand inherits.
fn duet() -> Command {
    let mut duet = Cli::command();
    duet.build();
    duet
}

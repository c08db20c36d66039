//! `duet`: the one binary of Duet. `docs/cli.md` lists its commands and their JSON.
//!
//! A command line takes this path:
//!
//! 1. [`cli`] parses it into a `Cli` (clap), starts logging and traces, and runs the command.
//! 2. A module of [`commands`] reads its options and inputs, and calls the library crates.
//! 3. It returns one report, which [`output::Output`] prints as text or as JSON. A failure is an
//!    [`error::CliError`]: a message, a stable code, an exit code and a remedy.
//!
//! [`config`] declares the settings that commands share, with their environment variables.
//! [`share_store`] opens a party's store, [`api`] calls the orchestrator, and [`broker`] connects
//! to NATS.

mod api;
mod broker;
mod cli;
mod commands;
mod config;
mod device;
mod duration;
mod error;
mod health;
mod input;
mod json_rpc;
mod logging;
#[cfg(test)]
mod manual;
mod memory;
mod monitoring;
mod outgoing;
mod output;
mod parties;
mod progress;
mod quantity;
mod request;
mod rpc;
mod sealing;
mod secrets;
mod share_store;
mod shutdown;
mod store_location;
#[cfg_attr(not(feature = "traces"), path = "without_traces.rs")]
mod traces;
mod transaction;
#[cfg(all(test, feature = "traces"))]
#[path = "without_traces.rs"]
#[expect(dead_code, clippy::extra_unused_type_parameters, reason = "only its refusal is tested")]
mod without_traces;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}

//! `duet`: the one binary of Duet. See `docs/cli.md` for its commands and their JSON.

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
mod logging;
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
mod traces;
mod transaction;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}

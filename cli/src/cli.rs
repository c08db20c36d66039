//! The command tree. It parses the command line, starts logging, runs the command and reports a
//! failure.

use std::{ffi::OsString, io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    commands::{
        audit, batch, card, credentials, doctor, exit_codes, gateway, init, job, load, orchestrator, party,
        policy, requester, sign, verify, wallet, webhook,
    },
    config::GlobalOptions,
    error::CliError,
    logging, memory,
    output::Output,
    traces::Exporter,
};

/// Two of three parties sign for Ethereum; none of them holds the key.
#[derive(Debug, Parser)]
#[command(name = "duet", version, about, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make development credentials for one machine
    Init(init::InitCommand),
    /// Exchange credentials while everything runs
    #[command(subcommand)]
    Credentials(credentials::CredentialsCommand),
    /// Find out why signing stalls, and what to do about it
    Doctor(Box<doctor::DoctorCommand>),
    /// Look at the cards of parties
    #[command(subcommand)]
    Card(card::CardCommand),
    /// Make and look after the owner's wallets on this machine
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// Sign as the owner, together with service or partner
    Sign(Box<sign::SignCommand>),
    /// Queue signatures and follow them
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Queue many signatures at once and follow them
    #[command(subcommand)]
    Batch(batch::BatchCommand),
    /// Measure how many signatures a deployment makes, and how long each takes
    #[command(subcommand)]
    Load(load::LoadCommand),
    /// Set up, run and look after a party
    #[command(subcommand)]
    Party(Box<party::PartyCommand>),
    /// Run an orchestrator: the job queue and its HTTP interface
    Orchestrator(Box<orchestrator::OrchestratorCommand>),
    /// Run a gateway: the bridge between browsers and the broker
    Gateway(Box<gateway::GatewayCommand>),
    /// Deliver results to webhooks, and look at deliveries
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Request keys of teams that queue signatures
    #[command(subcommand)]
    Requester(requester::RequesterCommand),
    /// Check signatures offline, with library code alone
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Decide what the parties of a wallet sign
    #[command(subcommand)]
    Policy(Box<policy::PolicyCommand>),
    /// Read the audit log, and check that nothing of it was removed or altered
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// List error codes and exit codes
    #[command(after_help = exit_codes::table().to_string())]
    ExitCodes,
}

impl Command {
    /// The log filter without `--log`: servers log what they do, other commands only failures.
    const fn default_filter(&self) -> &'static str {
        match self {
            Self::Orchestrator(_) | Self::Gateway(_) => "info",
            Self::Party(command) if matches!(**command, party::PartyCommand::Run(_)) => "info",
            _ => "warn",
        }
    }

    /// Starts the export of a server's traces if the operator gave a collector.
    fn export_traces(&self) -> Result<Option<Exporter>, CliError> {
        match self {
            Self::Orchestrator(command) => command.monitoring.export_traces("duet-orchestrator"),
            Self::Gateway(command) => command.monitoring.export_traces("duet-gateway"),
            Self::Party(command) => match &**command {
                party::PartyCommand::Run(arguments) => arguments.monitoring.export_traces("duet-party"),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn run(self, output: Output) -> Result<(), CliError> {
        match self {
            Self::Init(command) => init::run(command, output),
            Self::Credentials(command) => credentials::run(command, output),
            Self::Doctor(command) => block_on(doctor::run(*command, output)),
            Self::Card(command) => block_on(card::run(command, output)),
            Self::Wallet(command) => block_on_threads(wallet::run(command, output)),
            Self::Sign(command) => block_on_threads(sign::run(*command, output)),
            Self::Job(command) => block_on(job::run(command, output)),
            Self::Batch(command) => block_on(batch::run(command, output)),
            Self::Load(command) => block_on_threads(load::run(command, output)),
            Self::Party(command) => block_on_threads(party::run(*command, output)),
            Self::Orchestrator(command) => block_on_threads(orchestrator::run(*command, output)),
            Self::Gateway(command) => block_on_threads(gateway::run(*command, output)),
            Self::Policy(command) => block_on(policy::run(*command, output)),
            Self::Audit(command) => block_on(audit::run(command, output)),
            Self::Webhook(command) => block_on(webhook::run(command, output)),
            Self::Requester(command) => requester::run(command, output),
            Self::Verify(command) => verify::run(command, output),
            Self::Completions { shell } => completions(shell, output),
            Self::ExitCodes => exit_codes::run(output),
        }
    }
}

/// Runs the command that `arguments` name. The first argument is the program's own name.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, wants_json(&arguments)),
    };
    let output = Output::new(cli.global.json);
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, output),
    }
}

fn run(cli: Cli, output: Output) -> Result<(), CliError> {
    memory::keep_private()?;
    install_cryptography()?;
    // Held until the command has ended: dropping it exports the spans that still wait.
    let traces = cli.command.export_traces()?;
    logging::start(&cli.global, cli.command.default_filter(), traces.as_ref())?;
    cli.command.run(output)
}

/// Runs a command that mostly waits for other processes: one thread is enough.
fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    run_on(tokio::runtime::Builder::new_current_thread(), command)
}

/// Runs a command that serves or computes. Threads for half of the cores are enough to wait for
/// other processes. Arithmetic runs on threads of its own, and each further thread costs wake-ups.
fn block_on_threads(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(cores.div_ceil(2));
    run_on(runtime, command)
}

fn run_on(
    mut runtime: tokio::runtime::Builder,
    command: impl Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    runtime
        .enable_all()
        .build()
        .map_err(|error| CliError::internal(format!("no runtime: {error}")))?
        .block_on(command)
}

/// HTTP clients use the process's TLS provider; without one they would panic.
fn install_cryptography() -> Result<(), CliError> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| CliError::internal("another TLS provider is installed already"))
}

fn completions(shell: Shell, output: Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "duet", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| CliError::internal(format!("the completion script is no text: {error}")))?;
    output.line(&script)
}

/// Whether the user wants JSON, read from a command line that does not parse.
fn wants_json(arguments: &[OsString]) -> bool {
    let given =
        arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let falsy = ["", "0", "n", "no", "f", "false", "off"];
    given || std::env::var("DUET_JSON").is_ok_and(|value| !falsy.contains(&value.to_lowercase().as_str()))
}

fn not_understood(error: &clap::Error, json: bool) -> ExitCode {
    // Help and version are no failures. Clap prints them where they belong, and so it does errors
    // for people.
    if error.exit_code() == 0 || !json {
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.render().to_string();
    let message = text.trim().trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    failed(
        &CliError::usage(message)
            .remedy("`duet help` lists the commands, and `--help` the options of a command."),
        Output::new(true),
    )
}

fn failed(error: &CliError, output: Output) -> ExitCode {
    if output.is_json() {
        if let Ok(document) = serde_json::to_string(&error.document()) {
            // If standard output is closed, the exit code still reports the failure.
            let _ = output.line(&document);
        }
    } else {
        use io::Write as _;
        let _ = writeln!(io::stderr().lock(), "{}", error.text());
    }
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}

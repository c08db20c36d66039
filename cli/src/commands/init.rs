//! `duet init`: makes development credentials for one machine.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use duet_bus::Role;
use duet_credentials::{self as credentials, InitError, InitSettings, Layout, ReadError, nodes::Node};
use duet_wire::TenantId;
use serde::Serialize;

use crate::{error::CliError, output::Output};

/// What to make credentials for.
#[derive(Debug, Clone, Args)]
pub(crate) struct InitCommand {
    /// The directory to write to; existing files stay
    #[arg(long, value_name = "DIR", env = "DUET_CREDENTIALS")]
    dir: PathBuf,
    /// Tenants that get an API token; can be repeated
    #[arg(long = "tenant", value_name = "NAME", default_value = "demo")]
    tenants: Vec<TenantId>,
    /// The address on which the broker will listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// The port on which the broker will listen
    #[arg(long, value_name = "PORT", default_value_t = 4222)]
    port: u16,
    /// The loopback port of the broker's monitoring
    #[arg(long, value_name = "PORT", default_value_t = 8222)]
    monitor_port: u16,
    /// Further names and addresses in the broker's certificate; can be repeated
    #[arg(long = "server-name", value_name = "NAME")]
    server_names: Vec<String>,
    /// A node of a cluster and its host; its files go to DIR/nodes/NAME; can be repeated
    #[arg(long = "node", value_name = "NAME=HOST")]
    nodes: Vec<Node>,
    /// The port on which the nodes listen for each other
    #[arg(long, value_name = "PORT", default_value_t = 6222)]
    cluster_port: u16,
}

#[derive(Debug, Serialize)]
struct Credentials {
    directory: PathBuf,
    broker_env: PathBuf,
    ca: PathBuf,
    nkeys: BTreeMap<&'static str, PathBuf>,
    orchestrator_key_file: PathBuf,
    orchestrator_public_key: String,
    tokens: BTreeMap<String, PathBuf>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, PathBuf>,
    made: Vec<PathBuf>,
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.made.is_empty() {
            write!(f, "{} is complete already", self.directory.display())?;
        } else {
            write!(f, "made in {}:", self.directory.display())?;
        }
        for file in &self.made {
            write!(f, "\n  {}", file.display())?;
        }
        write!(f, "\nresults will be signed by {}", self.orchestrator_public_key)
    }
}

/// Runs the command. A second run adds only what is missing.
///
/// # Errors
/// When the directory cannot be written, or when a file in it cannot be read.
pub(crate) fn run(command: InitCommand, output: Output) -> Result<(), CliError> {
    let mut settings = InitSettings {
        tenants: command.tenants,
        host: command.host,
        port: command.port,
        monitor_port: command.monitor_port,
        nodes: command.nodes,
        cluster_port: command.cluster_port,
        ..InitSettings::default()
    };
    settings.server_names.extend(command.server_names);
    let made = credentials::initialise(&command.dir, &settings).map_err(init_error)?.files;
    output.emit(&describe(&command.dir, &settings.nodes, made)?)
}

fn describe(directory: &Path, nodes: &[Node], made: Vec<PathBuf>) -> Result<Credentials, CliError> {
    let directory = std::path::absolute(directory)
        .map_err(|error| CliError::io(&directory.display().to_string(), &error))?;
    let layout = Layout::new(&directory);
    let key = layout.read_orchestrator_key().map_err(read_error)?;
    let tokens = layout.read_tokens().map_err(read_error)?;
    Ok(Credentials {
        directory: layout.directory().to_owned(),
        broker_env: layout.broker_environment(),
        ca: layout.ca_certificate(),
        nkeys: Role::ALL.into_iter().map(|role| (role.as_str(), layout.nkey(role))).collect(),
        orchestrator_key_file: layout.orchestrator_key(),
        orchestrator_public_key: hex::encode(key.verifying_key().as_bytes()),
        tokens: tokens.into_keys().map(|tenant| (tenant.to_string(), layout.token(&tenant))).collect(),
        nodes: nodes
            .iter()
            .map(|node| (node.name().to_owned(), layout.node(node.name()).directory().to_owned()))
            .collect(),
        made,
    })
}

/// The error of a credential that could not be made.
pub(crate) fn init_error(error: InitError) -> CliError {
    match error {
        InitError::Existing(error) => read_error(error),
        InitError::Entropy(_) => CliError::internal(error.to_string()),
        InitError::Io { .. } | InitError::Certificate(_) | InitError::Path { .. } => {
            CliError::input(error.to_string())
        }
    }
}

/// The error of a credential that could not be read.
#[expect(clippy::needless_pass_by_value, reason = "it is used with map_err")]
pub(crate) fn read_error(error: ReadError) -> CliError {
    CliError::input(error.to_string())
}

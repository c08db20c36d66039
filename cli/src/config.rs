//! Every shared setting of the command line, with its environment variable and default.
//!
//! Commands flatten the option groups that they need. A flag overrides its variable. A variable
//! overrides the file of a `--credentials` directory.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::FalseyValueParser};
use duet_wire::TenantId;

use crate::{duration, store_location::StoreLocation};

/// The broker's default address.
pub(crate) const DEFAULT_NATS_URL: &str = "tls://127.0.0.1:4222";
/// The orchestrator's default address.
pub(crate) const DEFAULT_API_URL: &str = "http://127.0.0.1:8080";

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Options of every command, anywhere on the line.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalOptions {
    /// Print exactly one JSON document on standard output
    #[arg(long, global = true, env = "DUET_JSON", value_parser = FalseyValueParser::new(), hide_env_values = true)]
    pub(crate) json: bool,
    /// What to log, as a tracing filter, for example duet_party=debug [default: info for servers,
    /// warn otherwise]
    #[arg(long, global = true, env = "DUET_LOG", value_name = "FILTER", help_heading = "Logging")]
    pub(crate) log: Option<String>,
    /// How log lines are written
    #[arg(
        long,
        global = true,
        env = "DUET_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Logging"
    )]
    pub(crate) log_format: LogFormat,
}

/// A directory of development credentials.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CredentialsOptions {
    /// Directory made by `duet init`. It supplies the broker's authority, this role's nkey, the
    /// tenant's API token and the servers' keys where no flag or variable names them
    #[arg(long, env = "DUET_CREDENTIALS", value_name = "DIR", help_heading = "Credentials")]
    pub(crate) credentials: Option<PathBuf>,
}

/// How to reach the broker.
#[derive(Debug, Clone, Args)]
pub(crate) struct BrokerOptions {
    /// The broker's address; several are separated by commas
    #[arg(
        long,
        env = "DUET_NATS_URL",
        value_name = "URL",
        default_value = DEFAULT_NATS_URL,
        help_heading = "Broker"
    )]
    pub(crate) nats_url: String,
    /// Certificate authority that the broker's certificate is checked against (PEM)
    /// [default: the system's, or DIR/tls/ca.pem]
    #[arg(long, env = "DUET_NATS_CA", value_name = "FILE", help_heading = "Broker")]
    pub(crate) nats_ca: Option<PathBuf>,
    /// File with this role's nkey seed [default: DIR/nkeys/<role>.nk]
    #[arg(long, env = "DUET_NATS_NKEY", value_name = "FILE", help_heading = "Broker")]
    pub(crate) nats_nkey: Option<PathBuf>,
}

/// The tenant for which a command acts.
#[derive(Debug, Clone, Args)]
pub(crate) struct TenantOptions {
    /// The tenant to act for
    #[arg(long, env = "DUET_TENANT", value_name = "NAME", default_value = "demo")]
    pub(crate) tenant: TenantId,
}

/// How to reach the orchestrator.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiOptions {
    /// The orchestrator's HTTP interface; https beyond this machine, because the token goes there
    #[arg(
        long,
        env = "DUET_API_URL",
        value_name = "URL",
        default_value = DEFAULT_API_URL,
        help_heading = "Orchestrator"
    )]
    pub(crate) api_url: String,
    /// File with the tenant's API token (or the token itself in DUET_API_TOKEN)
    /// [default: DIR/tokens/<tenant>]
    #[arg(long, env = "DUET_API_TOKEN_FILE", value_name = "FILE", help_heading = "Orchestrator")]
    pub(crate) api_token_file: Option<PathBuf>,
}

/// What opens a share store: a source that decrypts the store's key.
#[derive(Debug, Clone, Args)]
pub(crate) struct SealOptions {
    /// File of 32 random bytes that opens the store; created with a new store
    #[arg(
        long,
        env = "DUET_KEY_FILE",
        value_name = "FILE",
        conflicts_with_all = ["passphrase_file", "key_credential", "vault_key"],
        help_heading = "Share store"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// The same 32 bytes as a credential that systemd hands to the service in
    /// $CREDENTIALS_DIRECTORY (LoadCredentialEncrypted=)
    #[arg(
        long,
        env = "DUET_KEY_CREDENTIAL",
        value_name = "NAME",
        conflicts_with_all = ["passphrase_file", "vault_key"],
        help_heading = "Share store"
    )]
    pub(crate) key_credential: Option<String>,
    /// File with the passphrase that opens the store (or the passphrase itself in
    /// DUET_PASSPHRASE) [default: a prompt]
    #[arg(
        long,
        env = "DUET_PASSPHRASE_FILE",
        value_name = "FILE",
        conflicts_with = "vault_key",
        help_heading = "Share store"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Key of HashiCorp Vault's transit engine that opens the store (docs/share-store.md)
    #[arg(
        long,
        env = "DUET_VAULT_KEY",
        value_name = "NAME",
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_key: Option<String>,
    #[command(flatten)]
    pub(crate) vault: VaultOptions,
}

/// How to reach HashiCorp Vault.
#[derive(Debug, Clone, Args)]
pub(crate) struct VaultOptions {
    /// Vault's address, https beyond this machine
    #[arg(
        long,
        env = "DUET_VAULT_URL",
        value_name = "URL",
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_url: Option<String>,
    /// Where Vault's transit engine is mounted
    #[arg(
        long,
        env = "DUET_VAULT_MOUNT",
        value_name = "PATH",
        default_value = "transit",
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_mount: String,
    /// Vault's namespace, if it has any
    #[arg(
        long,
        env = "DUET_VAULT_NAMESPACE",
        value_name = "NAME",
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_namespace: Option<String>,
    /// File with a token that may use the key (or the token itself in DUET_VAULT_TOKEN)
    #[arg(
        long,
        env = "DUET_VAULT_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_token_file: Option<PathBuf>,
    /// Authority that Vault's certificate is checked against (PEM) [default: the system's]
    #[arg(
        long,
        env = "DUET_VAULT_CA",
        value_name = "FILE",
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_ca: Option<PathBuf>,
    /// How long to try again while Vault is out of reach, sealed or busy
    #[arg(
        long,
        env = "DUET_VAULT_PATIENCE",
        value_name = "DURATION",
        default_value = "20s",
        value_parser = duration::parse,
        help_heading = "Share store, with HashiCorp Vault"
    )]
    pub(crate) vault_patience: Duration,
}

/// Where the share store of a party is.
#[derive(Debug, Clone, Args)]
pub(crate) struct StorePlace {
    /// The party's share store (docs/share-store.md): a SQLite file, or a PostgreSQL database as
    /// postgresql://USER@HOST:PORT/DATABASE[?sslmode=…&sslrootcert=…], without a password
    #[arg(
        long,
        env = "DUET_STORE",
        value_name = "FILE|URL",
        hide_env_values = true,
        help_heading = "Share store"
    )]
    pub(crate) store: StoreLocation,
    #[command(flatten)]
    pub(crate) database: DatabaseOptions,
}

/// The share store of a party, and what opens it.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreOptions {
    #[command(flatten)]
    pub(crate) place: StorePlace,
    #[command(flatten)]
    pub(crate) seal: SealOptions,
}

/// How to reach a share store in a database.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DatabaseOptions {
    /// File with the password of the database's user (or the password itself in
    /// DUET_STORE_PASSWORD) [default: PostgreSQL's own, PGPASSWORD or ~/.pgpass]
    #[arg(long, env = "DUET_STORE_PASSWORD_FILE", value_name = "FILE", help_heading = "Share store")]
    pub(crate) store_password_file: Option<PathBuf>,
    /// Declares that commits wait for a standby: a failover of the database loses nothing and does
    /// not count as a restore (docs/share-store.md#failover)
    #[arg(
        long,
        env = "DUET_STORE_LOSSLESS_FAILOVER",
        value_parser = FalseyValueParser::new(),
        help_heading = "Share store"
    )]
    pub(crate) store_lossless_failover: bool,
    /// Add nothing to the store's tables when it is opened: a store that lacks what this build
    /// needs is refused until `duet party migrate --expand` ran (docs/share-store.md#upgrades)
    #[arg(
        long,
        env = "DUET_NO_MIGRATE",
        value_parser = FalseyValueParser::new(),
        help_heading = "Share store"
    )]
    pub(crate) no_migrate: bool,
}

/// Where the device keeps its wallets.
#[derive(Debug, Clone, Args)]
pub(crate) struct HomeOptions {
    /// Where the device keeps its wallets [default: ~/.duet]
    #[arg(long, env = "DUET_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

//! `duet orchestrator`: the job queue and its HTTP interface.

use std::{collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr};

use clap::{
    Args,
    builder::{FalseyValueParser, RangedI64ValueParser},
};
use duet_bus::{Role, streams::StorageSettings};
use duet_credentials::Layout;
use duet_orchestrator::{
    ApiServer, Config, HttpSettings, OrchestratorError, PartyEntry, QueueSettings, TenantAccess, TokenHash,
    webhooks::WebhookSettings,
};
use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, TenantId, signing::SigningKey};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{self, SERVER_PATIENCE},
    commands::init::read_error,
    config::{BrokerOptions, CredentialsOptions},
    duration::Span,
    error::{CliError, ErrorCode},
    monitoring::{self, Listener, MonitoringOptions},
    output::Output,
    secrets,
    shutdown::Shutdown,
};

/// The settings of an orchestrator.
#[derive(Debug, Clone, Args)]
pub(crate) struct OrchestratorCommand {
    /// Where the HTTP interface listens; port 0 picks a free one
    #[arg(long, env = "DUET_LISTEN", value_name = "ADDRESS", default_value_t = Config::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// File with the Ed25519 key that signs results (64 hexadecimal digits), and a second key while
    /// the key is exchanged (docs/credentials.md) [default: DIR/orchestrator.key]
    #[arg(long, env = "DUET_ORCHESTRATOR_KEY", value_name = "FILE")]
    orchestrator_key: Option<PathBuf>,
    /// A tenant and the file with its API token, or with the token's SHA-256 in 64 hexadecimal
    /// digits; a second one while it is exchanged; can be repeated [default: DIR/tokens/*]
    #[arg(
        long = "tenant-token",
        env = "DUET_TENANT_TOKENS",
        value_delimiter = ',',
        value_name = "TENANT=FILE"
    )]
    tenant_tokens: Vec<TenantToken>,
    /// A party whose workers are invited, and the share it holds; can be repeated
    /// [default: service=2 and partner=3]
    #[arg(long = "party", value_name = "NAME=2|3")]
    parties: Vec<PartyArgument>,
    /// Jobs that may be open at once; a further one is refused with 429
    #[arg(long, value_name = "NUMBER", default_value_t = QueueSettings::default().max_open_jobs, help_heading = "Queue")]
    max_open_jobs: usize,
    /// How many open jobs one tenant may have
    #[arg(long, value_name = "NUMBER", default_value_t = QueueSettings::default().max_open_jobs_per_tenant, help_heading = "Queue")]
    max_open_jobs_per_tenant: usize,
    /// Jobs that this orchestrator works on at once
    #[arg(long, value_name = "NUMBER", default_value_t = QueueSettings::default().max_in_flight, help_heading = "Queue")]
    max_in_flight: usize,
    /// How many of them one tenant may have [default: three quarters of them]
    #[arg(long, value_name = "NUMBER", help_heading = "Queue")]
    max_in_flight_per_tenant: Option<usize>,
    /// Requests a second that one tenant may make of the HTTP interface
    #[arg(long, value_name = "NUMBER", default_value_t = HttpSettings::default().requests_per_second_per_tenant, help_heading = "Queue")]
    requests_per_second_per_tenant: NonZeroU32,
    /// Attempts that a job gets at least, over all its pairs. Attempts that say nothing about the
    /// job do not count (docs/errors.md)
    #[arg(long, value_name = "NUMBER", default_value_t = QueueSettings::default().max_attempts, help_heading = "Queue")]
    max_attempts: u32,
    /// How long a job is tried at least, from its first counted attempt. It is given up once both
    /// this time and its attempts are over
    #[arg(long, value_name = "DURATION", default_value_t = Span(QueueSettings::default().give_up_after), help_heading = "Queue")]
    give_up_after: Span,
    /// How long a session may last
    #[arg(long, value_name = "DURATION", default_value_t = Span(QueueSettings::default().session_timeout), help_heading = "Queue")]
    session_timeout: Span,
    /// Accept and start jobs although the broker does not prove that it keeps what it acknowledges
    /// (docs/errors.md, `unsafe-broker`); a power cut may then revoke jobs and results
    #[arg(long, env = "DUET_TRUST_BROKER", value_parser = FalseyValueParser::new())]
    trust_broker: bool,
    #[command(flatten)]
    storage: StorageOptions,
    #[command(flatten)]
    webhooks: WebhookOptions,
    #[command(flatten)]
    pub(crate) monitoring: MonitoringOptions,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

/// The size of what the broker stores, and for how long it stores it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
struct StorageOptions {
    /// Copies of each stream and bucket: 1, or 3 or 5 in a cluster
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    replicas: usize,
    /// How long a settled job and its idempotency key are kept
    #[arg(long, env = "DUET_KEEP_SETTLED", value_name = "DURATION", default_value_t = Span(QueueSettings::default().keep_settled))]
    keep_settled: Span,
    /// Bound of each bucket; the jobs' bucket needs some 4 KiB for each job kept
    #[arg(long, env = "DUET_BUCKET_MIB", value_name = "MIB", value_parser = mebibytes(), default_value_t = StorageSettings::default().bucket_max_bytes / MEBIBYTE)]
    bucket_mib: i64,
    /// Let removed entries leave nothing in buckets that an earlier version made. Orchestrators of
    /// that version do not start afterwards
    #[arg(long, env = "DUET_EXPIRE_MARKERS", value_parser = FalseyValueParser::new())]
    expire_markers: bool,
    /// Bound of the stream of results
    #[arg(long, env = "DUET_RESULTS_MIB", value_name = "MIB", value_parser = mebibytes(), default_value_t = StorageSettings::default().history_max_bytes / MEBIBYTE)]
    results_mib: i64,
    /// How long the stream of results keeps a result
    #[arg(long, env = "DUET_RESULTS_AGE", value_name = "DURATION", default_value_t = Span(StorageSettings::default().results_max_age))]
    results_age: Span,
    /// Bound of the audit log's stream; each signature takes some 3.5 KiB
    #[arg(long, env = "DUET_AUDIT_MIB", value_name = "MIB", value_parser = mebibytes(), default_value_t = StorageSettings::default().audit_max_bytes / MEBIBYTE)]
    audit_mib: i64,
    /// How long the audit log's stream keeps a record
    #[arg(long, env = "DUET_AUDIT_AGE", value_name = "DURATION", default_value_t = Span(StorageSettings::default().audit_max_age))]
    audit_age: Span,
}

const MEBIBYTE: i64 = 1024 * 1024;

/// A number of MiB, up to 16 TiB.
fn mebibytes() -> RangedI64ValueParser {
    RangedI64ValueParser::new().range(1..=16 * 1024 * 1024)
}

impl StorageOptions {
    fn apply(&self, config: &mut Config) {
        let storage = &mut config.storage;
        storage.replicas = self.replicas;
        storage.bucket_max_bytes = self.bucket_mib * MEBIBYTE;
        storage.expire_markers = self.expire_markers;
        storage.history_max_bytes = self.results_mib * MEBIBYTE;
        storage.results_max_age = self.results_age.0;
        storage.audit_max_bytes = self.audit_mib * MEBIBYTE;
        storage.audit_max_age = self.audit_age.0;
        config.queue.keep_settled = self.keep_settled.0;
    }
}

/// How results are delivered to tenants' endpoints.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
struct WebhookOptions {
    /// Also deliver to addresses that are not public: this machine, private networks
    #[arg(long, env = "DUET_WEBHOOKS_TO_PRIVATE", value_parser = FalseyValueParser::new())]
    webhooks_to_private: bool,
    /// How long one delivery may take
    #[arg(long, env = "DUET_WEBHOOK_TIMEOUT", value_name = "DURATION", default_value_t = Span(WebhookSettings::default().timeout))]
    webhook_timeout: Span,
    /// The pause before the second attempt at a delivery; each further pause is four times as long
    #[arg(long, env = "DUET_WEBHOOK_FIRST_PAUSE", value_name = "DURATION", default_value_t = Span(WebhookSettings::default().first_pause))]
    webhook_first_pause: Span,
    /// How long an endpoint may fail before it is disabled (docs/webhooks.md)
    #[arg(long, env = "DUET_WEBHOOK_DISABLE_AFTER", value_name = "DURATION", default_value_t = Span(WebhookSettings::default().disable_after))]
    webhook_disable_after: Span,
}

/// A tenant and the file with its token.
#[derive(Debug, Clone)]
struct TenantToken {
    tenant: TenantId,
    file: PathBuf,
}

impl FromStr for TenantToken {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, file) = text.split_once('=').ok_or("write TENANT=FILE")?;
        let tenant = tenant.parse().map_err(|error| format!("{tenant}: {error}"))?;
        Ok(Self { tenant, file: file.into() })
    }
}

/// A party and its share.
#[derive(Debug, Clone)]
struct PartyArgument(PartyEntry);

impl FromStr for PartyArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (party, share) = text.split_once('=').ok_or("write NAME=2 or NAME=3")?;
        let index = match share {
            "2" => ShareIndex::Service,
            "3" => ShareIndex::Partner,
            _ => return Err("a backend party holds share 2 or share 3".to_owned()),
        };
        Ok(Self(PartyEntry { party: party.parse().map_err(|error| format!("{party}: {error}"))?, index }))
    }
}

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    listen: SocketAddr,
    public_key: String,
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listening on http://{}\nresults are signed by {}", self.listen, self.public_key)
    }
}

/// Runs the orchestrator until a signal stops it.
///
/// # Errors
/// When a setting is missing, when it cannot listen, or when the broker refuses it for good.
pub(crate) async fn run(command: OrchestratorCommand, output: Output) -> Result<(), CliError> {
    let mut shutdown = Shutdown::listen()?;
    let metrics = command.monitoring.listen().await?;
    let config = command.config()?;
    let server = shutdown
        .unless_requested(Box::pin(ApiServer::bind(config)))
        .await?
        .map_err(|error| failed(&error))?;
    let mut registry = monitoring::registry("orchestrator");
    server.register_metrics(&mut registry);
    let metrics_address = metrics.as_ref().map(Listener::address);
    let _metrics = metrics.map(|listener| listener.serve(monitoring::routes(registry)));
    output.emit(&Ready {
        ready: true,
        listen: server.address(),
        public_key: hex::encode(server.public_key()),
        instance: server.instance().to_owned(),
        metrics: metrics_address,
    })?;
    let stop = CancellationToken::new();
    let ended = shutdown.drain(&stop, server.serve(stop.clone())).await;
    ended.unwrap_or(Ok(())).map_err(|error| failed(&error))
}

impl OrchestratorCommand {
    fn config(self) -> Result<Config, CliError> {
        let layout = self.credentials.credentials.as_deref().map(Layout::new);
        let broker = broker::settings(&self.broker, &self.credentials, Role::Orchestrator, SERVER_PATIENCE)?;
        let (key, other_key) = match (&self.orchestrator_key, &layout) {
            (Some(file), _) => {
                let held = secrets::read_secret_file(file)?;
                let key = |digits: &str| {
                    secrets::parse_key(file, digits).map(|bytes| SigningKey::from_bytes(&bytes))
                };
                (key(held.in_use())?, held.other().map(key).transpose()?)
            }
            (None, Some(layout)) => (
                layout.read_orchestrator_key().map_err(read_error)?,
                layout.read_other_orchestrator_key().map_err(read_error)?,
            ),
            (None, None) => {
                return Err(CliError::usage("no key to sign results with is given")
                    .remedy("Give --orchestrator-key FILE or --credentials DIR."));
            }
        };
        let tenants = tenants(&self.tenant_tokens, layout.as_ref())?;
        let mut config =
            Config::new(broker, tenants, key).map_err(|error| CliError::internal(error.to_string()))?;
        config.other_result_key = other_key;
        config.listen = self.listen;
        config.trust_broker = self.trust_broker;
        self.storage.apply(&mut config);
        if !self.parties.is_empty() {
            config.parties = self.parties.into_iter().map(|party| party.0).collect();
        }
        config.http.requests_per_second_per_tenant = self.requests_per_second_per_tenant;
        let queue = &mut config.queue;
        queue.max_open_jobs = self.max_open_jobs;
        queue.max_open_jobs_per_tenant = self.max_open_jobs_per_tenant;
        queue.max_in_flight_per_tenant = self.max_in_flight_per_tenant.or(queue.max_in_flight_per_tenant);
        queue.max_in_flight = self.max_in_flight;
        queue.max_attempts = self.max_attempts;
        queue.give_up_after = self.give_up_after.0;
        queue.session_timeout = self.session_timeout.0;
        let (webhooks, given) = (&mut config.webhooks, self.webhooks);
        webhooks.allow_private = given.webhooks_to_private;
        webhooks.timeout = given.webhook_timeout.0;
        webhooks.first_pause = given.webhook_first_pause.0;
        webhooks.disable_after = given.webhook_disable_after.0;
        Ok(config)
    }
}

/// The tenants that may call, with the named tokens or those of the credentials directory.
fn tenants(named: &[TenantToken], layout: Option<&Layout>) -> Result<Vec<TenantAccess>, CliError> {
    let mut tokens: BTreeMap<TenantId, Vec<TokenHash>> = BTreeMap::new();
    for TenantToken { tenant, file } in named {
        let held = secrets::read_secret_file(file)?;
        // A hash is enough: the operator of the orchestrator need not hold a token that calls it.
        let hashes = held.accepted().map(|text| text.parse().unwrap_or_else(|_| TokenHash::of(text)));
        tokens.entry(tenant.clone()).or_default().extend(hashes);
    }
    if named.is_empty()
        && let Some(layout) = layout
    {
        for (tenant, accepted) in layout.read_tokens().map_err(read_error)? {
            tokens.insert(tenant, accepted.iter().map(|token| TokenHash::of(token.expose())).collect());
        }
    }
    if tokens.is_empty() {
        return Err(CliError::usage("no tenant may call: no API token is given")
            .remedy("Give --tenant-token TENANT=FILE or --credentials DIR."));
    }
    Ok(tokens.into_iter().map(|(tenant, tokens)| TenantAccess { tenant, tokens }).collect())
}

fn failed(error: &OrchestratorError) -> CliError {
    match error {
        OrchestratorError::Connect(error) => broker::connect_error(error),
        OrchestratorError::Setting(error) => CliError::usage(error.to_string()),
        OrchestratorError::Listen { .. } => CliError::new(ErrorCode::Usage, error.to_string())
            .remedy("Choose another address with --listen; port 0 picks a free one."),
        OrchestratorError::Storage(_) => CliError::new(Code::StorageUnavailable, error.to_string()),
        OrchestratorError::Subscribe(_) | OrchestratorError::Disconnected => {
            CliError::new(Code::BrokerUnreachable, error.to_string())
        }
        OrchestratorError::Http(_)
        | OrchestratorError::Webhooks(_)
        | OrchestratorError::Entropy(_)
        | OrchestratorError::Name(_) => CliError::internal(error.to_string()),
    }
}

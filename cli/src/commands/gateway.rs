//! `duet gateway`: the bridge between browsers and the broker.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use duet_bus::Role;
use duet_credentials::Layout;
use duet_gateway::{
    Backend, BackendRole, ClientHeader, Config, GatewayError, InvalidSetting, IpNet, Limits, Origin, Rpc,
    Server, TlsFiles, TrustedProxies,
};
use duet_protocol::{
    admission::AdmissionToken,
    ids::{CardFingerprint, PartyId},
};
use duet_wire::{TenantId, signing::SigningKey};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    broker,
    commands::{init::read_error, party::SERVER_PATIENCE},
    config::{BrokerOptions, CredentialsOptions},
    duration::Span,
    error::{CliError, ErrorCode},
    monitoring::{self, Listener, MonitoringOptions},
    output::Output,
    secrets,
    shutdown::Shutdown,
};

/// The settings of a gateway.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatewayCommand {
    /// Where it listens; port 0 picks a free one. Outside the loopback it needs a certificate
    #[arg(long, env = "DUET_GATEWAY_LISTEN", value_name = "ADDRESS", default_value_t = Config::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// The gateway's certificate with its chain (PEM), for TLS 1.3
    #[arg(long, env = "DUET_GATEWAY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, env = "DUET_GATEWAY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Origins whose pages may connect, as browsers name them (https://wallet.example); the page
    /// served here may always. A refusal names the origin. Can be repeated
    #[arg(long = "origin", env = "DUET_GATEWAY_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    origins: Vec<Origin>,
    /// Pages of any origin on this machine's loopback may connect; for trials, on the loopback only
    #[arg(long, env = "DUET_GATEWAY_LOOPBACK_ORIGINS")]
    loopback_origins: bool,
    /// File with the Ed25519 key that signs its audit log [default: DIR/gateway.key, or a fresh
    /// key]
    #[arg(long, env = "DUET_GATEWAY_AUDIT_KEY", value_name = "FILE")]
    audit_key: Option<PathBuf>,
    /// Folder of the built page, served on the loopback only
    #[arg(long, env = "DUET_PAGE", value_name = "DIR")]
    page: Option<PathBuf>,
    /// The tenant that wallets made in the page belong to
    #[arg(long, env = "DUET_TENANT", value_name = "NAME", default_value = "demo")]
    tenant: TenantId,
    /// The party that holds share 2, to which devices may speak, and its card's fingerprint; a page
    /// refuses to deal if its own differs
    #[arg(long, value_name = "NAME[=FINGERPRINT]", default_value = "service", help_heading = "Parties")]
    service: PartyArgument,
    /// The party that holds share 3, likewise
    #[arg(
        long,
        value_name = "NAME[=FINGERPRINT]",
        default_value = "partner",
        conflicts_with = "no_partner",
        help_heading = "Parties"
    )]
    partner: PartyArgument,
    /// There is no partner: share 3 goes into backup files
    #[arg(long, help_heading = "Parties")]
    no_partner: bool,
    /// This gateway is for trials: a page that pins no parties deals to those it names. On the
    /// loopback only
    #[arg(long, help_heading = "Parties")]
    trial: bool,
    /// A party and the file with an admission token for every page; with --trial; can be repeated
    #[arg(long = "admission-token", value_name = "PARTY=FILE", requires = "trial", help_heading = "Parties")]
    admission_tokens: Vec<TokenArgument>,
    /// An Ethereum node that the page may use
    #[arg(
        long,
        env = "DUET_GATEWAY_RPC_URL",
        value_name = "URL",
        requires = "chain_id",
        help_heading = "Ethereum"
    )]
    rpc: Option<String>,
    /// The chain of that node
    #[arg(long, env = "DUET_GATEWAY_CHAIN_ID", value_name = "NUMBER", help_heading = "Ethereum")]
    chain_id: Option<u64>,
    /// A network of trusted proxies (10.1.0.0/16): limits per address count the client that they
    /// report; can be repeated
    #[arg(
        long = "trusted-proxy",
        env = "DUET_GATEWAY_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "NETWORK",
        help_heading = "Proxies"
    )]
    trusted_proxies: Vec<IpNet>,
    /// The header in which trusted proxies report the client, and which only they can write:
    /// x-forwarded-for or forwarded
    #[arg(
        long,
        env = "DUET_GATEWAY_CLIENT_ADDRESS_HEADER",
        value_name = "HEADER",
        default_value = "x-forwarded-for",
        help_heading = "Proxies"
    )]
    client_address_header: ClientHeader,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    pub(crate) monitoring: MonitoringOptions,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

/// Bounds on what strangers can make the gateway do.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
struct LimitOptions {
    /// Connections in all
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().max_connections)]
    max_connections: usize,
    /// Connections of one address
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().max_connections_per_address)]
    max_connections_per_address: usize,
    /// Connections that one address may open a second
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections_per_second)]
    connections_per_second: NonZeroU32,
    /// Frames read from one address a second; faster ones wait
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().frames_per_second)]
    frames_per_second: NonZeroU32,
    /// Messages about new wallets from one address a minute; a wallet takes four
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().shares_per_minute)]
    shares_per_minute: NonZeroU32,
    /// Failed proofs of a device's key from one address a minute; after more, answers slow down
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().refused_proofs_per_minute)]
    refused_proofs_per_minute: NonZeroU32,
    /// Requests about one wallet a second
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().requests_per_second_per_device)]
    requests_per_second_per_device: NonZeroU32,
    /// How long a socket may be silent
    #[arg(long, value_name = "DURATION", default_value_t = Span(Limits::default().idle))]
    idle: Span,
    /// How long a socket without a wallet may go without a request
    #[arg(long, value_name = "DURATION", default_value_t = Span(Limits::default().unauthenticated))]
    unauthenticated: Span,
    /// How long each may take: a handshake, a header, a device's greeting
    #[arg(long, value_name = "DURATION", default_value_t = Span(Limits::default().handshake))]
    handshake: Span,
}

/// A party and, optionally, its card's fingerprint.
#[derive(Debug, Clone)]
struct PartyArgument {
    party: PartyId,
    fingerprint: Option<CardFingerprint>,
}

impl FromStr for PartyArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (party, fingerprint) = match text.split_once('=') {
            Some((party, fingerprint)) => (party, Some(fingerprint)),
            None => (text, None),
        };
        let fingerprint =
            fingerprint.map(str::parse).transpose().map_err(|error| format!("{text}: {error}"))?;
        Ok(Self { party: party.parse().map_err(|error| format!("{party}: {error}"))?, fingerprint })
    }
}

/// A party and the file with its token.
#[derive(Debug, Clone)]
struct TokenArgument {
    party: PartyId,
    file: PathBuf,
}

impl FromStr for TokenArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (party, file) = text.split_once('=').ok_or("write PARTY=FILE")?;
        Ok(Self { party: party.parse().map_err(|error| format!("{party}: {error}"))?, file: file.into() })
    }
}

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    url: String,
    #[serde(skip)]
    url_for_people: String,
    listen: SocketAddr,
    page: bool,
    audit_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.page { "the page is at" } else { "devices connect to" };
        write!(f, "{what} {}", self.url_for_people)
    }
}

/// Runs the gateway until a signal stops it.
///
/// # Errors
/// When a setting is missing or not allowed for its address, or when the gateway cannot listen.
pub(crate) async fn run(command: GatewayCommand, output: Output) -> Result<(), CliError> {
    let mut shutdown = Shutdown::listen()?;
    let metrics = command.monitoring.listen().await?;
    let config = command.config()?;
    let page = config.page.is_some();
    let audit_key = hex::encode(config.audit_key.verifying_key().as_bytes());
    let server =
        shutdown.unless_requested(Box::pin(Server::bind(config))).await?.map_err(|error| failed(&error))?;
    let mut registry = monitoring::registry("gateway");
    server.register_metrics(&mut registry);
    let metrics_address = metrics.as_ref().map(Listener::address);
    let _metrics = metrics.map(|listener| listener.serve(monitoring::routes(registry)));
    output.emit(&Ready {
        ready: true,
        url: server.url(),
        url_for_people: server.url_for_people(),
        listen: server.address(),
        page,
        audit_key,
        metrics: metrics_address,
    })?;
    let stop = CancellationToken::new();
    shutdown.drain(&stop, server.serve(stop.clone())).await;
    Ok(())
}

impl GatewayCommand {
    fn config(self) -> Result<Config, CliError> {
        let backend = |role, argument: PartyArgument| Backend {
            role,
            party: argument.party,
            fingerprint: argument.fingerprint,
        };
        let mut backends = vec![backend(BackendRole::Service, self.service)];
        if !self.no_partner {
            backends.push(backend(BackendRole::Partner, self.partner));
        }
        let mut admission = BTreeMap::new();
        for TokenArgument { party, file } in self.admission_tokens {
            let token: AdmissionToken =
                secrets::read_line_file(&file)?.trim().parse().map_err(|problem| {
                    CliError::input(format!("{} does not hold an admission token: {problem}", file.display()))
                        .remedy("The party's operator makes one with `duet party token`.")
                })?;
            admission.insert(party, token);
        }
        let audit_key = audit_key(self.audit_key.as_deref(), &self.credentials)?;
        let tls = self.tls_cert.zip(self.tls_key).map(|(certificates, key)| TlsFiles { certificates, key });
        Ok(Config {
            listen: self.listen,
            tls,
            broker: broker::settings(&self.broker, &self.credentials, Role::Gateway, SERVER_PATIENCE)?,
            backends,
            tenant: Some(self.tenant),
            rpc: self.rpc.zip(self.chain_id).map(|(url, chain_id)| Rpc { chain_id, url }),
            page: self.page,
            origins: self.origins,
            trial: self.trial,
            loopback_origins: self.loopback_origins,
            admission,
            proxies: TrustedProxies { networks: self.trusted_proxies, header: self.client_address_header },
            audit_key,
            limits: self.limits.limits(),
        })
    }
}

/// The key that signs the audit log. Without a key file, the gateway makes a key for this run.
fn audit_key(file: Option<&Path>, credentials: &CredentialsOptions) -> Result<SigningKey, CliError> {
    if let Some(file) = file {
        let held = secrets::read_secret_file(file)?;
        return Ok(SigningKey::from_bytes(&*secrets::parse_key(file, held.in_use())?));
    }
    let layout = credentials.credentials.as_deref().map(Layout::new);
    if let Some(layout) = layout.filter(|layout| layout.gateway_key().exists()) {
        return layout.read_gateway_key().map_err(read_error);
    }
    tracing::warn!("no key for the audit log is given; this run's is signed with a key of its own");
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| CliError::internal(format!("no randomness: {error}")))?;
    Ok(SigningKey::from_bytes(&seed))
}

impl LimitOptions {
    fn limits(self) -> Limits {
        Limits {
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            connections_per_second: self.connections_per_second,
            frames_per_second: self.frames_per_second,
            shares_per_minute: self.shares_per_minute,
            refused_proofs_per_minute: self.refused_proofs_per_minute,
            requests_per_second_per_device: self.requests_per_second_per_device,
            idle: self.idle.0,
            unauthenticated: self.unauthenticated.0,
            handshake: self.handshake.0,
            ..Limits::default()
        }
    }
}

fn failed(error: &GatewayError) -> CliError {
    match error {
        GatewayError::Connect(error) => broker::connect_error(error),
        GatewayError::Setting(InvalidSetting(_)) | GatewayError::Page(_) => {
            CliError::usage(error.to_string())
        }
        GatewayError::Certificate { .. } => CliError::input(error.to_string()),
        GatewayError::Listen { .. } => CliError::new(ErrorCode::Usage, error.to_string())
            .remedy("Choose another address with --listen; port 0 picks a free one."),
    }
}

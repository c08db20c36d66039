//! `duet party`: sets up, runs and maintains a party.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use duet_bus::Role;
use duet_party::{
    Party, PartySettings, RandomizerSettings, ResumptionSettings, SetUpProgress, Worker, WorkerSettings,
    culprits,
    enrolment::{self, Enroller},
    store::{PaillierScope, PaillierState},
};
use duet_protocol::{
    codec,
    ids::{CardFingerprint, PartyId, ShareIndex},
    paillier::ModulusSize,
};
use duet_wire::TenantId;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{culprit, rewrap};
use crate::{
    broker,
    config::{BrokerOptions, CredentialsOptions, StoreOptions},
    duration,
    error::{CliError, ErrorCode},
    health::{self, Vitals},
    memory,
    monitoring::{self, Listener, MonitoringOptions},
    output::Output,
    progress, secrets,
    secrets::PassphraseUse,
    share_store::{OpenStore, StoreLocation},
    shutdown::Shutdown,
};

/// How long a server tries to reach the broker: in effect, for ever.
pub(crate) const SERVER_PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long other commands try to reach the broker.
pub(crate) const COMMAND_PATIENCE: Duration = Duration::from_secs(15);

/// A command about a party.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PartyCommand {
    /// Set up a party: its keys, its proof parameters (two safe primes take some seconds), its card
    Init(InitArguments),
    /// Serve: take shares, answer invitations, sign
    Run(RunArguments),
    /// Make new Paillier keys and enrol all wallets under them: this ends a lock, but no quarantine
    Rotate(RotateArguments),
    /// Sign again with a responder whose bad signature locked a key; its next bad signature is
    /// final
    AcceptCulprit(AcceptCulpritArguments),
    /// Issue an admission token, with which a tenant's devices may create wallets
    Token(TokenArguments),
    /// Show the party's card
    Card(CardArguments),
    /// Pin the cards of other parties before first contact; without any, show the pinned cards
    Pin(PinArguments),
    /// Write a copy of the share store, sealed like the store itself
    Backup(BackupArguments),
    /// Restore the share store from a backup; it initiates nothing before `rotate`
    Restore(RestoreArguments),
    /// Show whether the limits count as used up after a restore, or make them count again
    Limits(LimitsArguments),
    /// Change what opens the share store, while workers run
    Rewrap(rewrap::RewrapArguments),
    /// Show what the share store holds
    Status(StatusArguments),
}

/// A modulus's size in bits.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModulusBits {
    #[value(name = "2048")]
    Bits2048,
    #[value(name = "3072")]
    Bits3072,
}

impl From<ModulusBits> for ModulusSize {
    fn from(bits: ModulusBits) -> Self {
        match bits {
            ModulusBits::Bits2048 => Self::Bits2048,
            ModulusBits::Bits3072 => Self::Bits3072,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InitArguments {
    /// The party's name: `service` holds share 2, `partner` share 3, others state their share
    #[arg(long, env = "DUET_PARTY", value_name = "NAME")]
    party: PartyId,
    /// The share that it will hold [default: by its name]
    #[arg(long, value_name = "2|3", value_parser = clap::value_parser!(u8).range(2..=3))]
    share: Option<u8>,
    /// The size of the modulus of its proof parameters
    #[arg(long, value_name = "BITS", default_value = "2048")]
    modulus_bits: ModulusBits,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Pin another party's card: wallets that name another card for it are refused; can be repeated
    #[arg(long = "peer-fingerprint", value_name = "NAME=HEX")]
    peers: Vec<Peer>,
    /// Sessions at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    sessions: u16,
    /// Initiators' Paillier keys that get a table, for cheaper answers: 5 MB and a minute and a
    /// half of a core each; 0 for none
    #[arg(long, env = "DUET_RANDOMIZER_TABLES", value_name = "NUMBER", default_value_t = RandomizerSettings::default().tables)]
    randomizer_tables: usize,
    /// Answers under a key before its table is built
    #[arg(long, env = "DUET_RANDOMIZER_TABLE_AFTER", value_name = "NUMBER", default_value_t = RandomizerSettings::default().table_after)]
    randomizer_table_after: u64,
    /// A file that changes when this machine is copied, such as a virtual machine's generation id;
    /// a change ends open sessions. Linux's boot id is always one. Can be repeated
    #[arg(long = "generation-file", env = "DUET_GENERATION_FILE", value_name = "FILE")]
    generation_files: Vec<PathBuf>,
    /// How long sessions may continue after the signal to stop
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration::parse)]
    drain: Duration,
    /// Where to answer GET /healthz and /readyz over plain HTTP; port 0 picks a free one, which the
    /// ready line names as `health` [default: nowhere]
    #[arg(long, env = "DUET_HEALTH_LISTEN", value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) monitoring: MonitoringOptions,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

impl RunArguments {
    fn resumption(&self) -> ResumptionSettings {
        let mut settings = ResumptionSettings::default();
        settings.identities.extend(self.generation_files.iter().cloned());
        settings
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RotateArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Only the keys for this responder
    #[arg(long, value_name = "NAME")]
    peer: Option<PartyId>,
    /// Only the keys for this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AcceptCulpritArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The fingerprint of the responder's card
    #[arg(value_name = "CARD")]
    card: CardFingerprint,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The tenant whose devices it admits
    #[arg(long, env = "DUET_TENANT", value_name = "NAME")]
    tenant: TenantId,
    /// How long it admits new wallets
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration::parse)]
    expires_in: Duration,
    /// How many wallets it admits
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    max_wallets: u32,
    /// Write the token to this file, readable by its owner only, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CardArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Write the card's bytes to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PinArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// A party and its card's fingerprint, as published by its organisation
    #[arg(value_name = "NAME=HEX")]
    peers: Vec<Peer>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The backup file; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The backup file [default: mark a database that PostgreSQL's own tools restored]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LimitsArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Make the limits count again from the store's figures: you know what was signed since the
    /// backup
    #[arg(long)]
    reset: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    store: StoreOptions,
}

/// Another party and its card's fingerprint.
#[derive(Debug, Clone)]
struct Peer {
    party: PartyId,
    card: CardFingerprint,
}

impl FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (party, card) = text.split_once('=').ok_or("write NAME=FINGERPRINT")?;
        Ok(Self {
            party: party.parse().map_err(|error| format!("{party}: {error}"))?,
            card: card.parse().map_err(|error| format!("{card}: {error}"))?,
        })
    }
}

/// Runs the command.
///
/// # Errors
/// When the store, the broker or another party fails.
pub(crate) async fn run(command: PartyCommand, output: Output) -> Result<(), CliError> {
    match command {
        PartyCommand::Init(arguments) => init(arguments, output).await,
        PartyCommand::Run(arguments) => serve(arguments, output).await,
        PartyCommand::Rotate(arguments) => rotate(arguments, output).await,
        PartyCommand::AcceptCulprit(arguments) => {
            let store = OpenStore::open(&arguments.store).await?;
            let party = Party::open(store.context).await?;
            culprit::accept(party.context(), arguments.card, output).await
        }
        PartyCommand::Token(arguments) => token(arguments, output).await,
        PartyCommand::Card(arguments) => card(arguments, output).await,
        PartyCommand::Pin(arguments) => pin(arguments, output).await,
        PartyCommand::Backup(arguments) => backup(arguments, output).await,
        PartyCommand::Restore(arguments) => restore(arguments, output).await,
        PartyCommand::Limits(arguments) => limits(arguments, output).await,
        PartyCommand::Rewrap(arguments) => rewrap::run(arguments, output).await,
        PartyCommand::Status(arguments) => status(arguments, output).await,
    }
}

#[derive(Debug, Serialize)]
struct SetUp {
    party: PartyId,
    share: u8,
    fingerprint: CardFingerprint,
    store: StoreLocation,
    key_file_created: bool,
}

impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} holds share {} of its wallets, in {}\nits card's fingerprint, for others to pin: {}",
            self.party, self.share, self.store, self.fingerprint
        )
    }
}

/// The share that a party of this name holds by default.
fn share_of(party: &PartyId) -> Option<ShareIndex> {
    match party.as_str() {
        "service" => Some(ShareIndex::Service),
        "partner" => Some(ShareIndex::Partner),
        _ => None,
    }
}

async fn init(arguments: InitArguments, output: Output) -> Result<(), CliError> {
    let share = match arguments.share {
        Some(2) => ShareIndex::Service,
        Some(_) => ShareIndex::Partner,
        None => share_of(&arguments.party).ok_or_else(|| {
            CliError::usage(format!("the name {} does not say which share it holds", arguments.party))
                .remedy("Give --share 2 or --share 3.")
        })?,
    };
    let source = arguments.store.seal.source(PassphraseUse::Choose)?;
    let key_file_created = arguments.store.seal.key_file.as_ref().is_some_and(|file| !file.exists());
    let store = OpenStore::create(&arguments.store, source.as_ref()).await?;
    // Each of the two primes takes some 1,700 candidates. The number varies, so the bar may exceed
    // it.
    let bar = progress::bar(output, 2 * 1700, "safe primes");
    let shown = bar.clone();
    let on_progress = move |step| match step {
        SetUpProgress::Primes { candidates } => {
            let (position, length) = (shown.position(), shown.length().unwrap_or(0));
            // Candidates are counted per prime: the count falls when the search for the second
            // prime begins.
            let candidates = u64::from(candidates);
            let position = if candidates >= position { candidates } else { position + 1 };
            shown.set_position(position.min(length.saturating_sub(1)));
        }
        SetUpProgress::Proof => shown.set_message("proof"),
        SetUpProgress::Store => shown.set_message("storing"),
    };
    let party =
        Party::set_up(store.context, arguments.party, share, arguments.modulus_bits.into(), on_progress)
            .await?;
    bar.finish_and_clear();
    output.emit(&SetUp {
        party: party.id().clone(),
        share: share.into(),
        fingerprint: party.card().fingerprint(),
        store: arguments.store.store,
        key_file_created,
    })
}

#[derive(Debug, Serialize)]
struct Serving {
    ready: bool,
    party: PartyId,
    instance: String,
    fingerprint: CardFingerprint,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} serves as worker {}", self.party, self.instance)
    }
}

/// The broker's user for a party.
fn role_of(party: &PartyId) -> Result<Role, CliError> {
    party
        .as_str()
        .parse()
        .map_err(|error| CliError::usage(format!("no user of the broker is called like the party: {error}")))
}

async fn serve(arguments: RunArguments, output: Output) -> Result<(), CliError> {
    let mut shutdown = Shutdown::listen()?;
    memory::lock();
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context.clone()).await?;
    for peer in &arguments.peers {
        party.pin(&peer.party, peer.card).await?;
    }
    let health = match arguments.health {
        Some(address) => Some(Listener::bind("health", address).await?),
        None => None,
    };
    let metrics = arguments.monitoring.listen().await?;
    let role = role_of(party.id())?;
    let connecting = broker::connect(&arguments.broker, &arguments.credentials, role, SERVER_PATIENCE);
    let bus = tokio::select! {
        bus = connecting => bus?,
        () = shutdown.requested() => {
            return Err(CliError::new(ErrorCode::Interrupted, "stopped before the broker was reached"));
        }
    };
    let settings = WorkerSettings {
        sessions: usize::from(arguments.sessions),
        drain: arguments.drain,
        randomizers: RandomizerSettings {
            tables: arguments.randomizer_tables,
            table_after: arguments.randomizer_table_after,
        },
        resumption: arguments.resumption(),
        ..WorkerSettings::default()
    };
    let (id, fingerprint) = (party.id().clone(), party.card().fingerprint());
    let vitals = Vitals { store: store.store(), bus: bus.clone(), draining: CancellationToken::new() };
    let draining = vitals.draining.clone();
    let mut worker = Worker::start(party, bus.clone(), settings).await?;
    let health_address = health.as_ref().map(Listener::address);
    let metrics_address = metrics.as_ref().map(Listener::address);
    let _health = health.map(|listener| listener.serve(health::routes(vitals)));
    let mut registry = monitoring::registry("party");
    worker.register_metrics(&mut registry);
    let _metrics = metrics.map(|listener| listener.serve(monitoring::routes(registry)));
    output.emit(&Serving {
        ready: true,
        party: id,
        instance: worker.instance().to_owned(),
        fingerprint,
        health: health_address,
        metrics: metrics_address,
    })?;
    let asked = tokio::select! {
        () = shutdown.requested() => true,
        () = worker.ended() => false,
    };
    info!("draining");
    draining.cancel();
    let finished = tokio::select! {
        finished = worker.drain() => finished,
        () = shutdown.requested() => {
            warn!("a second signal: stopping at once");
            false
        }
    };
    bus.drain().await;
    store.close().await;
    if !asked {
        return Err(CliError::new(
            duet_wire::Code::BrokerUnreachable,
            "the broker closed the connection for good",
        ));
    }
    if !finished {
        warn!("some sessions were cut off");
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Pins {
    party: PartyId,
    pins: BTreeMap<PartyId, CardFingerprint>,
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pins.is_empty() {
            return write!(f, "{} has pinned no card", self.party);
        }
        let lines: Vec<String> = self.pins.iter().map(|(party, card)| format!("{party} {card}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

async fn pin(arguments: PinArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    for peer in &arguments.peers {
        party.pin(&peer.party, peer.card).await?;
    }
    output.emit(&Pins { party: party.id().clone(), pins: party.pins().await? })
}

#[derive(Debug, Serialize)]
struct RotatedKey {
    tenant: TenantId,
    peer: PartyId,
    paillier_key: String,
    wallets: u32,
}

#[derive(Debug, Serialize)]
struct Rotation {
    party: PartyId,
    rotated: Vec<RotatedKey>,
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rotated.is_empty() {
            return write!(f, "{} initiates with nobody: there is nothing to rotate", self.party);
        }
        let keys: Vec<String> = self
            .rotated
            .iter()
            .map(|key| {
                format!(
                    "{} towards {}: key {} for {} wallets",
                    key.tenant, key.peer, key.paillier_key, key.wallets
                )
            })
            .collect();
        f.write_str(&keys.join("\n"))
    }
}

async fn rotate(arguments: RotateArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let role = role_of(party.id())?;
    let bus = broker::connect(&arguments.broker, &arguments.credentials, role, COMMAND_PATIENCE).await?;
    let enroller = Enroller::new(party.context().clone(), bus.clone(), PartySettings::default().modulus);
    let rotated =
        enroller.rotate(party.identity(), arguments.peer.as_ref(), arguments.tenant.as_ref()).await?;
    bus.drain().await;
    output.emit(&Rotation {
        party: party.id().clone(),
        rotated: rotated
            .into_iter()
            .map(|key| RotatedKey {
                tenant: key.tenant,
                peer: key.responder,
                paillier_key: key.paillier_key.to_string(),
                wallets: key.wallets,
            })
            .collect(),
    })
}

#[derive(Debug, Serialize)]
struct Token {
    party: PartyId,
    tenant: TenantId,
    expires_at: u64,
    max_wallets: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.token, &self.file) {
            // Alone on its line, so that a shell can redirect it into a file.
            (Some(token), _) => f.write_str(token),
            (None, Some(file)) => write!(
                f,
                "a token for {} wallets of {} is in {}",
                self.max_wallets,
                self.tenant,
                file.display()
            ),
            (None, None) => Ok(()),
        }
    }
}

async fn token(arguments: TokenArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let expires_at = duration::since_1970().saturating_add(arguments.expires_in).as_secs();
    let token = party.issue_token(arguments.tenant.clone(), expires_at, arguments.max_wallets);
    let bytes = codec::encode(&token).map_err(|error| CliError::internal(error.to_string()))?;
    let text = hex::encode(bytes);
    if let Some(file) = &arguments.out {
        secrets::write_new_file(file, format!("{text}\n").as_bytes())?;
    }
    output.emit(&Token {
        party: party.id().clone(),
        tenant: arguments.tenant,
        expires_at,
        max_wallets: arguments.max_wallets,
        token: arguments.out.is_none().then_some(text),
        file: arguments.out,
    })
}

#[derive(Debug, Serialize)]
struct OwnCard {
    party: PartyId,
    fingerprint: CardFingerprint,
    ed25519: String,
    x25519: String,
    card: String,
}

impl fmt::Display for OwnCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nfingerprint {}\nEd25519     {}\nX25519      {}",
            self.party, self.fingerprint, self.ed25519, self.x25519
        )
    }
}

async fn card(arguments: CardArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let card = party.card();
    let bytes = codec::encode(card.as_ref()).map_err(|error| CliError::internal(error.to_string()))?;
    if let Some(file) = &arguments.out {
        std::fs::write(file, &bytes).map_err(|error| CliError::io(&file.display().to_string(), &error))?;
    }
    output.emit(&OwnCard {
        party: card.party().clone(),
        fingerprint: card.fingerprint(),
        ed25519: hex::encode(card.identity().as_bytes()),
        x25519: hex::encode(card.noise_key().as_bytes()),
        card: hex::encode(bytes),
    })
}

#[derive(Debug, Serialize)]
struct Backup {
    party: PartyId,
    file: PathBuf,
    wallets: u64,
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wallets are in {}; it opens with what opens the store now",
            self.wallets,
            self.file.display()
        )
    }
}

async fn backup(arguments: BackupArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context.clone()).await?;
    let wallets = party.count_wallets().await?;
    store.back_up(&arguments.out).await?;
    output.emit(&Backup { party: party.id().clone(), file: arguments.out, wallets })
}

#[derive(Debug, Serialize)]
struct Restored {
    party: PartyId,
    store: StoreLocation,
    wallets: u64,
    needs_rotation: bool,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is back with {} wallets in {}; it initiates nothing until `duet party rotate` ran",
            self.party, self.wallets, self.store
        )
    }
}

async fn restore(arguments: RestoreArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::restore(&arguments.store, arguments.from.as_deref()).await?;
    let party = Party::open(store.context).await?;
    let wallets = party.count_wallets().await?;
    output.emit(&Restored {
        party: party.id().clone(),
        store: arguments.store.store,
        wallets,
        needs_rotation: true,
    })
}

#[derive(Debug, Serialize)]
struct KeyReport {
    paillier_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_card: Option<CardFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct CulpritReport {
    card: CardFingerprint,
    locks: u32,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Status {
    party: PartyId,
    share: u8,
    fingerprint: CardFingerprint,
    wallets: u64,
    restored: bool,
    opened_by: &'static str,
    paillier_keys: Vec<KeyReport>,
    culprits: Vec<CulpritReport>,
    failed_wallets: Vec<culprit::LossReport>,
    unclean_starts: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: share {} of {} wallets\ncard {}\nopened by: {}",
            self.party, self.share, self.wallets, self.fingerprint, self.opened_by
        )?;
        for key in &self.paillier_keys {
            let tenant = key.tenant.as_deref().unwrap_or("–");
            write!(f, "\nPaillier key {} for {tenant}: {}", key.paillier_key, key.state)?;
        }
        for culprit in &self.culprits {
            write!(f, "\ncard {} locked {} keys: {}", culprit.card, culprit.locks, culprit.state)?;
        }
        for wallet in &self.failed_wallets {
            write!(f, "\n{wallet}")?;
        }
        if self.unclean_starts > 0 {
            write!(f, "\nstarts after an end with sessions under way: {}", self.unclean_starts)?;
        }
        Ok(())
    }
}

/// Whether the policies' limits count as used up.
#[derive(Debug, Serialize)]
struct Limits {
    party: PartyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_up_since_ms: Option<u64>,
    reset: bool,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.used_up_since_ms, self.reset) {
            (None, _) => write!(f, "the limits of {} count as its store knows them", self.party),
            (Some(_), true) => {
                write!(f, "the limits of {} count again as its restored store knows them", self.party)
            }
            (Some(since), false) => write!(
                f,
                "the limits of {} count as used up since its store was restored at {since} ms after 1970, \
                 each until its time has passed; with --reset they count again",
                self.party
            ),
        }
    }
}

async fn limits(arguments: LimitsArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let used_up_since_ms =
        if arguments.reset { party.reset_limits().await? } else { party.limits_used_up_since().await? };
    let reset = arguments.reset && used_up_since_ms.is_some();
    output.emit(&Limits { party: party.id().clone(), used_up_since_ms, reset })
}

async fn status(arguments: StatusArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let keys = enrolment::key_status(party.context()).await?;
    let vault = &party.context().vault;
    let (restored, opened_by) = (vault.store().was_restored().await?, vault.source().await?.as_str());
    let culprits = culprits::culprits(party.context()).await?.into_iter().map(|culprit| CulpritReport {
        card: culprit.card,
        locks: culprit.standing.locks,
        state: match culprit.standing {
            standing if standing.is_final() => "final",
            standing if standing.is_trusted() => "accepted",
            _ => "quarantined",
        },
    });
    let losses = culprits::losses(party.context()).await?;
    output.emit(&Status {
        culprits: culprits.collect(),
        failed_wallets: losses.into_iter().map(culprit::LossReport::from).collect(),
        unclean_starts: vault.store().unclean_starts().await?,
        party: party.id().clone(),
        share: party.index().into(),
        fingerprint: party.card().fingerprint(),
        wallets: party.count_wallets().await?,
        restored,
        opened_by,
        paillier_keys: keys
            .into_iter()
            .map(|key| {
                let (peer_card, tenant) = match key.scope {
                    PaillierScope::Responder { card, tenant } => (Some(card), Some(tenant)),
                    PaillierScope::Wallet(_) => (None, None),
                };
                let state = match key.state {
                    PaillierState::Ready => "ready",
                    PaillierState::Locked => "locked",
                    PaillierState::NeedsRotation => "needs_rotation",
                };
                KeyReport { paillier_key: key.paillier_key.to_string(), peer_card, tenant, state }
            })
            .collect(),
    })
}

//! `duet party run`: serves.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use duet_party::{Party, RandomizerSettings, ResumptionSettings, Worker, WorkerSettings};
use duet_protocol::ids::{CardFingerprint, PartyId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cards::Peer;
use crate::{
    broker::{self, SERVER_PATIENCE, role_of},
    config::{BrokerOptions, CredentialsOptions, StoreOptions},
    duration,
    error::{CliError, ErrorCode},
    health::{self, Vitals},
    memory,
    monitoring::{self, Listener, MonitoringOptions},
    output::Output,
    share_store::OpenStore,
    shutdown::Shutdown,
};

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

pub(super) async fn serve(arguments: RunArguments, output: Output) -> Result<(), CliError> {
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
    let mut worker = Worker::start(party, bus.clone(), settings).await?;
    let draining = CancellationToken::new();
    let vitals = Vitals {
        store: store.store(),
        bus: bus.clone(),
        clock: worker.broker_clock().clone(),
        draining: draining.clone(),
    };
    let health_address = health.as_ref().map(Listener::address);
    let metrics_address = metrics.as_ref().map(Listener::address);
    let _health = health.map(|listener| listener.serve(health::routes(vitals)));
    let mut registry = monitoring::registry("party");
    worker.register_metrics(&mut registry);
    let _metrics = metrics.map(|listener| listener.serve(monitoring::routes(registry)));
    output.emit(&Serving {
        ready: true,
        party: id,
        instance: worker.instance().to_string(),
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

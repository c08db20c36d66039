//! Sets up an orchestrator and runs it.

use core::net::SocketAddr;
use std::{io, sync::Arc};

use axum::serve::ListenerExt as _;
use duet_bus::{
    Bus, ConnectError, ConnectSettings, Filter, ServeOptions, Service, Speaker, SubscribeError,
    audit::Recording,
    kv::{self, Key, Pattern},
    streams::{StorageError, StorageSettings},
};
use duet_queue::{InvalidSetting, QueueSettings};
use duet_wire::{InstanceId, ids::InvalidInstanceId, signing::SigningKey};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    accounts::Accounts,
    approval,
    attempts::{self, Attempts},
    auth::{TenantAccess, Tokens},
    board::Board,
    broker_proof::{self, BrokerProof},
    clock::Clock,
    directory::Directory,
    feed::{self, Feed},
    http,
    jobs::{Jobs, Sessions},
    markers,
    metrics::Metrics,
    orchestrator::{Orchestrator, jitter},
    outcome, reasons, revocation,
    room::Room,
    settings::HttpSettings,
    stores::{self, Buckets, Stores},
    sweep,
    tenants::Tenants,
    wallet_facts::PartyEntry,
    webhooks::{self, Deliverer, Endpoints, Retries, WebhookSettings},
    work,
};

/// How long open requests may take to finish when the process stops.
const HTTP_DRAIN: Duration = Duration::from_secs(10);

/// How long publishing the end of the audit log may take.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);

/// The pause before a watch that ended is begun anew.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// The pause before streams and buckets that could not be prepared are tried again.
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// An orchestrator's whole configuration.
#[derive(Clone)]
pub struct Config {
    /// Where the HTTP interface listens. Default 127.0.0.1:8080; port 0 picks a free one. It speaks
    /// plain HTTP, so beyond loopback it needs a proxy that terminates TLS.
    pub listen: SocketAddr,
    /// The broker, and the orchestrator's credential there.
    pub broker: ConnectSettings,
    /// Whether to accept and start jobs on a broker whose nodes do not prove that they keep what
    /// they acknowledge. Default false. A power cut may then revoke jobs and results.
    pub trust_broker: bool,
    /// How streams and buckets are kept.
    pub storage: StorageSettings,
    /// The tenants that may call the HTTP interface.
    pub tenants: Vec<TenantAccess>,
    /// The parties whose workers are invited, and the share each holds. Default `service` with
    /// share 2 and `partner` with share 3.
    pub parties: Vec<PartyEntry>,
    /// The Ed25519 key that signs results. It signs for no wallet.
    pub result_key: SigningKey,
    /// The previous or next result key, while the operator exchanges it. Deliveries to webhooks are
    /// signed with the secrets of both. It signs no result. Default none.
    pub other_result_key: Option<SigningKey>,
    /// Limits of the HTTP interface.
    pub http: HttpSettings,
    /// How jobs are processed.
    pub queue: QueueSettings,
    /// How results are delivered to tenants' endpoints.
    pub webhooks: WebhookSettings,
}

impl Config {
    /// The default address to listen on.
    pub const DEFAULT_LISTEN: SocketAddr =
        SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8080);

    /// A configuration with every default.
    ///
    /// # Errors
    /// Never with the default names; they are parsed like any other.
    pub fn new(
        broker: ConnectSettings,
        tenants: Vec<TenantAccess>,
        result_key: SigningKey,
    ) -> Result<Self, duet_protocol::ids::InvalidId> {
        use duet_protocol::ids::ShareIndex;
        let parties = vec![
            PartyEntry { party: "service".parse()?, index: ShareIndex::Service },
            PartyEntry { party: "partner".parse()?, index: ShareIndex::Partner },
        ];
        Ok(Self {
            listen: Self::DEFAULT_LISTEN,
            broker,
            trust_broker: false,
            storage: StorageSettings::default(),
            tenants,
            parties,
            result_key,
            other_result_key: None,
            http: HttpSettings::default(),
            queue: QueueSettings::default(),
            webhooks: WebhookSettings::default(),
        })
    }
}

impl core::fmt::Debug for Config {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("broker", &self.broker)
            .field("trust_broker", &self.trust_broker)
            .field("tenants", &self.tenants)
            .field("parties", &self.parties)
            .field("http", &self.http)
            .field("queue", &self.queue)
            .field("webhooks", &self.webhooks)
            .finish_non_exhaustive()
    }
}

/// Why an orchestrator does not run.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// A setting is outside its bounds.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The system gives no randomness for session ids.
    #[error("the system gives no randomness: {0}")]
    Entropy(String),
    /// The name that the process drew for itself cannot be part of a subject.
    #[error("the process has no name: {0}")]
    Name(#[from] InvalidInstanceId),
    /// There is no connection to the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker's streams or buckets are not as they should be.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The broker does not deliver the parties' messages.
    #[error("the orchestrator cannot listen on the broker: {0}")]
    Subscribe(#[from] SubscribeError),
    /// Webhooks cannot be delivered over TLS.
    #[error("webhooks cannot be delivered: {0}")]
    Webhooks(io::Error),
    /// The HTTP interface cannot listen.
    #[error("the HTTP interface cannot listen on {address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The HTTP interface ended by itself.
    #[error("the HTTP interface failed: {0}")]
    Http(io::Error),
    /// The connection to the broker was closed for good.
    #[error("the connection to the broker was closed for good")]
    Disconnected,
}

/// An orchestrator that is ready. It is connected, its streams and buckets exist, it is subscribed
/// to the parties' messages, and its HTTP interface listens. It accepts and processes jobs once
/// [`ApiServer::serve`] runs.
pub struct ApiServer {
    orchestrator: Arc<Orchestrator>,
    listener: TcpListener,
    address: SocketAddr,
    instance: String,
    services: Vec<Service>,
    recording: Recording,
    /// Drives the core of the queue.
    driving: AbortOnDropHandle<()>,
}

impl core::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ApiServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Gets an orchestrator ready.
    ///
    /// # Errors
    /// See [`OrchestratorError`].
    pub async fn bind(config: Config) -> Result<Self, OrchestratorError> {
        config.http.check()?;
        config.queue.check()?;
        config.webhooks.check()?;
        let patience = config.broker.patience;
        let bus = Bus::connect(config.broker).await?;
        let Buckets { jobs, sessions, batches, endpoints, retries, claims, answers, meta } =
            prepare_storage(&bus, &config.storage, patience).await?;
        // The board and all writers below need the time.
        let clock = Clock::default();
        broker_proof::learn_time(&bus, &clock).await;
        let (in_flight, longest) = (config.queue.in_flight_per_tenant(), config.queue.longest_pause());
        let board = Arc::new(Board::new(in_flight, longest, clock.clone()));
        let own_name: InstanceId = ulid::Ulid::new().to_string().parse()?;
        let instance = own_name.to_string();
        let audit_clock = {
            let clock = clock.clone();
            move || clock.now_ms()
        };
        let (recording, audit) =
            Recording::start(&bus, Speaker::Orchestrator, &instance, config.result_key.clone(), audit_clock);
        let (attempts, asked) = Attempts::new();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| OrchestratorError::Entropy(error.to_string()))?;
        let orchestrator = Arc::new(Orchestrator {
            directory: Directory::new(&bus, config.parties, config.queue.directory_age),
            accounts: Accounts::default(),
            bus,
            broker: BrokerProof::new(config.trust_broker),
            clock: clock.clone(),
            webhooks: Endpoints::new(endpoints),
            retries: Arc::new(Retries::new(retries)),
            deliverer: Deliverer::new(
                config.webhooks,
                config.result_key.clone(),
                config.other_result_key,
                clock.clone(),
            )
            .map_err(OrchestratorError::Webhooks)?,
            storage: config.storage,
            stores: Stores::default(),
            tokens: Tokens::new(&config.tenants),
            result_key: config.result_key,
            jobs: Jobs::new(jobs, Arc::clone(&board)),
            sessions: Sessions::new(sessions, clock),
            batches,
            claims,
            answers,
            meta,
            board,
            nonces: approval::Nonces::default(),
            audit,
            metrics: Metrics::default(),
            feed: Feed::default(),
            room: Room::default(),
            tenants: Tenants::new(&config.http),
            attempts,
            shutdown: CancellationToken::new(),
            http: config.http,
            queue: config.queue,
        });
        // From here on, the existing streams and buckets are the known ones.
        orchestrator.look_at_stores().await;
        let driver = attempts::run(Arc::clone(&orchestrator), asked, seed, own_name);
        let driving = AbortOnDropHandle::new(tokio::spawn(driver));
        let services = vec![
            serve(&orchestrator, Filter::outcomes(), outcome::CONCURRENCY, |orchestrator, incoming| {
                Box::pin(async move { orchestrator.take_outcome(incoming).await })
            })
            .await?,
            serve(&orchestrator, Filter::approvals(), approval::CONCURRENCY, |orchestrator, incoming| {
                Box::pin(async move { orchestrator.take_approval(incoming).await })
            })
            .await?,
            // In the order in which they arrive.
            serve(&orchestrator, Filter::seats(), 1, |orchestrator, incoming| {
                Box::pin(async move { orchestrator.take_offer(incoming).await })
            })
            .await?,
            serve(&orchestrator, Filter::at_work(), 1, |orchestrator, incoming| {
                Box::pin(async move { orchestrator.take_at_work(incoming).await })
            })
            .await?,
        ];
        let unlistened = |source| OrchestratorError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(unlistened)?;
        let address = listener.local_addr().map_err(unlistened)?;
        tracing::info!(%address, instance, "orchestrator ready");
        Ok(Self { orchestrator, listener, address, instance, services, recording, driving })
    }

    /// Where the HTTP interface listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// This process's name in logs.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The Ed25519 key that results verify under.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.orchestrator.result_key.verifying_key().to_bytes()
    }

    /// Registers this orchestrator's metrics with `registry`. `docs/metrics.md` explains the names.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.orchestrator.register_metrics(registry);
    }

    /// Accepts and processes jobs until `stop`, then finishes the jobs at hand.
    ///
    /// # Errors
    /// When the HTTP interface fails or the connection is closed for good.
    ///
    /// # Cancel safety
    /// Dropping it is like a crash. Nothing is lost, but the jobs at hand rest until the broker
    /// delivers their announcements to another orchestrator.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), OrchestratorError> {
        // The core is driven until the parties' last reports are stored.
        let Self { orchestrator, listener, services, recording, driving: _driving, .. } = self;
        // Every task below ends with this scope, however it ends.
        let stop = stop.child_token();
        let _ends = stop.clone().drop_guard();
        let _ends_streams = orchestrator.shutdown.clone().drop_guard();
        let drain = orchestrator.queue.drain;
        let asker = broker_proof::run(Arc::clone(&orchestrator), stop.clone());
        let worker = work::run(Arc::clone(&orchestrator), stop.clone(), drain);
        let sweeper = sweep::run(Arc::clone(&orchestrator), stop.clone());
        let markers = markers::run(Arc::clone(&orchestrator), stop.clone());
        let revocations = revocation::run(Arc::clone(&orchestrator), stop.clone());
        let watcher = follow(Arc::clone(&orchestrator), stop.clone());
        let feeder = feed::run(Arc::clone(&orchestrator), stop.clone());
        let deliveries = webhooks::run(Arc::clone(&orchestrator), stop.clone());
        let reasons = reasons::run(Arc::clone(&orchestrator), stop.clone());
        let streams = orchestrator.shutdown.clone();
        let ended = stop.clone();
        let graceful = async move {
            ended.cancelled().await;
            // Event streams have no end of their own.
            streams.cancel();
        };
        let api = async {
            let router = http::router(Arc::clone(&orchestrator));
            let listener = listener.tap_io(send_at_once);
            let serving = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
                .with_graceful_shutdown(graceful);
            let limit = async {
                stop.cancelled().await;
                sleep(HTTP_DRAIN).await;
            };
            tokio::select! {
                served = async { serving.await } => served.map_err(OrchestratorError::Http),
                () = limit => Ok(()),
            }
        };
        let listening = async {
            let mut services = services;
            let lost = tokio::select! {
                () = stop.cancelled() => false,
                () = any_ended(&mut services) => true,
            };
            if lost {
                return Err(OrchestratorError::Disconnected);
            }
            Ok(services)
        };
        let all = async {
            let (services, served, (), (), (), (), (), (), (), (), ()) = tokio::try_join!(
                listening,
                api,
                infallible(asker),
                infallible(worker),
                infallible(sweeper),
                infallible(markers),
                infallible(revocations),
                infallible(watcher),
                infallible(feeder),
                infallible(deliveries),
                infallible(reasons)
            )?;
            // The jobs at hand needed the parties' reports. Now no more are accepted.
            for service in services {
                service.drain(Duration::from_secs(1)).await;
            }
            Ok(served)
        };
        let ended = Box::pin(all).await;
        recording.finish(AUDIT_PATIENCE).await;
        timeout(Duration::from_secs(2), orchestrator.bus.drain()).await.ok();
        tracing::info!("orchestrator stopped");
        ended
    }
}

/// Each event is a small write of its own. It must not wait until its reader has acknowledged the
/// previous one, which readers delay by 40 ms.
fn send_at_once(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
}

/// Makes streams and buckets, or brings them up to date.
///
/// While JetStream does not answer, it tries again for `patience`. Nodes that have just started, or
/// have just lost one of them, need some seconds to elect a leader.
async fn prepare_storage(
    bus: &Bus,
    settings: &StorageSettings,
    patience: Duration,
) -> Result<Buckets, StorageError> {
    let began = Instant::now();
    loop {
        match Box::pin(stores::make(bus, settings)).await {
            Err(error @ StorageError::Unavailable { .. }) if began.elapsed() < patience => {
                tracing::warn!(%error, "JetStream is not ready; trying again");
                sleep(STORAGE_PAUSE.mul_f64(0.5 + jitter() / 2.0)).await;
            }
            prepared => return prepared,
        }
    }
}

async fn infallible(work: impl Future<Output = ()>) -> Result<(), OrchestratorError> {
    work.await;
    Ok(())
}

async fn any_ended(services: &mut [Service]) {
    futures::future::select_all(services.iter_mut().map(|service| Box::pin(service.ended()))).await;
}

type Handling = futures::future::BoxFuture<'static, ()>;

async fn serve(
    orchestrator: &Arc<Orchestrator>,
    filter: Filter,
    concurrency: usize,
    handle: fn(Arc<Orchestrator>, duet_bus::Incoming) -> Handling,
) -> Result<Service, SubscribeError> {
    let orchestrator = Arc::clone(orchestrator);
    let bus = orchestrator.bus.clone();
    bus.serve(filter, ServeOptions::waiting(concurrency), move |incoming| {
        handle(Arc::clone(&orchestrator), incoming)
    })
    .await
}

/// Keeps the board up to date until `stop`.
async fn follow(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let bucket = orchestrator.jobs.bucket();
    let mut lost = orchestrator.stores.changes();
    let watching = async {
        loop {
            lost.mark_unchanged();
            let mut filling = Some(orchestrator.board.begin_filling());
            match bucket.watch(&Pattern::everything()).await {
                Ok(mut watcher) => {
                    loop {
                        if watcher.is_current()
                            && let Some(filling) = filling.take()
                        {
                            orchestrator.board.note_filled(filling);
                        }
                        let change = tokio::select! {
                            change = watcher.next() => change,
                            // A watch of a lost bucket reports nothing more, and nothing about its
                            // replacement.
                            _ = lost.changed() => break,
                        };
                        let Some(change) = change else { break };
                        match change {
                            Ok(change) => match change.value {
                                Some(record) if Key::from((&record.tenant, record.id)) == change.key => {
                                    orchestrator.board.apply(&change.key, record, change.revision);
                                }
                                Some(_) => {
                                    tracing::error!(key = %change.key, "a job lies under another's name; passed over");
                                }
                                None => orchestrator.board.remove(&change.key),
                            },
                            Err(kv::ReadError::Malformed { .. }) => {
                                tracing::error!("a job's entry was not written by this version; passed over");
                            }
                            Err(kv::ReadError::Newer { key, needs, .. }) => {
                                tracing::warn!(%key, needs, "a job is left to the later release that wrote it");
                                orchestrator.board.leave_to_later(&key);
                            }
                            Err(error) => {
                                tracing::debug!(%error, "the watch is begun anew");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "the job bucket cannot be watched now"),
            }
            sleep(WATCH_PAUSE).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

/// Runs an orchestrator with `config` until `stop`.
///
/// # Errors
/// See [`OrchestratorError`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), OrchestratorError> {
    Box::pin(ApiServer::bind(config)).await?.serve(stop).await
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;

    use super::*;

    #[tokio::test]
    async fn what_a_connection_writes_is_sent_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.tap_io(send_at_once).accept().await;
        assert!(stream.nodelay().unwrap());
    }
}

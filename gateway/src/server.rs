//! Sets up a gateway and runs it.

use core::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Router, http::header};
use duet_bus::{BrokerClock, Bus, ConnectError, Speaker, audit::Recording, pem};
use duet_protocol::ids::PartyId;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tower::ServiceExt as _;

use crate::{
    Config, InvalidSetting, TlsFiles,
    addresses::{Addresses, Connection},
    forward::{Forwarder, now_ms},
    gateway::{self, Gateway},
    http,
    metrics::{Metrics, TurnedAway},
    rates::Rates,
};

/// The party name under which devices speak on the broker.
const DEVICE: &str = "device";

/// How long to wait after an accept failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often quiet addresses are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);

/// The largest header of a request.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How long closing sockets and the broker's connection may take, beyond the drain of requests.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Why a gateway does not serve, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting is not valid.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The connection to the broker failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that it was to listen on.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The certificate or its key is not usable.
    #[error("{file} is not usable: {reason}")]
    Certificate {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The page's folder has no page.
    #[error("there is no page in {0}: it has no index.html")]
    Page(PathBuf),
}

/// A gateway that is ready: it is connected to the broker, and it listens.
pub struct GatewayServer {
    gateway: Arc<Gateway>,
    addresses: Arc<Addresses>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    recording: Recording,
    following: AbortOnDropHandle<()>,
}

impl core::fmt::Debug for GatewayServer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GatewayServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl GatewayServer {
    /// Gets a gateway ready.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        config.check()?;
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        if let Some(folder) = &config.page
            && !folder.join("index.html").is_file()
        {
            return Err(GatewayError::Page(folder.clone()));
        }
        let device: PartyId =
            DEVICE.parse().map_err(|_| InvalidSetting("the device's name is no party's name"))?;
        let bus = Bus::connect(config.broker).await?;
        let unlistened = |source| GatewayError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(unlistened)?;
        let address = listener.local_addr().map_err(unlistened)?;
        let is_encrypted = tls.is_some();
        let instance = ulid::Ulid::new().to_string();
        let (recording, audit) =
            Recording::start(&bus, Speaker::Gateway, &instance, config.audit_key, now_ms);
        let (broker_clock, following) = BrokerClock::follow(&bus).await;
        let mut origins = config.origins;
        if config.page.is_some() {
            let scheme = if is_encrypted { "https" } else { "http" };
            let own = gateway::loopback_authorities(address.port());
            origins.extend(own.iter().filter_map(|authority| format!("{scheme}://{authority}").parse().ok()));
        }
        let gateway = Arc::new(Gateway {
            forwarder: Forwarder { bus, backends: config.backends, device },
            broker_clock,
            audit,
            metrics: Metrics::default(),
            rates: Rates::new(&config.limits),
            proxies: config.proxies,
            origins,
            loopback_origins: config.loopback_origins,
            tenant: config.tenant,
            rpc: config.rpc,
            page: config.page,
            trial: config.trial,
            admission: config
                .admission
                .into_iter()
                .map(|(party, token)| (party, token.to_string()))
                .collect(),
            is_loopback: address.ip().is_loopback(),
            is_encrypted,
            port: address.port(),
            sockets: TaskTracker::new(),
            stop: CancellationToken::new(),
            limits: config.limits,
        });
        let addresses = Addresses::new(&gateway.limits);
        tracing::info!(%address, is_encrypted, page = gateway.page.is_some(), "gateway ready");
        Ok(Self { gateway, addresses, listener, address, tls, recording, following })
    }

    /// The address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for programs.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.gateway.is_encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The URL for a person on this machine. On the loopback it has a host name, because passkeys
    /// belong to one.
    #[must_use]
    pub fn url_for_people(&self) -> String {
        if !self.gateway.is_loopback {
            return self.url();
        }
        let scheme = if self.gateway.is_encrypted { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
    }

    /// Registers this gateway's metrics with `registry`. `docs/metrics.md` explains the names.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.gateway.metrics.register(self.gateway.sockets.clone(), &self.addresses, registry);
        self.gateway.forwarder.bus.register_metrics(registry);
        self.gateway.broker_clock.register_metrics(registry);
    }

    /// Serves until `stop`. Then it answers the requests under way and closes every socket.
    ///
    /// # Cancel safety
    /// Dropping it breaks every socket; nothing else is lost.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { gateway, addresses, listener, address: _, tls, recording, following } = self;
        let router = http::router(Arc::clone(&gateway));
        let mut connections = JoinSet::new();
        let mut forget = interval(FORGET_INTERVAL);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                _ = forget.tick() => gateway.rates.forget_quiet(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let Some(connection) = admit(&gateway, &addresses, peer) else { continue };
                        let visitor = Visitor {
                            peer: peer.ip(),
                            connection,
                            addresses: Arc::clone(&addresses),
                        };
                        connections.spawn(serve_connection(
                            Arc::clone(&gateway),
                            router.clone(),
                            tls.clone(),
                            stream,
                            visitor,
                        ));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        drop(following);
        gateway.stop.cancel();
        gateway.sockets.close();
        let ended = async {
            while connections.join_next().await.is_some() {}
            gateway.sockets.wait().await;
        };
        if timeout(gateway.limits.drain + DRAIN_GRACE, ended).await.is_err() {
            tracing::warn!("not every connection ended in time");
        }
        recording.finish(DRAIN_GRACE).await;
        timeout(DRAIN_GRACE, gateway.forwarder.bus.drain()).await.ok();
        tracing::info!("gateway stopped");
    }
}

/// Takes a place for a connection. `None` when its address has too many or opens them too often.
fn admit(gateway: &Gateway, addresses: &Arc<Addresses>, peer: SocketAddr) -> Option<Arc<Connection>> {
    let is_proxy = gateway.proxies.contains(peer.ip());
    let connection = if is_proxy { addresses.connect_proxy(peer.ip()) } else { addresses.connect(peer.ip()) };
    let reason = match connection.map(Arc::new) {
        Some(connection) if is_proxy || gateway.rates.connection(connection.key()) => {
            return Some(connection);
        }
        Some(_) => TurnedAway::TooOften,
        None => TurnedAway::NoRoom,
    };
    tracing::debug!(%peer, ?reason, "turned away");
    gateway.metrics.turned_away(reason);
    None
}

/// A peer, and the place that its connection takes.
struct Visitor {
    peer: IpAddr,
    connection: Arc<Connection>,
    addresses: Arc<Addresses>,
}

impl Visitor {
    /// The place that a request counts for: the connection's own. For a trusted proxy it is the
    /// client's, which may have too many connections or open sockets too often.
    fn place(
        &self,
        gateway: &Gateway,
        request: &hyper::Request<Incoming>,
    ) -> Result<Arc<Connection>, TurnedAway> {
        if !gateway.proxies.contains(self.peer) {
            return Ok(Arc::clone(&self.connection));
        }
        let client = gateway.proxies.client(self.peer, request.headers());
        let place = self.addresses.connect_behind(client).map(Arc::new).ok_or(TurnedAway::NoRoom)?;
        // A proxy sends many requests over one connection, so only a client's sockets are counted.
        let opens = request.headers().contains_key(header::UPGRADE);
        if opens && !gateway.rates.connection(place.key()) {
            return Err(TurnedAway::TooOften);
        }
        Ok(place)
    }
}

async fn serve_connection(
    gateway: Arc<Gateway>,
    router: Router,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    visitor: Visitor,
) {
    // Frames are small and answered one by one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    match tls {
        None => serve_http(&gateway, router, stream, visitor).await,
        Some(acceptor) => match timeout(gateway.limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve_http(&gateway, router, stream, visitor).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                gateway.metrics.turned_away(TurnedAway::Tls);
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                gateway.metrics.turned_away(TurnedAway::Tls);
            }
        },
    }
}

async fn serve_http(
    gateway: &Arc<Gateway>,
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    visitor: Visitor,
) {
    let shared = Arc::clone(gateway);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        let place =
            visitor.place(&shared, &request).inspect_err(|reason| shared.metrics.turned_away(*reason));
        let router = router.clone();
        async move {
            let Ok(place) = place else { return Ok::<_, Infallible>(http::no_room()) };
            // If the request becomes a socket, the socket keeps the place after HTTP is done with
            // it.
            request.extensions_mut().insert(Arc::clone(&place));
            let answer = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            drop(place);
            Ok(answer)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // This also bounds how long a connection may rest between requests.
        .header_read_timeout(gateway.limits.handshake)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = gateway.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// TLS 1.3 with the given certificate.
fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, GatewayError> {
    let unusable = |file: &Path, reason: &dyn core::fmt::Display| GatewayError::Certificate {
        file: file.display().to_string(),
        reason: reason.to_string(),
    };
    let read = |file: &Path| pem::read(file).map_err(|error| unusable(file, &error));
    let chain = CertificateDer::pem_slice_iter(&read(&files.certificates)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&files.certificates, &error))?;
    let key =
        PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| unusable(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unusable(&files.certificates, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

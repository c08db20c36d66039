//! Connecting: TLS, nkey, private inboxes, reconnection.

use core::{fmt, time::Duration};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_nats::{
    ConnectErrorKind,
    connection::State,
    jetstream::{self, Context},
    rustls::{
        self,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};
use backon::{ExponentialBuilder, Retryable as _};
use tokio::sync::broadcast;

use crate::{
    counters::{Audit, Events},
    event::{BusEvent, Denied},
    nkey::NkeySeed,
    pem,
    role::Role,
};

/// How many messages a subscription holds. The client drops further ones and reports
/// [`BusEvent::SlowConsumer`]. Each session has its own subscription and needs four messages. The
/// bound leaves room for bursts of invitations; 1,024 messages of 64 KiB take 64 MiB.
const SUBSCRIPTION_CAPACITY: usize = 1024;

/// How many commands may wait for the connection's writer. Beyond that, publishers wait.
const COMMAND_CAPACITY: usize = 256;

/// How many events a slow listener may miss before it is told that it lagged.
const EVENT_CAPACITY: usize = 64;

/// How many kinds of refused subjects are logged as warnings. There are fewer kinds.
const MAX_REFUSED_KINDS: usize = 64;

/// How often the client pings. It notices a dead connection after at most two intervals.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The deadline for TCP, TLS and the handshake with one server.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause before connecting again; doubled up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The deadline for each answer of the broker's JetStream.
const JETSTREAM_DEADLINE: Duration = Duration::from_secs(5);

/// Where the broker is and who connects.
#[derive(Clone)]
pub struct ConnectSettings {
    /// The broker's addresses, `tls://host:port` or `nats://host:port`, tried in random order.
    pub urls: Vec<String>,
    /// The role that connects.
    pub role: Role,
    /// The role's nkey seed.
    pub seed: NkeySeed,
    /// The certificate authority that must have issued the broker's certificate; the system's
    /// authorities when `None`. TLS is required when this is set or when any URL says `tls://`.
    pub ca_file: Option<PathBuf>,
    /// The connection's name in the broker's monitoring; the role's name when `None`.
    pub name: Option<String>,
    /// How long [`Bus::connect`] keeps trying to reach the broker before it gives up. A connection
    /// that breaks later is tried again for ever. Default 10 s; zero means one attempt.
    pub patience: Duration,
}

impl ConnectSettings {
    /// The settings for `role` at one address, with the system's authorities and the default
    /// patience.
    #[must_use]
    pub fn new(role: Role, seed: NkeySeed, url: &str) -> Self {
        Self {
            urls: vec![url.to_owned()],
            role,
            seed,
            ca_file: None,
            name: None,
            patience: Duration::from_secs(10),
        }
    }

    /// Whether the connection has to be encrypted.
    fn requires_tls(&self) -> bool {
        self.ca_file.is_some() || self.urls.iter().any(|url| url.starts_with("tls://"))
    }
}

impl fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectSettings")
            .field("urls", &self.urls)
            .field("role", &self.role)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answered while the settings' patience lasted.
    #[error("the broker at {urls} cannot be reached: {source}")]
    Unreachable {
        /// The addresses that were tried.
        urls: String,
        /// The last attempt's failure.
        source: async_nats::ConnectError,
    },
    /// The broker does not know this key.
    #[error("the broker at {urls} refuses the key of role '{role}'")]
    Refused {
        /// What was tried.
        urls: String,
        /// The role that was to connect.
        role: Role,
    },
    /// No encrypted connection: the certificate is from another authority or for another name, or
    /// the server does not speak TLS.
    #[error("no trusted connection to the broker at {urls}: {source}")]
    Tls {
        /// What was tried.
        urls: String,
        /// The failure.
        source: async_nats::ConnectError,
    },
    /// A URL cannot be parsed.
    #[error("'{url}' is no address of a broker; expected tls://host:port")]
    Url {
        /// The text.
        url: String,
    },
}

/// A connection of one role to the broker. Cheap to clone.
///
/// The client reconnects by itself, with exponential back-off and jitter, and logs "broker
/// unreachable" once per outage. What callers send meanwhile waits in a bounded buffer.
#[derive(Clone)]
pub struct Bus {
    client: async_nats::Client,
    jetstream: Context,
    role: Role,
    inbox_prefix: Arc<str>,
    watch: Arc<Watch>,
}

/// What the connection's events have reported so far.
struct Watch {
    events: broadcast::Sender<BusEvent>,
    counted: Events,
    counted_audit: Audit,
    unreachable: AtomicBool,
    /// How often the connection broke.
    breaks: AtomicU64,
    /// The kinds of subjects that the broker refused.
    refused: Mutex<BTreeSet<String>>,
}

impl Watch {
    fn new() -> Self {
        Self {
            events: broadcast::Sender::new(EVENT_CAPACITY),
            counted: Events::new(),
            counted_audit: Audit::new(),
            unreachable: AtomicBool::new(false),
            breaks: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// Whether the broker refuses this for the first time, as far as the subject's first three
    /// tokens tell. A broker with an older configuration refuses each message of a new kind.
    fn is_new(&self, denied: &Denied) -> bool {
        let (what, subject) = match denied {
            Denied::Publish(subject) => ("publish", subject),
            Denied::Subscribe(subject) => ("subscribe", subject),
        };
        let kind: Vec<&str> = subject.splitn(4, '.').take(3).collect();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.len() < MAX_REFUSED_KINDS && refused.insert(format!("{what} {}", kind.join(".")))
    }

    /// Logs that the broker is unreachable, once per outage.
    fn unreachable(&self, urls: &str) {
        if !self.unreachable.swap(true, Ordering::Relaxed) {
            tracing::warn!(broker = urls, "broker unreachable; trying again with back-off");
        }
    }

    fn reachable(&self, urls: &str) {
        if self.unreachable.swap(false, Ordering::Relaxed) {
            tracing::info!(broker = urls, "broker is back");
        }
    }

    fn event(&self, event: async_nats::Event, urls: &str) {
        let event = BusEvent::from(event);
        self.counted.count(&event);
        match &event {
            BusEvent::Connected => self.reachable(urls),
            BusEvent::Disconnected => {
                self.breaks.fetch_add(1, Ordering::AcqRel);
                self.unreachable(urls);
            }
            BusEvent::SlowConsumer => tracing::warn!("a subscription fell behind and lost messages"),
            BusEvent::PermissionDenied(denied) if self.is_new(denied) => {
                tracing::warn!(?denied, "refused by the broker; similar subjects are not told again");
            }
            BusEvent::PermissionDenied(denied) => tracing::debug!(?denied, "refused by the broker"),
            BusEvent::LameDuck | BusEvent::Closed | BusEvent::Complaint(_) => {
                tracing::debug!(?event, "connection");
            }
        }
        // Without a listener the send fails, which is fine.
        self.events.send(event).ok();
    }
}

/// The pause before attempt `attempt`: exponential, with jitter between half and all of it. So not
/// all clients meet a restarted broker at once.
fn reconnect_pause(attempt: usize) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 1).unwrap_or(u32::MAX).min(10);
    let pause = SHORTEST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    // Without entropy the pause has no jitter.
    let jitter = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + jitter / 2.0)
}

impl Bus {
    /// Connects. While the broker is unreachable, it tries again until the settings' patience ends.
    ///
    /// # Errors
    /// See [`ConnectError`]. A refused key or an untrusted certificate is not tried again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect(settings: ConnectSettings) -> Result<Self, ConnectError> {
        // The process may link several providers, and rustls refuses to choose among them.
        async_nats::rustls::crypto::ring::default_provider().install_default().ok();

        let urls = settings.urls.join(",");
        let servers = settings
            .urls
            .iter()
            .map(|url| url.parse().map_err(|_| ConnectError::Url { url: url.clone() }))
            .collect::<Result<Vec<async_nats::ServerAddr>, _>>()?;
        let watch = Arc::new(Watch::new());

        let attempt = || async { options(&settings, &watch, &urls).connect(servers.as_slice()).await };
        let backoff = ExponentialBuilder::default()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times()
            .with_total_delay(Some(settings.patience));
        let client = attempt
            .retry(backoff)
            .when(|error| {
                let again = is_passing(error);
                if again {
                    watch.unreachable(&urls);
                }
                again
            })
            .await
            .map_err(|error| connect_error(error, urls.clone(), settings.role))?;
        watch.reachable(&urls);

        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(JETSTREAM_DEADLINE);
        Ok(Self {
            client,
            jetstream,
            role: settings.role,
            inbox_prefix: settings.role.inbox_prefix().into(),
            watch,
        })
    }

    /// The role that is connected.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether the connection stands, as far as the client has noticed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Which connection stands: a number that differs from that of every earlier one. `None`
    /// without one. A new connection may be to a broker that was put back to an earlier copy of its
    /// store.
    #[must_use]
    pub fn connection(&self) -> Option<u64> {
        let number = self.watch.breaks.load(Ordering::Acquire);
        self.is_connected().then_some(number)
    }

    /// The connection's events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BusEvent> {
        self.watch.events.subscribe()
    }

    /// How often each event has happened to this connection.
    pub(crate) fn counted_events(&self) -> &Events {
        &self.watch.counted
    }

    pub(crate) fn counted_audit(&self) -> &Audit {
        &self.watch.counted_audit
    }

    /// The NATS client, for operations that this crate does not wrap.
    #[must_use]
    pub const fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// The JetStream context, for operations that this crate does not wrap.
    #[must_use]
    pub const fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// The first token of this connection's inboxes.
    pub(crate) fn inbox_prefix(&self) -> &str {
        &self.inbox_prefix
    }

    /// Unsubscribes everything, lets handlers finish what has arrived, sends what is waiting, and
    /// closes.
    pub async fn drain(&self) {
        if let Err(error) = self.client.drain().await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("role", &self.role).finish_non_exhaustive()
    }
}

fn options(settings: &ConnectSettings, watch: &Arc<Watch>, urls: &str) -> async_nats::ConnectOptions {
    let watch = Arc::clone(watch);
    let urls: Arc<str> = urls.into();
    let name = settings.name.clone().unwrap_or_else(|| settings.role.to_string());
    let mut options = async_nats::ConnectOptions::with_nkey(settings.seed.expose().to_owned())
        .name(name)
        .custom_inbox_prefix(settings.role.inbox_prefix())
        .require_tls(settings.requires_tls())
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECTION_TIMEOUT)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(COMMAND_CAPACITY)
        // A server list that the broker sends before TLS is up could be forged; it must not be
        // used.
        .ignore_discovered_servers()
        .reconnect_delay_callback(reconnect_pause)
        .event_callback(move |event| {
            watch.event(event, &urls);
            core::future::ready(())
        });
    if let Some(ca_file) = &settings.ca_file {
        options = match marked_authorities(ca_file) {
            Some(tls) => options.tls_client_config(tls),
            None => options.add_root_certificates(ca_file.clone()),
        };
    }
    options
}

/// The settings for TLS with the authorities in a file that has byte order marks: the client would
/// pass over a marked certificate. `None` when there is no mark, or nothing of use; then the client
/// reads the file and says what is wrong.
fn marked_authorities(ca_file: &Path) -> Option<rustls::ClientConfig> {
    let bytes = fs::read(ca_file).ok().filter(|bytes| pem::is_marked(bytes))?;
    let mut authorities = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem::unmarked(&bytes)) {
        authorities.add(certificate.ok()?).ok()?;
    }
    Some(rustls::ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth())
}

/// Whether another attempt may succeed.
fn is_passing(error: &async_nats::ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::Io | ConnectErrorKind::TimedOut | ConnectErrorKind::Dns)
        && !is_certificate_error(error)
}

/// Whether the failure is the TLS handshake's; the client reports it as an I/O error.
fn is_certificate_error(error: &async_nats::ConnectError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<async_nats::rustls::Error>()
            || cause
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .is_some_and(|inner| inner.is::<async_nats::rustls::Error>())
        {
            return true;
        }
        source = cause.source();
    }
    false
}

fn connect_error(error: async_nats::ConnectError, urls: String, role: Role) -> ConnectError {
    if is_certificate_error(&error) {
        return ConnectError::Tls { urls, source: error };
    }
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Refused { urls, role }
        }
        ConnectErrorKind::Tls => ConnectError::Tls { urls, source: error },
        ConnectErrorKind::ServerParse => ConnectError::Url { url: urls },
        ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable { urls, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        assert_eq!(reconnect_pause(0), Duration::ZERO);
        for attempt in [1, 2, 7, 50, usize::MAX] {
            let pause = reconnect_pause(attempt);
            assert!(pause >= SHORTEST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{attempt}: {pause:?}");
        }
        assert!(reconnect_pause(50) >= LONGEST_PAUSE / 2);
        let drawn: std::collections::HashSet<_> = (0..16).map(|_| reconnect_pause(9)).collect();
        assert!(drawn.len() > 1);
    }
}

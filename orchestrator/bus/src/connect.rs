//! Connecting: TLS, nkey, private inboxes, reconnection.

use core::{fmt, time::Duration};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_nats::{
    ConnectErrorKind, ServerError,
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
    credentials::{Layout, NkeySeed, ReadError},
    metrics::{Audit, Events},
    pem,
    role::Role,
};

/// Messages a subscription holds before the broker's further ones are dropped, as [`BusEvent::SlowConsumer`]
/// says. A session, which has a subscription of its own, is four messages; this is room for bursts of
/// invitations, at most 64 MiB in all of the smallest useful size.
const SUBSCRIPTION_CAPACITY: usize = 1024;

/// Commands waiting for the connection's writer, which then makes publishers wait.
const COMMAND_CAPACITY: usize = 256;

/// How many events a slow listener may miss before it is told that it lagged.
const EVENT_CAPACITY: usize = 64;

/// A dead connection is noticed after at most two of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Establishing TCP, TLS and the handshake with one server.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause before connecting again; doubled up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the broker's JetStream has to answer a request within.
const JETSTREAM_DEADLINE: Duration = Duration::from_secs(5);

/// Where the broker is and who connects.
#[derive(Clone)]
pub struct ConnectSettings {
    /// The broker's addresses, `tls://host:port` or `nats://host:port`, tried in random order.
    pub urls: Vec<String>,
    /// As whom.
    pub role: Role,
    /// The role's nkey seed.
    pub seed: NkeySeed,
    /// The certificate authority that the broker's certificate must come from. TLS is required
    /// when this is set or when any URL says `tls://`; without it the system's authorities count.
    pub ca_file: Option<PathBuf>,
    /// The connection's name in the broker's monitoring; the role's when `None`.
    pub name: Option<String>,
    /// How long an unreachable broker is tried again before [`Bus::connect`] gives up. Once
    /// connected, it is tried again for ever. Default 10 s; zero means one attempt.
    pub patience: Duration,
}

impl ConnectSettings {
    /// The settings for `role` with the credentials that `duet init` left in `directory`.
    ///
    /// # Errors
    /// When the role's seed cannot be read or is none.
    pub fn from_directory(directory: &Path, role: Role, url: &str) -> Result<Self, ReadError> {
        let layout = Layout::new(directory);
        let ca_file = layout.ca_certificate();
        Ok(Self {
            urls: vec![url.to_owned()],
            role,
            seed: layout.read_seed(role)?,
            ca_file: ca_file.exists().then_some(ca_file),
            name: None,
            patience: Duration::from_secs(10),
        })
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
    /// Nobody answered, for as long as the settings' patience lasted.
    #[error("the broker at {urls} cannot be reached: {source}")]
    Unreachable {
        /// What was tried.
        urls: String,
        /// The last attempt's failure.
        source: async_nats::ConnectError,
    },
    /// The broker does not know this key.
    #[error("the broker at {urls} refuses the key of role '{role}'")]
    Refused {
        /// What was tried.
        urls: String,
        /// As whom.
        role: Role,
    },
    /// No encrypted connection: another authority's certificate, another name, or no TLS at all.
    #[error("no trusted connection to the broker at {urls}: {source}")]
    Tls {
        /// What was tried.
        urls: String,
        /// The failure.
        source: async_nats::ConnectError,
    },
    /// A URL is none.
    #[error("'{url}' is no address of a broker; expected tls://host:port")]
    Url {
        /// The text.
        url: String,
    },
}

/// Something that happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// Connected, for the first time or again; subscriptions have been made anew.
    Connected,
    /// The connection is lost; it is being tried again.
    Disconnected,
    /// A subscription fell behind and lost messages. Which one the client does not tell: it names it by a number that
    /// whoever holds the subscription cannot see.
    SlowConsumer,
    /// The broker refused what this role may not do.
    PermissionDenied(Denied),
    /// The broker is about to shut down.
    LameDuck,
    /// The connection was closed for good.
    Closed,
    /// Another complaint of the broker's or of the client's.
    Complaint(String),
}

/// What the broker refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Publishing on this subject.
    Publish(String),
    /// Subscribing to this subject, in a queue group or not.
    Subscribe(String),
}

/// A connection of one role to the broker. Cheap to clone.
///
/// The connection is made again by itself, with exponential back-off and jitter, and "broker
/// unreachable" is logged once per outage. What is sent meanwhile waits in a bounded buffer.
#[derive(Clone)]
pub struct Bus {
    client: async_nats::Client,
    jetstream: Context,
    role: Role,
    inbox_prefix: Arc<str>,
    watch: Arc<Watch>,
}

/// What the connection's events have told.
struct Watch {
    events: broadcast::Sender<BusEvent>,
    counted: Events,
    counted_audit: Audit,
    unreachable: AtomicBool,
}

impl Watch {
    fn new() -> Self {
        Self {
            events: broadcast::Sender::new(EVENT_CAPACITY),
            counted: Events::new(),
            counted_audit: Audit::new(),
            unreachable: AtomicBool::new(false),
        }
    }

    /// Says so, once per outage.
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
            BusEvent::Disconnected => self.unreachable(urls),
            BusEvent::SlowConsumer => tracing::warn!("a subscription fell behind and lost messages"),
            BusEvent::PermissionDenied(denied) => tracing::warn!(?denied, "refused by the broker"),
            BusEvent::LameDuck | BusEvent::Closed | BusEvent::Complaint(_) => {
                tracing::debug!(?event, "connection");
            }
        }
        // Nobody listening is fine.
        self.events.send(event).ok();
    }
}

impl From<async_nats::Event> for BusEvent {
    fn from(event: async_nats::Event) -> Self {
        use async_nats::Event;
        match event {
            Event::Connected => Self::Connected,
            Event::Disconnected => Self::Disconnected,
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => Self::SlowConsumer,
            Event::LameDuckMode => Self::LameDuck,
            Event::Closed => Self::Closed,
            Event::ServerError(ServerError::Other(text)) => {
                denied(&text).map_or(Self::Complaint(text), Self::PermissionDenied)
            }
            other => Self::Complaint(other.to_string()),
        }
    }
}

/// What the broker's complaint says was refused, if it is about permissions. Its wording is
/// `Permissions Violation for Publish to "a.b"` or `… for Subscription to "a.b" using queue "q"`.
fn denied(complaint: &str) -> Option<Denied> {
    let (_, what) = complaint.split_once("Permissions Violation for ")?;
    let subject = || what.split('"').nth(1).map(str::to_owned);
    if what.starts_with("Publish") {
        subject().map(Denied::Publish)
    } else if what.starts_with("Subscription") {
        subject().map(Denied::Subscribe)
    } else {
        None
    }
}

/// The pause before attempt `attempt`: exponential, and anywhere between its half and its whole,
/// so that a restarted broker is not met by everyone at once.
fn reconnect_pause(attempt: usize) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 1).unwrap_or(u32::MAX).min(10);
    let pause = SHORTEST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    // Without entropy the pause is simply not jittered.
    let jitter = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + jitter / 2.0)
}

impl Bus {
    /// Connects, trying again while the broker is unreachable and the settings' patience lasts.
    ///
    /// # Errors
    /// See [`ConnectError`]; a refused key or an untrusted certificate is not tried again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect(settings: ConnectSettings) -> Result<Self, ConnectError> {
        // The process may link several providers, among which rustls would refuse to choose.
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

    /// As whom this is connected.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether the connection stands, as far as the client has noticed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What happens to the connection from now on.
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

    /// The NATS client, for what this crate has no words for.
    #[must_use]
    pub const fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// The JetStream context, for what this crate has no words for.
    #[must_use]
    pub const fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// The first token of this connection's inboxes.
    pub(crate) fn inbox_prefix(&self) -> &str {
        &self.inbox_prefix
    }

    /// Unsubscribes everything, lets what has arrived be handled, sends what is waiting, closes.
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
        // What the broker says before the encryption is up must not add servers to the list.
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

/// Whether trying again may help.
fn is_passing(error: &async_nats::ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::Io | ConnectErrorKind::TimedOut | ConnectErrorKind::Dns)
        && !is_certificate_error(error)
}

/// Whether the failure is the TLS handshake's, which the client files under I/O.
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

    #[test]
    fn refusals_are_told_from_other_complaints() {
        assert_eq!(
            denied("Permissions Violation for Publish to \"duet.v1.job.demo\""),
            Some(Denied::Publish("duet.v1.job.demo".into())),
        );
        assert_eq!(
            denied("Permissions Violation for Subscription to \"duet.v1.invite.a\" using queue \"b\""),
            Some(Denied::Subscribe("duet.v1.invite.a".into())),
        );
        assert_eq!(denied("maximum payload exceeded"), None);
    }
}

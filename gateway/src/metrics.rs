//! What a gateway counts, for its operator.
//!
//! `docs/metrics.md` lists names, labels and alarms. Labels are texts of this program and never
//! come from a message. So no stranger can create a series of its own, and no label identifies a
//! wallet, session or address.

use std::sync::Arc;

use duet_wire::{
    Code, Refusal,
    gateway::{ClientFrame, Destination},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use crate::{addresses::Addresses, server::Gateway};

/// Bounds of a request's duration, in seconds. A round of a session takes a few milliseconds of a
/// party's arithmetic, a package some hundred. The slowest request times out after 30 s
/// (`forward`).
const REQUEST_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 30.0];

/// The code of a success.
const NO_CODE: &str = "none";

/// Why a client was turned away before anything was read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// There are too many connections, of its address or in all.
    NoRoom,
    /// Its address opens connections too often.
    TooOften,
    /// Its TLS handshake failed or took too long.
    Tls,
    /// It used a host name that is not this gateway's.
    Host,
    /// The origin of its page may not use this gateway.
    Origin,
    /// The gateway is stopping.
    Stopping,
}

impl TurnedAway {
    const ALL: [Self; 6] =
        [Self::NoRoom, Self::TooOften, Self::Tls, Self::Host, Self::Origin, Self::Stopping];

    const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::TooOften => "too_often",
            Self::Tls => "tls",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Stopping => "stopping",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    outcome: &'static str,
    code: &'static str,
}

const REQUESTS: [&str; 7] = ["authenticate", "card", "share", "approval", "round", "outcome", "event"];
const FRAMES: [&str; 6] = ["hello", "authenticate", "request", "leave", "control", "malformed"];
/// Why sockets end; see `socket`.
pub(crate) const ENDS: [&str; 4] = ["gone", "violation", "going_away", "idle"];

/// Counts and durations.
#[derive(Debug)]
pub(crate) struct Metrics {
    turned_away: Family<ReasonLabel, Counter>,
    ended: Family<ReasonLabel, Counter>,
    frames: Family<KindLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    duration: Family<KindLabel, Histogram>,
}

impl Default for Metrics {
    /// Creates every series that an alarm may use, so that its first event shows as an increase.
    fn default() -> Self {
        let metrics = Self {
            turned_away: Family::default(),
            ended: Family::default(),
            frames: Family::default(),
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
        };
        for reason in TurnedAway::ALL.map(TurnedAway::as_str) {
            drop(metrics.turned_away.get_or_create(&ReasonLabel { reason }));
        }
        for reason in ENDS {
            drop(metrics.ended.get_or_create(&ReasonLabel { reason }));
        }
        for kind in FRAMES {
            drop(metrics.frames.get_or_create(&KindLabel { kind }));
        }
        for kind in REQUESTS {
            drop(metrics.duration.get_or_create(&KindLabel { kind }));
            drop(metrics.requests.get_or_create(&RequestLabels { kind, outcome: "answered", code: NO_CODE }));
            for code in Code::ALL.iter().map(|code| code.as_str()) {
                drop(metrics.requests.get_or_create(&RequestLabels { kind, outcome: "refused", code }));
            }
        }
        metrics
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "duet_gateway_turned_away",
            "connections refused before anything was read: `no_room`, `too_often`, `tls`, `host`, \
             `origin`, `stopping`. Watch for: `no_room`, `too_often`: a flood, or limits that are \
             too low; `origin`: a page of another origin",
            self.turned_away.clone(),
        );
        registry.register(
            "duet_gateway_sockets_ended",
            "sockets ended: `gone` (closed or broken), `violation`, `going_away` (the gateway \
             stops), `idle`. Watch for: many `violation`",
            self.ended.clone(),
        );
        registry.register(
            "duet_gateway_frames",
            "frames read: `hello`, `authenticate`, `request`, `leave`, `control` (pings), \
             `malformed`. Watch for: `malformed`",
            self.frames.clone(),
        );
        registry.register(
            "duet_gateway_requests",
            "devices' requests, `answered` or `refused`: `authenticate`, `card`, `share`, \
             `approval`, `round`, `outcome`, `event`. An answer may itself be a refusal by the \
             party or orchestrator. Watch for: `authenticate` refused with `bad-signature`; \
             `deadline`",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "duet_gateway_request_duration",
            "from a request to the answer. Watch for: the 99th percentile of `round`",
            Unit::Seconds,
            self.duration.clone(),
        );
    }

    /// Counts a client that was turned away.
    pub(crate) fn turned_away(&self, reason: TurnedAway) {
        self.turned_away.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts a socket that ended. `reason` is one of [`ENDS`].
    pub(crate) fn socket_ended(&self, reason: &'static str) {
        self.ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a ping, a pong or a close.
    pub(crate) fn control_frame(&self) {
        self.count_frame("control");
    }

    /// Counts a frame that was read. `None` stands for one that did not parse.
    pub(crate) fn frame(&self, frame: Option<&ClientFrame>) {
        self.count_frame(match frame {
            Some(ClientFrame::Hello { .. }) => "hello",
            Some(ClientFrame::Authenticate { .. }) => "authenticate",
            Some(ClientFrame::Request { .. }) => "request",
            Some(ClientFrame::Leave { .. }) => "leave",
            None => "malformed",
        });
    }

    fn count_frame(&self, kind: &'static str) {
        self.frames.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts a device's request that was answered or refused. It arrived at `began`.
    pub(crate) fn request<T>(&self, kind: &'static str, began: Instant, answered: &Result<T, Refusal>) {
        let (outcome, code) = match answered {
            Ok(_) => ("answered", NO_CODE),
            Err(refusal) => ("refused", refusal.code.as_str()),
        };
        self.requests.get_or_create(&RequestLabels { kind, outcome, code }).inc();
        self.duration.get_or_create(&KindLabel { kind }).observe(began.elapsed().as_secs_f64());
    }
}

/// The label for requests to this destination.
pub(crate) const fn kind(to: &Destination) -> &'static str {
    match to {
        Destination::Card(_) => "card",
        Destination::Share(_) => "share",
        Destination::Approval(_) => "approval",
        Destination::Round { .. } => "round",
        Destination::Outcome { .. } => "outcome",
        Destination::Event { .. } => "event",
    }
}

/// Reads what is open when the metrics are read.
struct Open {
    gateway: Arc<Gateway>,
    addresses: Arc<Addresses>,
}

impl core::fmt::Debug for Open {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

impl Collector for Open {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        for (name, help, count) in [
            (
                "duet_gateway_connections",
                "open connections. Watch for: near `--max-connections`",
                self.addresses.connections(),
            ),
            ("duet_gateway_sockets", "open WebSockets", self.gateway.sockets.len()),
        ] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Registers the gateway's metrics with `registry`.
pub(crate) fn register(gateway: &Arc<Gateway>, addresses: &Arc<Addresses>, registry: &mut Registry) {
    gateway.metrics.register(registry);
    gateway.forwarder.bus.register_metrics(registry);
    registry.register_collector(Box::new(Open {
        gateway: Arc::clone(gateway),
        addresses: Arc::clone(addresses),
    }));
}

//! The monitoring interface of a server: metrics in Prometheus' text format, traces, and liveness.
//!
//! It has its own listener, for the operator's network. The command's main interface is for tenants
//! and browsers. The metrics contain no secret, but they do reveal how much is signed.

use std::{fmt, fs, net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use clap::Args;
use duet_wire::record::READER_LEVEL;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use reqwest::Url;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    error::{CliError, ErrorCode},
    traces::Exporter,
};

/// Where to expose metrics and traces.
#[derive(Debug, Clone, Args)]
pub(crate) struct MonitoringOptions {
    /// Where to answer GET /metrics and /healthz over plain HTTP (docs/metrics.md); port 0 picks a
    /// free one, which the ready line names as `metrics` [default: nowhere]
    #[arg(long, env = "DUET_METRICS_LISTEN", value_name = "ADDRESS", help_heading = "Monitoring")]
    metrics: Option<SocketAddr>,
    /// Where a collector takes traces, as OTLP over HTTP (docs/traces.md); the path /v1/traces is
    /// added [default: nowhere]
    #[arg(long, env = "DUET_TRACES", value_name = "URL", help_heading = "Monitoring")]
    traces: Option<Url>,
}

impl MonitoringOptions {
    /// Starts the export of traces of the service `name`, if the operator named a collector.
    ///
    /// # Errors
    /// See [`Exporter::start`].
    pub(crate) fn export_traces(&self, name: &'static str) -> Result<Option<Exporter>, CliError> {
        self.traces.as_ref().map(|url| Exporter::start(url, name)).transpose()
    }

    /// Binds the listener, if the operator asked for one. It answers no request before
    /// [`Listener::serve`].
    ///
    /// # Errors
    /// When the address is in use or does not belong to this machine.
    pub(crate) async fn listen(&self) -> Result<Option<Listener>, CliError> {
        match self.metrics {
            Some(address) => Listener::bind("metrics", address).await.map(Some),
            None => Ok(None),
        }
    }
}

/// A bound listener of an operators' interface.
pub(crate) struct Listener {
    option: &'static str,
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`, which the option `option` gave.
    ///
    /// # Errors
    /// When the address is in use or does not belong to this machine.
    pub(crate) async fn bind(option: &'static str, address: SocketAddr) -> Result<Self, CliError> {
        let failed = |error| {
            let what = format!("cannot listen on {address} for --{option}: {error}");
            CliError::new(ErrorCode::Usage, what)
                .remedy(format!("Choose another address with --{option}; port 0 picks a free one."))
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { option, listener, address })
    }

    /// The address it listens on.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` and `GET /healthz` until the caller drops the handle.
    pub(crate) fn serve(self, routes: Router) -> AbortOnDropHandle<()> {
        let router = routes.route("/healthz", get(|| async { Json(json!({"status": "alive"})) }));
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::error!(%error, option = self.option, "a listener ended");
            }
        }))
    }
}

/// The program's optional features that are in this build.
const FEATURES: [(&str, bool); 3] = [
    ("load", cfg!(feature = "load")),
    ("postgres", cfg!(feature = "postgres")),
    ("traces", cfg!(feature = "traces")),
];

/// The labels that tell this build, as `role`, from others.
fn build(role: &'static str) -> [(&'static str, String); 5] {
    let features: Vec<&str> =
        FEATURES.into_iter().filter_map(|(name, is_in)| is_in.then_some(name)).collect();
    [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", env!("DUET_COMMIT").to_owned()),
        ("features", features.join(",")),
        ("reader_level", READER_LEVEL.to_string()),
        ("role", role.to_owned()),
    ]
}

/// A registry that describes the running build as `role`, and the resources its process uses.
pub(crate) fn registry(role: &'static str) -> Registry {
    let mut registry = Registry::default();
    registry.register(
        "duet_build",
        "always 1; the labels name the role (`orchestrator`, `party` or `gateway`) and the build: version, commit, Cargo \
             features, and the level of the records and messages that it reads (`docs/releases.md`). Watch for: several \
             builds for longer than an upgrade takes",
        Info::new(build(role)),
    );
    registry.register_collector(Box::new(Process { started: SystemTime::now() }));
    registry
}

/// `GET /metrics`.
pub(crate) fn routes(registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new().route("/metrics", get(move || async move { show(&registry) }))
}

fn show(registry: &Registry) -> Response {
    let mut text = String::new();
    match prometheus_text::encode(&mut text, registry) {
        Ok(()) => {
            let kind = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(fmt::Error) => {
            tracing::error!("the metrics cannot be written as text");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The resources of the process, under the names that other programs use for them.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "when the process started, in seconds since 1970. Watch for: changes: the process \
             restarts repeatedly";
        let name = "process_start_time";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(started.as_secs_f64()).encode(metric)?;
        // Without `/proc`, or when it cannot be read, these metrics are missing and the rest is
        // shown.
        let Some(Usage { processor_seconds, resident_bytes, open_files }) = Usage::now() else {
            return Ok(());
        };
        let help = "processor time used. Watch for: a worker at all its cores: add workers";
        let name = "process_cpu";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(processor_seconds).encode(metric)?;
        let help = "memory that is not swapped out. Watch for: near the unit's limit";
        let name = "process_resident_memory";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        ConstGauge::new(resident_bytes).encode(metric)?;
        let help = "open files and sockets. Watch for: near the unit's limit";
        let metric = encoder.encode_descriptor("process_open_fds", help, None, MetricType::Gauge)?;
        ConstGauge::new(open_files).encode(metric)
    }
}

/// The resources of a process.
struct Usage {
    processor_seconds: f64,
    resident_bytes: u64,
    open_files: u64,
}

impl Usage {
    /// The resources of this process, from a few short reads of `/proc`.
    fn now() -> Option<Self> {
        let (ticks, pages) = ticks_and_pages(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            processor_seconds: seconds(ticks) / seconds(rustix::param::clock_ticks_per_second()),
            resident_bytes: pages.saturating_mul(u64::try_from(rustix::param::page_size()).ok()?),
            // Without the descriptor that reads the folder.
            open_files: u64::try_from(open_files.saturating_sub(1)).ok()?,
        })
    }
}

/// A whole number as a floating-point number.
fn seconds(number: u64) -> f64 {
    std::time::Duration::from_secs(number).as_secs_f64()
}

/// The clock ticks that a process has run, in its own code and in the kernel, and its resident
/// pages: fields 14, 15 and 24 of `/proc/PID/stat` (proc(5)).
fn ticks_and_pages(stat: &str) -> Option<(u64, u64)> {
    // Field 2 is the program's name in parentheses, which may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user.saturating_add(system), fields.nth(8)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text;

    use super::{Usage, build, registry, ticks_and_pages};

    #[test]
    fn builds_can_be_told_apart() {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry("party")).unwrap();
        let shown = text.lines().find(|line| line.starts_with("duet_build_info")).unwrap();
        for (label, value) in build("party") {
            assert!(shown.contains(&format!("{label}=\"{value}\"")), "{label}: {shown}");
        }
        let [_, (_, commit), (_, features), ..] = build("party");
        assert!(
            commit == "unknown" || commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{commit}"
        );
        assert_eq!(features, "load,postgres,traces", "tests build what is shipped");
    }

    #[test]
    fn the_resources_of_a_process_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 9 0 500 9000000 2048 18446744073709551615 1";
        assert_eq!(ticks_and_pages(stat), Some((42, 2048)));
        assert_eq!(ticks_and_pages("7 (a) S 1"), None);
        let usage = Usage::now().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_files >= 3 && usage.processor_seconds < 3600.0);
    }
}

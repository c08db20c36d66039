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
    /// Where to answer GET /metrics and /healthz over plain HTTP; port 0 picks a free one [default:
    /// nowhere]
    #[arg(long, env = "DUET_METRICS_LISTEN", value_name = "ADDRESS", help_heading = "Monitoring")]
    metrics: Option<SocketAddr>,
    /// Where a collector takes traces, as OTLP over HTTP; the path /v1/traces is added [default:
    /// nowhere]
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

/// A registry that describes the running build as `role`, and the resources its process uses.
pub(crate) fn registry(role: &'static str) -> Registry {
    let mut registry = Registry::default();
    let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("role", role)]);
    registry.register("duet_build", "The build that runs, and as what", build);
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
        let help = "When the process started, in seconds since 1970";
        let name = "process_start_time";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(started.as_secs_f64()).encode(metric)?;
        // Without `/proc`, or when it cannot be read, these metrics are missing and the rest is
        // shown.
        let Some(Usage { processor_seconds, resident_bytes, open_files }) = Usage::now() else {
            return Ok(());
        };
        let help = "Processor time that the process has used";
        let name = "process_cpu";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(processor_seconds).encode(metric)?;
        let help = "Memory of the process that is not swapped out";
        let name = "process_resident_memory";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        ConstGauge::new(resident_bytes).encode(metric)?;
        let help = "Files and sockets that the process has open";
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
    use super::{Usage, ticks_and_pages};

    #[test]
    fn the_resources_of_a_process_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 9 0 500 9000000 2048 18446744073709551615 1";
        assert_eq!(ticks_and_pages(stat), Some((42, 2048)));
        assert_eq!(ticks_and_pages("7 (a) S 1"), None);
        let usage = Usage::now().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_files >= 3 && usage.processor_seconds < 3600.0);
    }
}

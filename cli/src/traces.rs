//! Exports traces to a collector: chooses the spans, and sends them.
//!
//! docs/traces.md lists the exported spans. Spans wait in a bounded queue, and a separate thread
//! sends them in batches. So a slow or absent collector costs only spans.

use std::{env, thread, time::Duration};

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use reqwest::Url;
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::{
    error::CliError,
    outgoing::{self, Route},
};

/// How long waiting spans may take to leave when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// How long a collector may take to answer, unless a variable says otherwise. This is the
/// exporter's own default.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The variables with the exporter's headers, which may contain credentials.
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/// The span in which every process looks at a job, even one it does nothing for. It is for logs
/// only.
const LOOK: &str = "job";

/// Exports spans. Dropping it exports the spans that still wait.
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Exports to the collector at `url`, which speaks OTLP over HTTP, as the service `name`.
    ///
    /// # Errors
    /// When `url` is no HTTP URL, when headers from the environment would travel without TLS, or
    /// when a variable of OpenTelemetry has an invalid value.
    pub(crate) fn start(url: &Url, name: &'static str) -> Result<Self, CliError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CliError::usage("--traces takes an http or https URL"));
        }
        let endpoint = format!("{}/v1/traces", url.as_str().trim_end_matches('/'));
        if HEADERS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty())) {
            outgoing::may_carry("what OTEL_EXPORTER_OTLP_HEADERS holds", url, "traces")?;
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client(&Route::to(url, "traces")?)?)
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| CliError::usage(format!("traces cannot be exported: {error}")))?;
        let resource = Resource::builder()
            .with_service_name(name)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
            .build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(provider))
    }

    /// The layer that passes it this program's own spans, and the log events in them for operators.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        OpenTelemetryLayer::new(self.0.tracer("duet")).with_filter(filter_fn(is_exported))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

/// A client for the exporting thread. It is built on a thread of its own, because building it on a
/// runtime's thread would panic.
fn client(route: &Route) -> Result<reqwest::blocking::Client, CliError> {
    let proxy = route.proxy()?;
    let made = thread::spawn(move || {
        let client = reqwest::blocking::Client::builder()
            .timeout(export_timeout())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        match proxy {
            Some(proxy) => client.proxy(proxy),
            None => client,
        }
        .build()
    });
    let made = made.join().map_err(|_| CliError::internal("no HTTP client for traces"))?;
    made.map_err(|error| CliError::internal(format!("no HTTP client for traces: {error}")))
}

/// The exporter's timeout from OpenTelemetry's variables, in milliseconds.
fn export_timeout() -> Duration {
    ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]
        .into_iter()
        .find_map(|name| env::var(name).ok()?.parse().ok())
        .map_or(EXPORT_TIMEOUT, Duration::from_millis)
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let finest = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    metadata.target().starts_with("duet")
        && *metadata.level() <= finest
        && !(metadata.is_span() && metadata.name() == LOOK)
}

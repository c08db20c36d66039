//! Exporting traces to a collector: which spans there are, and how they leave the process.
//!
//! docs/traces.md says what is exported. Spans wait in a queue of bounded length and leave in batches from a thread of their own, so
//! that a collector which is slow or away costs nothing but spans.

use std::time::Duration;

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use reqwest::Url;
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::error::CliError;

/// How long spans that wait may take to leave when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Every process looks at its jobs in this span, those it does nothing for included: it is for logs.
const LOOK: &str = "job";

/// What exports spans. Dropping it exports those that wait.
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Exports to the collector at `url`, which speaks OTLP over HTTP, as the service `name`.
    ///
    /// # Errors
    /// When `url` is none for HTTP, or a variable of OpenTelemetry's says something that cannot be.
    pub(crate) fn start(url: &Url, name: &'static str) -> Result<Self, CliError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CliError::usage("--traces takes an http or https URL"));
        }
        let endpoint = format!("{}/v1/traces", url.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
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

    /// What hands it this program's own spans, and what is logged within them for an operator.
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

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let finest = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    metadata.target().starts_with("duet")
        && *metadata.level() <= finest
        && !(metadata.is_span() && metadata.name() == LOOK)
}

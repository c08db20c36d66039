//! Writes log lines to standard error, and sends traces to a collector.

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    config::{GlobalOptions, LogFormat},
    error::CliError,
    traces::Exporter,
};

/// Starts logging. Also starts tracing, if there is an exporter.
///
/// # Errors
/// When the filter does not parse.
pub(crate) fn start(
    options: &GlobalOptions,
    default_filter: &str,
    traces: Option<&Exporter>,
) -> Result<(), CliError> {
    let directives = options.log.as_deref().unwrap_or(default_filter);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        CliError::usage(format!("--log is no filter: {error}"))
            .remedy("Write for example `info,duet_party=debug`.")
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match options.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let mut layers = vec![lines.with_filter(filter).boxed()];
    layers.extend(traces.map(|exporter| exporter.layer::<Registry>().boxed()));
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| CliError::internal(format!("logging does not start: {error}")))
}

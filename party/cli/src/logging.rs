//! Log lines on standard error.

use tracing_subscriber::EnvFilter;

use crate::{
    config::{GlobalOptions, LogFormat},
    error::CliError,
};

/// Starts logging.
///
/// # Errors
/// When the filter does not parse.
pub(crate) fn start(options: &GlobalOptions, default_filter: &str) -> Result<(), CliError> {
    let directives = options.log.as_deref().unwrap_or(default_filter);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        CliError::usage(format!("--log is no filter: {error}"))
            .remedy("Write for example `info,duet_party=debug`.")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match options.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| CliError::internal(format!("logging does not start: {error}")))
}

//! Takes the place of `traces.rs` in a program that was built without the feature `traces`. It
//! refuses every collector.

use reqwest::Url;
use tracing_subscriber::layer::Identity;

use crate::error::CliError;

/// There is no such exporter.
pub(crate) enum Exporter {}

impl Exporter {
    pub(crate) fn start(_url: &Url, _name: &'static str) -> Result<Self, CliError> {
        Err(CliError::built_without("the export of traces", "traces"))
    }

    pub(crate) fn layer<S>(&self) -> Identity {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_refused() {
        let Err(refused) = Exporter::start(&"http://localhost:4318".parse().unwrap(), "duet-party");
        let text = refused.text();
        assert!(text.contains("this program was built without the export of traces"), "{text}");
    }
}

//! Takes the place of `load.rs` in a program that was built without the feature `load`. It refuses
//! every measurement.

use std::ffi::OsString;

use clap::Subcommand;

use crate::{error::CliError, output::Output};

/// Any command about load.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum LoadCommand {
    #[command(external_subcommand)]
    Any(#[expect(dead_code, reason = "it is refused whatever it is")] Vec<OsString>),
}

pub(crate) async fn run(_command: LoadCommand, _output: Output) -> Result<(), CliError> {
    Err(CliError::built_without("the load generator", "load"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: LoadCommand,
    }

    #[tokio::test]
    async fn every_measurement_is_refused() {
        let line = Line::try_parse_from(["duet", "run", "--rate", "5"]).unwrap();
        let refused = run(line.command, Output::new(true)).await.unwrap_err();
        let text = refused.text();
        assert!(text.contains("this program was built without the load generator"), "{text}");
    }
}

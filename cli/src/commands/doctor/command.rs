//! The settings of the doctor.

use std::path::PathBuf;

use clap::Args;
use duet_protocol::ids::PartyId;
use duet_wire::TenantId;
use reqwest::Url;

use crate::{
    config::{ApiOptions, BrokerOptions, CredentialsOptions},
    duration::Span,
    error::CliError,
};

/// The settings of the doctor.
#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorCommand {
    #[command(flatten)]
    pub(super) broker: BrokerOptions,
    /// File with the nkey seed of the broker's operator, which may look at its nodes and
    /// connections [default: DIR/nkeys/sys.nk]
    #[arg(long, env = "DUET_SYS_NKEY", value_name = "FILE", help_heading = "Broker")]
    pub(super) sys_nkey: Option<PathBuf>,
    #[command(flatten)]
    pub(super) api: ApiOptions,
    /// A further orchestrator; can be repeated
    #[arg(long = "orchestrator", value_name = "URL", help_heading = "Orchestrator")]
    further: Vec<String>,
    /// Another process to ask for its readiness: a gateway, or what a worker's --health names; can
    /// be repeated
    #[arg(long = "also", value_name = "URL")]
    also: Vec<String>,
    /// A party whose workers are asked; can be repeated
    #[arg(long = "party", value_name = "NAME", default_values = ["service", "partner"])]
    pub(super) parties: Vec<PartyId>,
    /// The tenant whose wallets, jobs and webhooks are looked at [default: all in DIR/tokens]
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Option<TenantId>,
    /// How long a job may wait before it counts as stuck
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub(super) stuck_after: Span,
    /// How long each question may take
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub(super) timeout: Span,
    #[command(flatten)]
    pub(super) credentials: CredentialsOptions,
}

impl DoctorCommand {
    /// The addresses of orchestrators.
    pub(super) fn orchestrators(&self) -> Result<Vec<Url>, CliError> {
        let named = std::iter::once(("api-url", &self.api.api_url));
        named
            .chain(self.further.iter().map(|url| ("orchestrator", url)))
            .map(|(name, url)| parse(url, name))
            .collect()
    }

    /// The addresses of other processes.
    pub(super) fn others(&self) -> Result<Vec<Url>, CliError> {
        self.also.iter().map(|url| parse(url, "also")).collect()
    }
}

/// A URL to whose end a path can be added.
fn parse(text: &str, option: &str) -> Result<Url, CliError> {
    let mut url: Url =
        text.parse().map_err(|error| CliError::usage(format!("--{option} takes a URL; {text}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(CliError::usage(format!("--{option} takes an http or https URL")));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

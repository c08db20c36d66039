//! How a command about jobs reaches the orchestrator.

use std::time::Duration;

use clap::Args;
use duet_wire::JobId;

use crate::{
    api::ApiClient,
    config::{ApiOptions, CredentialsOptions, TenantOptions},
    duration,
    error::CliError,
};

/// How long most commands may take by default.
pub(super) const BRIEF: Duration = Duration::from_secs(30);

/// How long commands that wait may take by default.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// A page of a list.
#[derive(Debug, Clone, Args)]
pub(crate) struct Page {
    /// Only those after this one: `next` of the previous page
    #[arg(long, value_name = "JOB")]
    pub(super) after: Option<JobId>,
    /// At most this many
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) limit: u16,
}

/// How to reach the orchestrator, and for how long to try.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pub(super) tenant: TenantOptions,
    #[command(flatten)]
    pub(super) api: ApiOptions,
    #[command(flatten)]
    pub(super) credentials: CredentialsOptions,
    /// How long the command may take in all [default: 30s; watch and redrive: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(super) timeout: Option<Duration>,
}

impl Access {
    pub(crate) fn client(&self, default_timeout: Duration) -> Result<ApiClient, CliError> {
        let timeout = self.timeout.unwrap_or(default_timeout);
        ApiClient::new(&self.api, &self.credentials, &self.tenant.tenant, timeout)
    }
}

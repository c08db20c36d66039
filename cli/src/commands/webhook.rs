//! `duet webhook`: maintains the URLs to which results are delivered.

use std::{fmt, time::Duration};

use clap::{Args, Subcommand};
use duet_orchestrator::webhooks::{
    Delivery, DeliveryOutcome, DeliveryPage, ReplayAccepted, WebhookCreated, WebhookPage, WebhookView,
};
use duet_wire::{JobId, webhook::EndpointId};
use serde::Serialize;

use crate::{
    api::ApiClient,
    config::{ApiOptions, CredentialsOptions, TenantOptions},
    duration,
    error::CliError,
    output::Output,
};

/// A command about webhooks.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Deliver every result from now on to a URL; prints the secret, once
    Add {
        /// The URL that results are posted to: https, or http on the loopback
        url: String,
        #[command(flatten)]
        access: Access,
    },
    /// List webhooks, oldest first
    List {
        #[command(flatten)]
        access: Access,
    },
    /// Show a webhook
    Show(One),
    /// Stop deliveries to a webhook, and delete it
    Remove(One),
    /// Continue deliveries to a disabled webhook, where they stopped
    Enable(One),
    /// Deliver a test message, and show the outcome
    Test(One),
    /// Show the latest deliveries, newest first
    Deliveries {
        #[command(flatten)]
        one: One,
        /// At most this many
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// Deliver results once more: of one job, or of a span of time
    Replay {
        #[command(flatten)]
        one: One,
        /// The job
        #[arg(long, value_name = "JOB", required_unless_present = "since", conflicts_with_all = ["since", "until"])]
        job: Option<JobId>,
        /// Results stored since then: a time ago, for example 2h
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        since: Option<Duration>,
        /// Results stored until then: a time ago [default: now]
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        until: Option<Duration>,
    },
}

/// One webhook.
#[derive(Debug, Clone, Args)]
pub(crate) struct One {
    /// The webhook's id
    #[arg(value_name = "WEBHOOK")]
    id: EndpointId,
    #[command(flatten)]
    access: Access,
}

/// How to reach the orchestrator, and for how long to try.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    tenant: TenantOptions,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
    /// How long the command may take in all
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

impl Access {
    fn client(&self) -> Result<ApiClient, CliError> {
        ApiClient::new(&self.api, &self.credentials, &self.tenant.tenant, self.timeout)
    }
}

#[derive(Serialize)]
struct Created(WebhookCreated);

#[derive(Serialize)]
struct Shown {
    webhook: WebhookView,
}

#[derive(Serialize)]
struct Listed(WebhookPage);

#[derive(Serialize)]
struct Log(DeliveryPage);

#[derive(Serialize)]
struct Replayed(ReplayAccepted);

#[derive(Serialize)]
struct Tested {
    delivery: Delivery,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WebhookCreated { webhook, secret } = &self.0;
        write!(f, "webhook {} to {}\nsecret {secret}\nIt is not shown again.", webhook.id, webhook.url)
    }
}

fn describe(webhook: &WebhookView, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}  {}", webhook.id, webhook.url)?;
    match (&webhook.disabled, webhook.failing_since_ms) {
        (Some(disabled), _) => write!(f, "  disabled: {}", disabled.reason)?,
        (None, Some(_)) => f.write_str("  failing")?,
        (None, None) => {}
    }
    if webhook.retries_waiting > 0 {
        write!(f, "  {} deliveries wait to be retried", webhook.retries_waiting)?;
    }
    match webhook.replays.len() {
        0 => Ok(()),
        count => write!(f, "  {count} replays under way"),
    }
}

fn tell(delivery: &Delivery, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let outcome = match delivery.outcome {
        DeliveryOutcome::Delivered => "delivered",
        DeliveryOutcome::Retrying => "failed, is tried again",
        DeliveryOutcome::GivenUp => "failed",
    };
    write!(f, "{}  {outcome} in {} ms", delivery.message, delivery.took_ms)?;
    match &delivery.error {
        Some(error) => write!(f, ": {error}"),
        None => Ok(()),
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(&self.webhook, f)
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.webhooks.is_empty() {
            return f.write_str("no webhooks");
        }
        for (index, webhook) in self.0.webhooks.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            describe(webhook, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.deliveries.is_empty() {
            return f.write_str("no deliveries");
        }
        for (index, delivery) in self.0.deliveries.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            tell(delivery, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tell(&self.delivery, f)
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.delivery, self.0.replay) {
            (Some(delivery), _) => tell(delivery, f),
            (None, Some(replay)) => write!(f, "replay {} has begun", replay.number),
            (None, None) => f.write_str("nothing to replay"),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The orchestrator's problem, or that it is out of reach.
pub(crate) async fn run(command: WebhookCommand, output: Output) -> Result<(), CliError> {
    match command {
        WebhookCommand::Add { url, access } => {
            output.emit(&Created(access.client()?.add_webhook(&url).await?))
        }
        WebhookCommand::List { access } => output.emit(&Listed(access.client()?.webhooks().await?)),
        WebhookCommand::Show(one) => {
            output.emit(&Shown { webhook: one.access.client()?.webhook(one.id).await? })
        }
        WebhookCommand::Remove(one) => {
            output.emit(&Shown { webhook: one.access.client()?.remove_webhook(one.id).await? })
        }
        WebhookCommand::Enable(one) => {
            output.emit(&Shown { webhook: one.access.client()?.enable_webhook(one.id).await? })
        }
        WebhookCommand::Test(one) => {
            output.emit(&Tested { delivery: one.access.client()?.test_webhook(one.id).await? })
        }
        WebhookCommand::Deliveries { one, limit } => {
            output.emit(&Log(one.access.client()?.webhook_deliveries(one.id, limit).await?))
        }
        WebhookCommand::Replay { one, job, since, until } => {
            let now = duration::since_1970();
            let ago = |ago: Duration| u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX);
            let api = one.access.client()?;
            output.emit(&Replayed(api.replay_webhook(one.id, job, since.map(ago), until.map(ago)).await?))
        }
    }
}

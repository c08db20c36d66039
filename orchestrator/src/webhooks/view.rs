//! Webhooks as the HTTP interface shows them, and its operations on them.

use bytes::Bytes;
use core::time::Duration;
use duet_bus::kv::Key;
use duet_wire::{Code, JobId, JobState, Problem, Refusal, TenantId, webhook::EndpointId};
use serde::{Deserialize, Serialize};

use super::{
    endpoint::{Disabled, Endpoint, Replay},
    log::{self, Delivery},
};
use crate::orchestrator::Orchestrator;

/// A webhook as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookView {
    /// The webhook.
    pub id: EndpointId,
    /// Where the orchestrator posts results.
    pub url: String,
    /// When it was added, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Since when every attempt has failed, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since_ms: Option<u64>,
    /// How many deliveries wait to be retried. The number may be some seconds old.
    #[serde(default)]
    pub retries_waiting: u64,
    /// When and why deliveries were disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Replays under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replays: Vec<Replay>,
}

/// A webhook just added.
#[derive(Serialize, Deserialize)]
pub struct WebhookCreated {
    /// The webhook.
    pub webhook: WebhookView,
    /// The secret that its receiver verifies deliveries with. It is not shown again.
    pub secret: String,
}

impl core::fmt::Debug for WebhookCreated {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WebhookCreated").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// A tenant's webhooks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WebhookPage {
    /// All of them, oldest first.
    pub webhooks: Vec<WebhookView>,
}

/// The latest deliveries of a webhook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliveryPage {
    /// Newest first.
    pub deliveries: Vec<Delivery>,
}

/// The result of a request for a replay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayAccepted {
    /// The delivery of the single named result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The replay of a span of time, now under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// The message of a test delivery.
#[derive(Serialize)]
struct TestMessage {
    test: bool,
    webhook: EndpointId,
    sent_at_ms: u64,
}

impl Orchestrator {
    fn view_of(&self, endpoint: Endpoint) -> WebhookView {
        let retries_waiting = u64::try_from(self.retries.waiting(endpoint.id)).unwrap_or(u64::MAX);
        let Endpoint { id, url, created_at_ms, failing_since_ms, disabled, replays, .. } = endpoint;
        WebhookView { id, url, created_at_ms, failing_since_ms, retries_waiting, disabled, replays }
    }

    pub(crate) async fn add_webhook(&self, tenant: &TenantId, url: &str) -> Result<WebhookCreated, Problem> {
        let settings = self.deliverer.settings();
        let endpoint = self.webhooks.add(&self.bus, tenant, url, settings, self.clock.now_ms()).await?;
        tracing::info!(%tenant, endpoint = %endpoint.id, "webhook added");
        let secret = endpoint.secret(self.deliverer.key())?.expose().to_string();
        Ok(WebhookCreated { webhook: self.view_of(endpoint), secret })
    }

    pub(crate) async fn webhooks_of(&self, tenant: &TenantId) -> Result<WebhookPage, Refusal> {
        let mut webhooks: Vec<WebhookView> = self
            .webhooks
            .of(tenant, self.deliverer.settings())
            .await?
            .into_iter()
            .map(|endpoint| self.view_of(endpoint))
            .collect();
        webhooks.sort_by_key(|webhook| (webhook.created_at_ms, webhook.id));
        Ok(WebhookPage { webhooks })
    }

    pub(crate) async fn webhook(&self, tenant: &TenantId, id: EndpointId) -> Result<WebhookView, Refusal> {
        Ok(self.view_of(self.webhooks.get(tenant, id).await?))
    }

    pub(crate) async fn remove_webhook(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<WebhookView, Refusal> {
        let removed = self.webhooks.remove(&self.bus, tenant, id).await?;
        tracing::info!(%tenant, endpoint = %id, "webhook removed");
        Ok(self.view_of(removed))
    }

    /// Enables a disabled webhook and delivers from where it stopped. An enabled one stays as it
    /// is.
    pub(crate) async fn enable_webhook(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<WebhookView, Refusal> {
        let enabled = self
            .webhooks
            .change(&Key::from((tenant, id)), |endpoint| {
                let was_disabled = endpoint.disabled.take().is_some();
                if was_disabled {
                    endpoint.recovers();
                }
                Ok(was_disabled)
            })
            .await?;
        tracing::info!(%tenant, endpoint = %id, "webhook enabled");
        Ok(self.view_of(enabled))
    }

    pub(crate) async fn webhook_deliveries(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        limit: usize,
    ) -> Result<DeliveryPage, Refusal> {
        let endpoint = self.webhooks.get(tenant, id).await?;
        Ok(DeliveryPage { deliveries: log::read(&self.bus, endpoint.id, limit).await? })
    }

    /// Delivers a test message once, and returns the outcome.
    pub(crate) async fn test_webhook(&self, tenant: &TenantId, id: EndpointId) -> Result<Delivery, Refusal> {
        let endpoint = self.webhooks.get(tenant, id).await?;
        let internal = |reason: String| Refusal::new(Code::Internal, reason);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| internal(error.to_string()))?;
        let message = TestMessage { test: true, webhook: id, sent_at_ms: self.clock.now_ms() };
        let body = serde_json::to_vec(&message).map_err(|error| internal(error.to_string()))?;
        self.deliver_now(&endpoint, &format!("test-{}", hex::encode(random)), body.into()).await
    }

    /// Delivers one job's result once more, and returns the outcome.
    pub(crate) async fn redeliver(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        job: JobId,
    ) -> Result<Delivery, Refusal> {
        let endpoint = self.webhooks.get(tenant, id).await?;
        let entry = self.jobs.get(&Key::from((tenant, job))).await?;
        let record = entry.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such job"))?.value;
        let JobState::Signed { result } = &record.state else {
            let message = format!("the job is {}; only results are delivered", record.state.name());
            return Err(Refusal::new(Code::Conflict, message));
        };
        let body =
            serde_json::to_vec(result).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        self.deliver_now(&endpoint, &job.to_string(), body.into()).await
    }

    async fn deliver_now(&self, endpoint: &Endpoint, id: &str, body: Bytes) -> Result<Delivery, Refusal> {
        // The client still waits for the answer.
        let patience = self.http_settings().request_timeout.mul_f64(0.8);
        let timeout: Duration = self.deliverer.settings().timeout.min(patience);
        let attempt = self.deliverer.attempt(endpoint, id, body, timeout).await?;
        let delivery = attempt.into_delivery(id, 0, None);
        log::write(&self.bus, endpoint.id, &delivery).await;
        Ok(delivery)
    }

    /// Starts a replay of the results stored from `from_ms` until `until_ms`, or until now.
    pub(crate) async fn replay_webhook(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        from_ms: u64,
        until_ms: Option<u64>,
    ) -> Result<Replay, Refusal> {
        let now = self.clock.now_ms();
        let until_ms = until_ms.unwrap_or(now).min(now);
        if from_ms > until_ms {
            return Err(Refusal::new(
                Code::MalformedJson,
                "from_ms: expected a time before until_ms and now",
            ));
        }
        let endpoint = self.webhooks.begin_replay(tenant, id, from_ms, until_ms).await?;
        let begun = endpoint.replays.last().copied();
        begun.ok_or_else(|| Refusal::new(Code::Internal, "the orchestrator did not store the replay"))
    }
}

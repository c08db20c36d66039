//! The log of deliveries, kept for a while so that a tenant can read it.

use duet_bus::Bus;
use duet_wire::{Code, Refusal, webhook::EndpointId};
use serde::{Deserialize, Serialize};

/// How a delivery's attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// The endpoint accepted it: it answered with a status from 200 to 299.
    Delivered,
    /// The endpoint did not accept it, and is tried again.
    Retrying,
    /// The endpoint did not accept it, and is not tried again.
    GivenUp,
}

/// One attempt at a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's id: a job's, or `test-…`.
    pub message: String,
    /// Which attempt, from 1; 0 for one that the tenant requested. Attempts while the endpoint
    /// accepts nothing do not count.
    pub attempt: u32,
    /// When it was sent, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How it ended.
    pub outcome: DeliveryOutcome,
    /// The HTTP status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the endpoint did not accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the endpoint is tried again, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at_ms: Option<u64>,
}

/// Logs a delivery. The log only helps the tenant, so a failure to write it is reported to the
/// operator and otherwise ignored.
pub(super) async fn write(bus: &Bus, endpoint: EndpointId, delivery: &Delivery) {
    let written = match serde_json::to_vec(delivery) {
        Ok(entry) => bus.log_delivery(endpoint, entry).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = written {
        tracing::warn!(%endpoint, error, "a delivery was not logged");
    }
}

/// The latest deliveries to an endpoint, newest first.
pub(super) async fn read(bus: &Bus, endpoint: EndpointId, limit: usize) -> Result<Vec<Delivery>, Refusal> {
    let entries = bus.logged_deliveries(endpoint, limit).await.map_err(|error| {
        tracing::warn!(%endpoint, %error, "the log of deliveries is out of reach");
        Refusal::new(Code::StorageUnavailable, "the log of deliveries does not answer; try again")
    })?;
    // Entries of another version are skipped.
    Ok(entries.iter().filter_map(|entry| serde_json::from_slice(entry).ok()).collect())
}

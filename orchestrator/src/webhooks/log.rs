//! What became of deliveries, kept for a while so that a tenant can see it.

use duet_bus::Bus;
use duet_wire::{Code, Refusal, webhook::EndpointId};
use serde::{Deserialize, Serialize};

/// How a delivery's attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// The endpoint took it: it answered with a status from 200 to 299.
    Delivered,
    /// It did not, and is asked again.
    Retrying,
    /// It did not, and is not asked again.
    GivenUp,
}

/// One attempt at a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's id: a job's, or `test-…`.
    pub message: String,
    /// Which attempt, from 1; 0 for one that somebody asked for.
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
    /// Why it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the endpoint is asked again, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at_ms: Option<u64>,
}

/// Logs a delivery. It is for looking into what happened: a failure is told to the operator and
/// passed over.
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
    // What another version wrote is passed over.
    Ok(entries.iter().filter_map(|entry| serde_json::from_slice(entry).ok()).collect())
}

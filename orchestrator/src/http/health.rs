//! Whether the process runs, and whether it can accept jobs.

use core::time::Duration;
use std::sync::Arc;

use axum::{Json, extract::State};
use duet_wire::Code;
use serde::Serialize;
use tokio::time::timeout;

use super::{ApiError, jobs::require_filled};
use crate::{clock::machine_ms, orchestrator::Orchestrator, stores};

/// How long the broker may take to answer a readiness check.
const READY_DEADLINE: Duration = Duration::from_secs(2);

/// The answer of a process that can accept jobs.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub(super) status: &'static str,
    /// `safe` if the broker proves that it keeps what it acknowledges, `trusted` if the operator
    /// vouches for it instead.
    pub(super) broker: &'static str,
    /// When this process found that the broker had lost streams or buckets, in milliseconds since
    /// 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stores_lost_at_ms: Option<u64>,
    /// When this process found the broker put back to an earlier copy of its store, in milliseconds
    /// since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broker_went_back_at_ms: Option<u64>,
    /// The broker's epoch: 1, and one more each time that it was put back or lost its store.
    pub(super) broker_epoch: u64,
}

/// A process that runs.
#[derive(Debug, Serialize)]
pub(super) struct Alive {
    pub(super) status: &'static str,
    /// The version of its build.
    pub(super) version: &'static str,
    /// The clock of its machine, in milliseconds since 1970. Jobs are timed by the broker's.
    pub(super) now_ms: u64,
    /// How many jobs it works on at once.
    pub(super) max_in_flight: usize,
}

/// `GET /healthz`: the process answers.
pub(super) async fn alive(State(orchestrator): State<Arc<Orchestrator>>) -> Json<Alive> {
    Json(Alive {
        status: "alive",
        version: env!("CARGO_PKG_VERSION"),
        now_ms: machine_ms(),
        max_in_flight: orchestrator.queue.max_in_flight,
    })
}

/// `GET /readyz`: the broker is reachable and safe, this machine's clock is not far off the
/// broker's, streams and buckets are there, and this process knows the jobs in them.
pub(super) async fn ready(State(orchestrator): State<Arc<Orchestrator>>) -> Result<Json<Health>, ApiError> {
    let bus = &orchestrator.bus;
    if !bus.is_connected() {
        return Err(ApiError::new(Code::BrokerUnreachable, "there is no connection to the broker"));
    }
    orchestrator.broker.require().await?;
    orchestrator.clock.require_right_machine()?;
    let looks = stores::names().map(|name| async move { (bus.look_at_stream(&name).await, name) });
    let Ok(looks) = timeout(READY_DEADLINE, futures::future::join_all(looks)).await else {
        return Err(ApiError::new(Code::StorageUnavailable, "JetStream does not answer in time"));
    };
    let missing: Vec<&str> =
        looks.iter().filter(|(look, _)| matches!(look, Ok(None))).map(|(_, name)| name.as_str()).collect();
    if !missing.is_empty() {
        return Err(stores::missing(&missing).into());
    }
    if let Some(error) = looks.into_iter().find_map(|(look, _)| look.err()) {
        tracing::warn!(%error, "not ready");
        return Err(ApiError::new(Code::StorageUnavailable, "a stream or bucket is out of reach"));
    }
    require_filled(&orchestrator).await?;
    let broker = if orchestrator.broker.is_trusted() { "trusted" } else { "safe" };
    let stores = &orchestrator.stores;
    Ok(Json(Health {
        status: "ready",
        broker,
        stores_lost_at_ms: stores.lost_at_ms(),
        broker_went_back_at_ms: stores.went_back_at_ms(),
        broker_epoch: stores.epochs().present(),
    }))
}

//! Whether the process lives, and whether it can take jobs.

use core::time::Duration;
use std::sync::Arc;

use axum::{Json, extract::State};
use duet_bus::streams;
use duet_wire::Code;
use serde::Serialize;
use tokio::time::timeout;

use super::ApiError;
use crate::orchestrator::Orchestrator;

/// How long the broker may take to show that it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(2);

/// What a healthy process says.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
}

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Json<Health> {
    Json(Health { status: "alive" })
}

/// `GET /readyz`: the broker is reachable, and its streams and buckets are there.
pub(super) async fn ready(State(orchestrator): State<Arc<Orchestrator>>) -> Result<Json<Health>, ApiError> {
    let bus = &orchestrator.bus;
    if !bus.is_connected() {
        return Err(ApiError::new(Code::BrokerUnreachable, "there is no connection to the broker"));
    }
    let jetstream = bus.jetstream();
    let buckets = [duet_bus::kv::JOBS, duet_bus::kv::SESSIONS].map(|bucket| format!("KV_{bucket}"));
    let needed =
        [streams::JOBS, streams::RESULTS, streams::DEAD].map(str::to_owned).into_iter().chain(buckets);
    let checks = futures::future::join_all(needed.map(|name| async move {
        jetstream.get_stream(&name).await.map(drop).map_err(|error| format!("{name}: {error}"))
    }));
    match timeout(READY_DEADLINE, checks).await {
        Err(_) => Err(ApiError::new(Code::StorageUnavailable, "JetStream does not answer in time")),
        Ok(results) => match results.into_iter().find_map(Result::err) {
            Some(error) => {
                tracing::warn!(error, "not ready");
                Err(ApiError::new(Code::StorageUnavailable, "a stream or bucket is missing or out of reach"))
            }
            None => Ok(Json(Health { status: "ready" })),
        },
    }
}

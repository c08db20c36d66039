//! Webhooks: where a tenant's results are delivered, and the log of deliveries.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use duet_wire::{Code, JobId, webhook::EndpointId};
use serde::{Deserialize, de::DeserializeOwned};

use super::{ApiError, Caller, bad_query};
use crate::{
    orchestrator::Orchestrator,
    webhooks::{Delivery, DeliveryPage, ReplayAccepted, WebhookCreated, WebhookPage, WebhookView},
};

/// How many deliveries are listed by default.
pub(super) const DEFAULT_DELIVERIES: usize = 50;

/// How many deliveries are listed at most.
pub(super) const MAX_DELIVERIES: usize = 200;

/// The largest document that these paths accept, in bytes.
const MAX_DOCUMENT_SIZE_BYTES: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    url: String,
}

/// What to replay.
#[derive(Debug)]
pub(super) enum ReplayOf {
    /// One job's result.
    Job(JobId),
    /// The results of a span of time, in milliseconds since 1970. Without an end it ends now.
    Span { from_ms: u64, until_ms: Option<u64> },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    limit: Option<usize>,
}

fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.len() > MAX_DOCUMENT_SIZE_BYTES {
        return Err(ApiError::new(Code::TooLarge, "the document has at most 4096 bytes"));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::new(Code::MalformedJson, error.to_string()))
}

/// Reads a webhook to add.
pub(super) fn new_webhook(body: &[u8]) -> Result<NewWebhook, ApiError> {
    document(body)
}

/// Reads what to replay.
pub(super) fn replay_of(body: &[u8]) -> Result<ReplayOf, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Members {
        job: Option<JobId>,
        from_ms: Option<u64>,
        until_ms: Option<u64>,
    }
    match document(body)? {
        Members { job: Some(job), from_ms: None, until_ms: None } => Ok(ReplayOf::Job(job)),
        Members { job: None, from_ms: Some(from_ms), until_ms } => Ok(ReplayOf::Span { from_ms, until_ms }),
        _ => {
            let detail = "expected either job, or from_ms and, if it is not now, until_ms";
            Err(ApiError::new(Code::MalformedJson, detail))
        }
    }
}

fn endpoint(text: &str) -> Result<EndpointId, ApiError> {
    // A text that is no id names no webhook.
    text.parse().map_err(|_| ApiError::not_found("webhook"))
}

/// `POST /v1/webhooks`
pub(super) async fn add(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    body: Bytes,
) -> Result<(StatusCode, Json<WebhookCreated>), ApiError> {
    let NewWebhook { url } = new_webhook(&body)?;
    Ok((StatusCode::CREATED, Json(orchestrator.add_webhook(&tenant, &url).await?)))
}

/// `GET /v1/webhooks`
pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
) -> Result<Json<WebhookPage>, ApiError> {
    Ok(Json(orchestrator.webhooks_of(&tenant).await?))
}

/// `GET /v1/webhooks/{id}`
pub(super) async fn show(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<WebhookView>, ApiError> {
    Ok(Json(orchestrator.webhook(&tenant, endpoint(&id)?).await?))
}

/// `DELETE /v1/webhooks/{id}`
pub(super) async fn remove(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<WebhookView>, ApiError> {
    Ok(Json(orchestrator.remove_webhook(&tenant, endpoint(&id)?).await?))
}

/// `POST /v1/webhooks/{id}/enable`
pub(super) async fn enable(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<WebhookView>, ApiError> {
    Ok(Json(orchestrator.enable_webhook(&tenant, endpoint(&id)?).await?))
}

/// `GET /v1/webhooks/{id}/deliveries`
pub(super) async fn deliveries(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Json<DeliveryPage>, ApiError> {
    let Query(LogQuery { limit }) = query.map_err(|_| bad_query("limit"))?;
    let limit = limit.unwrap_or(DEFAULT_DELIVERIES).clamp(1, MAX_DELIVERIES);
    Ok(Json(orchestrator.webhook_deliveries(&tenant, endpoint(&id)?, limit).await?))
}

/// `POST /v1/webhooks/{id}/test`
pub(super) async fn test(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<Delivery>, ApiError> {
    Ok(Json(orchestrator.test_webhook(&tenant, endpoint(&id)?).await?))
}

/// `POST /v1/webhooks/{id}/replay`
pub(super) async fn replay(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<ReplayAccepted>), ApiError> {
    let id = endpoint(&id)?;
    let (status, accepted) = match replay_of(&body)? {
        ReplayOf::Job(job) => {
            let delivery = orchestrator.redeliver(&tenant, id, job).await?;
            (StatusCode::OK, ReplayAccepted { delivery: Some(delivery), replay: None })
        }
        ReplayOf::Span { from_ms, until_ms } => {
            let replay = orchestrator.replay_webhook(&tenant, id, from_ms, until_ms).await?;
            (StatusCode::ACCEPTED, ReplayAccepted { delivery: None, replay: Some(replay) })
        }
    };
    Ok((status, Json(accepted)))
}

//! Batches: submission, state, and their jobs' ends as they happen.
//!
//! | event | data |
//! |---|---|
//! | `end` | how a job of the batch ended ([`crate::api::EndView`]); its id is the cursor |
//! | `done` | the batch ([`crate::api::BatchView`]): all its jobs have ended; the stream ends |

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use core::time::Duration;
use duet_queue::intake::{Rejected, Submitted};
use duet_wire::{
    Code, Problem, TenantId,
    batch::{BatchRequest, MAX_BATCH_SIZE_BYTES},
};
use serde::Deserialize;

use super::{ApiError, Caller, bad_query, results, stream};
use crate::{
    api::{BatchAnswer, BatchItemView, BatchView, ItemStatus},
    batch::{BatchCursor, BatchReader, BatchRecord, ItemResult},
    orchestrator::Orchestrator,
};

/// `POST /v1/batches`
pub(super) async fn submit(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::new(Code::TooLarge, format!("a batch has at most {MAX_BATCH_SIZE_BYTES} bytes"))
        } else {
            ApiError::new(Code::MalformedJson, "the body could not be read")
        }
    })?;
    let batch = read(&body)?;
    orchestrator.broker.require().await?;
    let (record, results) = orchestrator.submit_batch(&tenant, batch).await?;
    let items: Vec<BatchItemView> = results.into_iter().map(show).collect();
    if let Some(refused) = refused_for_now(&items) {
        return Err(refused);
    }
    let accepted = items.iter().any(|item| item.status == ItemStatus::Accepted);
    let status = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(BatchAnswer { id: record.map(|record| record.id), items })).into_response())
}

/// Reads a batch.
pub(super) fn read(body: &[u8]) -> Result<BatchRequest, ApiError> {
    BatchRequest::from_json(body).map_err(|error| {
        let path = error.path.clone();
        Problem::new(Code::MalformedJson, error.to_string()).at(path).into()
    })
}

fn show(ItemResult { job, submitted }: ItemResult) -> BatchItemView {
    let view =
        |status, job| BatchItemView { status, job, state: None, problem: None, retry_after_seconds: None };
    match submitted {
        Ok(Submitted::Accepted(version)) => {
            BatchItemView { state: Some(version.record.state.name()), ..view(ItemStatus::Accepted, job) }
        }
        Ok(Submitted::Known(version)) => {
            BatchItemView { state: Some(version.record.state.name()), ..view(ItemStatus::Known, job) }
        }
        Err(rejected) => {
            // For a conflict, the job that has the key or the transaction.
            let job = match &rejected {
                Rejected::Conflict(first) | Rejected::Duplicate(first) => Some(*first),
                Rejected::Full(_) | Rejected::Store(_) | Rejected::Problem(_) => None,
            };
            let (problem, retry_after) = ApiError::from(rejected).into_parts();
            BatchItemView {
                problem: Some(problem),
                retry_after_seconds: retry_after.map(|pause| pause.as_secs()),
                ..view(ItemStatus::Refused, job)
            }
        }
    }
}

/// The refusal of the whole batch, if there was no room for any of its requests.
fn refused_for_now(items: &[BatchItemView]) -> Option<ApiError> {
    let mut longest = 1;
    for item in items {
        item.problem.as_ref().filter(|problem| problem.code == Code::QueueFull)?;
        longest = longest.max(item.retry_after_seconds.unwrap_or(1));
    }
    let detail = "there is no room for any job of the batch; submit the same batch again later";
    Some(ApiError::new(Code::QueueFull, detail).retry_after(Duration::from_secs(longest)))
}

async fn record(orchestrator: &Orchestrator, tenant: &TenantId, id: &str) -> Result<BatchRecord, ApiError> {
    // A text that is no id names no batch.
    let id = id.parse().map_err(|_| ApiError::not_found("batch"))?;
    let record = orchestrator.batch(tenant, id).await?;
    record.ok_or_else(|| ApiError::not_found("batch"))
}

/// `GET /v1/batches/{id}`
pub(super) async fn show_one(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<BatchView>, ApiError> {
    let record = record(&orchestrator, &tenant, &id).await?;
    Ok(Json(orchestrator.view_batch(&record)))
}

/// The query of an event stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: Option<String>,
}

/// `GET /v1/batches/{id}/events`
pub(super) async fn follow(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(EventsQuery { after }) = query.map_err(|_| bad_query("after"))?;
    let present = orchestrator.stores.epochs().present();
    let after: Option<BatchCursor> = results::resumed(after, &headers)
        .map(|text| BatchCursor::read(&text, present))
        .transpose()
        .map_err(|error| ApiError::new(Code::MalformedJson, format!("after: {error}")))?;
    let record = record(&orchestrator, &tenant, &id).await?;
    let mut reader = BatchReader::new(&orchestrator, record.clone(), after).map_err(Problem::from)?;
    let teller = Arc::clone(&orchestrator);
    stream::open(&orchestrator, &tenant, move |told| async move {
        let mut last = after.map(|cursor| cursor.to_string()).unwrap_or_default();
        while let Some(end) = reader.next().await? {
            last.clone_from(&end.cursor);
            told.send("end", &end.cursor, &end).await?;
        }
        told.send("done", &last, &teller.view_batch(&record)).await
    })
}

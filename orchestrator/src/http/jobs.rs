//! Jobs: submit, show, list, cancel.

use core::time::Duration;
use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use duet_bus::kv::Key;
use duet_queue::{
    intake::{Denied, Manner, Rejected, Submitted, duplicate},
    reasons,
    room::Full,
    store::{JobKey, StoreFailure},
};
use duet_wire::{
    Code, IdempotencyKey, JobId, JobRecord, JobState, JobStateName, Priority, Refusal, SignedRequest,
    SigningRequest, TenantId, encoding::hex_array, job::Waiting, priority::UnknownPriority,
    request::RequestError, revocation::RevocationProof,
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use tokio::time::timeout;

use super::{ApiError, Caller, bad_query};
use crate::{
    api::{JobPage, JobView, Unshowable},
    board::Board,
    jobs::StoreError,
    orchestrator::Orchestrator,
};

/// How many jobs a page has by default.
pub(super) const DEFAULT_PAGE: usize = 50;

/// How many jobs a page has at most.
pub(super) const MAX_PAGE: usize = 200;

/// How many of a page's records are fetched at a time.
const FETCH_CONCURRENCY: usize = 16;

/// How long a caller waits for an orchestrator that is reading the queue from the broker.
const FILL_DEADLINE: Duration = Duration::from_secs(2);

/// A header whose value is `N` bytes in hexadecimal.
fn hex_header<const N: usize>(headers: &HeaderMap, name: &str) -> Result<[u8; N], ApiError> {
    let wrong = || {
        ApiError::new(
            Code::MalformedJson,
            format!("send the header {name} with {} hexadecimal digits", 2 * N),
        )
    };
    let text = headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes).map_err(|_| wrong())?;
    Ok(bytes)
}

pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    // A text that is no id names no job.
    text.parse().map_err(|_| ApiError::not_found("job"))
}

/// The view of `record`, with what only the board knows: that the job waits for a seat.
pub(super) fn shown(board: &Board, record: &JobRecord) -> Result<JobView, Unshowable> {
    let mut view = JobView::new(record)?;
    if record.state == JobState::Queued
        && let Some(party) = board.lacks_seat_of(&record.tenant, record.id)
    {
        let Refusal { code, message } = reasons::no_seat(&party);
        // It has waited for the seat since it was due.
        let since_ms = record.updated_at_ms.max(record.next_attempt_at_ms);
        view.waiting = Some(Waiting { code, message, since_ms });
    }
    Ok(view)
}

pub(super) fn view(board: &Board, record: &JobRecord) -> Result<JobView, ApiError> {
    shown(board, record).map_err(|error| {
        if let Err(version @ RequestError::UnsupportedVersion) =
            SigningRequest::from_json(&record.request.body)
        {
            return StoreError(StoreFailure::Newer(version.to_string())).into();
        }
        tracing::error!(%error, "a job cannot be shown");
        ApiError::new(Code::Internal, "the stored job cannot be shown")
    })
}

/// `POST /v1/jobs`
pub(super) async fn submit(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let limit = orchestrator.http_settings().max_body_bytes;
            ApiError::new(Code::TooLarge, format!("a request has at most {limit} bytes"))
        } else {
            ApiError::new(Code::MalformedJson, "the body could not be read")
        }
    })?;
    let idempotency_key: IdempotencyKey = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            ApiError::new(
                Code::MalformedJson,
                "send the header Idempotency-Key: 1 to 255 visible ASCII characters",
            )
        })?;
    let signed = SignedRequest {
        body: body.into(),
        requester: hex_header(&headers, "duet-requester")?,
        signature: hex_header(&headers, "duet-signature")?,
    };
    match orchestrator.submit(&tenant, &idempotency_key, &signed, manner(&headers)?).await {
        Ok(Submitted::Accepted(version)) => {
            answer(&orchestrator.board, StatusCode::ACCEPTED, &version.record)
        }
        Ok(Submitted::Known(version)) => answer(&orchestrator.board, StatusCode::OK, &version.record),
        Err(rejected) => Err(rejected.into()),
    }
}

/// The options in the submission's headers.
fn manner(headers: &HeaderMap) -> Result<Manner, ApiError> {
    let repeats_digest = match headers.get("duet-repeat-digest").map(HeaderValue::as_bytes) {
        None | Some(b"false") => false,
        Some(b"true") => true,
        Some(_) => {
            let detail = "the header Duet-Repeat-Digest: expected true or false";
            return Err(ApiError::new(Code::MalformedJson, detail));
        }
    };
    Ok(Manner { priority: priority(headers)?, repeats_digest })
}

/// The job's priority from the submission's headers.
fn priority(headers: &HeaderMap) -> Result<Priority, ApiError> {
    let Some(value) = headers.get("duet-priority") else { return Ok(Priority::default()) };
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        ApiError::new(Code::MalformedJson, format!("the header Duet-Priority: {UnknownPriority}"))
    })
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Conflict(job) => Self::new(
                Code::Conflict,
                format!("the idempotency key already stands for another request: job {job}"),
            )
            .with_job(job),
            Rejected::Duplicate(job) => Self::from(duplicate(job)).with_job(job),
            Rejected::Full(full) => full.into(),
            Rejected::Store(failure) => StoreError(failure).into(),
            Rejected::Problem(problem) => problem.into(),
        }
    }
}

impl From<Full> for ApiError {
    fn from(Full { detail, retry_after }: Full) -> Self {
        Self::new(Code::QueueFull, detail).retry_after(retry_after)
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => Self::about_job(refusal),
            Denied::Full(full) => full.into(),
            Denied::Store(failure) => StoreError(failure).into(),
        }
    }
}

fn answer(board: &Board, status: StatusCode, record: &JobRecord) -> Result<Response, ApiError> {
    let location = [(header::LOCATION, format!("/v1/jobs/{}", record.id))];
    Ok((status, location, Json(view(board, record)?)).into_response())
}

/// `GET /v1/jobs/{id}`
pub(super) async fn show(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    let record = record(&orchestrator, &tenant, &id).await?;
    Ok(Json(view(&orchestrator.board, &record)?))
}

/// The tenant's job with this id.
pub(super) async fn record(
    orchestrator: &Orchestrator,
    tenant: &TenantId,
    id: &str,
) -> Result<JobRecord, ApiError> {
    let key = Key::from((tenant, job_id(id)?));
    let entry = orchestrator.jobs.get(&key).await?;
    entry.map(|entry| entry.value).ok_or_else(|| ApiError::not_found("job"))
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/jobs`
pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<JobPage>, ApiError> {
    let Query(ListQuery { state, after, limit }) = query.map_err(|_| bad_query("state, after and limit"))?;
    let state = state
        .map(|text| text.parse::<JobStateName>())
        .transpose()
        .map_err(|error| ApiError::new(Code::MalformedJson, format!("state: {error}")))?;
    page(&orchestrator, &tenant, PageQuery { state, after, limit }).await
}

/// The state, start and size of a page of a tenant's jobs.
pub(super) struct PageQuery {
    pub(super) state: Option<JobStateName>,
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
}

/// Waits until this process knows the jobs of the bucket.
///
/// # Errors
/// When it still reads them after two seconds.
pub(super) async fn require_filled(orchestrator: &Orchestrator) -> Result<(), ApiError> {
    timeout(FILL_DEADLINE, orchestrator.board.until_filled()).await.map_err(|_| {
        ApiError::new(
            Code::StorageUnavailable,
            "this orchestrator is still reading the queue from the broker; try again",
        )
    })
}

/// A page of the tenant's jobs, newest first.
pub(super) async fn page(
    orchestrator: &Arc<Orchestrator>,
    tenant: &TenantId,
    query: PageQuery,
) -> Result<Json<JobPage>, ApiError> {
    let after = query.after.as_deref().map(job_id).transpose()?;
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    require_filled(orchestrator).await?;
    let (keys, more) = orchestrator
        .board
        .list(tenant, query.state, after, limit)
        .ok_or_else(|| ApiError::new(Code::NotFound, "after: there is no such job"))?;
    let next = keys.last().and_then(Key::tenant_and_job).map(|(_, job)| job).filter(|_| more);
    let jobs: Vec<Option<JobView>> = futures::stream::iter(keys)
        .map(|key| {
            let orchestrator = Arc::clone(orchestrator);
            async move {
                match orchestrator.jobs.get(&key).await {
                    // An entry that cannot be shown is logged, and the page has the others.
                    Ok(entry) => Ok(entry.and_then(|entry| view(&orchestrator.board, &entry.value).ok())),
                    Err(StoreError(StoreFailure::Corrupt(_) | StoreFailure::Newer(_))) => Ok(None),
                    Err(error) => Err(ApiError::from(error)),
                }
            }
        })
        .buffered(FETCH_CONCURRENCY)
        .try_collect()
        .await?;
    Ok(Json(JobPage { jobs: jobs.into_iter().flatten().collect(), next }))
}

/// Reads a revocation. It has no other members: a record keeps what it does not know, a caller is
/// told.
pub(super) fn revocation(body: &[u8]) -> Result<RevocationProof, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Members {
        #[serde(with = "hex_array")]
        by: [u8; 32],
        #[serde(with = "hex_array")]
        signature: [u8; 64],
    }
    serde_json::from_slice(body).map(|Members { by, signature }| RevocationProof { by, signature }).map_err(
        |error| ApiError::new(Code::MalformedJson, format!("expected by and signature, or no body: {error}")),
    )
}

/// `POST /v1/jobs/{id}/cancel`, `DELETE /v1/jobs/{id}`. With a revocation in the body, the parties
/// are told as well.
pub(super) async fn cancel(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<JobView>, ApiError> {
    let body = body.map_err(|_| ApiError::new(Code::MalformedJson, "the body could not be read"))?;
    let job = job_id(&id)?;
    let record = if body.is_empty() {
        orchestrator.attempts.cancel(JobKey { tenant, job }).await?
    } else {
        let job = JobKey { tenant: tenant.clone(), job };
        orchestrator.revoke(&job, None, revocation(&body)?).await.map_err(|denied| {
            let refusal = match denied {
                Denied::Refused(refusal) if refusal.code == Code::BadSignature => refusal,
                denied => return denied.into(),
            };
            match orchestrator.tenants.bad_signature(&tenant) {
                Ok(()) => refusal.into(),
                Err(wait) => {
                    let detail = "too many revocations with bad signatures; slow down";
                    ApiError::new(Code::RateLimited, detail).retry_after(wait)
                }
            }
        })?
    };
    Ok(Json(view(&orchestrator.board, &record)?))
}

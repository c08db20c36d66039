//! Dead letters: jobs that were given up, kept with the history of their attempts. Somebody repairs
//! what kept them from being signed, and puts them back.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use duet_wire::JobStateName;
use serde::Deserialize;

use super::{
    ApiError, Caller,
    jobs::{self, PageQuery},
};
use crate::{
    api::{JobPage, JobView},
    orchestrator::Orchestrator,
};

/// What a list is asked for with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/dead-letters`
pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<JobPage>, ApiError> {
    let Query(ListQuery { after, limit }) = query.map_err(|_| jobs::bad_query("after and limit"))?;
    jobs::page(&orchestrator, &tenant, PageQuery { state: Some(JobStateName::Failed), after, limit }).await
}

/// `GET /v1/dead-letters/{id}`
pub(super) async fn show(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    let record = jobs::record(&orchestrator, &tenant, &id).await?;
    if record.state.name() != JobStateName::Failed {
        return Err(ApiError::not_found("dead letter"));
    }
    Ok(Json(jobs::view(&record)?))
}

/// `POST /v1/dead-letters/{id}/redrive`
pub(super) async fn redrive(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let record = orchestrator.put_back(&tenant, jobs::job_id(&id)?).await?;
    Ok((StatusCode::ACCEPTED, Json(jobs::view(&record)?)))
}

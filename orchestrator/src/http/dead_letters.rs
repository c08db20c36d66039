//! Dead letters: jobs that were given up, kept with the history of their attempts. An operator
//! removes the cause and puts them back.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use duet_wire::JobStateName;

use super::{
    ApiError, Caller, PageParameters,
    jobs::{self, PageQuery},
};
use crate::{
    api::{JobPage, JobView},
    orchestrator::Orchestrator,
};

/// `GET /v1/dead-letters`
pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    PageParameters { after, limit }: PageParameters,
) -> Result<Json<JobPage>, ApiError> {
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
    let record = orchestrator.put_back(&tenant, jobs::job_id(&id)?).await.map_err(ApiError::about_job)?;
    Ok((StatusCode::ACCEPTED, Json(jobs::view(&record)?)))
}

//! Dead letters: jobs that were given up, kept with the history of their attempts. An operator
//! removes the cause and puts them back.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use duet_protocol::ids::WalletId;
use duet_queue::store::JobKey;
use duet_wire::{Code, JobStateName};
use serde::Deserialize;

use super::{
    ApiError, Caller, bad_query,
    jobs::{self, PageQuery},
};
use crate::{
    api::{JobPage, JobView},
    orchestrator::Orchestrator,
};

/// Which dead letters to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadQuery {
    code: Option<String>,
    wallet: Option<String>,
    ended_after_ms: Option<u64>,
    ended_before_ms: Option<u64>,
    after: Option<String>,
    limit: Option<usize>,
}

/// Selects dead letters. What is absent selects all.
#[derive(Debug)]
struct DeadFilter {
    codes: Option<Vec<Code>>,
    wallet: Option<WalletId>,
    ended_after_ms: u64,
    ended_before_ms: u64,
}

impl DeadFilter {
    fn selects(&self, job: &JobView) -> bool {
        let code = job.ending.failure.as_ref().map(|failure| failure.code);
        let ended_ms = job.settled_at_ms.unwrap_or_default();
        self.codes.as_ref().is_none_or(|codes| code.is_some_and(|code| codes.contains(&code)))
            && self.wallet.is_none_or(|wallet| wallet == job.wallet)
            && (self.ended_after_ms..self.ended_before_ms).contains(&ended_ms)
    }
}

/// Reads the codes of a query: one or several with commas in between.
fn codes(text: &str) -> Result<Vec<Code>, ApiError> {
    let read = text.split(',').map(|code| {
        code.parse().map_err(|_| {
            ApiError::new(Code::MalformedJson, format!("code: `{}` is none", code.escape_default()))
        })
    });
    read.collect()
}

impl DeadQuery {
    fn read(self) -> Result<(DeadFilter, PageQuery), ApiError> {
        let Self { code, wallet, ended_after_ms, ended_before_ms, after, limit } = self;
        let wallet = wallet.map(|text| text.parse()).transpose();
        let filter = DeadFilter {
            codes: code.as_deref().map(codes).transpose()?,
            wallet: wallet.map_err(|_| ApiError::new(Code::MalformedJson, "wallet: expected an id"))?,
            ended_after_ms: ended_after_ms.unwrap_or(0),
            ended_before_ms: ended_before_ms.unwrap_or(u64::MAX),
        };
        Ok((filter, PageQuery { state: Some(JobStateName::Failed), after, limit }))
    }
}

/// `GET /v1/dead-letters`
pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    query: Result<Query<DeadQuery>, QueryRejection>,
) -> Result<Json<JobPage>, ApiError> {
    let Query(query) = query.map_err(|_| {
        bad_query("code, wallet, ended_after_ms, ended_before_ms, after and limit, each at most once")
    })?;
    let (filter, page) = query.read()?;
    // The page follows the list of all dead letters, so a caller that asks for the next one makes
    // progress even when the filter selects none of this one.
    let Json(mut page) = jobs::page(&orchestrator, &tenant, page).await?;
    page.jobs.retain(|job| filter.selects(job));
    Ok(Json(page))
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
    Ok(Json(jobs::view(&orchestrator.board, &record)?))
}

/// `POST /v1/dead-letters/{id}/redrive`
pub(super) async fn redrive(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let job = jobs::job_id(&id)?;
    let record = orchestrator.attempts.put_back(JobKey { tenant, job }).await?;
    Ok((StatusCode::ACCEPTED, Json(jobs::view(&orchestrator.board, &record)?)))
}

//! A tenant's results: how its jobs ended, in order, from a cursor on.
//!
//! | event | data |
//! |---|---|
//! | `end` | how a job ended ([`crate::api::EndView`]); its id is the cursor |

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use duet_wire::{Code, Problem};
use serde::Deserialize;

use super::{ApiError, Caller, bad_query, stream};
use crate::{api::EndPage, epochs::Cursor, feed::Reader, orchestrator::Orchestrator};

/// How many ends a page has by default.
pub(super) const DEFAULT_PAGE: usize = 50;

/// How many ends a page has at most.
pub(super) const MAX_PAGE: usize = 200;

/// The query of a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultsQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// The place that `text` names.
pub(super) fn cursor(text: &str) -> Result<Cursor, ApiError> {
    text.parse().map_err(|error| ApiError::new(Code::MalformedJson, format!("after: {error}")))
}

/// Where to go on: the query's cursor, or the id of the last event that the client has received.
pub(super) fn resumed(query: Option<String>, headers: &HeaderMap) -> Option<String> {
    let last = || headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    query.or_else(last)
}

/// `GET /v1/results`
pub(super) async fn page(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Json<EndPage>, ApiError> {
    let Query(ResultsQuery { after, limit }) = query.map_err(|_| bad_query("after and limit"))?;
    let after = after.as_deref().map(cursor).transpose()?.unwrap_or_default();
    let limit = limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let mut reader = Reader::new(&orchestrator, &tenant, after);
    let mut results = Vec::new();
    while results.len() < limit
        && let Some(end) = reader.next_now().await.map_err(Problem::from)?
    {
        results.push(end);
    }
    Ok(Json(EndPage { results, next: reader.cursor().to_string() }))
}

/// `GET /v1/results/events`
pub(super) async fn follow(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    headers: HeaderMap,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ResultsQuery { after, .. }) = query.map_err(|_| bad_query("after"))?;
    let after = resumed(after, &headers).as_deref().map(cursor).transpose()?.unwrap_or_default();
    // A status can say that the cursor is gone; the stream could not.
    orchestrator.stores.epochs().resume(after).map_err(Problem::from)?;
    let mut reader = Reader::new(&orchestrator, &tenant, after);
    stream::open(&orchestrator, &tenant, move |told| async move {
        loop {
            while let Some(end) = reader.next_now().await? {
                told.send("end", &end.cursor, &end).await?;
            }
            reader.wait().await;
        }
    })
}

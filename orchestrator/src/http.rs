//! The HTTP interface.
//!
//! | request | what |
//! |---|---|
//! | `POST /v1/jobs` | submits a signing request: 202 created, 200 known, 409 the key stands for something else |
//! | `GET /v1/jobs?state=&after=&limit=` | the tenant's jobs, newest first |
//! | `GET /v1/jobs/{id}` | one job |
//! | `POST /v1/jobs/{id}/cancel`, `DELETE /v1/jobs/{id}` | cancels it, unless it is running or settled; with a signed revocation, at the parties as well |
//! | `GET /v1/jobs/{id}/events?progress=` | server-sent events until it is settled |
//! | `GET /v1/jobs/{id}/request`, `POST /v1/jobs/{id}/approvals` | the request as it was signed; an approval of it, for the parties |
//! | `GET /v1/dead-letters?code=&wallet=&ended_after_ms=&ended_before_ms=&after=&limit=`, `GET /v1/dead-letters/{id}` | the tenant's jobs that were given up, newest first |
//! | `POST /v1/dead-letters/{id}/redrive` | puts one back into the queue |
//! | `POST /v1/batches` | submits many requests at once; each has a verdict of its own |
//! | `GET /v1/batches/{id}` | how far its jobs are |
//! | `GET /v1/batches/{id}/events?after=` | server-sent events: how its jobs ended, from a cursor on |
//! | `GET /v1/results?after=&limit=` | how the tenant's jobs ended, in order, from a cursor on |
//! | `GET /v1/results/events?after=` | the same as server-sent events, and on |
//! | `GET /v1/wallets`, `GET /v1/wallets/{id}` | the tenant's wallets |
//! | `GET /v1/wallets/{id}/addresses?path=`, `…?from=&limit=` | one account of a wallet; a page of its accounts `m/0/i` |
//! | `GET /v1/wallets/{id}/xpub?path=` | a wallet's extended public key |
//! | `POST /v1/webhooks`, `GET /v1/webhooks` | adds an endpoint for results; the tenant's endpoints |
//! | `GET /v1/webhooks/{id}`, `DELETE /v1/webhooks/{id}` | one endpoint; removes it |
//! | `POST /v1/webhooks/{id}/enable`, `…/test`, `…/replay` | delivers again after failures; a test; results once more |
//! | `GET /v1/webhooks/{id}/deliveries?limit=` | its latest deliveries, newest first |
//! | `GET /v1/openapi.json` | all of this as an OpenAPI 3.1 document |
//! | `GET /healthz`, `GET /readyz` | whether the process lives; whether it can take jobs |
//!
//! Everything under `/v1` but its description needs `Authorization: Bearer <token>`. Refusals are
//! problem+json with a stable `code`. Each answer carries an `x-request-id`.

mod accounts;
mod approvals;
mod batches;
mod dead_letters;
mod error;
mod events;
mod health;
mod jobs;
mod openapi;
mod results;
mod stream;
mod wallets;
mod webhooks;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    error_handling::HandleErrorLayer,
    extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, MatchedPath, Query, Request, State},
    handler::Handler,
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::{self, Next},
    response::Response,
    routing::{self, MethodRouter},
};
use duet_bus::trace;
use duet_wire::{
    audit::Refused,
    batch::MAX_BATCH_SIZE_BYTES,
    error::{Code, Refusal},
    ids::TenantId,
};
use serde::Deserialize;
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed, timeout};
use tower_http::trace::TraceLayer;
use tracing::Span;

pub(crate) use error::ApiError;

use crate::orchestrator::Orchestrator;

/// The header that carries a request's id, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The metrics label for paths that no route matches.
const UNMATCHED: &str = "unmatched";

/// The longest request id that is accepted from a caller.
const MAX_REQUEST_ID_SIZE_BYTES: usize = 64;

/// How many batches are handled at once; one more is refused. Each may hold a few times its size in
/// memory, and its requests are accepted in parallel.
const MAX_CONCURRENT_BATCHES: usize = 8;

/// The handler of one method of one path.
struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the interface's description is compared with it"))]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Arc<Orchestrator>>,
}

impl Route {
    fn get<H: Handler<T, Arc<Orchestrator>>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "get", path, handler: routing::get(handler) }
    }

    fn post<H: Handler<T, Arc<Orchestrator>>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "post", path, handler: routing::post(handler) }
    }

    fn delete<H: Handler<T, Arc<Orchestrator>>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "delete", path, handler: routing::delete(handler) }
    }
}

fn versioned_routes() -> Vec<Route> {
    vec![
        Route::get("/v1/openapi.json", openapi::show),
        Route::post("/v1/jobs", jobs::submit),
        Route::get("/v1/jobs", jobs::list),
        Route::get("/v1/jobs/{id}", jobs::show),
        Route::delete("/v1/jobs/{id}", jobs::cancel),
        Route::post("/v1/jobs/{id}/cancel", jobs::cancel),
        Route::get("/v1/jobs/{id}/events", events::follow),
        Route::get("/v1/jobs/{id}/request", approvals::request),
        Route::post("/v1/jobs/{id}/approvals", approvals::approve),
        Route::get("/v1/dead-letters", dead_letters::list),
        Route::get("/v1/dead-letters/{id}", dead_letters::show),
        Route::post("/v1/dead-letters/{id}/redrive", dead_letters::redrive),
        Route::get("/v1/batches/{id}", batches::show_one),
        Route::get("/v1/batches/{id}/events", batches::follow),
        Route::get("/v1/results", results::page),
        Route::get("/v1/results/events", results::follow),
        Route::get("/v1/wallets", wallets::list),
        Route::get("/v1/wallets/{id}", wallets::show),
        Route::get("/v1/wallets/{id}/addresses", accounts::addresses),
        Route::get("/v1/wallets/{id}/xpub", accounts::xpub),
        Route::post("/v1/webhooks", webhooks::add),
        Route::get("/v1/webhooks", webhooks::list),
        Route::get("/v1/webhooks/{id}", webhooks::show),
        Route::delete("/v1/webhooks/{id}", webhooks::remove),
        Route::post("/v1/webhooks/{id}/enable", webhooks::enable),
        Route::post("/v1/webhooks/{id}/test", webhooks::test),
        Route::post("/v1/webhooks/{id}/replay", webhooks::replay),
        Route::get("/v1/webhooks/{id}/deliveries", webhooks::deliveries),
    ]
}

fn bulky_routes() -> Vec<Route> {
    vec![Route::post("/v1/batches", batches::submit)]
}

fn process_routes() -> Vec<Route> {
    vec![Route::get("/healthz", health::alive), Route::get("/readyz", health::ready)]
}

/// All routes, for comparison with the interface's description.
#[cfg(test)]
fn all_routes() -> Vec<Route> {
    [versioned_routes(), bulky_routes(), process_routes()].into_iter().flatten().collect()
}

fn router_of(routes: Vec<Route>) -> Router<Arc<Orchestrator>> {
    // The router merges the methods of one path.
    routes.into_iter().fold(Router::new(), |router, Route { path, handler, .. }| router.route(path, handler))
}

/// The interface of `orchestrator`, with all limits in place.
pub fn router(orchestrator: Arc<Orchestrator>) -> Router {
    let settings = orchestrator.http_settings().clone();
    let limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refuse_overload))
        .load_shed()
        // One limit for all routes together; the plain layer would give each route its own.
        .layer(GlobalConcurrencyLimitLayer::new(settings.max_concurrent_requests))
        .timeout(settings.request_timeout);
    let versioned =
        router_of(versioned_routes()).layer(DefaultBodyLimit::max(settings.max_body_bytes)).layer(limits);
    // Batches are by far the largest requests, so fewer run at once.
    let batch_limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refuse_overload))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(MAX_CONCURRENT_BATCHES))
        // A full batch needs hundreds of durable writes.
        .timeout(settings.request_timeout.saturating_mul(3));
    let bulky =
        router_of(bulky_routes()).layer(DefaultBodyLimit::max(MAX_BATCH_SIZE_BYTES)).layer(batch_limits);
    router_of(process_routes())
        .merge(versioned)
        .merge(bulky)
        .fallback(|| async { ApiError::not_found("path") })
        // The router adds `Allow`.
        .method_not_allowed_fallback(|method: Method| async move {
            ApiError::new(Code::MethodNotAllowed, format!("this path does not answer {method}; see Allow"))
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&orchestrator), count))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(middleware::from_fn(name_request))
        .with_state(orchestrator)
}

/// Why the limits stopped a request.
async fn refuse_overload(error: BoxError) -> ApiError {
    if error.is::<timeout::error::Elapsed>() {
        ApiError::new(Code::Deadline, "the answer took too long; the same request may be sent again")
    } else if error.is::<load_shed::error::Overloaded>() {
        ApiError::new(Code::Overloaded, "too many requests at once; try again shortly")
    } else {
        tracing::error!(%error, "a request failed before it was handled");
        ApiError::new(Code::Internal, "the request could not be handled")
    }
}

/// Gives the request an id and returns it with the answer. Uses the caller's id if that is a short
/// token.
async fn name_request(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).filter(|id| {
        (1..=MAX_REQUEST_ID_SIZE_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    });
    let id = match given {
        Some(id) => Some(id.clone()),
        None => HeaderValue::try_from(ulid::Ulid::new().to_string()).ok(),
    };
    if let Some(id) = &id {
        request.headers_mut().insert(REQUEST_ID, id.clone());
    } else {
        request.headers_mut().remove(&REQUEST_ID);
    }
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Counts answers by the matched route's pattern; paths themselves contain job ids.
async fn count(State(orchestrator): State<Arc<Orchestrator>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let code = response.extensions().get::<Code>().copied();
    let status = response.status().as_u16();
    orchestrator.metrics.http_answered(method, route, status, code, began.elapsed());
    response
}

/// The span of one request. It has the route and the request's id, but no header that could be
/// secret.
fn span(request: &Request) -> Span {
    let path = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str);
    let id = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let span = tracing::info_span!("http", method = %request.method(), path, request = id);
    let traceparent = request.headers().get(trace::TRACEPARENT);
    trace::follow(&span, traceparent.and_then(|value| value.to_str().ok()));
    span
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageParameters {
    after: Option<String>,
    limit: Option<usize>,
}

impl<S: Send + Sync> FromRequestParts<S> for PageParameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(page)| page).map_err(|_| bad_query("after and limit"))
    }
}

/// The refusal of a query with unknown or wrong parameters.
fn bad_query(takes: &str) -> ApiError {
    ApiError::new(Code::MalformedJson, format!("the query takes {takes}"))
}

/// The tenant whose token the request carries.
pub(crate) struct Caller(pub(crate) TenantId);

impl FromRequestParts<Arc<Orchestrator>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        orchestrator: &Arc<Orchestrator>,
    ) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(no_token("there is no header Authorization"));
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = token else {
            return Err(no_token("the header Authorization has no token of the scheme Bearer"));
        };
        let Some(tenant) = orchestrator.tokens().tenant_of(token) else {
            return Err(unknown_token(orchestrator, source(parts)));
        };
        orchestrator.tenants.request(tenant).map_err(|wait| {
            ApiError::new(Code::RateLimited, "the tenant makes too many requests; slow down")
                .retry_after(wait)
        })?;
        Ok(Self(tenant.clone()))
    }
}

/// The caller's address. Without a connection, as in tests of the routes alone, all callers share
/// one.
fn source(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
}

/// The answer to a request without a token.
fn no_token(what: &str) -> ApiError {
    let expected = "send Authorization: Bearer TOKEN with one of the tenant's tokens";
    ApiError::new(Code::Unauthorized, format!("{what}: {expected}"))
}

/// The answer to an unknown token. It is always the same, until one address sends too many.
fn unknown_token(orchestrator: &Orchestrator, from: IpAddr) -> ApiError {
    let refusal = Refusal::new(
        Code::Unauthorized,
        "the token in Authorization is not known here: expected a tenant's token as its operator gave it out, all of \
         one line and nothing else",
    );
    orchestrator.note_refused(Refused::new("token", refusal.clone()));
    match orchestrator.tenants.wrong_token(from) {
        Ok(()) => refusal.into(),
        Err(wait) => ApiError::new(Code::RateLimited, "too many wrong tokens from this address; slow down")
            .retry_after(wait),
    }
}

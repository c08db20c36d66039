//! The gateway's HTTP side: the start of a socket, the information for pages, and its health.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Request, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use duet_protocol::ids::{PartyId, TenantId};
use duet_wire::{
    Code, Problem,
    gateway::{DEVICE_PATH, GATEWAY_PROTOCOL},
};
use serde::Serialize;
use tower_http::{
    cors::{AllowOrigin, CorsLayer},
    set_header::SetResponseHeaderLayer,
};

use crate::{
    Backend, Origin, Rpc,
    addresses::Connection,
    gateway::Gateway,
    metrics::TurnedAway,
    page,
    socket::{self, MAX_MESSAGE_SIZE_BYTES},
};

/// The information for pages. All of it is public, except for a demonstration's tokens.
#[derive(Debug, Serialize)]
struct Info<'a> {
    /// The build of the page that this gateway serves. Empty when it serves none.
    build: String,
    protocol: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a TenantId>,
    backends: &'a [Backend],
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc: Option<&'a Rpc>,
    /// Whether a page that pins no parties may deal shares to these.
    trial: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    admission: &'a BTreeMap<PartyId, String>,
}

/// All routes of a gateway.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let judge = Arc::clone(&gateway);
    let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, _: &Parts| {
        origin.to_str().is_ok_and(|origin| judge.allows(origin))
    });
    let cors = CorsLayer::new().allow_methods([Method::GET]).allow_origin(allowed);
    let nosniff = SetResponseHeaderLayer::overriding(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let fresh =
        SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A page that embeds the gateway's answers needs permission by CORS. It must not pass merely
    // because nothing stops it.
    let own = SetResponseHeaderLayer::if_not_present(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    let mut router = Router::new()
        .route("/v1/info", get(info).layer(cors))
        .route(DEVICE_PATH, get(device))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/readyz", get(ready));
    if let Some(folder) = &gateway.page {
        router = router.merge(page::routes(folder.clone(), &gateway.connections()));
    } else {
        router = router.fallback(|| async { problem(Code::NotFound, "there is nothing at this path") });
    }
    router
        .layer(middleware::map_response(explain_method))
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), known_host))
        .layer(fresh)
        .layer(nosniff)
        .layer(own)
        .with_state(gateway)
}

/// A refusal, as an RFC 9457 document.
fn problem(code: Code, detail: &str) -> Response {
    let problem = Problem::new(code, detail);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    (status, [content_type], Json(problem)).into_response()
}

/// Gives a refused method the body that all refusals have, whichever layer refused it. `Allow`
/// stays.
async fn explain_method(mut response: Response) -> Response {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem(Code::MethodNotAllowed, "this path does not answer that method; see Allow");
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    response
}

/// Why pages of `origin` are refused, if they are. The text names the origin and what its operator
/// can do. A caller that sends no origin is not a page in a browser.
fn refused_origin(gateway: &Gateway, origin: Option<&HeaderValue>) -> Option<String> {
    let text = origin?.to_str().unwrap_or_default();
    if gateway.allows(text) {
        return None;
    }
    tracing::info!(origin = text, "a page of another origin is refused");
    gateway.metrics.turned_away(TurnedAway::Origin);
    Some(match text.parse::<Origin>() {
        Ok(origin) => format!(
            "this gateway does not allow pages of the origin {origin}; its operator can, with --origin {origin}"
        ),
        Err(_) => "this gateway does not allow pages whose origin is none of the web's".to_owned(),
    })
}

/// The refusal when the address already uses as much of the gateway as it may.
pub(crate) fn no_room() -> Response {
    problem(Code::Overloaded, "this address has too many connections, or opens them too often")
}

/// On the loopback, refuses requests under a foreign name (DNS rebinding). If the owner of a name
/// points it here, a page of that name would be same-origin with this gateway.
async fn known_host(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    if !gateway.is_loopback || host(&request).is_some_and(|host| gateway.answers_to(host)) {
        return next.run(request).await;
    }
    gateway.metrics.turned_away(TurnedAway::Host);
    problem(Code::Unauthorized, "this gateway does not serve the host that the request names")
}

fn host(request: &Request) -> Option<&str> {
    match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => request.uri().authority().map(axum::http::uri::Authority::as_str),
    }
}

async fn info(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    if let Some(why) = refused_origin(&gateway, headers.get(header::ORIGIN)) {
        let mut response = problem(Code::Unauthorized, &why);
        // The refused page may read the reason, because a browser shows it nothing about a refused
        // socket.
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return response;
    }
    Json(Info {
        build: gateway.build().await,
        protocol: GATEWAY_PROTOCOL,
        tenant: gateway.tenant.as_ref(),
        backends: &gateway.forwarder.backends,
        rpc: gateway.rpc.as_ref(),
        trial: gateway.trial,
        admission: &gateway.admission,
    })
    .into_response()
}

/// Whether the gateway can serve devices.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.stop.is_cancelled() {
        problem(Code::Overloaded, "the gateway stops")
    } else if !gateway.forwarder.bus.is_connected() {
        problem(Code::BrokerUnreachable, "the broker cannot be reached")
    } else if let Err(differs) = gateway.broker_clock.require_right_machine() {
        problem(differs.code, &differs.message)
    } else {
        StatusCode::OK.into_response()
    }
}

/// Starts a device's socket.
async fn device(
    State(gateway): State<Arc<Gateway>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    // Browsers let any page open a socket anywhere, and state the page's origin.
    let Some(origin) = headers.get(header::ORIGIN) else {
        gateway.metrics.turned_away(TurnedAway::Origin);
        return problem(
            Code::Unauthorized,
            "only pages may open a socket, and the request has no Origin header",
        );
    };
    if let Some(why) = refused_origin(&gateway, Some(origin)) {
        return problem(Code::Unauthorized, &why);
    }
    let Ok(upgrade) = upgrade else {
        return problem(Code::MalformedMessage, "this path is for WebSockets: ask for an upgrade to one");
    };
    if gateway.stop.is_cancelled() {
        gateway.metrics.turned_away(TurnedAway::Stopping);
        return problem(Code::Overloaded, "the gateway stops");
    }
    upgrade
        .max_message_size(MAX_MESSAGE_SIZE_BYTES)
        .max_frame_size(MAX_MESSAGE_SIZE_BYTES)
        // Write each frame at once.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_SIZE_BYTES)
        .on_upgrade(move |socket| {
            let sockets = gateway.sockets.clone();
            sockets.track_future(socket::run(gateway, socket, connection))
        })
}

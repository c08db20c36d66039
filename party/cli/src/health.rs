//! Whether a party's worker lives and can take work, for whoever supervises it. Orchestrators and gateways say the same in
//! their own interfaces.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use duet_bus::Bus;
use duet_party::store::{Readiness, ShareStore};
use duet_wire::{Code, Problem};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::error::{CliError, ErrorCode};

/// What a worker's health is told from.
pub(crate) struct Vitals {
    /// Its share store.
    pub(crate) store: Arc<dyn ShareStore>,
    /// Its connection.
    pub(crate) bus: Bus,
    /// That it takes no more work.
    pub(crate) draining: CancellationToken,
}

impl Vitals {
    /// Why it cannot take work, if it cannot.
    fn ailment(&self) -> Option<Problem> {
        if self.draining.is_cancelled() {
            return Some(Problem::new(Code::Overloaded, "the worker is draining"));
        }
        if !self.bus.is_connected() {
            return Some(Problem::new(Code::BrokerUnreachable, "there is no connection to the broker"));
        }
        match self.store.readiness() {
            Readiness::Ready => None,
            Readiness::Unready(_) => {
                Some(Problem::new(Code::StorageUnavailable, "the share store cannot be written"))
            }
        }
    }

    fn ready(&self) -> Response {
        match self.ailment() {
            None => Json(json!({"status": "ready"})).into_response(),
            Some(problem) => {
                let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
                (status, [kind], Json(problem)).into_response()
            }
        }
    }
}

/// Listens for questions about a worker's health; [`serve`] answers them.
///
/// # Errors
/// When the address is taken or none of this machine's.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        CliError::new(ErrorCode::Usage, format!("the health interface cannot listen on {address}: {error}"))
            .remedy("Choose another address with --health; port 0 picks a free one.")
    })
}

/// Answers `GET /healthz` and `GET /readyz` until the handle is dropped. Both are cheap and say nothing secret.
pub(crate) fn serve(listener: TcpListener, vitals: Vitals) -> AbortOnDropHandle<()> {
    let vitals = Arc::new(vitals);
    let router = Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "alive"})) }))
        .route("/readyz", get(move || async move { vitals.ready() }));
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the health interface ended");
        }
    }))
}

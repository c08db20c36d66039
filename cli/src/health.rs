//! Tells a supervisor whether a party's worker is alive and can accept work. Orchestrators and
//! gateways answer these questions on their own interfaces.

use std::sync::Arc;

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use duet_bus::{BrokerClock, Bus};
use duet_party::store::{Readiness, ShareStore};
use duet_wire::{Code, Problem};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The state from which a worker's health is derived.
pub(crate) struct Vitals {
    /// Its share store.
    pub(crate) store: Arc<dyn ShareStore>,
    /// Its connection to the broker.
    pub(crate) bus: Bus,
    /// The broker's time.
    pub(crate) clock: BrokerClock,
    /// Cancelled when it accepts no more work.
    pub(crate) draining: CancellationToken,
}

impl Vitals {
    /// Why the worker is not as it should be, if it is not. One whose machine's clock is wrong
    /// accepts work all the same: each session allows for a difference of 30 s.
    fn ailment(&self) -> Option<Problem> {
        if self.draining.is_cancelled() {
            return Some(Problem::new(Code::Overloaded, "the worker is draining"));
        }
        if !self.bus.is_connected() {
            return Some(Problem::new(Code::BrokerUnreachable, "there is no connection to the broker"));
        }
        if let Readiness::Unready(_) = self.store.readiness() {
            return Some(Problem::new(Code::StorageUnavailable, "the share store cannot be written"));
        }
        let differs = self.clock.require_right_machine().err()?;
        Some(Problem::new(differs.code, differs.message))
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

/// `GET /readyz`. The answer is cheap and contains nothing secret.
pub(crate) fn routes(vitals: Vitals) -> Router {
    let vitals = Arc::new(vitals);
    Router::new().route("/readyz", get(move || async move { vitals.ready() }))
}

//! Receivers of webhooks: programs of the tenant that take every result. A fault makes one refuse
//! for a while. Then it comes back, and has to get everything that it missed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use duet_harness::{duet::text, http::Api};
use duet_wire::webhook::{self, Headers, Secret, TOLERANCE_SECONDS};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::OnceCell,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{pauses::PAUSE, time::now_ms};
use crate::{
    history::Delivery,
    network::{Condition, Link, Passage},
};

/// How a receiver refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusing {
    /// It answers 500.
    Error,
    /// It takes connections and does not answer.
    Hanging,
    /// It closes every connection.
    Resetting,
}

impl Refusing {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Error, Self::Hanging, Self::Resetting];
}

/// A receiver. Dropping it ends it.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    /// Deliveries come through it.
    link: Link,
    _serving: AbortOnDropHandle<()>,
}

struct Shared {
    name: String,
    errs: AtomicBool,
    secret: OnceCell<Secret>,
    taken: Mutex<Vec<Delivery>>,
}

impl Receiver {
    /// Starts a receiver called `name`. [`Self::subscribe`] has results delivered to it.
    ///
    /// # Errors
    /// When no port is free.
    pub(super) async fn start(name: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            errs: AtomicBool::new(false),
            secret: OnceCell::new(),
            taken: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let link = Link::new(format!("webhooks>{name}"), None).await?;
        link.lead_to(listener.local_addr()?.port());
        let routes = Router::new().route("/hook", post(take)).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
        Ok(Self { shared, link, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    /// Adds it to the tenant's webhooks.
    ///
    /// # Errors
    /// When the orchestrator refuses it.
    pub(super) async fn subscribe(&self, api: &Api) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/hook", self.link.port());
        let added = api.send("POST", "/v1/webhooks", Some(&json!({ "url": url }))).await?;
        ensure!((200..300).contains(&added.status), "no webhook: {added:?}");
        let secret = text(&added.body, "/secret")?.parse()?;
        self.shared.secret.set(secret).ok().context("it is subscribed already")
    }

    /// Makes it refuse, or take deliveries again.
    pub(super) fn set(&self, refusing: Option<Refusing>) {
        self.shared.errs.store(refusing == Some(Refusing::Error), Ordering::Relaxed);
        self.link.set(match refusing {
            Some(Refusing::Hanging) => Condition::not(Passage::Stalled),
            Some(Refusing::Resetting) => Condition::not(Passage::Cut),
            Some(Refusing::Error) | None => Condition::GOOD,
        });
    }

    /// The deliveries that it took.
    pub(super) fn taken(&self) -> Vec<Delivery> {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has taken a delivery for each of `jobs`, at the latest until `end`.
    pub(super) async fn has_all(&self, jobs: &BTreeSet<String>, end: Instant) {
        while Instant::now() < end {
            let taken: BTreeSet<String> = self.taken().into_iter().map(|one| one.job).collect();
            if taken.is_superset(jobs) {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

/// Takes a delivery as `docs/webhooks.md` tells receivers: one that the secret signed, and whose
/// time is within the tolerance.
async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if shared.errs.load(Ordering::Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = Headers {
        id: header(webhook::ID_HEADER),
        timestamp: header(webhook::TIMESTAMP_HEADER),
        signature: header(webhook::SIGNATURE_HEADER),
    };
    let Some(secret) = shared.secret.get() else { return StatusCode::SERVICE_UNAVAILABLE };
    if webhook::verify(secret, &said, &body, now_ms() / 1000, TOLERANCE_SECONDS).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(document) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    let delivery = Delivery { receiver: shared.name.clone(), job: said.id.to_owned(), body: document };
    shared.taken.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    StatusCode::NO_CONTENT
}

//! Server-sent events, sent by a task of their own: bounded, counted per tenant, and ended with the
//! process.

use core::{convert::Infallible, time::Duration};
use std::sync::Arc;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use duet_wire::{Code, TenantId};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::ApiError;
use crate::{feed::Unread, orchestrator::Orchestrator, tenants::StreamPermit};

/// How many events may wait for a slow reader. When the buffer is full, the stream waits.
pub(super) const BUFFER: usize = 16;

/// How long a client should wait before it connects again.
pub(super) const RECONNECT_AFTER: Duration = Duration::from_secs(2);

/// Makes nginx, and proxies that read its header, pass each event on at once.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Keeps caches from storing the stream and proxies from changing it. A proxy that compresses it
/// would delay events.
const UNCHANGED: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));

/// Events on their way to one reader.
pub(super) type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// A permit to hold one more event stream open.
pub(super) fn permit(orchestrator: &Orchestrator, tenant: &TenantId) -> Result<StreamPermit, ApiError> {
    orchestrator.tenants.stream(tenant).ok_or_else(|| {
        ApiError::new(Code::QueueFull, "too many event streams are open; try again later")
            .retry_after(RECONNECT_AFTER)
    })
}

/// The response that sends what arrives through `receiver`.
pub(super) fn answer(
    orchestrator: &Orchestrator,
    receiver: mpsc::Receiver<Result<Event, Infallible>>,
) -> Response {
    let keep_alive = KeepAlive::new().interval(orchestrator.http_settings().keep_alive);
    // A comment first gives the reader, and each proxy on the way, a byte before the first event.
    let opening = tokio_stream::once(Ok(Event::default().comment("open")));
    let events = opening.chain(ReceiverStream::new(receiver));
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    for (name, value) in [UNBUFFERED, UNCHANGED] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The stream is over: its reader has gone, or its source cannot be read.
pub(super) struct Over;

impl From<Unread> for Over {
    fn from(error: Unread) -> Self {
        // The reader connects again and goes on after the last event that it received.
        tracing::warn!(%error, "an event stream ends early");
        Self
    }
}

/// Sends events to one reader.
pub(super) struct Told(Sender);

impl Told {
    /// Sends one event, once there is room.
    pub(super) async fn send(&self, name: &str, id: &str, data: &impl Serialize) -> Result<(), Over> {
        let event = Event::default().event(name).id(id).retry(RECONNECT_AFTER).json_data(data);
        let event = event.map_err(|error| {
            tracing::error!(%error, "an event does not serialise");
            Over
        })?;
        self.0.send(Ok(event)).await.map_err(|_| Over)
    }
}

/// Opens an event stream that `tell` fills. It ends with `tell`, the reader, or the process.
pub(super) fn open<F>(
    orchestrator: &Arc<Orchestrator>,
    tenant: &TenantId,
    tell: impl FnOnce(Told) -> F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<(), Over>> + Send + 'static,
{
    let permit = permit(orchestrator, tenant)?;
    let (events, receiver) = mpsc::channel(BUFFER);
    let shutdown = orchestrator.shutdown.clone();
    let telling = tell(Told(events.clone()));
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = events.closed() => {}
            _ = telling => {}
        }
    });
    Ok(answer(orchestrator, receiver))
}

//! A message that arrived, and its reply.

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use tracing::Span;

use crate::{
    connect::Bus,
    request::{MAX_MESSAGE_SIZE_BYTES, PublishError},
    role::is_inbox,
    subjects::Address,
    trace::{self, TRACEPARENT},
};

/// A message that arrived.
#[derive(Debug)]
pub struct Incoming {
    /// The subject it arrived on.
    pub address: Address,
    /// Its bytes, at most [`MAX_MESSAGE_SIZE_BYTES`].
    pub payload: Bytes,
    reply: Option<async_nats::Subject>,
    headers: Option<HeaderMap>,
    bus: Bus,
}

impl Incoming {
    pub(crate) fn new(
        address: Address,
        payload: Bytes,
        reply: Option<async_nats::Subject>,
        headers: Option<HeaderMap>,
        bus: Bus,
    ) -> Self {
        let reply = reply.filter(|subject| {
            let fine = is_inbox(subject);
            if !fine {
                tracing::warn!(%address, reply = %subject, "a reply was asked for outside any inbox; ignored");
            }
            fine
        });
        Self { address, payload, reply, headers, bus }
    }

    /// Makes `span`, which no code has entered yet, a part of the sender's trace, if the message
    /// names one.
    pub fn continue_trace(&self, span: &Span) {
        let traceparent = self.headers.as_ref().and_then(|headers| headers.get(TRACEPARENT));
        trace::follow(span, traceparent.map(HeaderValue::as_str));
    }

    /// A header of the message.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name).map(HeaderValue::as_str)
    }

    /// Whether the sender waits for a reply at an inbox.
    #[must_use]
    pub const fn wants_reply(&self) -> bool {
        self.reply.is_some()
    }

    /// Replies. Does nothing when the sender named no inbox.
    ///
    /// # Security
    /// A reply goes to a role's private inbox or nowhere. The broker lets a requester name any
    /// subject, and this process may publish where the requester may not.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::Unreachable`].
    pub async fn respond(&self, payload: impl Into<Bytes>) -> Result<(), PublishError> {
        let Some(reply) = &self.reply else { return Ok(()) };
        let payload = payload.into();
        let size_bytes = payload.len();
        let subject = || self.address.to_string();
        if size_bytes > MAX_MESSAGE_SIZE_BYTES {
            return Err(PublishError::TooLarge { subject: subject(), size_bytes });
        }
        self.bus.client().publish(reply.clone(), payload).await.map_err(|error| match error.kind() {
            async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                PublishError::TooLarge { subject: subject(), size_bytes }
            }
            async_nats::client::PublishErrorKind::InvalidSubject
            | async_nats::client::PublishErrorKind::Send => PublishError::Unreachable,
        })
    }
}

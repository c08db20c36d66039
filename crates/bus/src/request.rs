//! Requests, replies and publications, each within a deadline.

use core::time::Duration;

use async_nats::{
    client::{PublishErrorKind, Request, RequestErrorKind},
    jetstream::{self, ErrorCode},
};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use duet_wire::{Code, Refusal};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    connect::Bus,
    event::{BusEvent, Denied},
    subjects::Address,
    trace,
};

/// The largest message, both ways: the broker's own limit in `nats.conf`.
pub const MAX_MESSAGE_SIZE_BYTES: usize = 1024 * 1024;

/// The first and the longest pause between attempts while no service listens; each doubles the
/// last.
const RESEND_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

fn resend_pauses() -> ExponentialBackoff {
    let (first, longest) = RESEND_PAUSES;
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times().build()
}

/// Why a request brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A service listens but did not answer in time.
    #[error("no reply on {subject} within the deadline")]
    TimedOut {
        /// Where it was sent.
        subject: String,
    },
    /// No service listens on the subject.
    #[error("no process listens on {subject}")]
    NoResponders {
        /// Where it was sent.
        subject: String,
    },
    /// This role may not publish there.
    #[error("the broker refuses to publish on {subject}")]
    PermissionDenied {
        /// Where it was sent.
        subject: String,
    },
    /// The message or its reply exceeds [`MAX_MESSAGE_SIZE_BYTES`] or the broker's own limit.
    #[error("a message of {size_bytes} bytes on {subject} is too large")]
    TooLarge {
        /// Where it was sent.
        subject: String,
        /// Its size.
        size_bytes: usize,
    },
    /// There was no connection at the end of the deadline, or it is closed for good.
    #[error("the broker cannot be reached")]
    Unreachable,
}

impl RequestError {
    /// The refusal to give a client that waits for `whom`'s answer.
    #[must_use]
    pub fn to_refusal(&self, whom: &str) -> Refusal {
        match self {
            Self::NoResponders { .. } => {
                Refusal::new(Code::NoPairAvailable, format!("no worker of {whom} is listening"))
            }
            Self::TimedOut { .. } => Refusal::new(Code::Deadline, format!("{whom} did not answer in time")),
            Self::Unreachable => Refusal::new(Code::BrokerUnreachable, self.to_string()),
            Self::PermissionDenied { .. } | Self::TooLarge { .. } => {
                Refusal::new(Code::Internal, self.to_string())
            }
        }
    }
}

/// Why a message was not published, or not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The stream is full. The caller may try again later.
    #[error("the stream behind {subject} is full")]
    Full {
        /// Where it was sent.
        subject: String,
    },
    /// No stream stores this subject.
    #[error("no stream stores {subject}")]
    NoStream {
        /// Where it was sent.
        subject: String,
    },
    /// The broker did not confirm in time. It may have stored the message.
    #[error("the broker did not confirm the message on {subject} in time")]
    TimedOut {
        /// Where it was sent.
        subject: String,
    },
    /// This role may not publish there.
    #[error("the broker refuses to publish on {subject}")]
    PermissionDenied {
        /// Where it was sent.
        subject: String,
    },
    /// The message is too large.
    #[error("a message of {size_bytes} bytes on {subject} is too large")]
    TooLarge {
        /// Where it was sent.
        subject: String,
        /// Its size.
        size_bytes: usize,
    },
    /// The stream refused the message for another reason.
    #[error("the stream behind {subject} refused the message: {reason}")]
    Refused {
        /// Where it was sent.
        subject: String,
        /// What the broker said.
        reason: String,
    },
    /// There is no connection.
    #[error("the broker cannot be reached")]
    Unreachable,
}

/// Where a stored message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the stream.
    pub sequence: u64,
    /// Whether the stream already had it, by its message id.
    pub duplicate: bool,
}

impl Bus {
    /// Sends `payload` to the current subscribers, without confirmation.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::Unreachable`]. A refusal by the broker arrives
    /// later, as [`BusEvent::PermissionDenied`].
    ///
    /// # Cancel safety
    /// Once polled, the message may have been sent.
    pub async fn publish(&self, address: &Address, payload: impl Into<Bytes>) -> Result<(), PublishError> {
        let subject = address.to_string();
        let payload = payload.into();
        let size_bytes = payload.len();
        let published = match trace::headers() {
            Some(headers) => self.client().publish_with_headers(subject.clone(), headers, payload).await,
            None => self.client().publish(subject.clone(), payload).await,
        };
        published.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge { subject, size_bytes },
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => PublishError::Unreachable,
        })
    }

    /// Sends `payload` once and returns the reply.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    /// Once polled, the message may have been sent. A reply to a dropped request is discarded.
    #[tracing::instrument(level = "debug", skip_all, fields(otel.kind = "client", subject = %address))]
    pub async fn request(
        &self,
        address: &Address,
        payload: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let mut events = self.events();
        let end = Instant::now() + deadline;
        self.request_once(&address.to_string(), payload.into(), &[], end, &mut events).await
    }

    /// Sends `payload`, and sends the same bytes again while no service listens, until `deadline`.
    ///
    /// Use it only for messages that may arrive twice. "No responders" proves only that this copy
    /// reached no service through its server; an earlier copy may have.
    ///
    /// # Errors
    /// See [`RequestError`]. [`RequestError::NoResponders`] comes only after the deadline. A
    /// request that a service received and did not answer is not sent again.
    ///
    /// # Cancel safety
    /// As [`Self::request`].
    pub async fn request_resending(
        &self,
        address: &Address,
        payload: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        self.request_resending_for(deadline, address, payload, deadline, &[]).await
    }

    /// As [`Self::request_resending`], but sends the bytes again for `patience` only, and with
    /// these headers.
    ///
    /// For callers that allow a long time for the answer, but want to hear soon that no service
    /// listens.
    ///
    /// # Errors
    /// As [`Self::request_resending`]; [`RequestError::NoResponders`] comes once `patience` is
    /// over.
    ///
    /// # Cancel safety
    /// As [`Self::request`].
    #[tracing::instrument(name = "request", level = "debug", skip_all, fields(otel.kind = "client", subject = %address))]
    pub async fn request_resending_for(
        &self,
        patience: Duration,
        address: &Address,
        payload: impl Into<Bytes>,
        deadline: Duration,
        headers: &[(&str, String)],
    ) -> Result<Bytes, RequestError> {
        let subject = address.to_string();
        let payload = payload.into();
        let start = Instant::now();
        let (last_resend, end) = (start + patience, start + deadline);
        let mut events = self.events();
        let mut pauses = resend_pauses();
        loop {
            let reply = self.request_once(&subject, payload.clone(), headers, end, &mut events).await;
            let pause = pauses.next().unwrap_or(RESEND_PAUSES.1);
            // Another attempt needs part of the remaining time for its own answer.
            let is_over = Instant::now() + 2 * pause >= last_resend;
            if !matches!(reply, Err(RequestError::NoResponders { .. })) || is_over {
                return reply;
            }
            sleep(pause).await;
        }
    }

    async fn request_once(
        &self,
        subject: &str,
        payload: Bytes,
        told: &[(&str, String)],
        end: Instant,
        events: &mut broadcast::Receiver<BusEvent>,
    ) -> Result<Bytes, RequestError> {
        let size_bytes = payload.len();
        let own = || subject.to_owned();
        // The client's own timeout is off: one deadline covers sending and waiting.
        let mut request = Request::new().payload(payload).timeout(None);
        let mut headers = trace::headers().unwrap_or_default();
        for (name, value) in told {
            headers.insert(*name, value.as_str());
        }
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let reply = tokio::select! {
            reply = timeout_at(end, self.client().send_request(own(), request)) => reply,
            () = publish_denied(events, subject) => {
                return Err(RequestError::PermissionDenied { subject: own() });
            }
        };
        match reply {
            Ok(Ok(message)) if message.payload.len() > MAX_MESSAGE_SIZE_BYTES => {
                Err(RequestError::TooLarge { subject: own(), size_bytes: message.payload.len() })
            }
            Ok(Ok(message)) => Ok(message.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => RequestError::NoResponders { subject: own() },
                RequestErrorKind::TimedOut => RequestError::TimedOut { subject: own() },
                RequestErrorKind::MaxPayloadExceeded => RequestError::TooLarge { subject: own(), size_bytes },
                RequestErrorKind::InvalidSubject | RequestErrorKind::Other => RequestError::Unreachable,
            }),
            Err(_) if self.is_connected() => Err(RequestError::TimedOut { subject: own() }),
            Err(_) => Err(RequestError::Unreachable),
        }
    }

    /// Publishes into the stream behind `address` and waits until the broker has stored it.
    ///
    /// While no stream listens, it sends the message again: a cluster looks so while a stream's
    /// nodes choose a leader. With a `message_id` the stream keeps one copy of a message that is
    /// published again within its duplicate window.
    ///
    /// # Errors
    /// See [`PublishError`]. [`PublishError::Full`] means overload; the caller should pass it on as
    /// such. [`PublishError::NoStream`] comes only after the deadline.
    ///
    /// # Cancel safety
    /// Once polled, the message may have been stored.
    pub async fn publish_stored(
        &self,
        address: &Address,
        payload: impl Into<Bytes>,
        message_id: Option<&str>,
        deadline: Duration,
    ) -> Result<Stored, PublishError> {
        let subject = address.to_string();
        let payload = payload.into();
        let size_bytes = payload.len();
        let mut events = self.events();
        let mut headers = trace::headers().unwrap_or_default();
        if let Some(id) = message_id {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        }
        let end = Instant::now() + deadline;
        let mut pauses = resend_pauses();
        let outcome = loop {
            let publication =
                self.jetstream().publish_with_headers(subject.clone(), headers.clone(), payload.clone());
            let stored = async { publication.await?.await };
            let outcome = tokio::select! {
                outcome = timeout_at(end, stored) => outcome,
                () = publish_denied(&mut events, &subject) => {
                    return Err(PublishError::PermissionDenied { subject });
                }
            };
            let pause = pauses.next().unwrap_or(RESEND_PAUSES.1);
            let is_without_stream = matches!(&outcome, Ok(Err(error)) if error.kind() == jetstream::context::PublishErrorKind::StreamNotFound);
            if !is_without_stream || Instant::now() + 2 * pause >= end {
                break outcome;
            }
            sleep(pause).await;
        };
        match outcome {
            Ok(Ok(ack)) => Ok(Stored { sequence: ack.sequence, duplicate: ack.duplicate }),
            Ok(Err(error)) => Err(stream_error(&error, subject, size_bytes)),
            Err(_) if self.is_connected() => Err(PublishError::TimedOut { subject }),
            Err(_) => Err(PublishError::Unreachable),
        }
    }
}

/// Resolves when the broker refuses a publication on `subject`; otherwise never.
pub(crate) async fn publish_denied(events: &mut broadcast::Receiver<BusEvent>, subject: &str) {
    loop {
        match events.recv().await {
            Ok(BusEvent::PermissionDenied(Denied::Publish(refused))) if refused == subject => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => core::future::pending().await,
        }
    }
}

fn stream_error(
    error: &jetstream::context::PublishError,
    subject: String,
    size_bytes: usize,
) -> PublishError {
    use jetstream::context::PublishErrorKind;
    match error.kind() {
        PublishErrorKind::StreamNotFound => PublishError::NoStream { subject },
        PublishErrorKind::TimedOut | PublishErrorKind::MaxAckPending => PublishError::TimedOut { subject },
        PublishErrorKind::BrokenPipe => PublishError::Unreachable,
        PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge { subject, size_bytes },
        PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::Other => {
            match std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<jetstream::Error>())
            {
                Some(cause) if is_full(cause) => PublishError::Full { subject },
                Some(cause) if cause.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
                    PublishError::TooLarge { subject, size_bytes }
                }
                _ => PublishError::Refused { subject, reason: error.to_string() },
            }
        }
    }
}

/// Whether the stream or its storage has no room left. For a stream at its `max_bytes` or
/// `max_messages` the broker answers with the general code for failed stores; only the text tells.
pub(crate) fn is_full(error: &jetstream::Error) -> bool {
    match error.error_code() {
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => true,
        ErrorCode::STREAM_STORE_FAILED => error.to_string().contains("maximum"),
        _ => false,
    }
}

/// Whether another attempt may soon succeed: the cluster has no leader at the moment, or too few
/// nodes.
pub(crate) fn is_passing(error: &jetstream::Error) -> bool {
    error.code() == 503
        || matches!(error.error_code(), ErrorCode::CLUSTER_NO_PEERS | ErrorCode::CLUSTER_NOT_LEADER)
}

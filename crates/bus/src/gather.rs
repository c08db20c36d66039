//! Questions that several processes answer.

use core::time::Duration;
use std::time::{self, SystemTime, UNIX_EPOCH};

use async_nats::{StatusCode, client::PublishErrorKind};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    connect::Bus,
    request::{RequestError, publish_denied},
};

/// The most answers to one question, and more than a broker has nodes.
const MAX_ANSWERS: usize = 64;

/// An answer and the moments around it, by this machine's clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was answered.
    pub value: T,
    /// When the question was sent, in milliseconds since 1970.
    pub sent_ms: u64,
    /// When the answer arrived, in milliseconds since 1970.
    pub received_ms: u64,
    /// When the question was sent, by the steady clock.
    pub sent_at: time::Instant,
    /// When the answer arrived, by the same clock.
    pub received_at: time::Instant,
}

impl<T, E> Answer<Result<T, E>> {
    /// The answer, if it was understood.
    ///
    /// # Errors
    /// The reason why it was not.
    pub fn understood(self) -> Result<Answer<T>, E> {
        let Self { value, sent_ms, received_ms, sent_at, received_at } = self;
        Ok(Answer { value: value?, sent_ms, received_ms, sent_at, received_at })
    }
}

impl<T> Answer<T> {
    /// What `read` makes of the answer, with the same moments.
    pub fn map<U>(&self, read: impl FnOnce(&T) -> U) -> Answer<U> {
        let Self { ref value, sent_ms, received_ms, sent_at, received_at } = *self;
        Answer { value: read(value), sent_ms, received_ms, sent_at, received_at }
    }
}

impl Bus {
    /// Asks `question` on `subject`, and gathers the answers as `read` understands them.
    ///
    /// Waits `first` for an answer, and after that `rest` for more. Ends earlier once `enough` is
    /// true of the answers so far, or there are 64 of them. Returns at least one answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    /// Once polled, the question may have been sent. Answers to a dropped question are discarded.
    pub(crate) async fn gather<T>(
        &self,
        subject: &str,
        question: Bytes,
        (first, rest): (Duration, Duration),
        read: impl Fn(&[u8]) -> T,
        enough: impl Fn(&[Answer<T>]) -> bool,
    ) -> Result<Vec<Answer<T>>, RequestError> {
        if !self.is_connected() {
            return Err(RequestError::Unreachable);
        }
        let subject = subject.to_owned();
        let mut events = self.events();
        let mut end = Instant::now() + first;
        let inbox = self.client().new_inbox();
        // On one connection, the server registers the subscription before it reads the question.
        let mut subscriber =
            self.client().subscribe(inbox.clone()).await.map_err(|_| RequestError::Unreachable)?;
        let (size_bytes, sent_ms, sent_at) = (question.len(), now_ms(), time::Instant::now());
        self.client().publish_with_reply(subject.clone(), inbox, question).await.map_err(
            |error| match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => {
                    RequestError::TooLarge { subject: subject.clone(), size_bytes }
                }
                PublishErrorKind::InvalidSubject | PublishErrorKind::Send => RequestError::Unreachable,
            },
        )?;
        let mut answers = Vec::new();
        loop {
            let next = tokio::select! {
                next = timeout_at(end, subscriber.next()) => next,
                () = publish_denied(&mut events, &subject) => {
                    return Err(RequestError::PermissionDenied { subject });
                }
            };
            match next {
                Ok(Some(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                    return Err(RequestError::NoResponders { subject });
                }
                Ok(Some(message)) => {
                    if answers.is_empty() {
                        end = Instant::now() + rest;
                    }
                    let (received_ms, received_at) = (now_ms(), time::Instant::now());
                    let value = read(&message.payload);
                    answers.push(Answer { value, sent_ms, received_ms, sent_at, received_at });
                    if answers.len() == MAX_ANSWERS || enough(&answers) {
                        return Ok(answers);
                    }
                }
                Err(_) if !answers.is_empty() => return Ok(answers),
                Err(_) if self.is_connected() => return Err(RequestError::TimedOut { subject }),
                Ok(None) | Err(_) => return Err(RequestError::Unreachable),
            }
        }
    }
}

/// What this machine's own clock shows, in milliseconds since 1970; 0 if it is set before 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

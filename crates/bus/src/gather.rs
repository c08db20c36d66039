//! Questions that several processes answer.

use core::time::Duration;

use async_nats::{StatusCode, client::PublishErrorKind};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    connect::Bus,
    request::{RequestError, publish_denied},
    subjects::Address,
};

/// The most answers to one question, and more than a broker has nodes.
const MAX_ANSWERS: usize = 64;

impl Bus {
    /// Asks an empty question on `address` and gathers the answers.
    ///
    /// Waits `first` for an answer, and after that `rest` for more. Ends earlier once `enough` is
    /// true of the answers so far, or there are 64 of them. Returns at least one answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    /// Once polled, the question may have been sent. Answers to a dropped question are discarded.
    pub async fn gather(
        &self,
        address: &Address,
        first: Duration,
        rest: Duration,
        mut enough: impl FnMut(&[Bytes]) -> bool,
    ) -> Result<Vec<Bytes>, RequestError> {
        if !self.is_connected() {
            return Err(RequestError::Unreachable);
        }
        let subject = address.to_string();
        let mut events = self.events();
        let mut end = Instant::now() + first;
        let inbox = self.client().new_inbox();
        // On one connection, the server registers the subscription before it reads the question.
        let mut subscriber =
            self.client().subscribe(inbox.clone()).await.map_err(|_| RequestError::Unreachable)?;
        self.client().publish_with_reply(subject.clone(), inbox, Bytes::new()).await.map_err(|error| {
            match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => {
                    RequestError::TooLarge { subject: subject.clone(), size_bytes: 0 }
                }
                PublishErrorKind::InvalidSubject | PublishErrorKind::Send => RequestError::Unreachable,
            }
        })?;
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
                    answers.push(message.payload);
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

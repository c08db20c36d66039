//! One attempt at one delivery.

use core::time::Duration;
use std::{error::Error as _, io, time::UNIX_EPOCH};

use bytes::Bytes;
use duet_wire::{
    Refusal,
    signing::SigningKey,
    webhook::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
};
use reqwest::{StatusCode, header};
use tokio::time::Instant;

use super::{
    WebhookSettings, address,
    endpoint::Endpoint,
    log::{Delivery, DeliveryOutcome},
};
use crate::{
    clock::{Clock, whole_millis},
    retry_after,
};

/// The longest error text that is kept of an attempt, in bytes.
const MAX_ERROR_SIZE_BYTES: usize = 200;

/// Delivers to endpoints.
pub(crate) struct Deliverer {
    http: reqwest::Client,
    settings: WebhookSettings,
    key: SigningKey,
    /// The previous or next result key, while the operator exchanges it.
    other_key: Option<SigningKey>,
    clock: Clock,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) at_ms: u64,
    pub(super) took_ms: u64,
    pub(super) status: Option<u16>,
    /// Why the delivery failed; `None` when it succeeded.
    pub(super) error: Option<String>,
    /// How long the endpoint asks the orchestrator to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether the endpoint says that it is gone for good.
    pub(super) is_gone: bool,
}

impl Attempt {
    /// The attempt as a log entry. `next_ms` is when it is tried again, in milliseconds since 1970.
    pub(super) fn into_delivery(self, message: &str, attempt: u32, next_ms: Option<u64>) -> Delivery {
        let outcome = match (&self.error, next_ms) {
            (None, _) => DeliveryOutcome::Delivered,
            (Some(_), Some(_)) => DeliveryOutcome::Retrying,
            (Some(_), None) => DeliveryOutcome::GivenUp,
        };
        Delivery {
            message: message.to_owned(),
            attempt,
            at_ms: self.at_ms,
            took_ms: self.took_ms,
            outcome,
            status: self.status,
            error: self.error,
            next_attempt_at_ms: next_ms,
        }
    }
}

impl Deliverer {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(
        settings: WebhookSettings,
        key: SigningKey,
        other_key: Option<SigningKey>,
        clock: Clock,
    ) -> io::Result<Self> {
        Ok(Self { http: address::client(&settings)?, settings, key, other_key, clock })
    }

    pub(crate) const fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    pub(super) const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The value of the signature header: one signature for each secret that the endpoint may know,
    /// as Standard Webhooks prescribes during a rotation.
    fn signatures(
        &self,
        endpoint: &Endpoint,
        id: &str,
        timestamp: u64,
        body: &[u8],
    ) -> Result<String, Refusal> {
        let mut signatures = endpoint.secret(&self.key)?.sign(id, timestamp, body);
        if let Some(other) = &self.other_key {
            signatures.push(' ');
            signatures.push_str(&endpoint.secret(other)?.sign(id, timestamp, body));
        }
        Ok(signatures)
    }

    /// Posts `body` as the message `id`, and waits at most `timeout` for the answer.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub(super) async fn attempt(
        &self,
        endpoint: &Endpoint,
        id: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Attempt, Refusal> {
        let (at_ms, started) = (self.clock.now_ms(), Instant::now());
        let timestamp = at_ms / 1000;
        let signatures = self.signatures(endpoint, id, timestamp, &body)?;
        let mut attempt =
            Attempt { at_ms, took_ms: 0, status: None, error: None, retry_after: None, is_gone: false };
        // The operator's rules may have changed since the endpoint was added.
        match address::endpoint_url(&endpoint.url, self.settings.allow_private) {
            Err(problem) => attempt.error = Some(problem.detail),
            Ok(url) => {
                let request = self
                    .http
                    .post(url)
                    .timeout(timeout)
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(ID_HEADER, id)
                    .header(TIMESTAMP_HEADER, timestamp)
                    .header(SIGNATURE_HEADER, signatures)
                    .body(body);
                match request.send().await {
                    Ok(answer) => attempt.answered(&answer, self.clock.now_ms()),
                    Err(error) => attempt.error = Some(reason(&error)),
                }
            }
        }
        attempt.took_ms = whole_millis(started.elapsed());
        Ok(attempt)
    }
}

impl Attempt {
    fn answered(&mut self, answer: &reqwest::Response, now_ms: u64) {
        let status = answer.status();
        self.status = Some(status.as_u16());
        if status.is_success() {
            return;
        }
        self.error = Some(format!("the endpoint answered {status}"));
        self.is_gone = status == StatusCode::GONE;
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            self.retry_after = retry_after(answer.headers(), UNIX_EPOCH + Duration::from_millis(now_ms));
        }
    }
}

/// Why there was no answer. Omits the URL, which the log's reader knows.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut text = "no connection".to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    let end = (0..=MAX_ERROR_SIZE_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text
}

//! Reads how jobs ended from the stream [`RESULTS`]. Signed results and ends without a signature
//! lie in one sequence, so a place in it means the same to every reader.

use core::time::Duration;

use async_nats::jetstream::{
    consumer::{DeliverPolicy, push},
    stream::{LastRawMessageErrorKind, Stream},
};
use bytes::Bytes;
use duet_protocol::ids::TenantId;
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::{
    connect::Bus,
    streams::RESULTS,
    subjects::{Address, PREFIX},
};

/// How long the broker may take for one answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The stream could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the results cannot be read: {0}")]
pub struct EndsUnavailable(pub String);

impl EndsUnavailable {
    fn new(reason: impl core::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// One job's end as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEnd {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// [`Address::Result`] or [`Address::Ended`].
    pub address: Address,
    /// The document: a signed result, or how the job ended without one.
    pub payload: Bytes,
}

/// Every end of one tenant in the stream. The tenant's other subjects have other numbers of tokens.
fn all_of(tenant: &TenantId) -> String {
    format!("{PREFIX}.*.{tenant}")
}

impl Bus {
    async fn results(&self) -> Result<Stream<()>, EndsUnavailable> {
        self.jetstream().get_stream_no_info(RESULTS).await.map_err(EndsUnavailable::new)
    }

    /// The first end of one of `tenant`'s jobs after the place `after`, as the stream's leader has
    /// it. `None` when there is none yet.
    ///
    /// It leaves no state at the broker, so the number of readers is not limited.
    ///
    /// # Errors
    /// When the broker does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_end(
        &self,
        tenant: &TenantId,
        after: u64,
    ) -> Result<Option<StoredEnd>, EndsUnavailable> {
        let results = self.results().await?;
        let mut after = after;
        loop {
            let next = results
                .raw_message_builder()
                .sequence(after.saturating_add(1))
                .next_by_subject(all_of(tenant))
                .send();
            let message = match timeout(ANSWER_DEADLINE, next).await.map_err(EndsUnavailable::new)? {
                Ok(message) => message,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
                Err(error) => return Err(EndsUnavailable::new(error)),
            };
            match message.subject.as_str().parse() {
                Ok(address) => {
                    let (sequence, payload) = (message.sequence, message.payload);
                    return Ok(Some(StoredEnd { sequence, address, payload }));
                }
                Err(error) => {
                    tracing::debug!(%error, "skipped");
                    after = message.sequence;
                }
            }
        }
    }

    /// The end at a place in the stream, and when it was stored, in milliseconds since 1970. `None`
    /// when the stream does not have it, or not any more.
    ///
    /// # Errors
    /// When the broker does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn end_at(&self, sequence: u64) -> Result<Option<(StoredEnd, u64)>, EndsUnavailable> {
        let results = self.results().await?;
        let message = results.raw_message_builder().sequence(sequence).send();
        match timeout(ANSWER_DEADLINE, message).await.map_err(EndsUnavailable::new)? {
            Ok(message) => {
                let Ok(address) = message.subject.as_str().parse() else { return Ok(None) };
                let stored_at_ms = message.time.unix_timestamp_nanos() / 1_000_000;
                let end = StoredEnd { sequence, address, payload: message.payload };
                Ok(Some((end, stored_at_ms.try_into().unwrap_or(0))))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(EndsUnavailable::new(error)),
        }
    }

    /// The place of the last end in the stream, of any tenant; 0 when the stream has none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_end(&self) -> Result<u64, EndsUnavailable> {
        let results = self.results().await?;
        let info = timeout(ANSWER_DEADLINE, results.get_info()).await.map_err(EndsUnavailable::new)?;
        info.map(|info| info.state.last_sequence).map_err(EndsUnavailable::new)
    }

    /// Follows every end from now on: its tenant and its place. The broker does not deliver the
    /// documents.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_ends(&self) -> Result<EndFollower, EndsUnavailable> {
        let config = push::OrderedConfig {
            deliver_subject: self.client().new_inbox(),
            deliver_policy: DeliverPolicy::New,
            headers_only: true,
            ..Default::default()
        };
        let consumer = self.results().await?.create_consumer(config).await.map_err(EndsUnavailable::new)?;
        let messages = consumer.messages().await.map_err(EndsUnavailable::new)?;
        Ok(EndFollower(messages))
    }

    /// Whether `wanted` picks one of `tenant`'s ends that were stored at or after `since_ms`,
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// When the broker does not answer or stops delivering.
    pub async fn has_end(
        &self,
        tenant: &TenantId,
        since_ms: u64,
        mut wanted: impl FnMut(&StoredEnd) -> bool,
    ) -> Result<bool, EndsUnavailable> {
        let start_time = async_nats::datetime::from_nanos(i128::from(since_ms) * 1_000_000)
            .map_err(EndsUnavailable::new)?;
        let config = push::OrderedConfig {
            deliver_subject: self.client().new_inbox(),
            filter_subject: all_of(tenant),
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            ..Default::default()
        };
        let consumer = self.results().await?.create_consumer(config).await.map_err(EndsUnavailable::new)?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(false);
        }
        let mut messages = consumer.messages().await.map_err(EndsUnavailable::new)?;
        loop {
            let message = timeout(ANSWER_DEADLINE, messages.next()).await.map_err(EndsUnavailable::new)?;
            let Some(message) = message else { return Ok(false) };
            let message = message.map_err(EndsUnavailable::new)?;
            let (sequence, pending) = message
                .info()
                .map(|info| (info.stream_sequence, info.pending))
                .map_err(EndsUnavailable::new)?;
            if let Ok(address) = message.subject.as_str().parse()
                && wanted(&StoredEnd { sequence, address, payload: message.payload.clone() })
            {
                return Ok(true);
            }
            if pending == 0 {
                return Ok(false);
            }
        }
    }
}

/// Reports ends as they are stored.
pub struct EndFollower(push::Ordered);

impl core::fmt::Debug for EndFollower {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EndFollower").finish_non_exhaustive()
    }
}

impl EndFollower {
    /// The tenant of the next end, and the end's place in the stream. `None` when the caller has to
    /// follow anew.
    ///
    /// # Errors
    /// When the broker cannot be followed any further.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<(TenantId, u64), EndsUnavailable>> {
        loop {
            let message = match self.0.next().await? {
                Ok(message) => message,
                Err(error) => return Some(Err(EndsUnavailable::new(error))),
            };
            let Ok(sequence) = message.info().map(|info| info.stream_sequence) else { continue };
            if let Ok(Address::Result(tenant) | Address::Ended(tenant)) = message.subject.as_str().parse() {
                return Some(Ok((tenant, sequence)));
            }
        }
    }
}

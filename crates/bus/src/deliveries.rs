//! What webhooks need of the broker: a cursor into the results for each endpoint, and a log of
//! deliveries.
//!
//! The cursor is a durable consumer, so any orchestrator carries on where another stopped. The log
//! keeps the latest entries of each endpoint and drops the oldest; no other stream here does.

use core::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer};
use bytes::Bytes;
use duet_protocol::ids::TenantId;
use duet_wire::webhook::EndpointId;
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::{
    connect::Bus,
    request::PublishError,
    streams::{DELIVERIES, RESULTS, StorageError, StorageSettings},
    subjects::Address,
};

/// How long the broker may take to store a log entry.
const LOG_DEADLINE: Duration = Duration::from_secs(5);

/// How long the next log entry may take to arrive.
const LIST_DEADLINE: Duration = Duration::from_secs(5);

/// Where a cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorStart {
    /// After the message with this sequence.
    After(u64),
    /// At the first message stored at this time or later, in milliseconds since 1970.
    At(u64),
}

/// A cursor into one tenant's results.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// Its name at the broker.
    pub name: String,
    /// The tenant whose results it reads.
    pub tenant: TenantId,
    /// Where it begins. It cannot change later.
    pub start: CursorStart,
    /// How long an orchestrator has to acknowledge a result. After that the broker gives it to
    /// another.
    pub ack_wait: Duration,
    /// How many results may be unacknowledged at once, over all orchestrators.
    pub max_under_way: i64,
}

impl Bus {
    /// The sequence of the last stored result, of any tenant.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn last_result(&self) -> Result<u64, StorageError> {
        let stream =
            self.jetstream().get_stream(RESULTS).await.map_err(|error| unavailable(RESULTS, &error))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Opens a cursor. Creates it when there is none of its name.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn results_cursor(
        &self,
        cursor: &Cursor,
        settings: &StorageSettings,
    ) -> Result<PullConsumer, StorageError> {
        let deliver_policy = match cursor.start {
            CursorStart::After(sequence) => {
                DeliverPolicy::ByStartSequence { start_sequence: sequence.saturating_add(1) }
            }
            CursorStart::At(ms) => DeliverPolicy::ByStartTime {
                start_time: time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
                    .map_err(|error| StorageError::Refused {
                        stream: RESULTS.to_owned(),
                        reason: error.to_string(),
                    })?,
            },
        };
        let config = consumer::pull::Config {
            durable_name: Some(cursor.name.clone()),
            description: Some("A webhook's place in the results".to_owned()),
            filter_subject: Address::Result(cursor.tenant.clone()).to_string(),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: cursor.ack_wait,
            // A delivery that failed is kept elsewhere and acknowledged.
            max_deliver: -1,
            max_ack_pending: cursor.max_under_way,
            num_replicas: settings.replicas,
            ..Default::default()
        };
        self.jetstream()
            .create_consumer_on_stream(config, RESULTS)
            .await
            .map_err(|error| StorageError::Refused { stream: RESULTS.to_owned(), reason: error.to_string() })
    }

    /// Removes a cursor. Succeeds when it is already gone.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn remove_cursor(&self, name: &str) -> Result<(), StorageError> {
        match self.jetstream().delete_consumer_from_stream(name, RESULTS).await {
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("consumer not found") => Ok(()),
            Err(error) => Err(unavailable(RESULTS, &error)),
        }
    }

    /// Adds an entry to an endpoint's log.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn log_delivery(
        &self,
        endpoint: EndpointId,
        entry: impl Into<Bytes>,
    ) -> Result<(), PublishError> {
        self.publish_stored(&Address::Delivery(endpoint), entry, None, LOG_DEADLINE).await.map(drop)
    }

    /// The latest entries of an endpoint's log, at most `limit`, newest first.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn logged_deliveries(
        &self,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Vec<Bytes>, StorageError> {
        let config = consumer::push::OrderedConfig {
            deliver_subject: self.client().new_inbox(),
            filter_subject: Address::Delivery(endpoint).to_string(),
            deliver_policy: DeliverPolicy::All,
            ..Default::default()
        };
        let stream =
            self.jetstream().get_stream(DELIVERIES).await.map_err(|error| unavailable(DELIVERIES, &error))?;
        let consumer =
            stream.create_consumer(config).await.map_err(|error| unavailable(DELIVERIES, &error))?;
        let mut pending = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(|error| unavailable(DELIVERIES, &error))?;
        let mut found = std::collections::VecDeque::new();
        while pending > 0 {
            let next = timeout(LIST_DEADLINE, messages.next()).await;
            let Ok(Some(message)) = next else {
                return Err(unavailable(DELIVERIES, &"no further entry in time"));
            };
            let message = message.map_err(|error| unavailable(DELIVERIES, &error))?;
            pending = message.info().map_err(|error| unavailable(DELIVERIES, &error))?.pending;
            found.push_front(message.payload.clone());
            found.truncate(limit);
        }
        Ok(found.into())
    }
}

fn unavailable(stream: &str, error: &dyn core::fmt::Display) -> StorageError {
    StorageError::Unavailable { stream: stream.to_owned(), reason: error.to_string() }
}

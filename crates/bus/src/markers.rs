//! Markers of removed entries that would remain for ever.
//!
//! A removed entry leaves a marker in its bucket. Earlier versions of Duet left it there for ever,
//! some 200 bytes each. In time they filled a bucket. This version gives each marker a time to
//! live. A broker that was killed may show markers again that it had dropped, and keeps those for
//! ever (seen with nats-server 2.15.1). [`OldMarkers`] walks through a bucket and writes both kinds
//! again, with a time to live.
//!
//! The walk reads the headers of a bounded number of entries each time. Every rewrite is a
//! compare-and-swap, so it never touches an entry that was written meanwhile. Several processes may
//! walk through one bucket at once.

use core::{fmt, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_TTL,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, pull},
        kv::Store,
    },
};
use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::kv::{Bucket, Key, ReadError, Revision, WriteError};

/// How many entries one round reads.
pub const MAX_PER_ROUND: usize = 256;

/// How long the broker may take to deliver the next entry of a round.
const DEADLINE: Duration = Duration::from_secs(5);

/// When the broker drops the consumer of a round whose process died.
const ABANDONED_AFTER: Duration = Duration::from_secs(30);

/// The header by which a marker says what it is.
const OPERATION: &str = "KV-Operation";

/// Why a round ended early. The next one begins where it ended.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The bucket was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A marker was not written again.
    #[error(transparent)]
    Write(WriteError),
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// How many markers it gave a time to live.
    pub renewed: usize,
    /// Whether the walk has reached the end of the bucket.
    pub is_last: bool,
}

/// A walk through a bucket, in the order of writing.
pub struct OldMarkers<T> {
    bucket: Bucket<T>,
    next: u64,
}

impl<T> fmt::Debug for OldMarkers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldMarkers").field("bucket", &self.bucket).field("next", &self.next).finish()
    }
}

impl<T> Bucket<T> {
    /// A walk from the bucket's oldest entry on.
    #[must_use]
    pub fn old_markers(&self) -> OldMarkers<T> {
        OldMarkers { bucket: self.clone(), next: 1 }
    }
}

impl<T> OldMarkers<T> {
    /// The name of the bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.store().name
    }

    /// Begins at the oldest entry again: for a bucket that was replaced by another one, and for
    /// markers that a broker shows again.
    pub const fn restart(&mut self) {
        self.next = 1;
    }

    fn store(&self) -> &Store {
        &self.bucket.store
    }

    fn unavailable(&self, reason: impl fmt::Display) -> ReadError {
        ReadError::Unavailable { bucket: self.store().name.clone(), reason: reason.to_string() }
    }

    /// Looks at the next [`MAX_PER_ROUND`] entries of a bucket whose markers expire. Gives a new
    /// time to live to each marker among them that has none or has outlived it. After the last
    /// entry, a further round sees what was written since.
    ///
    /// # Errors
    /// See [`RoundError`].
    ///
    /// # Cancel safety
    /// Cancel safe. Entries whose handling was cancelled are looked at again.
    pub async fn round(&mut self) -> Result<Round, RoundError> {
        let Some(ttl) = self.bucket.marker_ttl else {
            return Ok(Round { renewed: 0, is_last: true });
        };
        let config = pull::Config {
            description: Some("Looks for markers without a time to live".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: ABANDONED_AFTER,
            ..Default::default()
        };
        let consumer =
            self.store().stream.create_consumer(config).await.map_err(|error| self.unavailable(error))?;
        let round = self.read(&consumer, ttl).await;
        // Otherwise the broker drops it after `ABANDONED_AFTER`.
        if let Err(error) = self.store().stream.delete_consumer(&consumer.cached_info().name).await {
            tracing::debug!(%error, "the consumer of a round is left behind");
        }
        round
    }

    async fn read(
        &mut self,
        consumer: &async_nats::jetstream::consumer::PullConsumer,
        ttl: Duration,
    ) -> Result<Round, RoundError> {
        let mut round = Round { renewed: 0, is_last: consumer.cached_info().num_pending == 0 };
        if round.is_last {
            return Ok(round);
        }
        let mut entries = consumer
            .fetch()
            .max_messages(MAX_PER_ROUND)
            .messages()
            .await
            .map_err(|error| self.unavailable(error))?;
        while let Some(entry) = timeout(DEADLINE, entries.next())
            .await
            .map_err(|_| self.unavailable("no further entry in time"))?
        {
            let entry = entry.map_err(|error| self.unavailable(error))?;
            let info = entry.info().map_err(|error| self.unavailable(error))?;
            let age = Duration::try_from(OffsetDateTime::now_utc() - info.published).unwrap_or_default();
            if entry.headers.as_ref().is_some_and(|headers| remains_for_ever(headers, age, ttl))
                && let Some(key) = entry.subject.strip_prefix(self.store().prefix.as_str())
            {
                // Nothing is left for one that is older. So a bucket full of old markers has room
                // again at once.
                let left = ttl.saturating_sub(age);
                let (key, revision) = (Key(key.to_owned()), Revision::from(info.stream_sequence));
                match self.bucket.leave_marker(&key, revision, left).await {
                    Ok(()) => round.renewed += 1,
                    // Another process was first, or the entry was written anew.
                    Err(WriteError::Conflict { .. }) => {}
                    Err(error) => return Err(RoundError::Write(error)),
                }
            }
            self.next = info.stream_sequence + 1;
            round.is_last = info.pending == 0;
        }
        Ok(round)
    }
}

/// Whether these are the headers of a marker that the broker will not drop by itself: one without a
/// time to live, or one that is still there after twice that time.
fn remains_for_ever(headers: &HeaderMap, age: Duration, ttl: Duration) -> bool {
    headers.get(OPERATION).is_some() && (headers.get(NATS_MESSAGE_TTL).is_none() || age > 2 * ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_remain_without_a_time_or_beyond_it() {
        let hour = Duration::from_secs(3600);
        let remains = |names: &[&'static str], age| {
            let mut headers = HeaderMap::new();
            names.iter().for_each(|name| headers.insert(*name, "1"));
            remains_for_ever(&headers, age, hour)
        };
        assert!(remains(&[OPERATION, "Nats-Rollup"], Duration::ZERO));
        assert!(!remains(&[OPERATION, "Nats-TTL"], Duration::ZERO));
        assert!(!remains(&[OPERATION, "Nats-TTL"], 2 * hour));
        assert!(remains(&[OPERATION, "Nats-TTL"], 2 * hour + Duration::from_millis(1)));
        // A value has the header of its compare-and-swap.
        assert!(!remains(&["Nats-Expected-Last-Subject-Sequence"], 3 * hour));
    }
}

//! Typed buckets in which every write is a compare-and-swap.
//!
//! A read may be stale; only a write shows which value is the newest. There is no plain `put`, on
//! purpose.
//!
//! A removed entry leaves a marker, from which watchers learn of the removal. The broker drops the
//! marker after [`StorageSettings::marker_ttl`]. A value has no such time: [`Bucket::create`] over
//! a marker and [`Bucket::update`] keep the value until it is removed. [`crate::markers`] deals
//! with markers that earlier versions left for ever.

use core::{fmt, marker::PhantomData, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{self, DeliverPolicy},
    kv::{self, CreateErrorKind, Operation, UpdateError, UpdateErrorKind},
    stream::{Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType},
};
use duet_protocol::ids::{SessionId, TenantId, WalletId};
use duet_wire::{ids::JobId, record::Unreadable, webhook::EndpointId};
use futures::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{
    connect::Bus,
    request::is_full,
    streams::{StorageError, StorageSettings},
};

/// The bucket of job records.
pub const JOBS: &str = "duet_jobs";
/// The bucket of session states.
pub const SESSIONS: &str = "duet_sessions";
/// The bucket of batches, kept as long as the results they refer to.
pub const BATCHES: &str = "duet_batches";
/// The bucket of webhooks' endpoints.
pub const WEBHOOKS: &str = "duet_webhooks";
/// The bucket of deliveries that wait to be retried, each a reference to a stored result; kept as
/// long as results.
pub const WEBHOOK_RETRIES: &str = "duet_webhook_retries";
/// The bucket that maps a transaction's digest to its job; kept as long as results.
pub const DIGESTS: &str = "duet_digests";
/// The bucket of the first signature of each message and each typed data; kept as long as the audit
/// log.
pub const ANSWERS: &str = "duet_answers";
/// The bucket of what concerns the broker as a whole: its epoch.
pub const META: &str = "duet_meta";

/// The bound of [`META`] in bytes. It holds one entry of some hundred kilobytes at most.
const META_MAX_BYTES: i64 = 16 * 1024 * 1024;

/// Values kept per key: the newest only. A job's record contains its own history. A bucket that
/// kept earlier values would hold a quarter of the jobs.
const HISTORY: i64 = 1;

/// How long the next entry of a listing may take to arrive.
const LIST_DEADLINE: Duration = Duration::from_secs(5);

/// A key, made of identifiers only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(crate) String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key {
    /// The key of the broker's epoch.
    #[must_use]
    pub fn of_broker() -> Self {
        Self("broker".to_owned())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant and the job, of a key made of both.
    #[must_use]
    pub fn tenant_and_job(&self) -> Option<(TenantId, JobId)> {
        let (tenant, job) = self.0.split_once('.')?;
        Some((tenant.parse().ok()?, job.parse().ok()?))
    }

    /// The endpoint and the job, of a key made of both.
    #[must_use]
    pub fn endpoint_and_job(&self) -> Option<(EndpointId, JobId)> {
        let (endpoint, job) = self.0.split_once('.')?;
        Some((endpoint.parse().ok()?, job.parse().ok()?))
    }

    /// Every key of one tenant, in a bucket whose keys start with the tenant; for
    /// [`Bucket::watch`].
    #[must_use]
    pub fn all_of(tenant: &TenantId) -> Pattern {
        Pattern(format!("{tenant}.*"))
    }
}

impl From<SessionId> for Key {
    fn from(id: SessionId) -> Self {
        Self(id.to_string())
    }
}

impl From<WalletId> for Key {
    fn from(id: WalletId) -> Self {
        Self(id.to_string())
    }
}

impl From<JobId> for Key {
    fn from(id: JobId) -> Self {
        Self(id.to_string())
    }
}

impl From<(&TenantId, JobId)> for Key {
    fn from((tenant, job): (&TenantId, JobId)) -> Self {
        Self(format!("{tenant}.{job}"))
    }
}

impl From<(&TenantId, WalletId)> for Key {
    fn from((tenant, wallet): (&TenantId, WalletId)) -> Self {
        Self(format!("{tenant}.{wallet}"))
    }
}

impl From<(&TenantId, [u8; 32])> for Key {
    fn from((tenant, hash): (&TenantId, [u8; 32])) -> Self {
        Self(format!("{tenant}.{}", hex::encode(hash)))
    }
}

impl From<(&TenantId, EndpointId)> for Key {
    fn from((tenant, endpoint): (&TenantId, EndpointId)) -> Self {
        Self(format!("{tenant}.{endpoint}"))
    }
}

impl From<(EndpointId, JobId)> for Key {
    fn from((endpoint, job): (EndpointId, JobId)) -> Self {
        Self(format!("{endpoint}.{job}"))
    }
}

/// Which keys to watch or list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// All keys.
    #[must_use]
    pub fn everything() -> Self {
        Self(">".to_owned())
    }
}

impl From<Key> for Pattern {
    fn from(key: Key) -> Self {
        Self(key.0)
    }
}

/// The revision of a value in its bucket. A later write is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl From<u64> for Revision {
    fn from(revision: u64) -> Self {
        Self(revision)
    }
}

impl From<Revision> for u64 {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

/// A value and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Its revision.
    pub revision: Revision,
}

/// A change that a [`Watcher`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<T> {
    /// The key that changed.
    pub key: Key,
    /// The new value; `None` when it was deleted.
    pub value: Option<T>,
    /// Its revision.
    pub revision: Revision,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The entry is not in this version's format.
    #[error("entry {key} of bucket {bucket} cannot be read: {source}")]
    Malformed {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A later release wrote the entry for readers of a higher level than this build's
    /// ([`READER_LEVEL`](duet_wire::record::READER_LEVEL)). It is to be left alone.
    #[error("entry {key} of bucket {bucket} needs a reader of level {needs}, which a later release has")]
    Newer {
        /// The bucket.
        bucket: String,
        /// The key.
        key: Key,
        /// The level that it needs.
        needs: u64,
    },
    /// The broker did not answer.
    #[error("bucket {bucket} does not answer: {reason}")]
    Unavailable {
        /// The bucket.
        bucket: String,
        /// What the client said.
        reason: String,
    },
}

/// Why nothing was written, as far as the client knows.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another writer changed the entry meanwhile. Read it again and decide anew.
    #[error("entry {key} of bucket {bucket} was changed by another writer meanwhile")]
    Conflict {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The bucket is full. The caller may try again later.
    #[error("bucket {bucket} is full")]
    Full {
        /// The bucket.
        bucket: String,
    },
    /// The value does not serialise.
    #[error("the value for entry {key} cannot be written: {source}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The broker did not confirm. It may have stored the value.
    #[error("bucket {bucket} did not confirm: {reason}")]
    Unavailable {
        /// The bucket.
        bucket: String,
        /// What the client said.
        reason: String,
    },
}

/// A bucket of values of one type, stored as JSON. Cheap to clone.
pub struct Bucket<T> {
    pub(crate) store: kv::Store,
    /// `None` for a bucket of the version before, whose markers remain.
    pub(crate) marker_ttl: Option<Duration>,
    inbox: async_nats::Client,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            marker_ttl: self.marker_ttl,
            inbox: self.inbox.clone(),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Bucket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.store.name).finish_non_exhaustive()
    }
}

impl Bus {
    /// Creates the bucket or brings its settings up to date, and opens it. Several orchestrators
    /// may call it at once. The markers of a bucket of the version before remain unless
    /// [`StorageSettings::expire_markers`] says otherwise.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn ensure_bucket<T>(
        &self,
        name: &str,
        settings: &StorageSettings,
    ) -> Result<Bucket<T>, StorageError> {
        let config = bucket_config(name, settings);
        let stream = config.name.clone();
        // The broker never takes this back.
        let adapt = |existing: &Config, config: &mut Config| {
            config.allow_message_ttl = existing.allow_message_ttl || settings.expire_markers;
        };
        let info = match self.ensure_stream_or(config.clone(), adapt).await {
            // Another orchestrator may have permitted it between the look and the update.
            Err(StorageError::Refused { .. }) if !settings.expire_markers => {
                self.ensure_stream_or(config, adapt).await?
            }
            ensured => ensured?,
        };
        let store = self
            .jetstream()
            .get_key_value(name)
            .await
            .map_err(|error| StorageError::Unavailable { stream, reason: error.to_string() })?;
        Ok(Bucket {
            store,
            marker_ttl: info.config.allow_message_ttl.then_some(settings.marker_ttl),
            inbox: self.client().clone(),
            value: PhantomData,
        })
    }
}

/// A bucket's stream. It is what the client's own function for buckets makes, and permits a time to
/// live for each message.
///
/// The client ties that permission to `subject_delete_marker_ttl`, with which the broker would also
/// write a marker for each entry that ends by age.
fn bucket_config(name: &str, settings: &StorageSettings) -> Config {
    Config {
        name: format!("KV_{name}"),
        description: Some("Written by orchestrators alone, by compare-and-swap".to_owned()),
        subjects: vec![format!("$KV.{name}.>")],
        retention: RetentionPolicy::Limits,
        max_messages_per_subject: HISTORY,
        max_age: match name {
            BATCHES | DIGESTS | WEBHOOK_RETRIES => settings.results_max_age,
            ANSWERS => settings.audit_max_age,
            _ => Duration::ZERO,
        },
        max_bytes: match name {
            // A claim has some 200 bytes, a twentieth of a job's record. A quarter of the room is
            // more than enough.
            DIGESTS => settings.bucket_max_bytes / 4,
            META => META_MAX_BYTES,
            _ => settings.bucket_max_bytes,
        },
        storage: StorageType::File,
        num_replicas: settings.replicas,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        ..Default::default()
    }
}

impl<T: Serialize + DeserializeOwned> Bucket<T> {
    /// Reads the newest value that this server knows. In a cluster a newer one may exist.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: &Key) -> Result<Option<Entry<T>>, ReadError> {
        let entry = self.store.entry(key.as_str()).await.map_err(|error| ReadError::Unavailable {
            bucket: self.store.name.clone(),
            reason: error.to_string(),
        })?;
        match entry {
            Some(entry) if entry.operation == Operation::Put => Ok(Some(Entry {
                value: self.parse(key.as_str(), &entry.value)?,
                revision: Revision(entry.revision),
            })),
            Some(_) | None => Ok(None),
        }
    }

    /// Reads the newest value, as the bucket's leader knows it. Unlike [`Self::get`] it does not
    /// ask a server that may be behind.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn newest(&self, key: &Key) -> Result<Option<Entry<T>>, ReadError> {
        let subject = format!("{}{key}", self.store.prefix);
        match self.store.stream.get_last_raw_message_by_subject(&subject).await {
            // A marker has no payload, and no value is empty.
            Ok(newest) if newest.payload.is_empty() => Ok(None),
            Ok(newest) => Ok(Some(Entry {
                value: self.parse(key.as_str(), &newest.payload)?,
                revision: Revision(newest.sequence),
            })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => {
                Err(ReadError::Unavailable { bucket: self.store.name.clone(), reason: error.to_string() })
            }
        }
    }

    /// Writes the first value under `key`.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when the key already has a value, or when another process writes
    /// under it at this moment, be it a marker; otherwise see [`WriteError`].
    pub async fn create(&self, key: &Key, value: &T) -> Result<Revision, WriteError> {
        let bytes = self.bytes(key, value)?;
        self.store.create(key.as_str(), bytes.into()).await.map(Revision).map_err(|error| {
            match error.kind() {
                CreateErrorKind::AlreadyExists => self.conflict(key),
                _ => self.write_error(&error),
            }
        })
    }

    /// Replaces the value whose revision is `revision`.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when the newest value has another revision; otherwise see
    /// [`WriteError`].
    pub async fn update(&self, key: &Key, value: &T, revision: Revision) -> Result<Revision, WriteError> {
        let bytes = self.bytes(key, value)?;
        let updated = self.store.update(key.as_str(), bytes.into(), revision.0).await;
        updated.map(Revision).map_err(|error| self.update_error(key, &error))
    }

    /// Removes the value whose revision is `revision`, and its history. Its marker remains for
    /// [`StorageSettings::marker_ttl`], and for ever where [`Self::markers_expire`] says no.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn purge(&self, key: &Key, revision: Revision) -> Result<(), WriteError> {
        match self.marker_ttl {
            Some(ttl) => self.leave_marker(key, revision, ttl).await,
            None => self.leave_lasting_marker(key, revision).await,
        }
    }

    /// Whether markers of removed entries go by themselves. They did not when the version before
    /// made the bucket, until an operator permitted it.
    #[must_use]
    pub const fn markers_expire(&self) -> bool {
        self.marker_ttl.is_some()
    }

    /// Whether the bucket has no value under `key`, as the bucket's leader knows it. Unlike
    /// [`Self::get`] it does not ask a server that may be behind.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    pub async fn is_absent(&self, key: &Key) -> Result<bool, ReadError> {
        let subject = format!("{}{key}", self.store.prefix);
        match self.store.stream.get_last_raw_message_by_subject(&subject).await {
            // A marker has no payload, and no value is empty.
            Ok(newest) => Ok(newest.payload.is_empty()),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(true),
            Err(error) => {
                Err(ReadError::Unavailable { bucket: self.store.name.clone(), reason: error.to_string() })
            }
        }
    }

    /// The keys that have a value.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    pub async fn keys(&self) -> Result<Vec<Key>, ReadError> {
        let unavailable = |reason| ReadError::Unavailable { bucket: self.store.name.clone(), reason };
        let mut keys = self.store.keys().await.map_err(|error| unavailable(error.to_string()))?;
        let mut all = Vec::new();
        while let Some(key) = keys.next().await {
            all.push(Key(key.map_err(|error| unavailable(error.to_string()))?));
        }
        Ok(all)
    }

    /// The present values that match `pattern`, at most `limit`, ordered by their last write.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::Unavailable`] also when the broker stops delivering.
    pub async fn list(&self, pattern: &Pattern, limit: usize) -> Result<Vec<(Key, Entry<T>)>, ReadError> {
        let unavailable = |reason: String| ReadError::Unavailable { bucket: self.store.name.clone(), reason };
        let consumer = self
            .store
            .stream
            .create_consumer(consumer::push::OrderedConfig {
                deliver_subject: self.inbox.new_inbox(),
                filter_subject: format!("{}{}", self.store.prefix, pattern.0),
                deliver_policy: DeliverPolicy::LastPerSubject,
                ..Default::default()
            })
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let mut found = Vec::new();
        if consumer.cached_info().num_pending == 0 {
            return Ok(found);
        }
        let mut messages = consumer.messages().await.map_err(|error| unavailable(error.to_string()))?;
        while found.len() < limit {
            let message = timeout(LIST_DEADLINE, messages.next())
                .await
                .map_err(|_| unavailable("no further entry in time".to_owned()))?;
            // Entries are pending, so this is no end of the list.
            let message = message.ok_or_else(|| unavailable("the delivery ended early".to_owned()))?;
            let message = message.map_err(|error| unavailable(error.to_string()))?;
            let (revision, pending) = message
                .info()
                .map(|info| (info.stream_sequence, info.pending))
                .map_err(|error| unavailable(error.to_string()))?;
            let key = message.subject.strip_prefix(&self.store.prefix).unwrap_or_default();
            // A header marks deletions; values have none.
            if message.headers.is_none() || !message.payload.is_empty() {
                let value = self.parse(key, &message.payload)?;
                found.push((Key(key.to_owned()), Entry { value, revision: Revision(revision) }));
            }
            if pending == 0 {
                break;
            }
        }
        Ok(found)
    }

    /// Yields the present values that match `pattern`, then every change.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    pub async fn watch(&self, pattern: &Pattern) -> Result<Watcher<T>, ReadError> {
        let unavailable = |reason: String| ReadError::Unavailable { bucket: self.store.name.clone(), reason };
        let watch = self.store.watch_with_history(&pattern.0).await;
        let watch = watch.map_err(|error| unavailable(error.to_string()))?;
        // The watch exists. So of what the bucket holds now nothing is missed, and the last entry
        // says that no other is left. Where there is nothing, nothing says so.
        let now = self.store.stream.get_info().await.map_err(|error| unavailable(error.to_string()))?;
        Ok(Watcher { watch, bucket: self.clone(), is_current: now.state.messages == 0 })
    }

    /// Yields the changes after this call that match `pattern`.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    pub async fn changes(&self, pattern: &Pattern) -> Result<Watcher<T>, ReadError> {
        let watch = self.store.watch(&pattern.0).await.map_err(|error| ReadError::Unavailable {
            bucket: self.store.name.clone(),
            reason: error.to_string(),
        })?;
        Ok(Watcher { watch, bucket: self.clone(), is_current: true })
    }

    fn parse(&self, key: &str, bytes: &[u8]) -> Result<T, ReadError> {
        serde_json::from_slice(bytes).map_err(|source| {
            let (bucket, key) = (self.store.name.clone(), key.to_owned());
            match Unreadable::explain(bytes, &source) {
                Unreadable::Newer { needs } => ReadError::Newer { bucket, key: Key(key), needs },
                Unreadable::Malformed(_) => ReadError::Malformed { bucket, key, source },
            }
        })
    }

    fn bytes(&self, key: &Key, value: &T) -> Result<Vec<u8>, WriteError> {
        serde_json::to_vec(value).map_err(|source| WriteError::Value { key: key.to_string(), source })
    }
}

impl<T> Bucket<T> {
    /// Replaces what is under `key` at `revision` by a marker, which the broker drops after `ttl`.
    /// This function and the next are the only ones that remove an entry: `clippy.toml` refuses the
    /// client's own ones.
    pub(crate) async fn leave_marker(
        &self,
        key: &Key,
        revision: Revision,
        ttl: Duration,
    ) -> Result<(), WriteError> {
        // The broker counts whole seconds. It would keep a marker of none for ever.
        let ttl = ttl.max(Duration::from_secs(1));
        let purged = self.store.purge_expect_revision_with_ttl(key.as_str(), revision.0, ttl).await;
        purged.map_err(|error| self.update_error(key, &error))
    }

    /// As [`Self::leave_marker`], in a bucket whose messages have no time to live.
    #[expect(clippy::disallowed_methods, reason = "the version before has to start on this bucket")]
    async fn leave_lasting_marker(&self, key: &Key, revision: Revision) -> Result<(), WriteError> {
        let purged = self.store.purge_expect_revision(key.as_str(), Some(revision.0)).await;
        purged.map_err(|error| self.update_error(key, &error))
    }

    fn update_error(&self, key: &Key, error: &UpdateError) -> WriteError {
        match error.kind() {
            UpdateErrorKind::WrongLastRevision => self.conflict(key),
            _ => self.write_error(error),
        }
    }

    fn conflict(&self, key: &Key) -> WriteError {
        WriteError::Conflict { bucket: self.store.name.clone(), key: key.to_string() }
    }

    fn write_error(&self, error: &(dyn std::error::Error + 'static)) -> WriteError {
        let bucket = self.store.name.clone();
        match cause::<jetstream::Error>(error) {
            Some(cause) if is_full(cause) => WriteError::Full { bucket },
            _ => WriteError::Unavailable { bucket, reason: error.to_string() },
        }
    }
}

/// A stream of changes of a bucket.
pub struct Watcher<T> {
    watch: kv::Watch,
    bucket: Bucket<T>,
    is_current: bool,
}

impl<T> fmt::Debug for Watcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl<T: Serialize + DeserializeOwned> Watcher<T> {
    /// Whether everything was returned that the bucket held when the watch began. Of a watch whose
    /// pattern matches none of the bucket's last entries it may stay `false`.
    pub const fn is_current(&self) -> bool {
        self.is_current
    }

    /// The next change; `None` when the watch has ended.
    ///
    /// # Errors
    /// [`ReadError::Malformed`] and [`ReadError::Newer`] for an entry that this version cannot
    /// read; the watch goes on.
    /// [`ReadError::Unavailable`] when the broker stops delivering.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Change<T>, ReadError>> {
        let entry = match self.watch.next().await? {
            Ok(entry) => entry,
            Err(error) => {
                return Some(Err(ReadError::Unavailable {
                    bucket: self.bucket.store.name.clone(),
                    reason: error.to_string(),
                }));
            }
        };
        self.is_current |= entry.seen_current;
        let value = match entry.operation {
            Operation::Put => match self.bucket.parse(&entry.key, &entry.value) {
                Ok(value) => Some(value),
                Err(error) => return Some(Err(error)),
            },
            Operation::Delete | Operation::Purge => None,
        };
        Some(Ok(Change { key: Key(entry.key), value, revision: Revision(entry.revision) }))
    }
}

/// The first cause of type `C` below `error`.
fn cause<'a, C: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a C> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<C>() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

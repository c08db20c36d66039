//! The JetStream streams. An orchestrator creates those that are missing and brings the others up
//! to date.
//!
//! All are on disk and bounded in bytes. They keep messages for a stated time and refuse what does
//! not fit, with two exceptions: [`HEADS`] keeps its messages for ever, and the log of deliveries
//! drops its oldest entries.

use core::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{self, AckPolicy, PullConsumer},
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, ConsumerErrorKind, DiscardPolicy, Info, RetentionPolicy, StorageType},
};

use crate::{
    connect::Bus,
    request::{is_full, is_passing},
    subjects::PREFIX,
};

/// Announcements of jobs. Each goes to one orchestrator and is removed once acknowledged.
pub const JOBS: &str = "DUET_JOBS";
/// Jobs that no orchestrator will try again, until an operator acts.
pub const DEAD: &str = "DUET_DEAD";
/// How jobs ended: signed results, for subscribers and webhooks, and the ends without a signature.
/// Both have their place in one sequence.
pub const RESULTS: &str = "DUET_RESULTS";
/// Audit records. None can be deleted before its age.
pub const AUDIT: &str = "DUET_AUDIT";
/// How far each party's audit chain goes: one message per party, which never expires.
pub const HEADS: &str = "DUET_HEADS";

/// The latest deliveries of every endpoint.
pub const DELIVERIES: &str = "DUET_DELIVERIES";

/// How many log entries the broker keeps for each endpoint: a day of one every three minutes. Each
/// has some 300 bytes.
pub const MAX_LOGGED_DELIVERIES: i64 = 512;

/// What makes a stream's configuration.
type Configure = fn(&StorageSettings) -> Config;

/// All streams that an orchestrator makes, and cannot work without.
const ALL: [(&str, Configure); 6] = [
    (JOBS, jobs_config),
    (DEAD, dead_config),
    (RESULTS, results_config),
    (AUDIT, audit_config),
    (HEADS, heads_config),
    (DELIVERIES, deliveries_config),
];

/// The names of all streams that an orchestrator makes, and cannot work without.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(name, _)| name)
}

/// The durable consumer from which all orchestrators pull jobs.
pub const JOBS_CONSUMER: &str = "orchestrators";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MEBIBYTE: i64 = 1024 * 1024;

/// How the broker keeps streams and buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSettings {
    /// Copies of each stream and bucket: 1 (default, one server), 3 or 5 (a cluster).
    pub replicas: usize,
    /// Bound of [`JOBS`]. Default 64 MiB: some hundred thousand announcements.
    pub jobs_max_bytes: i64,
    /// Bound of [`RESULTS`]. Default 512 MiB.
    pub history_max_bytes: i64,
    /// Bound of [`AUDIT`]. Default 2 GiB: the records of some 600,000 signatures. When it is full,
    /// parties keep their records until there is room.
    pub audit_max_bytes: i64,
    /// Bound of each bucket. Default 512 MiB.
    pub bucket_max_bytes: i64,
    /// How long a bucket remembers that an entry was removed. Default 1 hour; whole seconds, at
    /// least 1. An orchestrator that is cut off from the broker for longer does not hear of the
    /// removal. It finds out when it next looks for the entry.
    pub marker_ttl: Duration,
    /// Whether buckets that the version before made are to get such markers as well. Default no:
    /// the broker never takes that back, and orchestrators of that version no longer start
    /// afterwards. New buckets have them.
    pub expire_markers: bool,
    /// How long [`RESULTS`] keeps a message. Default 30 days. The job's record holds its result as
    /// well.
    pub results_max_age: Duration,
    /// How long [`AUDIT`] keeps a record. Default 400 days: a year and the time to look at it.
    pub audit_max_age: Duration,
    /// How long [`JOBS`] and [`DEAD`] keep a message. Default 30 days.
    pub jobs_max_age: Duration,
    /// How long a stream remembers message ids and stores a repeated one only once. Default 2
    /// minutes. Jobs are repeatable because of the job store, not because of this.
    pub duplicate_window: Duration,
    /// How long an orchestrator has to acknowledge a job's announcement before another gets it.
    /// Default 30 s; an orchestrator at work extends it.
    pub job_ack_wait: Duration,
    /// How many announcements may be delivered but unacknowledged, over all orchestrators. Default
    /// 100 000.
    ///
    /// It has to exceed the number of open jobs: jobs that rest between attempts count as well. At
    /// the bound the broker delivers no more. Each orchestrator bounds its own jobs in work.
    pub jobs_in_flight: i64,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            replicas: 1,
            jobs_max_bytes: 64 * MEBIBYTE,
            history_max_bytes: 512 * MEBIBYTE,
            audit_max_bytes: 2048 * MEBIBYTE,
            bucket_max_bytes: 512 * MEBIBYTE,
            marker_ttl: Duration::from_secs(60 * 60),
            expire_markers: false,
            results_max_age: 30 * DAY,
            audit_max_age: 400 * DAY,
            jobs_max_age: 30 * DAY,
            duplicate_window: Duration::from_secs(120),
            job_ack_wait: Duration::from_secs(30),
            jobs_in_flight: 100_000,
        }
    }
}

/// Why a stream or bucket is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The existing stream differs in a setting that cannot be changed in place.
    #[error("stream {stream} exists with another {setting}; move its messages to a new one by hand")]
    Incompatible {
        /// The stream.
        stream: String,
        /// What differs.
        setting: &'static str,
    },
    /// The broker's disk quota is exhausted.
    #[error("the broker has no room for stream {stream}: {reason}")]
    NoRoom {
        /// The stream.
        stream: String,
        /// What the broker said.
        reason: String,
    },
    /// This role may not use JetStream, the broker does not run it, or the broker cannot be
    /// reached.
    #[error("JetStream does not answer about {stream}: {reason}")]
    Unavailable {
        /// The stream.
        stream: String,
        /// What the client said.
        reason: String,
    },
    /// The broker refused the settings.
    #[error("the broker refuses the settings of {stream}: {reason}")]
    Refused {
        /// The stream.
        stream: String,
        /// What the broker said.
        reason: String,
    },
}

/// A short description of a stream, or of a bucket's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLook {
    /// When it was created, in nanoseconds since 1970 by the broker's clock. A stream that replaced
    /// it under the same name has a later time.
    pub created_ns: u64,
    /// The sequence of its last message, 0 before the first. A stream that was put back to an
    /// earlier copy has a lower one than before.
    pub last_sequence: u64,
    /// How many bytes it holds.
    pub bytes: u64,
    /// The bound in bytes; 0 or below means none.
    pub max_bytes: i64,
}

impl Bus {
    /// Looks at a stream; `None` when there is none of this name.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the broker does not answer.
    pub async fn look_at_stream(&self, name: &str) -> Result<Option<StreamLook>, StorageError> {
        match self.jetstream().get_stream(name).await {
            Ok(stream) => {
                let info = stream.cached_info();
                Ok(Some(StreamLook {
                    created_ns: info.created.unix_timestamp_nanos().try_into().unwrap_or_default(),
                    last_sequence: info.state.last_sequence,
                    bytes: info.state.bytes,
                    max_bytes: info.config.max_bytes,
                }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(None)
                }
                _ => Err(StorageError::Unavailable { stream: name.to_owned(), reason: error.to_string() }),
            },
        }
    }

    /// Creates all of Duet's streams and the jobs' consumer, or brings them up to date. Several
    /// orchestrators may call it at once.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn ensure_streams(&self, settings: &StorageSettings) -> Result<(), StorageError> {
        for (_, configure) in ALL {
            self.ensure_stream(configure(settings)).await?;
        }
        self.jobs_consumer(settings).await.map(drop)
    }

    /// The durable consumer that gives each job to one orchestrator.
    ///
    /// Callers pull explicit batches with deadlines; `messages()` would prefetch 200.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn jobs_consumer(&self, settings: &StorageSettings) -> Result<PullConsumer, StorageError> {
        let config = consumer::pull::Config {
            durable_name: Some(JOBS_CONSUMER.to_owned()),
            description: Some("Jobs, one orchestrator each".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: settings.job_ack_wait,
            // Past a delivery limit a message would stay in the stream and reach no orchestrator.
            // The orchestrator counts a job's attempts itself and moves it to the dead letters.
            max_deliver: -1,
            max_ack_pending: settings.jobs_in_flight,
            num_replicas: settings.replicas,
            ..Default::default()
        };
        self.jetstream().create_consumer_on_stream(config, JOBS).await.map_err(|error| {
            let (stream, reason) = (JOBS.to_owned(), error.to_string());
            match error.kind() {
                ConsumerErrorKind::JetStream(cause) if !is_passing(&cause) => {
                    StorageError::Refused { stream, reason }
                }
                ConsumerErrorKind::InvalidConsumerType | ConsumerErrorKind::InvalidName => {
                    StorageError::Refused { stream, reason }
                }
                _ => StorageError::Unavailable { stream, reason },
            }
        })
    }

    /// Creates the stream, or updates the settings that can be updated.
    ///
    /// # Errors
    /// [`StorageError::Incompatible`] when the stream exists with other subjects, retention or
    /// storage. Otherwise see [`StorageError`].
    pub async fn ensure_stream(&self, config: Config) -> Result<Info, StorageError> {
        self.ensure_stream_or(config, |_, _| ()).await
    }

    /// As [`Self::ensure_stream`]. `adapt` adapts the wanted settings to the existing ones first.
    pub(crate) async fn ensure_stream_or(
        &self,
        config: Config,
        adapt: impl Fn(&Config, &mut Config),
    ) -> Result<Info, StorageError> {
        let stream = config.name.clone();
        match self.jetstream().get_stream(&stream).await {
            Ok(existing) => self.update(&existing.cached_info().config, config, adapt).await,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    self.create(config, adapt).await
                }
                _ => Err(StorageError::Unavailable { stream, reason: error.to_string() }),
            },
        }
    }

    /// Another orchestrator may create it at this moment. With the same settings, this succeeds as
    /// well. With others, as another version has them, they are updated.
    async fn create(
        &self,
        config: Config,
        adapt: impl Fn(&Config, &mut Config),
    ) -> Result<Info, StorageError> {
        let stream = config.name.clone();
        match self.jetstream().create_stream(config.clone()).await {
            Ok(created) => Ok(created.cached_info().clone()),
            Err(error) => match error.kind() {
                CreateStreamErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    let existing =
                        self.jetstream().get_stream(&stream).await.map_err(|error| {
                            StorageError::Unavailable { stream, reason: error.to_string() }
                        })?;
                    self.update(&existing.cached_info().config, config, adapt).await
                }
                _ => Err(create_error(&error, stream)),
            },
        }
    }

    async fn update(
        &self,
        existing: &Config,
        mut config: Config,
        adapt: impl Fn(&Config, &mut Config),
    ) -> Result<Info, StorageError> {
        compatible(existing, &config)?;
        adapt(existing, &mut config);
        let stream = config.name.clone();
        self.jetstream().update_stream(config).await.map_err(|error| create_error(&error, stream))
    }
}

/// Refuses an update over a difference that would lose messages or make no sense.
fn compatible(existing: &Config, wanted: &Config) -> Result<(), StorageError> {
    let differs = |setting| StorageError::Incompatible { stream: wanted.name.clone(), setting };
    // An added subject leaves every stored message reachable; a removed one would not.
    if existing.subjects.iter().any(|subject| !wanted.subjects.contains(subject)) {
        return Err(differs("set of subjects"));
    }
    if existing.retention != wanted.retention {
        return Err(differs("retention"));
    }
    if existing.storage != wanted.storage {
        return Err(differs("storage"));
    }
    if existing.deny_delete && !wanted.deny_delete {
        return Err(differs("protection from deletion"));
    }
    Ok(())
}

fn create_error(error: &jetstream::context::CreateStreamError, stream: String) -> StorageError {
    let reason = error.to_string();
    match error.kind() {
        CreateStreamErrorKind::JetStream(cause) if is_full(&cause) => StorageError::NoRoom { stream, reason },
        CreateStreamErrorKind::JetStream(cause) if is_passing(&cause) => {
            StorageError::Unavailable { stream, reason }
        }
        CreateStreamErrorKind::JetStreamUnavailable
        | CreateStreamErrorKind::TimedOut
        | CreateStreamErrorKind::Response => StorageError::Unavailable { stream, reason },
        _ => StorageError::Refused { stream, reason },
    }
}

/// What all streams have in common.
fn base(name: &str, description: &str, subject: &str, settings: &StorageSettings) -> Config {
    Config {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        subjects: vec![format!("{PREFIX}.{subject}.*")],
        storage: StorageType::File,
        num_replicas: settings.replicas,
        discard: DiscardPolicy::New,
        duplicate_window: settings.duplicate_window,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        ..Default::default()
    }
}

fn jobs_config(settings: &StorageSettings) -> Config {
    Config {
        retention: RetentionPolicy::WorkQueue,
        max_bytes: settings.jobs_max_bytes,
        max_age: settings.jobs_max_age,
        ..base(JOBS, "Accepted jobs, each announced to one orchestrator", "job", settings)
    }
}

fn dead_config(settings: &StorageSettings) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_bytes: settings.jobs_max_bytes,
        max_age: settings.jobs_max_age,
        ..base(DEAD, "Jobs that will not be tried again", "dead", settings)
    }
}

fn results_config(settings: &StorageSettings) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_bytes: settings.history_max_bytes,
        max_age: settings.results_max_age,
        deny_delete: true,
        deny_purge: true,
        subjects: vec![format!("{PREFIX}.result.*"), format!("{PREFIX}.ended.*")],
        ..base(RESULTS, "How jobs ended", "result", settings)
    }
}

fn audit_config(settings: &StorageSettings) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_bytes: settings.audit_max_bytes,
        max_age: settings.audit_max_age,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..base(AUDIT, "Audit records, chained and signed by their writers", "audit", settings)
    }
}

/// A head takes up to 17 KB, and each party has one.
const HEADS_MAX_BYTES: i64 = 16 * MEBIBYTE;

fn heads_config(settings: &StorageSettings) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        max_bytes: HEADS_MAX_BYTES,
        // A party that was idle for years must still find its head.
        max_age: Duration::ZERO,
        max_messages_per_subject: 1,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..base(HEADS, "How far each party's audit chain goes", "head", settings)
    }
}

/// The log's stream. It drops an endpoint's oldest entries to make room for new ones.
fn deliveries_config(settings: &StorageSettings) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_bytes: settings.jobs_max_bytes,
        max_age: settings.results_max_age,
        max_messages_per_subject: MAX_LOGGED_DELIVERIES,
        ..base(DELIVERIES, "The latest deliveries of every webhook", "delivery", settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_bounded_and_says_what_it_does_when_full() {
        let settings = StorageSettings::default();
        for (name, configure) in ALL {
            let config = configure(&settings);
            assert_eq!(config.name, name);
            assert!(config.max_bytes > 0, "{name}");
            // A log of what was tried makes room; a party's newest head is never too old.
            assert_eq!(config.discard == DiscardPolicy::New, name != DELIVERIES, "{name}");
            assert_eq!(config.max_age > Duration::ZERO, name != HEADS, "{name}");
            assert_eq!(config.storage, StorageType::File, "{name}");
        }
    }

    #[test]
    fn a_stream_of_another_shape_is_not_overwritten() {
        let settings = StorageSettings::default();
        let wanted = jobs_config(&settings);
        let other = Config { retention: RetentionPolicy::Limits, ..wanted.clone() };
        assert!(matches!(
            compatible(&other, &wanted),
            Err(StorageError::Incompatible { setting: "retention", .. })
        ));
        let larger = Config { max_bytes: 1, ..wanted.clone() };
        assert!(compatible(&larger, &wanted).is_ok());
        // An added subject is accepted. A removed one would leave stored messages unreachable.
        let results = results_config(&settings);
        let older = Config { subjects: vec!["duet.v1.result.*".to_owned()], ..results.clone() };
        assert!(compatible(&older, &results).is_ok());
        assert!(matches!(
            compatible(&results, &older),
            Err(StorageError::Incompatible { setting: "set of subjects", .. })
        ));
    }
}

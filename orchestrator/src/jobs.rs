//! Job and session records in their buckets. Every write is a compare-and-swap. The core of the
//! queue decides the changes of jobs.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use duet_bus::kv::{Bucket, Entry, Key, ReadError, Revision, WriteError};
use duet_protocol::ids::SessionId;
use duet_queue::{
    store::{self, StoreFailure, Written},
    summary::Summary,
};
use duet_wire::{
    Code, JobRecord, Problem, Refusal, SigningRequest,
    session_state::{IllegalTransition, SessionEvent, SessionRecord, SessionState},
};

use crate::{
    board::{Board, Snapshot, key_of},
    clock::Clock,
};

/// How often a session's end is written anew because another orchestrator wrote first. Few
/// orchestrators ever meet at one entry; more than this means that some process writes in a loop.
const MAX_CONFLICTS: usize = 16;

/// Why a record was not read or written: [`StoreFailure`], which the broker's errors turn into.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct StoreError(#[from] pub(crate) StoreFailure);

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        Self(match error {
            ReadError::Malformed { .. } => StoreFailure::Corrupt(error.to_string()),
            ReadError::Newer { .. } => StoreFailure::Newer(error.to_string()),
            ReadError::Unavailable { .. } => StoreFailure::Unknown(error.to_string()),
        })
    }
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        Self(match error {
            WriteError::Conflict { .. } => StoreFailure::Contended,
            WriteError::Full { .. } => StoreFailure::Full,
            WriteError::Value { .. } => StoreFailure::Corrupt(error.to_string()),
            WriteError::Unavailable { .. } => StoreFailure::Unknown(error.to_string()),
        })
    }
}

/// The outcome of one compare-and-swap for the core of the queue.
pub(crate) fn written(written: Result<Revision, WriteError>) -> Written {
    match written {
        Ok(revision) => Written::Stored(revision.into()),
        Err(WriteError::Conflict { .. }) => Written::Conflict,
        Err(error) => Written::Failed(StoreError::from(error).into()),
    }
}

impl From<StoreError> for StoreFailure {
    fn from(StoreError(failure): StoreError) -> Self {
        failure
    }
}

impl From<StoreError> for Refusal {
    fn from(StoreError(failure): StoreError) -> Self {
        failure.into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let is_newer = matches!(error, StoreError(StoreFailure::Newer(_)));
        let mut problem = Self::from(Refusal::from(error));
        if is_newer {
            // The caller asked for nothing wrong. An orchestrator of the later release answers.
            problem.status = Code::StorageUnavailable.http_status();
        }
        problem
    }
}

/// The request that `record` holds. It was verified when the job was accepted.
pub(crate) fn request_of(record: &JobRecord) -> Result<SigningRequest, StoreError> {
    store::request_of(record).map_err(StoreError::from)
}

/// The job records.
#[derive(Clone)]
pub(crate) struct Jobs {
    bucket: Bucket<JobRecord>,
    board: Arc<Board>,
    /// The highest revision that the broker has acknowledged to this process.
    acknowledged: Arc<AtomicU64>,
}

impl Jobs {
    pub(crate) fn new(bucket: Bucket<JobRecord>, board: Arc<Board>) -> Self {
        Self { bucket, board, acknowledged: Arc::default() }
    }

    /// The highest revision that the broker has acknowledged to this process since
    /// [`Self::forget_acknowledged`]; 0 if none.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The bucket's revisions count on from a lower one.
    pub(crate) fn forget_acknowledged(&self) {
        self.acknowledged.store(0, Ordering::Relaxed);
    }

    /// Takes over what the broker has just stored.
    fn stored(&self, key: &Key, record: JobRecord, revision: Revision) -> Snapshot {
        self.acknowledged.fetch_max(revision.into(), Ordering::Relaxed);
        self.board.apply(key, record, revision)
    }

    pub(crate) const fn bucket(&self) -> &Bucket<JobRecord> {
        &self.bucket
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Entry<JobRecord>>, StoreError> {
        let entry = self.bucket.get(key).await?;
        if entry.as_ref().is_some_and(|entry| Key::from((&entry.value.tenant, entry.value.id)) != *key) {
            return Err(StoreError(StoreFailure::Corrupt(format!("under {key} lies another job's record"))));
        }
        Ok(entry)
    }

    /// Reads a job, but takes an open job that changed lately from the board, which may be behind.
    pub(crate) async fn recent(&self, key: &Key) -> Result<Option<Entry<JobRecord>>, StoreError> {
        match self.board.recent(key) {
            Some(snapshot) => Ok(Some(Arc::unwrap_or_clone(snapshot))),
            None => self.get(key).await,
        }
    }

    /// Stores a new job, unless there is one under its key.
    pub(crate) async fn create(&self, record: JobRecord) -> Result<Snapshot, WriteError> {
        let key = Key::from((&record.tenant, record.id));
        let revision = self.bucket.create(&key, &record).await?;
        Ok(self.stored(&key, record, revision))
    }

    /// Stores `record` if the entry still is at `revision`.
    pub(crate) async fn write(
        &self,
        key: &Key,
        record: JobRecord,
        revision: Revision,
    ) -> Result<Snapshot, WriteError> {
        let revision = self.bucket.update(key, &record, revision).await?;
        Ok(self.stored(key, record, revision))
    }

    /// Drops from the board a job that the bucket no longer has. The board has not heard of the
    /// removal if this process was cut off from the broker for as long as the marker lived.
    pub(crate) async fn drop_missing(&self, job: &Summary) -> Result<(), StoreError> {
        if self.bucket.is_absent(&key_of(job)).await? {
            self.board.remove_unchanged(job);
        }
        Ok(())
    }

    /// Removes a record for good if the entry still is at `revision`.
    pub(crate) async fn remove(&self, key: &Key, revision: Revision) -> Result<(), StoreError> {
        self.bucket.purge(key, revision).await?;
        self.board.remove(key);
        Ok(())
    }
}

/// How many sessions begun by this process are remembered: more than it works on at once, some 500
/// bytes each.
const MAX_REMEMBERED_SESSIONS: usize = 4096;

/// The session records.
///
/// The sessions that this process began are remembered until they end. Of a record, only the state
/// ever changes, and it is written by compare-and-swap. So a stale memory does no harm.
#[derive(Clone)]
pub(crate) struct Sessions {
    bucket: Bucket<SessionRecord>,
    begun: Arc<Mutex<HashMap<SessionId, Entry<SessionRecord>>>>,
    clock: Clock,
}

impl Sessions {
    pub(crate) fn new(bucket: Bucket<SessionRecord>, clock: Clock) -> Self {
        Self { bucket, begun: Arc::default(), clock }
    }

    pub(crate) const fn bucket(&self) -> &Bucket<SessionRecord> {
        &self.bucket
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<SessionId, Entry<SessionRecord>>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn create(&self, record: &SessionRecord) -> Result<(), StoreError> {
        let revision = self.bucket.create(&Key::from(record.session), record).await?;
        let mut begun = self.begun();
        // Sessions whose ends other orchestrators handled remain here; drop any one of them.
        if begun.len() >= MAX_REMEMBERED_SESSIONS {
            let any = begun.keys().next().copied();
            any.and_then(|any| begun.remove(&any));
        }
        begun.insert(record.session, Entry { value: record.clone(), revision });
        Ok(())
    }

    pub(crate) async fn get(&self, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        if let Some(entry) = self.begun().get(&session) {
            return Ok(Some(entry.value.clone()));
        }
        Ok(self.bucket.get(&Key::from(session)).await?.map(|entry| entry.value))
    }

    /// Records how a session ended. The job's record is what counts, and this one only helps
    /// operators. So a failure is logged and otherwise ignored.
    pub(crate) async fn end(&self, session: SessionId, event: SessionEvent) {
        match self.try_end(session, event).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%session, %error, "a session's end was not recorded"),
        }
    }

    async fn try_end(&self, session: SessionId, event: SessionEvent) -> Result<(), StoreError> {
        let key = Key::from(session);
        let mut known = self.begun().remove(&session);
        for _ in 0..MAX_CONFLICTS {
            let entry = match known.take() {
                Some(entry) => Some(entry),
                None => self.bucket.get(&key).await?,
            };
            let Some(mut entry) = entry else { return Ok(()) };
            if advance(&mut entry.value, event, self.clock.now_ms()).is_err() {
                return Ok(());
            }
            match self.bucket.update(&key, &entry.value, entry.revision).await {
                Ok(_) => return Ok(()),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError(StoreFailure::Contended))
    }

    /// Removes a session's record for good, if there is one.
    pub(crate) async fn remove(&self, session: SessionId) -> Result<(), StoreError> {
        let key = Key::from(session);
        self.begun().remove(&session);
        if let Some(entry) = self.bucket.get(&key).await? {
            self.bucket.purge(&key, entry.revision).await?;
        }
        Ok(())
    }
}

/// Applies `event`, and before a signature the start that it implies. That both parties accepted is
/// an event, not a durable write, so the stored state may still be `Inviting`.
fn advance(record: &mut SessionRecord, event: SessionEvent, now_ms: u64) -> Result<(), IllegalTransition> {
    if event == SessionEvent::Sign && record.state == SessionState::Inviting {
        record.apply(SessionEvent::Start, now_ms)?;
    }
    record.apply(event, now_ms)
}

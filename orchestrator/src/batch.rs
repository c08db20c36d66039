//! Batches: many requests in one submission, and how their jobs end, reported as it happens.
//!
//! Each request of a batch is accepted or refused on its own, exactly as if it had been submitted
//! alone. The stored record of a batch holds its jobs, and the place in the stream of ends from
//! which to read about them. Its id is derived from its jobs, and so from its requests' idempotency
//! keys. The same batch submitted again is the same batch, read from the same place.
//!
//! # Nothing missed, nothing doubled
//!
//! The place is noted before any job of the batch is looked at. So the end of a job that was found
//! open is published after that place. Jobs found settled are noted with the batch. Their ends are
//! reported first, from their own records, and skipped in the stream. A cursor says how many of
//! those were reported, or names a place in the stream. It means the same to every orchestrator.

use core::fmt;
use std::{collections::HashSet, sync::Arc};

use duet_bus::{
    ends::EndsUnavailable,
    kv::{Key, WriteError},
};
use duet_queue::{
    intake::{Manner, Rejected, Submitted},
    store::StoreFailure,
};
use duet_wire::{
    JobId, JobStateName, SigningRequest, TenantId,
    batch::{BatchId, BatchItem, BatchRequest},
    record::Kept,
    stored_record,
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, timeout};

use crate::{
    api::{BatchJobView, BatchView, EndView},
    epochs::{Cursor, CursorGone, FIRST, InvalidCursor},
    feed::{Reader, Unread},
    jobs::StoreError,
    orchestrator::Orchestrator,
};

/// How many requests of one batch are accepted in parallel. Each waits for a durable write.
const CONCURRENCY: usize = 16;

/// How soon to check again whether a batch is over, when its last ends have been reported but the
/// board has not heard of it yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A batch as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct BatchRecord {
    pub(crate) id: BatchId,
    pub(crate) tenant: TenantId,
    pub(crate) created_at_ms: u64,
    /// The place in the stream of ends after which the ends of the batch's jobs lie.
    pub(crate) after: u64,
    pub(crate) jobs: Vec<JobId>,
    /// The jobs that had ended before, and when.
    pub(crate) ended_before: Vec<EndedBefore>,
    #[serde(skip)]
    kept: Kept,
}

stored_record!(BatchRecord);

/// A job that had ended before the batch was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndedBefore {
    job: JobId,
    ended_at_ms: u64,
}

/// A place among the ends that a batch reports: how many of the earlier ends were reported, or a
/// place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchCursor {
    at: Cursor,
    /// `None` when all of the earlier ends were reported.
    before: Option<usize>,
}

impl fmt::Display for BatchCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before {
            Some(told) => write!(f, "{}.{told}", self.at),
            None => self.at.fmt(f),
        }
    }
}

impl BatchCursor {
    /// Reads a cursor. `present` is the broker's epoch.
    ///
    /// The version before had no epochs: it wrote `17`, and `17.3` for the third of the earlier
    /// ends. If that reads as a place in an epoch, the first 17 places have at most 17 earlier
    /// ends, so it lies before the batch and its earlier ends are reported again.
    pub(crate) fn read(text: &str, present: u64) -> Result<Self, InvalidCursor> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| InvalidCursor);
        let told = |text: &str| text.parse::<usize>().map_err(|_| InvalidCursor);
        Ok(match text.split('.').collect::<Vec<_>>()[..] {
            [epoch, place, before] => {
                let at = Cursor { epoch: number(epoch)?, place: number(place)? };
                Self { at, before: Some(told(before)?) }
            }
            [place, before] if !(FIRST..=present).contains(&number(place)?) => {
                let at = Cursor { epoch: FIRST, place: number(place)? };
                Self { at, before: Some(told(before)?) }
            }
            _ => Self { at: text.parse()?, before: None },
        })
    }
}

/// The result of one request of a batch.
pub(crate) struct ItemResult {
    /// The job, if the request names one.
    pub(crate) job: Option<JobId>,
    pub(crate) submitted: Result<Submitted, Rejected>,
}

fn key(tenant: &TenantId, id: BatchId) -> Key {
    Key::from((tenant, id.0))
}

impl Orchestrator {
    /// Accepts a batch of `tenant`. Returns its record, unless none of its requests names a job,
    /// and each request's result, in their order.
    pub(crate) async fn submit_batch(
        &self,
        tenant: &TenantId,
        batch: BatchRequest,
    ) -> Result<(Option<BatchRecord>, Vec<ItemResult>), StoreError> {
        let named: Vec<Option<SigningRequest>> = batch
            .items
            .iter()
            .map(|item| SigningRequest::from_json(&item.request.body).ok())
            .map(|request| request.filter(|request| request.tenant == *tenant))
            .collect();
        let jobs: Vec<JobId> = named.iter().flatten().map(SigningRequest::job).collect();
        let record = if jobs.is_empty() { None } else { Some(self.store_batch(tenant, jobs).await?) };
        let results = futures::stream::iter(batch.items.into_iter().zip(named))
            .map(|(BatchItem { request, priority, repeat_digest }, named)| async move {
                let Some(named) = named else {
                    // The usual checks say why it cannot name a job of this tenant.
                    let refused = self.submit_unnamed(tenant, &request).await;
                    return ItemResult { job: None, submitted: Err(refused) };
                };
                let manner = Manner { priority, repeats_digest: repeat_digest };
                let submitted = self.submit(tenant, &named.idempotency_key, &request, manner).await;
                ItemResult { job: Some(named.job()), submitted }
            })
            .buffered(CONCURRENCY)
            .collect()
            .await;
        Ok((record, results))
    }

    /// Stores a batch before its jobs are accepted, or finds it stored.
    async fn store_batch(&self, tenant: &TenantId, mut jobs: Vec<JobId>) -> Result<BatchRecord, StoreError> {
        let id = BatchId::derive(tenant, &jobs);
        if let Some(record) = self.batch(tenant, id).await? {
            return Ok(record);
        }
        jobs.sort_unstable();
        jobs.dedup();
        // Before any job is looked at: see the module's page.
        let after = self
            .bus
            .last_end()
            .await
            .map_err(|error| StoreError(StoreFailure::Unknown(error.to_string())))?;
        let looks: Vec<Result<Option<EndedBefore>, StoreError>> = futures::stream::iter(jobs.clone())
            .map(|job| async move {
                let entry = self.jobs.get(&Key::from((tenant, job))).await?;
                Ok(entry
                    .map(|entry| entry.value)
                    .filter(|record| record.state.is_final())
                    .map(|record| EndedBefore { job, ended_at_ms: record.updated_at_ms }))
            })
            .buffered(CONCURRENCY)
            .collect()
            .await;
        let ended_before = looks.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let record = BatchRecord {
            id,
            tenant: tenant.clone(),
            created_at_ms: self.clock.now_ms(),
            after,
            jobs,
            ended_before,
            kept: Kept::default(),
        };
        match self.batches.create(&key(tenant, id), &record).await {
            Ok(_) => Ok(record),
            // The same batch is submitted twice at this moment.
            Err(WriteError::Conflict { .. }) => {
                self.batch(tenant, id).await?.ok_or(StoreError(StoreFailure::Contended))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The batch, if the tenant has it.
    pub(crate) async fn batch(
        &self,
        tenant: &TenantId,
        id: BatchId,
    ) -> Result<Option<BatchRecord>, StoreError> {
        Ok(self.batches.get(&key(tenant, id)).await?.map(|entry| entry.value))
    }

    /// The state of the batch's jobs, as far as this orchestrator knows.
    pub(crate) fn view_batch(&self, record: &BatchRecord) -> BatchView {
        let jobs: Vec<BatchJobView> = record
            .jobs
            .iter()
            .map(|job| BatchJobView {
                job: *job,
                state: self.board.state(&Key::from((&record.tenant, *job))).map(|(state, _)| state),
            })
            .collect();
        BatchView { id: record.id, created_at_ms: record.created_at_ms, jobs }
    }

    /// Whether the job's end was published, or the job was never accepted, or is no longer kept.
    /// `told` says whether the reader has just reported its end.
    fn is_over(&self, tenant: &TenantId, job: JobId, told: bool) -> bool {
        match self.board.state(&Key::from((tenant, job))) {
            None => !self.board.is_left_to_later(&Key::from((tenant, job))),
            Some((state, published)) => is_final(state) && (published || told),
        }
    }
}

const fn is_final(state: JobStateName) -> bool {
    match state {
        JobStateName::Queued
        | JobStateName::AwaitingOwner
        | JobStateName::Running
        | JobStateName::Unknown(_) => false,
        JobStateName::Signed | JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => true,
    }
}

/// Reads how a batch's jobs ended, one after another.
pub(crate) struct BatchReader {
    orchestrator: Arc<Orchestrator>,
    record: BatchRecord,
    jobs: HashSet<JobId>,
    reader: Reader,
    /// How many of the earlier ends were reported.
    before: usize,
    told: HashSet<JobId>,
}

impl BatchReader {
    /// A reader of the ends of `record`'s jobs after `after`; of all ends when `after` is `None`.
    ///
    /// # Errors
    /// When other ends may have had the cursor's place since.
    pub(crate) fn new(
        orchestrator: &Arc<Orchestrator>,
        record: BatchRecord,
        after: Option<BatchCursor>,
    ) -> Result<Self, CursorGone> {
        let epochs = orchestrator.stores.epochs();
        let start = record.after;
        let (place, before) = match after {
            None => (start, 0),
            Some(BatchCursor { at, before: Some(told) }) => (epochs.resume(at)?.max(start), told),
            Some(BatchCursor { at, before: None }) => match epochs.resume(at)? {
                place if place < start => (start, 0),
                place => (place, record.ended_before.len()),
            },
        };
        let at = Cursor { epoch: epochs.present(), place };
        Ok(Self {
            orchestrator: Arc::clone(orchestrator),
            reader: Reader::new(orchestrator, &record.tenant, at),
            jobs: record.jobs.iter().copied().collect(),
            record,
            before,
            told: HashSet::new(),
        })
    }

    /// Waits for the next end. `None` when every job of the batch has ended and all ends were
    /// reported.
    ///
    /// # Errors
    /// See [`Unread`].
    pub(crate) async fn next(&mut self) -> Result<Option<EndView>, Unread> {
        if let Some(view) = self.next_of_before().await? {
            return Ok(Some(view));
        }
        loop {
            // Asked before the stream is read: a job that is over now already has its end in the
            // stream.
            let (over, settled) = self.is_over();
            while let Some(view) = self.reader.next_now().await? {
                let seen = EndedBefore { job: view.job, ended_at_ms: view.ended_at_ms };
                if self.jobs.contains(&view.job) && !self.record.ended_before.contains(&seen) {
                    self.told.insert(view.job);
                    return Ok(Some(view));
                }
            }
            if over {
                return Ok(None);
            }
            if settled {
                timeout(LOOK_AGAIN, self.reader.wait()).await.ok();
            } else {
                self.reader.wait().await;
            }
        }
    }

    /// Whether all jobs are over, and whether all are at least settled.
    fn is_over(&self) -> (bool, bool) {
        let (orchestrator, tenant) = (&self.orchestrator, &self.record.tenant);
        let over = self.jobs.iter().all(|job| orchestrator.is_over(tenant, *job, self.told.contains(job)));
        (over, self.jobs.iter().all(|job| orchestrator.is_over(tenant, *job, true)))
    }

    /// The next of the earlier ends. A job that was put back since is reported by the stream
    /// instead.
    async fn next_of_before(&mut self) -> Result<Option<EndView>, Unread> {
        while let Some(EndedBefore { job, ended_at_ms }) = self.record.ended_before.get(self.before).copied()
        {
            let entry = self.orchestrator.jobs.get(&Key::from((&self.record.tenant, job))).await;
            let entry = entry.map_err(|error| EndsUnavailable(error.to_string()))?;
            self.before += 1;
            let cursor = BatchCursor {
                at: Cursor { place: self.record.after, ..self.reader.cursor() },
                before: Some(self.before),
            };
            let record = entry.map(|entry| entry.value).filter(|record| record.updated_at_ms == ended_at_ms);
            if let Some(view) = record.and_then(|record| EndView::of_record(&record, cursor.to_string())) {
                self.told.insert(job);
                return Ok(Some(view));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        for text in ["1.0", "2.17", "2.17.3"] {
            assert_eq!(BatchCursor::read(text, 2).unwrap().to_string(), text);
        }
        for (before, now) in [("17", "1.17"), ("17.3", "1.17.3"), ("3.2", "1.3.2"), ("0.0", "1.0.0")] {
            assert_eq!(
                BatchCursor::read(before, 2).unwrap().to_string(),
                now,
                "as the version before wrote it"
            );
        }
        for text in ["", "x", "1.", ".1", "-1", "1.2.3.4", "1.2.x"] {
            assert_eq!(BatchCursor::read(text, 2), Err(InvalidCursor), "{text}");
        }
    }
}

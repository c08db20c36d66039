//! The sweeper: finds jobs that nobody works on and that should be, from this orchestrator's own
//! picture of the bucket. Several orchestrators sweep side by side; compare-and-swap and message ids
//! see to it that only one's finding counts.

use std::sync::Arc;

use duet_bus::{Address, PublishError, kv::Key};
use duet_wire::{Code, JobId, JobState, JobStateName, Refusal, TenantId};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    board::Summary,
    clock::{now_ms, whole_millis},
    jobs::StoreError,
    orchestrator::Orchestrator,
    settle::Failure,
};

/// How long the broker may take to store an announcement.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);

/// How many jobs of one kind one sweep deals with; the others have their turn in the next.
const MAX_PER_SWEEP: usize = 256;

/// Sweeps until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let mut ticks = interval(orchestrator.queue.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => orchestrator.sweep().await,
        }
    }
}

/// What a job found by the sweeper needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Its time has passed.
    Expire,
    /// Its session is long over and nobody said so.
    EndSession,
    /// Its end was never published.
    Publish,
    /// Nobody seems to know of it.
    Announce,
    /// It was kept long enough.
    Remove,
}

impl Orchestrator {
    /// What `job` needs at `now_ms`, if anything.
    fn need(&self, job: &Summary, now_ms: u64) -> Option<Need> {
        let patience = whole_millis(self.queue.announce_after);
        let resting = |since: u64| now_ms >= since.saturating_add(patience);
        match job.state {
            JobStateName::Queued | JobStateName::AwaitingOwner if now_ms >= job.expires_at_ms => {
                Some(Need::Expire)
            }
            JobStateName::Queued => {
                resting(job.updated_at_ms.max(job.next_attempt_at_ms)).then_some(Need::Announce)
            }
            // Who runs the session ends it as soon as its time and the grace have passed. This is
            // for sessions that nobody runs: the owner's, and those of orchestrators that died
            // after their announcement was gone.
            JobStateName::Running => {
                let session = whole_millis(self.queue.session_timeout + self.queue.outcome_grace);
                resting(job.updated_at_ms.saturating_add(session)).then_some(Need::EndSession)
            }
            JobStateName::Signed | JobStateName::Failed if !job.end_published => {
                resting(job.updated_at_ms).then_some(Need::Publish)
            }
            JobStateName::Signed | JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => {
                let kept = whole_millis(self.queue.keep_settled);
                (now_ms >= job.updated_at_ms.saturating_add(kept)).then_some(Need::Remove)
            }
            JobStateName::AwaitingOwner => None,
        }
    }

    async fn sweep(&self) {
        let now = now_ms();
        let mut due = self.board.select(|job| self.need(job, now).is_some());
        due.sort_unstable_by_key(|job| job.updated_at_ms);
        due.truncate(MAX_PER_SWEEP);
        let mut may_announce = None;
        for job in due {
            let swept = match self.need(&job, now) {
                None => Ok(()),
                Some(Need::Expire) => self.expire(&job.key()).await,
                Some(Need::EndSession) => self.end_stale_session(&job.key()).await,
                Some(Need::Publish) => self.publish_again(&job.key()).await,
                Some(Need::Remove) => self.forget_job(&job.key()).await,
                Some(Need::Announce) => {
                    let idle = match may_announce {
                        Some(idle) => idle,
                        None => *may_announce.insert(self.queue_is_drained().await),
                    };
                    if idle { self.announce_again(&job.key()).await } else { Ok(()) }
                }
            };
            if let Err(error) = swept {
                tracing::debug!(job = %job.job, %error, "not swept; the next sweep tries again");
            }
        }
    }

    /// Whether all announcements have been delivered to somebody: only then can a job that rests be
    /// one whose announcement was lost, and not one that waits in line.
    async fn queue_is_drained(&self) -> bool {
        match self.bus.jobs_consumer(&self.storage).await {
            Ok(consumer) => consumer.cached_info().num_pending == 0,
            Err(error) => {
                tracing::debug!(%error, "the queue cannot be looked at");
                false
            }
        }
    }

    /// Announces a job: `attempts_started` tells repeated announcements from new ones, so that the
    /// broker stores one of the former.
    pub(crate) async fn announce(
        &self,
        tenant: &TenantId,
        job: JobId,
        attempts_started: u32,
    ) -> Result<(), PublishError> {
        let message_id = format!("{tenant}.{job}.{attempts_started}");
        self.bus
            .publish_stored(
                &Address::Job(tenant.clone()),
                job.to_string(),
                Some(&message_id),
                ANNOUNCE_DEADLINE,
            )
            .await
            .map(drop)
    }

    async fn announce_again(&self, key: &Key) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(()) };
        let record = entry.value;
        if !matches!(record.state, JobState::Queued) {
            return Ok(());
        }
        tracing::debug!(job = %record.id, "announcing a job that rests");
        self.announce(&record.tenant, record.id, record.attempts_started)
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    async fn end_stale_session(&self, key: &Key) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(()) };
        let JobState::Running { session, .. } = entry.value.state else { return Ok(()) };
        let request = self.request_of(&entry.value)?;
        let refusal = Refusal::new(Code::Deadline, "the session ended without an outcome in time");
        self.end_attempt(key, session, &request, Failure::from(refusal)).await
    }

    async fn publish_again(&self, key: &Key) -> Result<(), StoreError> {
        if let Some(entry) = self.jobs.get(key).await? {
            self.publish_end(&Arc::new(entry)).await;
        }
        Ok(())
    }

    /// Removes a settled job that was kept long enough, with its sessions. Its idempotency key is
    /// free again then.
    async fn forget_job(&self, key: &Key) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(()) };
        if !entry.value.state.is_final() {
            return Ok(());
        }
        for attempt in &entry.value.attempts {
            self.sessions.remove(attempt.session).await?;
        }
        self.jobs.remove(key, &entry).await
    }
}

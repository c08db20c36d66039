//! The sweeper: finds jobs that should be in work but are not, on this orchestrator's own board.
//! Several orchestrators sweep side by side. Compare-and-swap and message ids ensure that only one
//! of them takes effect.

use std::{collections::HashSet, sync::Arc};

use duet_bus::{Address, PublishError, kv::Key, streams};
use duet_queue::{
    need::{Need, need},
    store::{JobKey, StoreFailure},
    summary::Summary,
};
use duet_wire::{JobId, JobState, TenantId};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{board::key_of, clock::whole_millis, jobs::StoreError, orchestrator::Orchestrator};

/// How long the broker may take to store an announcement.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);

/// How many jobs of one kind one sweep handles. The others follow in the next sweep.
const MAX_PER_SWEEP: usize = 256;

/// How often the orchestrator checks whether the broker has room. In between, new jobs fill less
/// than the tenth that is kept free.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(2);

/// Sweeps until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let mut ticks = interval(orchestrator.queue.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rooms = interval(LOOK_FOR_ROOM_EVERY);
    rooms.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(orchestrator.queue.max_retry_pause);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => orchestrator.sweep().await,
            _ = rooms.tick() => orchestrator.look_for_room().await,
            _ = looks.tick() => orchestrator.look_past_owners().await,
        }
    }
}

/// The state of the announcements that are not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backlog {
    /// Some are not delivered yet: a resting job may just wait its turn.
    Waiting,
    /// All are delivered, for jobs in work or between attempts: a resting job may be among them.
    InWork,
    /// There are none: a resting job has lost its announcement.
    Empty,
}

fn job_key(job: &Summary) -> JobKey {
    JobKey { tenant: job.tenant.clone(), job: job.job }
}

impl Orchestrator {
    async fn sweep(&self) {
        let now = self.clock.now_ms();
        let mut found = self.board.select(|job| need(&self.queue, job, now).is_some());
        found.sort_unstable_by_key(|job| job.updated_at_ms);
        let is_disputed = self.clock.require_agreement().is_err();
        let mut dealt_with = [0; Need::COUNT];
        let mut backlog = None;
        for job in found {
            let Some(due) = need(&self.queue, &job, now) else { continue };
            if is_disputed && matches!(due, Need::Expire | Need::Remove) {
                continue;
            }
            let Some(count) = dealt_with.get_mut(due as usize) else { continue };
            *count += 1;
            if *count > MAX_PER_SWEEP {
                continue;
            }
            // Whether the bucket has the job. The board may not have heard of its removal.
            let swept = match due {
                Need::Expire => self.attempts.expire(job_key(&job)).await,
                Need::EndSession => self.attempts.end_stale(job_key(&job)).await,
                Need::Publish => self.attempts.publish_again(job_key(&job)).await,
                Need::Remove => self.forget_job(&key_of(&job)).await,
                Need::Announce => {
                    let backlog = match backlog {
                        Some(backlog) => backlog,
                        None => *backlog.insert(self.backlog().await),
                    };
                    self.announce_again(&key_of(&job), backlog).await
                }
            };
            let swept = match swept {
                Ok(true) => Ok(()),
                Ok(false) => self.jobs.drop_missing(&job).await,
                Err(error) => Err(error),
            };
            if let Err(error) = swept {
                tracing::debug!(job = %job.job, %error, "not swept; the next sweep tries again");
            }
        }
    }

    /// Announces jobs that wait for their owner although they prefer other pairs. A party that was
    /// unreachable may be back.
    async fn look_past_owners(&self) {
        let now = self.clock.now_ms();
        let mut waiting = self
            .board
            .select(|job| job.prefers_backends && now < job.expires_at_ms && job.waits_for.is_some());
        if waiting.is_empty() {
            return;
        }
        waiting.sort_unstable_by_key(|job| job.updated_at_ms);
        let period = now / whole_millis(self.queue.max_retry_pause).max(1);
        // Rotation gives each job its turn, however many wait.
        let first = usize::try_from(period).unwrap_or_default().wrapping_mul(MAX_PER_SWEEP) % waiting.len();
        waiting.rotate_left(first);
        waiting.truncate(MAX_PER_SWEEP);
        for wallet in waiting.iter().filter_map(|job| job.waits_for).collect::<HashSet<_>>() {
            self.directory.forget(wallet);
        }
        for job in waiting {
            // Orchestrators that look at the same time use the same turn, so the job is announced
            // once.
            if let Err(error) = self.announce(&job.tenant, job.job, &format!("look.{period}")).await {
                tracing::debug!(job = %job.job, %error, "not announced; looked at again later");
                return;
            }
        }
    }

    async fn backlog(&self) -> Backlog {
        match self.bus.jobs_consumer(&self.storage).await {
            Ok(consumer) => match consumer.cached_info() {
                info if info.num_pending > 0 => Backlog::Waiting,
                info if info.num_ack_pending > 0 => Backlog::InWork,
                _ => Backlog::Empty,
            },
            Err(error) => {
                tracing::debug!(%error, "the queue cannot be looked at");
                Backlog::Waiting
            }
        }
    }

    /// Announces a job. The broker stores announcements with equal `wake_up` once. The number of
    /// started attempts distinguishes an attempt's announcement from the previous one.
    pub(crate) async fn announce(
        &self,
        tenant: &TenantId,
        job: JobId,
        wake_up: &str,
    ) -> Result<(), PublishError> {
        let message_id = format!("{tenant}.{job}.{wake_up}");
        self.bus
            .publish_stored(
                &Address::Job(tenant.clone()),
                job.to_string(),
                Some(&message_id),
                ANNOUNCE_DEADLINE,
            )
            .await
            .map(drop)
            .inspect_err(|error| {
                if matches!(error, PublishError::Full { .. }) {
                    // The job is announced later. Until there is room, no more jobs are accepted.
                    self.room.mark_full(streams::JOBS);
                }
            })
    }

    async fn announce_again(&self, key: &Key, backlog: Backlog) -> Result<bool, StoreError> {
        if backlog == Backlog::Waiting {
            return Ok(true);
        }
        let Some(entry) = self.jobs.get(key).await? else { return Ok(false) };
        let record = entry.value;
        if !matches!(record.state, JobState::Queued) {
            return Ok(true);
        }
        tracing::debug!(job = %record.id, "announcing a job that rests");
        let wake_up = match backlog {
            // The announcement is lost, even if the stream still remembers its id. Sweepers that
            // find so at the same time compute the same number.
            Backlog::Empty => {
                let period = self.clock.now_ms() / whole_millis(self.queue.announce_after).max(1);
                format!("{}.{period}", record.attempts_started)
            }
            Backlog::InWork | Backlog::Waiting => record.attempts_started.to_string(),
        };
        self.announce(&record.tenant, record.id, &wake_up)
            .await
            .map(|()| true)
            .map_err(|error| StoreError(StoreFailure::Unknown(error.to_string())))
    }

    /// Removes a settled job that was kept long enough, and its sessions. Its idempotency key is
    /// free again afterwards.
    async fn forget_job(&self, key: &Key) -> Result<bool, StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(false) };
        if !entry.value.state.is_final() {
            return Ok(true);
        }
        for attempt in &entry.value.attempts {
            self.sessions.remove(attempt.session).await?;
        }
        self.jobs.remove(key, &entry).await.map(|()| true)
    }
}

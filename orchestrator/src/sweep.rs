//! The sweeper: finds jobs that should be in work but are not, on this orchestrator's own board.
//! Several orchestrators sweep side by side. Compare-and-swap and message ids ensure that only one
//! of them takes effect.

use std::{collections::HashSet, sync::Arc};

use duet_bus::{Address, PublishError, kv::Key, streams};
use duet_protocol::ids::ShareIndex;
use duet_wire::{JobId, JobState, JobStateName, TenantId};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    board::Summary, clock::whole_millis, jobs::StoreError, orchestrator::Orchestrator,
    settings::QueueSettings, settle::Failure,
};

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

/// What a job found by the sweeper needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its time has passed.
    Expire,
    /// Its session is long over and no party reported an outcome.
    EndSession,
    /// Its end was never published.
    Publish,
    /// No orchestrator seems to have its announcement.
    Announce,
    /// It was kept long enough.
    Remove,
}

impl Need {
    /// How many needs there are.
    const COUNT: usize = 5;
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

/// What `job` needs at `now_ms`, if anything.
pub(crate) fn need(queue: &QueueSettings, job: &Summary, now_ms: u64) -> Option<Need> {
    let patience = whole_millis(queue.announce_after);
    let resting = |since: u64| now_ms >= since.saturating_add(patience);
    match job.state {
        JobStateName::Queued | JobStateName::AwaitingOwner if now_ms >= job.expires_at_ms => {
            Some(Need::Expire)
        }
        JobStateName::Queued => {
            resting(job.updated_at_ms.max(job.next_attempt_at_ms)).then_some(Need::Announce)
        }
        // The orchestrator that runs a session ends it once its time and the grace have passed.
        // This is for sessions that none runs: the owner's, and those of orchestrators that died
        // after their announcement was gone. The clock that noted the session's times may differ
        // from this one by more than a session lasts, so it counts since when this process saw it.
        JobStateName::Running => {
            let session = whole_millis(queue.session_timeout + queue.outcome_grace);
            resting(job.seen_at_ms.saturating_add(session)).then_some(Need::EndSession)
        }
        _ if job.is_settled() && !job.end_published => resting(job.updated_at_ms).then_some(Need::Publish),
        // The record is kept until then, so that parties can be told of the revocation.
        _ if job.is_settled() && job.revocation_waits && now_ms < job.expires_at_ms => None,
        JobStateName::Signed | JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => {
            let kept = whole_millis(queue.keep_settled);
            (now_ms >= job.updated_at_ms.saturating_add(kept)).then_some(Need::Remove)
        }
        // Orchestrators of the release that added the state see to it.
        JobStateName::AwaitingOwner | JobStateName::Unknown(_) => None,
    }
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
                Need::Expire => self.expire(&job.key()).await,
                Need::EndSession => self.end_stale_session(&job.key()).await,
                Need::Publish => self.publish_again(&job.key()).await,
                Need::Remove => self.forget_job(&job.key()).await,
                Need::Announce => {
                    let backlog = match backlog {
                        Some(backlog) => backlog,
                        None => *backlog.insert(self.backlog().await),
                    };
                    self.announce_again(&job.key(), backlog).await
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
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    async fn end_stale_session(&self, key: &Key) -> Result<bool, StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(false) };
        let JobState::Running { session, pair, .. } = entry.value.state else { return Ok(true) };
        let request = self.request_of(&entry.value)?;
        let initiator = self.sessions.get(session).await?.map(|record| record.initiator.party);
        let failure = match initiator {
            // No orchestrator waits for the owner's session. Its responder had accepted before the
            // device got the session.
            Some(device) if pair.initiator() == ShareIndex::Device => Failure::no_outcome(device),
            initiator => Failure::abandoned(initiator),
        };
        self.end_attempt(key, session, &request, failure).await?;
        // The orchestrator that ran it may have died with the announcement; a surplus one does no
        // harm.
        let wake_up = entry.value.attempts_started.to_string();
        self.announce(&entry.value.tenant, entry.value.id, &wake_up)
            .await
            .map(|()| true)
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    async fn publish_again(&self, key: &Key) -> Result<bool, StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(false) };
        self.publish_end_again(&Arc::new(entry)).await;
        Ok(true)
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

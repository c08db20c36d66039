//! The sweeper: finds jobs that should be in work but are not, on this orchestrator's own board.
//! The core of the queue gives them what they need.

use std::sync::Arc;

use duet_bus::{Address, PublishError, streams};
use duet_queue::{
    need::{Backlog, need},
    store::JobKey,
    summary::Summary,
};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::orchestrator::Orchestrator;

/// How long the broker may take to store an announcement.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);

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

impl Orchestrator {
    async fn sweep(&self) {
        let now = self.clock.now_ms();
        let found = self.board.select(|job| need(&self.queue, job, now).is_some());
        if !found.is_empty()
            && let Err(error) = self.attempts.sweep(found).await
        {
            tracing::warn!(%error, "not swept; the next sweep tries again");
        }
    }

    /// Has jobs looked at that wait for their owner although they prefer other pairs.
    async fn look_past_owners(&self) {
        let now = self.clock.now_ms();
        let waits =
            |job: &Summary| job.prefers_backends && now < job.expires_at_ms && job.waits_for.is_some();
        let waiting = self.board.select(waits);
        if !waiting.is_empty()
            && let Err(error) = self.attempts.look_past_owners(waiting).await
        {
            tracing::warn!(%error, "jobs that wait for their owner were not looked at");
        }
    }

    /// The state of the announcements that are not acknowledged.
    pub(crate) async fn backlog(&self) -> Backlog {
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
        JobKey { tenant, job }: &JobKey,
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
}

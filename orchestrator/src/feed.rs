//! How a tenant's jobs ended, in the order of publication: for `GET /v1/results`, for batches, and
//! for other readers of results.
//!
//! Ends lie in one stream of the broker, and a cursor is a place in that stream, with the broker's
//! epoch ([`Cursor`]). So a cursor means the same to every orchestrator and after any restart, and
//! one whose place other ends have taken is refused. Each end after the cursor is returned once,
//! whichever orchestrator answers. Reading needs no consumer at the broker: each reader asks
//! for its tenant's next end, and one follower per process wakes the readers when there is one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_bus::{
    Address,
    ends::{EndsUnavailable, StoredEnd},
};
use duet_wire::{Code, JobEnded, JobRecord, JobState, Problem, Refusal, SignedResult, TenantId};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::EndView,
    epochs::{Cursor, CursorGone},
    orchestrator::Orchestrator,
};

/// The pause before a follower that ended is begun anew.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// How long a reader waits before it looks for itself, in case the follower missed an end.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Why ends were not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The broker does not answer.
    #[error(transparent)]
    Broker(#[from] EndsUnavailable),
    /// It is not known yet whether the broker holds what it held before.
    #[error("{0}")]
    NotCompared(Refusal),
    /// The reader has ends that the broker forgot.
    #[error(transparent)]
    Gone(#[from] CursorGone),
}

impl From<Unread> for Problem {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gone(gone) => gone.into(),
            Unread::NotCompared(refusal) => refusal.into(),
            Unread::Broker(error) => {
                tracing::warn!(%error, "results were not read");
                Self::new(Code::StorageUnavailable, "the results cannot be read now; try again")
            }
        }
    }
}

/// The readers that wait for ends, by tenant.
#[derive(Debug, Default)]
pub(crate) struct Feed(Mutex<HashMap<TenantId, watch::Sender<u64>>>);

impl Feed {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes, from now on, whenever an end of one of `tenant`'s jobs may have been stored.
    fn told(&self, tenant: &TenantId) -> watch::Receiver<u64> {
        let mut readers = self.lock();
        readers.retain(|_, sender| sender.receiver_count() > 0);
        readers.entry(tenant.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// How many readers there are, over all tenants.
    pub(crate) fn readers(&self) -> usize {
        self.lock().values().map(watch::Sender::receiver_count).sum()
    }

    fn tell(&self, tenant: &TenantId, sequence: u64) {
        if let Some(sender) = self.lock().get(tenant) {
            sender.send_replace(sequence);
        }
    }

    fn wake_all_readers(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|_| {});
        }
    }
}

/// Follows the stream and wakes readers, until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let mut lost = orchestrator.stores.changes();
    let following = async {
        loop {
            lost.mark_unchanged();
            match orchestrator.bus.follow_ends().await {
                Ok(mut ends) => {
                    // No reader was woken for ends that were stored in between.
                    orchestrator.feed.wake_all_readers();
                    loop {
                        let end = tokio::select! {
                            end = ends.next() => end,
                            _ = lost.changed() => break,
                        };
                        let Some(end) = end else { break };
                        match end {
                            Ok((tenant, sequence)) => orchestrator.feed.tell(&tenant, sequence),
                            Err(error) => {
                                tracing::debug!(%error, "results are followed anew");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "results cannot be followed now"),
            }
            sleep(FOLLOW_PAUSE).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
}

/// Reads one tenant's ends one after another.
pub(crate) struct Reader {
    orchestrator: Arc<Orchestrator>,
    tenant: TenantId,
    at: Cursor,
    told: watch::Receiver<u64>,
}

impl Reader {
    /// A reader of `tenant`'s ends after `after`.
    pub(crate) fn new(orchestrator: &Arc<Orchestrator>, tenant: &TenantId, after: Cursor) -> Self {
        let mut told = orchestrator.feed.told(tenant);
        // The reader looks for existing ends before it waits.
        told.mark_changed();
        Self { orchestrator: Arc::clone(orchestrator), tenant: tenant.clone(), at: after, told }
    }

    /// Where the reader is: the cursor of the end that it returned last.
    pub(crate) const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The next end, if there is one now. Skips ends that cannot be shown.
    ///
    /// # Errors
    /// See [`Unread`].
    ///
    /// # Cancel safety
    /// Cancel safe: an end is either returned or still to come.
    pub(crate) async fn next_now(&mut self) -> Result<Option<EndView>, Unread> {
        let Orchestrator { broker, stores, bus, .. } = &*self.orchestrator;
        loop {
            // Before the question, so that an end stored after it wakes the reader.
            self.told.mark_unchanged();
            broker.require_compared().await.map_err(Unread::NotCompared)?;
            let epochs = stores.epochs();
            self.at = Cursor { epoch: epochs.present(), place: epochs.resume(self.at)? };
            let end = bus.next_end(&self.tenant, self.at.place).await?;
            if !broker.is_compared() || stores.epochs().present() != self.at.epoch {
                // The answer may be of an earlier copy.
                continue;
            }
            let Some(end) = end else { return Ok(None) };
            self.at.place = end.sequence;
            match EndView::of(self.at, &end) {
                Ok(view) => return Ok(Some(view)),
                Err(error) => tracing::error!(sequence = end.sequence, %error, "an end cannot be shown"),
            }
        }
    }

    /// Waits until there may be a further end, for 15 s at most.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.told.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Whether `end` is the end of `record`.
pub(crate) fn is_end_of(end: &StoredEnd, record: &JobRecord) -> bool {
    match (&end.address, &record.state) {
        (Address::Result(_), JobState::Signed { result }) => {
            serde_json::from_slice::<SignedResult>(&end.payload).is_ok_and(|told| told == *result)
        }
        (Address::Ended(_), _) => {
            let told = serde_json::from_slice::<JobEnded>(&end.payload);
            told.is_ok_and(|told| JobEnded::of(record) == Some(told))
        }
        _ => false,
    }
}

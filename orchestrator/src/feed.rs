//! How a tenant's jobs ended, in the order of publication: for `GET /v1/results`, for batches, and
//! for other readers of results.
//!
//! Ends lie in one stream of the broker, and a cursor is a place in that stream. So a cursor means
//! the same to every orchestrator and after any restart. Each end after the cursor is returned
//! once, whichever orchestrator answers. Reading needs no consumer at the broker: each reader asks
//! for its tenant's next end, and one follower per process wakes the readers when there is one.

use core::{fmt, str::FromStr};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_bus::{
    Address,
    ends::{EndsUnavailable, StoredEnd},
};
use duet_wire::{Code, JobEnded, JobRecord, JobState, Refusal, SignedResult, TenantId};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{api::EndView, orchestrator::Orchestrator};

/// The pause before a follower that ended is begun anew.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// How long a reader waits before it looks for itself, in case the follower missed an end.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A place in the sequence of ends: the place of the last end that was read, 0 before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cursor(pub(crate) u64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        text.parse().map(Self).map_err(|_| InvalidCursor)
    }
}

/// The text is not a cursor of this interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor: the id of an event, or `next` of a page")]
pub(crate) struct InvalidCursor;

/// The refusal of a request for results that cannot be read.
pub(crate) fn unreadable(error: &EndsUnavailable) -> Refusal {
    tracing::warn!(%error, "results were not read");
    Refusal::new(Code::StorageUnavailable, "the results cannot be read now; try again")
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

    /// The next end, if there is one now. Skips ends that cannot be shown.
    ///
    /// # Errors
    /// When the broker does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe: an end is either returned or still to come.
    pub(crate) async fn next_now(&mut self) -> Result<Option<EndView>, EndsUnavailable> {
        loop {
            // Before the question, so that an end stored after it wakes the reader.
            self.told.mark_unchanged();
            let Some(end) = self.orchestrator.bus.next_end(&self.tenant, self.at.0).await? else {
                return Ok(None);
            };
            self.at = Cursor(end.sequence);
            match EndView::of(&end) {
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

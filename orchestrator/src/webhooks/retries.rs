//! Deliveries that wait to be retried: entries of a bucket. Every orchestrator keeps a copy of them
//! by a watch, and takes one by compare-and-swap.
//!
//! An entry refers to a stored result and does not contain it. So it has some 300 bytes, and every
//! attempt delivers the same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use core::time::Duration;

use duet_bus::kv::{self, Bucket, Key, Pattern, ReadError, Revision, WriteError};
use duet_wire::{JobId, webhook::EndpointId};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::Instant};

/// How many entries this orchestrator keeps over all endpoints, so that neither its memory nor the
/// bucket fills up: some 150 MB. Beyond it, failed deliveries rest at the broker.
const MAX_IN_ALL: usize = 500_000;

/// How many entries of a removed endpoint are removed at once.
const REMOVED_AT_ONCE: usize = 16;

/// How often a write is decided anew because another orchestrator wrote first.
const MAX_CONFLICTS: usize = 8;

/// A delivery that waits to be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retry {
    /// The result's place in the stream.
    pub(super) sequence: u64,
    /// How many attempts failed while the endpoint took other results.
    pub(super) attempts: u32,
    /// When the next attempt is due, in milliseconds since 1970.
    pub(super) due_ms: u64,
    /// When it was last tried; 0 for never.
    #[serde(default)]
    pub(super) tried_at_ms: u64,
    /// Until when an orchestrator is at work on it; 0 for none.
    #[serde(default)]
    pub(super) claimed_until_ms: u64,
    /// Whether the tenant asked for a replay of it.
    #[serde(default)]
    pub(super) is_replay: bool,
}

/// An entry as this orchestrator knows it.
#[derive(Debug, Clone, Copy)]
struct Known {
    retry: Retry,
    revision: Revision,
    /// Whether this orchestrator is at work on it.
    is_here: bool,
}

impl Known {
    const fn is_in_hand(&self, now_ms: u64) -> bool {
        self.is_here || self.retry.claimed_until_ms > now_ms
    }
}

/// An entry that may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picked {
    pub(super) job: JobId,
    pub(super) retry: Retry,
    pub(super) revision: Revision,
}

/// Which entries may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Those that are due, while at most this many of the endpoint are under way.
    Due { max_under_way: usize },
    /// One, from this moment on: any that was tried least recently. Of many that were never tried,
    /// the endpoint may refuse the oldest for what they are.
    Probe { at_ms: u64 },
}

/// The entries of one endpoint.
#[derive(Debug, Default)]
struct Queue {
    entries: BTreeMap<JobId, Known>,
    /// When the endpoint last accepted a result from this orchestrator; 0 for never.
    accepted_at_ms: u64,
    wake: Arc<Notify>,
}

impl Queue {
    /// The entries to try now, from the one with the number `start` on; and when to look again.
    fn pick(&self, rule: Rule, start: usize, now_ms: u64) -> (Vec<Picked>, Option<u64>) {
        let picked = |(job, known): (&JobId, &Known)| Picked {
            job: *job,
            retry: known.retry,
            revision: known.revision,
        };
        let free = |known: &Known| !known.is_in_hand(now_ms);
        let len = self.entries.len();
        let all = self.entries.iter().cycle().skip(start.checked_rem(len).unwrap_or(0)).take(len);
        match rule {
            Rule::Probe { at_ms } if at_ms > now_ms => (Vec::new(), Some(at_ms)),
            Rule::Probe { .. } => {
                let next = all.filter(|(_, known)| free(known));
                let next = next.min_by_key(|(_, known)| known.retry.tried_at_ms);
                let lapse = self.entries.values().map(|known| known.retry.claimed_until_ms);
                let lapse = lapse.filter(|until| *until > now_ms).min();
                (next.map(picked).into_iter().collect(), if next.is_some() { None } else { lapse })
            }
            Rule::Due { max_under_way } => {
                let under_way = self.entries.values().filter(|known| !free(known)).count();
                let room = max_under_way.saturating_sub(under_way);
                let due = all.filter(|(_, known)| free(known) && known.retry.due_ms <= now_ms);
                let look = self
                    .entries
                    .values()
                    .map(|known| if free(known) { known.retry.due_ms } else { known.retry.claimed_until_ms });
                (due.take(room).map(picked).collect(), look.filter(|at| *at > now_ms).min())
            }
        }
    }
}

#[derive(Debug, Default)]
struct View {
    endpoints: HashMap<EndpointId, Queue>,
    /// Endpoints that were removed, and until when their entries are looked for.
    removed: HashMap<EndpointId, Instant>,
    /// How many entries there are over all endpoints.
    len: usize,
}

impl View {
    /// Takes over what the bucket has at `revision`. An older revision than the known one is
    /// ignored.
    fn apply(&mut self, endpoint: EndpointId, job: JobId, value: Option<Retry>, revision: Revision) {
        let queue = self.endpoints.entry(endpoint).or_default();
        match (queue.entries.get_mut(&job), value) {
            (Some(known), _) if known.revision >= revision => {}
            (Some(known), Some(retry)) => (known.retry, known.revision) = (retry, revision),
            (Some(_), None) => {
                queue.entries.remove(&job);
                self.len = self.len.saturating_sub(1);
            }
            (None, Some(retry)) => {
                queue.entries.insert(job, Known { retry, revision, is_here: false });
                self.len += 1;
            }
            (None, None) => {}
        }
        if value.is_some_and(|retry| retry.claimed_until_ms == 0) {
            queue.wake.notify_one();
        }
    }

    /// Forgets all entries, for a watch that begins anew. Entries at hand are claimed, so another
    /// attempt at one conflicts.
    fn clear(&mut self) {
        self.endpoints.values_mut().for_each(|queue| queue.entries.clear());
        self.len = 0;
    }
}

/// All deliveries that wait to be retried.
pub(crate) struct Retries {
    bucket: Bucket<Retry>,
    view: Mutex<View>,
}

/// An entry that this orchestrator holds until its claim lapses.
pub(super) struct Claim {
    endpoint: EndpointId,
    job: JobId,
    revision: Revision,
}

/// Marks an entry as being at hand here, until it is dropped.
pub(super) struct AtHand {
    retries: Arc<Retries>,
    endpoint: EndpointId,
    job: JobId,
}

impl Drop for AtHand {
    fn drop(&mut self) {
        let mut view = self.retries.view();
        let Some(queue) = view.endpoints.get_mut(&self.endpoint) else { return };
        if let Some(known) = queue.entries.get_mut(&self.job) {
            known.is_here = false;
        }
        queue.wake.notify_one();
    }
}

impl Retries {
    pub(crate) fn new(bucket: Bucket<Retry>) -> Self {
        Self { bucket, view: Mutex::default() }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the copy up to date until the watch ends.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn follow(&self) {
        let mut watcher = match self.bucket.watch(&Pattern::everything()).await {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::debug!(%error, "the deliveries to retry cannot be watched now");
                return;
            }
        };
        self.view().clear();
        while let Some(change) = watcher.next().await {
            match change {
                Ok(kv::Change { key, value, revision }) => {
                    if let Some((endpoint, job)) = key.endpoint_and_job() {
                        self.view().apply(endpoint, job, value, revision);
                    }
                }
                Err(ReadError::Malformed { .. }) => {
                    tracing::error!("a delivery to retry was not written by this version; passed over");
                }
                Err(error) => {
                    tracing::debug!(%error, "the watch over deliveries to retry is begun anew");
                    return;
                }
            }
        }
    }

    /// How many wait for an endpoint.
    pub(super) fn waiting(&self, endpoint: EndpointId) -> usize {
        self.view().endpoints.get(&endpoint).map_or(0, |queue| queue.entries.len())
    }

    /// Whether one more delivery to this endpoint would exceed `limit`.
    pub(super) fn is_full(&self, endpoint: EndpointId, job: JobId, limit: usize) -> bool {
        let view = self.view();
        let Some(queue) = view.endpoints.get(&endpoint) else { return false };
        queue.entries.len() >= limit && !queue.entries.contains_key(&job)
    }

    /// Notified when an entry of the endpoint may be tried.
    pub(super) fn wake(&self, endpoint: EndpointId) -> Arc<Notify> {
        Arc::clone(&self.view().endpoints.entry(endpoint).or_default().wake)
    }

    /// Remembers that the endpoint has just accepted a result.
    pub(super) fn accepted(&self, endpoint: EndpointId, at_ms: u64) {
        self.view().endpoints.entry(endpoint).or_default().accepted_at_ms = at_ms;
    }

    /// Whether the endpoint has accepted a result since then.
    pub(super) fn has_accepted_since(&self, endpoint: EndpointId, since_ms: u64) -> bool {
        self.view().endpoints.get(&endpoint).is_some_and(|queue| queue.accepted_at_ms >= since_ms)
    }

    /// The entries to try now, each marked as being at hand; and when to look again.
    pub(super) fn pick(
        self: &Arc<Self>,
        endpoint: EndpointId,
        rule: Rule,
        start: usize,
        now_ms: u64,
    ) -> (Vec<(Picked, AtHand)>, Option<u64>) {
        let mut view = self.view();
        let Some(queue) = view.endpoints.get_mut(&endpoint) else { return (Vec::new(), None) };
        let (picked, look_at) = queue.pick(rule, start, now_ms);
        let mark = |one: Picked| {
            if let Some(known) = queue.entries.get_mut(&one.job) {
                known.is_here = true;
            }
            (one, AtHand { retries: Arc::clone(self), endpoint, job: one.job })
        };
        (picked.into_iter().map(mark).collect(), look_at)
    }

    /// Stores that a delivery waits. One that already waits stays as it is.
    ///
    /// # Errors
    /// When it is not known to be stored.
    pub(super) async fn put(&self, endpoint: EndpointId, job: JobId, retry: Retry) -> Result<(), String> {
        if self.view().len >= MAX_IN_ALL {
            return Err(format!("{MAX_IN_ALL} deliveries wait already"));
        }
        let key = Key::from((endpoint, job));
        for _ in 0..MAX_CONFLICTS {
            let written = match self.bucket.create(&key, &retry).await {
                Err(WriteError::Conflict { .. }) => {
                    match self.bucket.get(&key).await.map_err(|error| error.to_string())? {
                        Some(entry) if entry.value.sequence == retry.sequence => return Ok(()),
                        // The stream was lost and made anew, so the old place means another result.
                        Some(entry) => self.bucket.update(&key, &retry, entry.revision).await,
                        None => continue,
                    }
                }
                created => created,
            };
            match written {
                Ok(revision) => {
                    self.view().apply(endpoint, job, Some(retry), revision);
                    return Ok(());
                }
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("other orchestrators changed the entry again and again".to_owned())
    }

    /// Takes an entry until `until_ms`. `None` when another orchestrator has it.
    ///
    /// # Errors
    /// When the broker does not confirm.
    pub(super) async fn claim(
        &self,
        endpoint: EndpointId,
        picked: &Picked,
        until_ms: u64,
    ) -> Result<Option<Claim>, String> {
        let Picked { job, retry, revision } = *picked;
        let claimed = Retry { claimed_until_ms: until_ms, ..retry };
        match self.write(endpoint, job, claimed, revision).await {
            Ok(revision) => Ok(Some(Claim { endpoint, job, revision })),
            Err(WriteError::Conflict { .. }) => {
                let key = Key::from((endpoint, job));
                let entry = self.bucket.get(&key).await.map_err(|error| error.to_string())?;
                match entry {
                    Some(entry) => self.view().apply(endpoint, job, Some(entry.value), entry.revision),
                    // The entry that was picked is not in the bucket any more.
                    None => self.view().apply(endpoint, job, None, (u64::from(revision) + 1).into()),
                }
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Puts a claimed entry back, to be tried again.
    pub(super) async fn put_back(&self, claim: Claim, retry: Retry) {
        let Claim { endpoint, job, revision } = claim;
        if let Err(error) = self.write(endpoint, job, retry, revision).await {
            tracing::debug!(%endpoint, %job, %error, "a delivery is retried when its claim lapses");
        }
    }

    async fn write(
        &self,
        endpoint: EndpointId,
        job: JobId,
        retry: Retry,
        revision: Revision,
    ) -> Result<Revision, WriteError> {
        let revision = self.bucket.update(&Key::from((endpoint, job)), &retry, revision).await?;
        self.view().apply(endpoint, job, Some(retry), revision);
        Ok(revision)
    }

    /// Removes a claimed entry: it was delivered, or given up.
    pub(super) async fn remove(&self, claim: Claim) {
        let Claim { endpoint, job, revision } = claim;
        if let Err(error) = self.bucket.purge(&Key::from((endpoint, job)), revision).await {
            tracing::debug!(%endpoint, %job, %error, "a delivery is repeated when its claim lapses");
        }
    }

    /// Notes that an endpoint was removed. For `patience` [`Self::remove_orphans`] looks for its
    /// entries, because deliveries under way may still add some.
    pub(super) fn endpoint_removed(&self, endpoint: EndpointId, patience: Duration) {
        self.view().removed.insert(endpoint, Instant::now() + patience);
    }

    /// Removes the entries of removed endpoints. What no orchestrator removes ends with its age.
    pub(super) async fn remove_orphans(&self) {
        let orphans: Vec<(Key, Revision)> = {
            let mut view = self.view();
            let View { endpoints, removed, .. } = &mut *view;
            let known = removed.keys().filter_map(|id| Some((*id, endpoints.get(id)?)));
            let orphans = known
                .flat_map(|(id, queue)| {
                    let entries = queue.entries.iter();
                    entries.map(move |(job, known)| (Key::from((id, *job)), known.revision))
                })
                .collect();
            removed.retain(|_, until| *until > Instant::now());
            endpoints.retain(|id, queue| !removed.contains_key(id) || !queue.entries.is_empty());
            orphans
        };
        futures::stream::iter(orphans)
            .for_each_concurrent(REMOVED_AT_ONCE, async |(key, revision)| {
                // Another orchestrator may have removed it; otherwise the next round tries again.
                if let Err(error) = self.bucket.purge(&key, revision).await {
                    tracing::debug!(%key, %error, "a removed webhook's delivery is left for now");
                }
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: EndpointId = EndpointId([1; 16]);

    fn job(number: u8) -> JobId {
        JobId([number; 16])
    }

    fn retry(sequence: u64, due_ms: u64) -> Retry {
        Retry { sequence, attempts: 0, due_ms, tried_at_ms: 0, claimed_until_ms: 0, is_replay: false }
    }

    fn view(retries: &[Retry]) -> View {
        let mut view = View::default();
        for (number, retry) in (1..).zip(retries) {
            view.apply(ENDPOINT, job(number), Some(*retry), Revision::from(u64::from(number)));
        }
        view
    }

    fn pick(view: &View, rule: Rule, now_ms: u64) -> (Vec<u64>, Option<u64>) {
        let (picked, look_at) = view.endpoints[&ENDPOINT].pick(rule, 1, now_ms);
        (picked.iter().map(|one| one.retry.sequence).collect(), look_at)
    }

    #[test]
    fn due_entries_are_tried_at_once_within_the_bound() {
        let view = view(&[retry(1, 10), retry(2, 10), retry(3, 30)]);
        let due = |max_under_way| Rule::Due { max_under_way };
        assert_eq!(pick(&view, due(16), 9), (vec![], Some(10)));
        assert_eq!(pick(&view, due(16), 10), (vec![2, 1], Some(30)));
        assert_eq!(pick(&view, due(1), 10).0, [2]);
        assert_eq!(pick(&view, due(16), 30), (vec![2, 3, 1], None));
    }

    #[test]
    fn entries_in_hand_count_and_are_left_alone_until_the_claim_lapses() {
        let claimed = Retry { claimed_until_ms: 50, ..retry(1, 10) };
        let view = view(&[claimed, retry(2, 10), retry(3, 10)]);
        assert_eq!(pick(&view, Rule::Due { max_under_way: 2 }, 20), (vec![2], Some(50)));
        assert_eq!(pick(&view, Rule::Due { max_under_way: 16 }, 50), (vec![2, 3, 1], None));
    }

    #[test]
    fn a_probe_takes_what_was_tried_least_recently() {
        let tried = |sequence, at| Retry { tried_at_ms: at, ..retry(sequence, 10) };
        let view = view(&[tried(1, 7), tried(2, 5), tried(3, 6)]);
        assert_eq!(pick(&view, Rule::Probe { at_ms: 40 }, 39), (vec![], Some(40)));
        assert_eq!(pick(&view, Rule::Probe { at_ms: 40 }, 40), (vec![2], None));
        // The entry's own pause does not count, because it is the endpoint that fails.
        assert_eq!(pick(&view, Rule::Probe { at_ms: 0 }, 1).0, [2]);
    }

    #[test]
    fn an_older_change_does_not_undo_a_newer_one() {
        let mut view = view(&[retry(1, 10)]);
        view.apply(ENDPOINT, job(1), Some(retry(1, 99)), Revision::from(7));
        view.apply(ENDPOINT, job(1), Some(retry(1, 20)), Revision::from(6));
        view.apply(ENDPOINT, job(1), None, Revision::from(5));
        assert_eq!(pick(&view, Rule::Due { max_under_way: 1 }, 50), (vec![], Some(99)));
        assert_eq!(view.len, 1);
        view.apply(ENDPOINT, job(1), None, Revision::from(8));
        assert_eq!((view.len, pick(&view, Rule::Due { max_under_way: 1 }, 99)), (0, (vec![], None)));
    }
}

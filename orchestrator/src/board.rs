//! The board: an orchestrator's own copy of the job bucket, kept up to date by a watch. It serves
//! lists, counts of open jobs, the fair order, the sweeper, and callers that wait for a job to
//! change.
//!
//! The board may lag behind the bucket, so no decision rests on it. Every decision is a
//! compare-and-swap.

use core::{cmp::Reverse, num::NonZeroUsize, time::Duration};
use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_bus::kv::{Entry, Key, Revision};
use duet_protocol::ids::{PartyId, WalletId};
use duet_queue::{
    line::{FairQueue, Next, Ticket},
    meter::Meter,
    reasons::{self, Reasons},
    room::Load,
    store::JobKey,
    summary::Summary,
};
use duet_wire::{JobId, JobRecord, JobState, JobStateName, TenantId};
use lru::LruCache;
use tokio::sync::watch;

use crate::clock::{Clock, whole_millis};

/// How many open jobs' whole records are kept: those that changed last. That is more than are in
/// work at once, so a job that was just accepted or begun here need not be read from the broker
/// again.
const MAX_RECENT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The largest request, in bytes, of a record that is kept. A request usually has less than one
/// kilobyte, and all kept ones together stay below ten megabytes.
const MAX_RECENT_REQUEST: usize = 4096;

/// A job's record as of some revision.
pub(crate) type Snapshot = Arc<Entry<JobRecord>>;

/// A job's place in its tenant's list: newest first.
type Place = (TenantId, Reverse<u64>, JobId);

fn place(job: &Summary) -> Place {
    (job.tenant.clone(), Reverse(job.created_at_ms), job.job)
}

/// The key of a job's entry.
pub(crate) fn key_of(job: &Summary) -> Key {
    Key::from((&job.tenant, job.job))
}

/// How many of the open jobs are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpenJobs {
    pub(crate) queued: usize,
    pub(crate) awaiting_owner: usize,
    pub(crate) running: usize,
    /// In a state that a later release added.
    pub(crate) unknown: usize,
}

impl OpenJobs {
    const fn of(&mut self, state: JobStateName) -> Option<&mut usize> {
        match state {
            JobStateName::Queued => Some(&mut self.queued),
            JobStateName::AwaitingOwner => Some(&mut self.awaiting_owner),
            JobStateName::Running => Some(&mut self.running),
            JobStateName::Unknown(_) => Some(&mut self.unknown),
            JobStateName::Signed | JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => {
                None
            }
        }
    }

    pub(crate) const fn all(self) -> usize {
        self.queued + self.awaiting_owner + self.running + self.unknown
    }
}

struct Jobs {
    all: HashMap<Key, Summary>,
    list: BTreeSet<Place>,
    queue: FairQueue,
    open: OpenJobs,
    ended: Meter,
    /// The load of each tenant. A tenant without an entry has no open job.
    loads: HashMap<TenantId, Load>,
    /// How many jobs wait for each wallet's owner. A wallet without an entry has none.
    waiting: HashMap<WalletId, u32>,
    reasons: Reasons,
    watched: HashMap<Key, watch::Sender<Option<Snapshot>>>,
    recent: LruCache<Key, Snapshot>,
    /// The jobs whose records only a later release can read.
    left_to_later: HashSet<Key>,
    /// How often the board was cleared.
    cleared: u64,
}

impl Jobs {
    fn new(max_in_hand_per_tenant: usize) -> Self {
        Self {
            all: HashMap::new(),
            list: BTreeSet::new(),
            queue: FairQueue::new(max_in_hand_per_tenant),
            open: OpenJobs::default(),
            ended: Meter::default(),
            loads: HashMap::new(),
            waiting: HashMap::new(),
            reasons: Reasons::default(),
            watched: HashMap::new(),
            recent: LruCache::new(MAX_RECENT),
            left_to_later: HashSet::new(),
            cleared: 0,
        }
    }

    /// Adds a job to the counts.
    fn count(&mut self, summary: &Summary) {
        if let Some(open) = self.open.of(summary.state) {
            *open += 1;
            self.loads.entry(summary.tenant.clone()).or_default().open += 1;
        }
        if let Some(wallet) = summary.waits_for {
            *self.waiting.entry(wallet).or_default() += 1;
        }
        self.reasons.add(summary.waiting);
    }

    fn remove(&mut self, key: &Key) {
        self.left_to_later.remove(key);
        self.recent.pop(key);
        if let Some(before) = self.all.remove(key) {
            self.discount(&before);
            self.list.remove(&place(&before));
            self.queue.remove(&before.tenant, before.job);
        }
    }

    /// Removes a counted job from the counts.
    fn discount(&mut self, summary: &Summary) {
        if let Some(open) = self.open.of(summary.state) {
            *open -= 1;
            if let Some(load) = self.loads.get_mut(&summary.tenant) {
                load.open -= 1;
            }
        }
        if let Some(wallet) = summary.waits_for
            && let hash_map::Entry::Occupied(mut count) = self.waiting.entry(wallet)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.reasons.remove(summary.waiting);
    }
}

/// An orchestrator's copy of the job bucket.
pub(crate) struct Board {
    jobs: Mutex<Jobs>,
    /// Changes when a job becomes ready to start.
    freed: watch::Sender<()>,
    /// Whether the board holds every job that the bucket held when it was last filled anew.
    filled: watch::Sender<bool>,
    longest_pause_ms: u64,
    clock: Clock,
}

/// One filling of the board. [`Board::clear`] makes it void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filling(u64);

/// A job that this process works on. Dropping it releases the job.
pub(crate) struct Held {
    pub(crate) key: Key,
    tenant: TenantId,
    job: JobId,
    rest_until_ms: u64,
    board: Arc<Board>,
}

impl Held {
    /// Keeps the job, if it is still queued, from starting again before `rest_until_ms`.
    pub(crate) const fn rest_until(&mut self, rest_until_ms: u64) {
        self.rest_until_ms = rest_until_ms;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.board.lock().queue.let_go(&self.tenant, self.job, self.rest_until_ms);
        self.board.freed.send_replace(());
    }
}

/// The job to start next, if any.
pub(crate) enum Turn {
    /// This job.
    Job(Held),
    /// None until a job at hand is done, or a party has seats: every tenant with jobs to start is
    /// at its limit, or the jobs wait for seats.
    Crowded,
    /// None: there is no job to start now.
    NoJob,
}

/// Observes one job's changes. A change may be skipped when a later one follows.
pub(crate) struct Observer {
    key: Key,
    board: Arc<Board>,
    changes: watch::Receiver<Option<Snapshot>>,
}

impl Observer {
    /// The next change that the observer has not returned yet.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) -> Option<Snapshot> {
        // The sender lives as long as this observer does: see `Board::observe`.
        self.changes.changed().await.ok()?;
        self.changes.borrow_and_update().clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let mut jobs = self.board.lock();
        // This observer's own receiver still counts.
        if jobs.watched.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            jobs.watched.remove(&self.key);
        }
    }
}

impl Board {
    /// An empty picture, with places for `max_in_hand_per_tenant` jobs of one tenant at once. No
    /// job rests longer than `longest_pause`, nor longer than the pause that was noted for it,
    /// whatever the time: the clock that noted it may have been ahead.
    pub(crate) fn new(max_in_hand_per_tenant: usize, longest_pause: Duration, clock: Clock) -> Self {
        let jobs = Mutex::new(Jobs::new(max_in_hand_per_tenant));
        Self {
            jobs,
            freed: watch::Sender::new(()),
            filled: watch::Sender::new(false),
            longest_pause_ms: whole_millis(longest_pause),
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a job at `revision`, unless a later revision is known.
    pub(crate) fn apply(&self, key: &Key, record: JobRecord, revision: Revision) -> Snapshot {
        let snapshot = Arc::new(Entry { value: record, revision });
        let mut jobs = self.lock();
        if jobs.all.get(key).is_some_and(|known| known.revision >= u64::from(revision)) {
            return snapshot;
        }
        jobs.left_to_later.remove(key);
        let mut summary = Summary::new(&snapshot.value, revision.into(), self.clock.now_ms());
        // By the clock that noted both times, which may have been ahead.
        let pause_ms = summary.next_attempt_at_ms.saturating_sub(summary.updated_at_ms);
        let latest_ms = self.clock.now_ms().saturating_add(pause_ms.min(self.longest_pause_ms));
        summary.next_attempt_at_ms = summary.next_attempt_at_ms.min(latest_ms);
        let is_open = summary.is_open();
        jobs.list.insert(place(&summary));
        jobs.count(&summary);
        let record = &snapshot.value;
        if matches!(record.state, JobState::Queued) {
            let ticket = Ticket::of(record, summary.next_attempt_at_ms);
            jobs.queue.put(&record.tenant, record.id, ticket);
            self.freed.send_replace(());
        } else {
            jobs.queue.remove(&record.tenant, record.id);
        }
        if let Some(before) = jobs.all.insert(key.clone(), summary) {
            jobs.discount(&before);
            if before.is_open() && !is_open {
                let now_ms = self.clock.now_ms();
                jobs.ended.count(now_ms);
                if let Some(load) = jobs.loads.get_mut(&before.tenant) {
                    load.ended.count(now_ms);
                }
            }
        }
        if let Some(sender) = jobs.watched.get(key) {
            sender.send_replace(Some(Arc::clone(&snapshot)));
        }
        if is_open && snapshot.value.request.body.len() <= MAX_RECENT_REQUEST {
            jobs.recent.put(key.clone(), Arc::clone(&snapshot));
        } else {
            jobs.recent.pop(key);
        }
        snapshot
    }

    /// The next job for this process to start. `named` is the job that the announcement names.
    pub(crate) fn next(self: &Arc<Self>, now_ms: u64, named: (&TenantId, JobId)) -> Turn {
        match self.lock().queue.next(now_ms, Some(named)) {
            Next::Job(tenant, job) => Turn::Job(self.held(tenant, job)),
            Next::Crowded => Turn::Crowded,
            Next::NoJob => Turn::NoJob,
        }
    }

    /// Puts the named job in hand out of turn, unless this process already works on it.
    pub(crate) fn hold(self: &Arc<Self>, tenant: &TenantId, job: JobId) -> Option<Held> {
        let is_free = self.lock().queue.hold(tenant, job);
        is_free.then(|| self.held(tenant.clone(), job))
    }

    fn held(self: &Arc<Self>, tenant: TenantId, job: JobId) -> Held {
        let key = Key::from((&tenant, job));
        Held { key, tenant, job, rest_until_ms: 0, board: Arc::clone(self) }
    }

    /// Keeps this process from starting the job until its entry changes.
    pub(crate) fn pass_over(&self, key: &Key) {
        if let Some((tenant, job)) = key.tenant_and_job() {
            self.lock().queue.remove(&tenant, job);
        }
    }

    /// Parks a job in hand under the party that has no seat for it.
    pub(crate) fn park(&self, job: &JobKey, party: &PartyId) {
        self.lock().queue.park(&job.tenant, job.job, party);
    }

    /// Releases up to `most` of the jobs that are parked under `party`. Returns how many are left.
    pub(crate) fn unpark(&self, party: &PartyId, most: u64) -> usize {
        let left = self.lock().queue.unpark(party, most);
        self.freed.send_replace(());
        left
    }

    /// How many jobs are parked under `party`.
    pub(crate) fn parked(&self, party: &PartyId) -> usize {
        self.lock().queue.parked().find(|(name, _)| *name == party).map_or(0, |(_, jobs)| jobs)
    }

    /// When the job may be started, in milliseconds since 1970, if it is queued.
    pub(crate) fn due(&self, tenant: &TenantId, job: JobId) -> Option<u64> {
        self.lock().queue.due(tenant, job)
    }

    /// Changes, from this call on, when a job becomes ready to start.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// Forgets every job. The bucket that held them is gone, and the revisions of its replacement
    /// begin at 1.
    pub(crate) fn clear(&self) {
        let mut jobs = self.lock();
        jobs.left_to_later.clear();
        jobs.cleared += 1;
        self.filled.send_replace(false);
        let keys: Vec<Key> = jobs.all.keys().cloned().collect();
        drop(jobs);
        for key in keys {
            self.remove(&key);
        }
    }

    /// Begins to fill the board from a watch of the bucket.
    pub(crate) fn begin_filling(&self) -> Filling {
        Filling(self.lock().cleared)
    }

    /// Notes that `filling` has recorded every job of the bucket, unless the board was cleared
    /// since it began.
    pub(crate) fn note_filled(&self, filling: Filling) {
        // Under the lock, so that the board is not cleared in between.
        let jobs = self.lock();
        if jobs.cleared == filling.0 {
            self.filled.send_replace(true);
        }
        drop(jobs);
    }

    /// Waits until the board holds the jobs of the bucket.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn until_filled(&self) {
        // The board outlives this call, and the sender with it.
        self.filled.subscribe().wait_for(|filled| *filled).await.ok();
    }

    /// Records that a job's entry is gone.
    pub(crate) fn remove(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// As [`Self::remove`], unless the job has changed since `job` was selected.
    pub(crate) fn remove_unchanged(&self, job: &Summary) {
        let (key, mut jobs) = (key_of(job), self.lock());
        if jobs.all.get(&key).is_some_and(|known| known.revision == job.revision) {
            jobs.remove(&key);
        }
    }

    /// Records that only a later release can read the job's entry. This one lets go of the job.
    pub(crate) fn leave_to_later(&self, key: &Key) {
        self.remove(key);
        self.lock().left_to_later.insert(key.clone());
    }

    /// Whether only a later release can read the job's entry.
    pub(crate) fn is_left_to_later(&self, key: &Key) -> bool {
        self.lock().left_to_later.contains(key)
    }

    /// How many jobs' entries only a later release can read.
    pub(crate) fn left_to_later(&self) -> usize {
        self.lock().left_to_later.len()
    }

    /// How many jobs are open, of all tenants and of `tenant`, and how fast they end.
    pub(crate) fn load(&self, tenant: &TenantId) -> (Load, Load) {
        let jobs = self.lock();
        let all = Load { open: jobs.open.all(), ended: jobs.ended };
        (all, jobs.loads.get(tenant).copied().unwrap_or_default())
    }

    /// How many jobs are open, of all tenants.
    pub(crate) fn open(&self) -> OpenJobs {
        self.lock().open
    }

    /// The job's state as far as the board knows, and whether its end was published.
    pub(crate) fn state(&self, key: &Key) -> Option<(JobStateName, bool)> {
        self.lock().all.get(key).map(|job| (job.state, job.end_published))
    }

    /// When this process first saw the job's entry as it is, in milliseconds since 1970.
    pub(crate) fn seen_at_ms(&self, key: &Key) -> Option<u64> {
        self.lock().all.get(key).map(|job| job.seen_at_ms)
    }

    /// The newest record that the board has of an open job which changed lately.
    pub(crate) fn recent(&self, key: &Key) -> Option<Snapshot> {
        self.lock().recent.get(key).cloned()
    }

    /// How many jobs wait for the owner of `wallet`.
    pub(crate) fn waiting(&self, wallet: WalletId) -> u32 {
        self.lock().waiting.get(&wallet).copied().unwrap_or(0)
    }

    /// How many jobs wait, by reason.
    pub(crate) fn reasons(&self) -> Reasons {
        let jobs = self.lock();
        jobs.queue.reasons(jobs.reasons.clone())
    }

    /// The party for whose seats the job waits, if it is parked. Its entry does not say so.
    pub(crate) fn lacks_seat_of(&self, tenant: &TenantId, job: JobId) -> Option<PartyId> {
        self.lock().queue.lacks_seat_of(tenant, job).cloned()
    }

    /// Ends the rest of up to `most` jobs that wait for parties that were silent. Returns them.
    pub(crate) fn wake_after_silence(&self, now_ms: u64, most: usize) -> Vec<(TenantId, JobId)> {
        let mut jobs = self.lock();
        let is_woken =
            |job: &&Summary| job.waiting.is_some_and(reasons::is_silence) && job.next_attempt_at_ms <= now_ms;
        let woken = jobs.all.values().filter(is_woken).take(most);
        let woken: Vec<_> = woken.map(|job| (job.tenant.clone(), job.job)).collect();
        for (tenant, job) in &woken {
            jobs.queue.end_rest(tenant, *job);
        }
        self.freed.send_replace(());
        woken
    }

    /// Observes the job under `key` from now on.
    pub(crate) fn observe(self: &Arc<Self>, key: &Key) -> Observer {
        let mut jobs = self.lock();
        let sender = jobs.watched.entry(key.clone()).or_insert_with(|| watch::Sender::new(None));
        let mut changes = sender.subscribe();
        changes.mark_unchanged();
        Observer { key: key.clone(), board: Arc::clone(self), changes }
    }

    /// Up to `limit` of `tenant`'s jobs, newest first, that follow the job `after` and are in
    /// `state`, where given. Also returns whether there are more. `None` when `after` is not known.
    pub(crate) fn list(
        &self,
        tenant: &TenantId,
        state: Option<JobStateName>,
        after: Option<JobId>,
        limit: usize,
    ) -> Option<(Vec<Key>, bool)> {
        let jobs = self.lock();
        let from = match after {
            Some(job) => Bound::Excluded(place(jobs.all.get(&Key::from((tenant, job)))?)),
            None => Bound::Included((tenant.clone(), Reverse(u64::MAX), JobId([0; 16]))),
        };
        let mut keys: Vec<Key> = jobs
            .list
            .range((from, Bound::Unbounded))
            .take_while(|(owner, ..)| owner == tenant)
            .map(|(owner, _, job)| Key::from((owner, *job)))
            .filter(|key| state.is_none_or(|state| jobs.all.get(key).is_some_and(|job| job.state == state)))
            .take(limit + 1)
            .collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        Some((keys, more))
    }

    /// The summaries that `wanted` selects.
    pub(crate) fn select(&self, wanted: impl Fn(&Summary) -> bool) -> Vec<Summary> {
        self.lock().all.values().filter(|summary| wanted(summary)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use duet_queue::{
        QueueSettings,
        need::{Need, need},
    };
    use duet_wire::{
        Code, Pair, Priority, SignedRequest,
        job::{StateForm, Waiting},
        record::Kept,
        unknown::UnknownName,
    };

    use futures::FutureExt as _;

    use super::*;

    fn tenant() -> TenantId {
        "acme".parse().unwrap()
    }

    fn record(job: u8, created_at_ms: u64, state: JobState) -> JobRecord {
        JobRecord {
            id: JobId([job; 16]),
            tenant: tenant(),
            request: SignedRequest { body: b"{}".to_vec(), requester: [0; 32], signature: [0; 64] },
            priority: Priority::Normal,
            state,
            attempts_started: 0,
            attempts: Vec::new(),
            fence: 0,
            next_attempt_at_ms: 0,
            waiting: None,
            created_at_ms,
            updated_at_ms: created_at_ms,
            expires_at_ms: u64::MAX,
            put_back: None,
            end_published_at_ms: None,
            revocation: None,
            trace: None,
            form: StateForm::default(),
            kept: Kept::default(),
        }
    }

    fn put(board: &Board, record: JobRecord, revision: u64) {
        let key = Key::from((&record.tenant, record.id));
        board.apply(&key, record, Revision::from(revision));
    }

    /// How many jobs are open, in all and of the tenant.
    fn open(board: &Board) -> (usize, usize) {
        let (all, own) = board.load(&tenant());
        (all.open, own.open)
    }

    fn running() -> JobState {
        JobState::Running {
            session: duet_protocol::ids::SessionId([1; 16]),
            attempt: 1,
            pair: Pair::ServicePartner,
        }
    }

    #[test]
    fn a_session_lasts_as_long_for_a_clock_that_is_ahead() {
        let queue = QueueSettings::default();
        // Another orchestrator noted the session five minutes ago by this clock. It began just now.
        let seen_at_ms = 1_000_000;
        let record = record(1, seen_at_ms - 300_000, running());
        let summary = Summary::new(&record, 1, seen_at_ms);
        let lasts = queue.session_timeout + queue.outcome_grace + queue.announce_after;
        let over_at_ms = seen_at_ms + u64::try_from(lasts.as_millis()).unwrap();
        assert_eq!(need(&queue, &summary, over_at_ms - 1), None);
        assert_eq!(need(&queue, &summary, over_at_ms), Some(Need::EndSession));
    }

    #[test]
    fn a_state_of_a_later_release_is_open_and_needs_nothing_from_this_one() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        let paused = JobState::Unknown(UnknownName::new("paused").unwrap());
        let past = JobRecord { expires_at_ms: 2, ..record(1, 1, paused) };
        put(&board, past.clone(), 1);
        assert_eq!((open(&board), board.open().unknown), ((1, 1), 1));
        let summary = Summary::new(&past, 1, 1);
        assert_eq!(need(&QueueSettings::default(), &summary, u64::MAX), None);
        // A record that only a later release can read is known by its key alone.
        let key = key_of(&summary);
        board.leave_to_later(&key);
        assert_eq!((open(&board), board.left_to_later(), board.is_left_to_later(&key)), ((0, 0), 1, true));
        put(&board, record(1, 1, JobState::Queued), 3);
        assert_eq!((open(&board), board.left_to_later()), ((1, 1), 0));
        board.leave_to_later(&key);
        board.clear();
        assert_eq!(board.left_to_later(), 0);
    }

    #[test]
    fn a_filling_from_before_the_board_was_cleared_fills_it_no_more() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        let is_filled = || board.until_filled().now_or_never().is_some();
        let before = board.begin_filling();
        assert!(!is_filled());
        board.note_filled(before);
        assert!(is_filled());
        board.clear();
        assert!(!is_filled());
        board.note_filled(before);
        assert!(!is_filled());
        board.note_filled(board.begin_filling());
        assert!(is_filled());
    }

    #[test]
    fn lists_are_newest_first_and_paged() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        for job in 1..=5 {
            put(&board, record(job, u64::from(job) * 10, JobState::Queued), job.into());
        }
        let (first, more) = board.list(&tenant(), None, None, 2).unwrap();
        assert_eq!(first, [5, 4].map(|job| Key::from((&tenant(), JobId([job; 16])))));
        assert!(more);
        let (rest, more) = board.list(&tenant(), None, Some(JobId([4; 16])), 10).unwrap();
        assert_eq!(rest.len(), 3);
        assert!(!more);
        assert!(board.list(&tenant(), None, Some(JobId([9; 16])), 10).is_none());
        assert!(board.list(&"other".parse().unwrap(), None, None, 10).unwrap().0.is_empty());
    }

    #[test]
    fn a_job_rests_no_longer_than_the_longest_pause_whatever_time_was_noted() {
        let board = Arc::new(Board::new(4, Duration::from_secs(15), Clock::default()));
        let earliest_ms = board.clock.now_ms();
        let ahead = JobRecord { next_attempt_at_ms: u64::MAX, ..record(1, 1, JobState::Queued) };
        put(&board, ahead, 1);
        let latest_ms = board.clock.now_ms() + 15_000;
        let due_ms = board.due(&tenant(), JobId([1; 16])).unwrap();
        assert!((earliest_ms..=latest_ms).contains(&due_ms), "{due_ms}");
        assert_eq!(
            board.select(|job| job.next_attempt_at_ms == due_ms).len(),
            1,
            "the sweeper sees the same"
        );
    }

    #[test]
    fn jobs_that_wait_for_a_party_are_woken_when_it_answers() {
        let board = Arc::new(Board::new(4, Duration::from_secs(15), Clock::default()));
        let waiting = |job: u8, code| {
            let waiting = Waiting { code, message: String::new(), since_ms: 1 };
            JobRecord { waiting: Some(waiting), ..record(job, 1, JobState::Queued) }
        };
        let long = board.clock.now_ms() + 600_000;
        for (job, code) in [(1, Code::PartyAway), (2, Code::Deadline), (3, Code::Locked)] {
            put(&board, waiting(job, code), job.into());
            let mut held = board.hold(&tenant(), JobId([job; 16])).unwrap();
            held.rest_until(long);
        }
        assert_eq!(board.reasons().by_code().iter().map(|(_, count)| count).sum::<usize>(), 3);
        let due = || [1, 2, 3].map(|job| board.due(&tenant(), JobId([job; 16])).unwrap());
        assert_eq!(due(), [long; 3]);
        assert_eq!(board.wake_after_silence(1, 1).len(), 1, "at most as many as there is room for");
        assert_eq!(board.wake_after_silence(1, 9).len(), 2);
        assert_eq!(due(), [0, 0, long]);
        put(&board, waiting(1, Code::Locked), 4);
        put(&board, record(2, 1, running()), 5);
        let locked = board.reasons().by_code().into_iter().filter(|(_, count)| *count > 0);
        assert_eq!(locked.collect::<Vec<_>>(), [(Code::Locked, 2)]);
    }

    #[test]
    fn open_jobs_are_counted_once() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        put(&board, record(1, 1, JobState::Queued), 1);
        put(&board, record(2, 1, JobState::Queued), 2);
        put(&board, record(1, 1, running()), 3);
        assert_eq!(open(&board), (2, 2));
        assert_eq!(board.open(), OpenJobs { queued: 1, awaiting_owner: 0, running: 1, unknown: 0 });
        put(&board, record(1, 1, JobState::Cancelled), 4);
        assert_eq!(open(&board), (1, 1));
        let (cancelled, _) = board.list(&tenant(), Some(JobStateName::Cancelled), None, 10).unwrap();
        assert_eq!(cancelled.len(), 1);
        let [second] = &board.select(|job| job.job == JobId([2; 16]))[..] else { panic!("it is gone") };
        put(&board, record(2, 1, running()), 5);
        board.remove_unchanged(second);
        assert_eq!(open(&board), (1, 1), "it has changed since");
        board.remove_unchanged(&board.select(|job| job.job == JobId([2; 16]))[0]);
        assert_eq!(open(&board), (0, 0));
        assert_eq!(board.open(), OpenJobs::default());
    }

    #[test]
    fn jobs_that_wait_for_an_owner_are_counted_per_wallet() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        let waiting = |job: u8, wallet: u8| {
            let document = serde_json::json!({
                "version": 1,
                "tenant": "acme",
                "wallet": WalletId([wallet; 32]).to_string(),
                "payload": {"kind": "personal_message", "text": "hello"},
                "idempotency_key": format!("job-{job}"),
                "expires_at": 2_000_000_000_u64,
            });
            let mut record = record(job, 1, JobState::AwaitingOwner);
            record.request.body = document.to_string().into_bytes();
            record
        };
        let (ours, theirs) = (WalletId([1; 32]), WalletId([2; 32]));
        put(&board, waiting(1, 1), 1);
        put(&board, waiting(2, 1), 2);
        put(&board, waiting(3, 2), 3);
        assert_eq!((board.waiting(ours), board.waiting(theirs)), (2, 1));
        put(&board, record(1, 1, running()), 4);
        put(&board, waiting(2, 1), 5);
        assert_eq!((board.waiting(ours), board.waiting(theirs)), (1, 1));
        board.remove(&Key::from((&tenant(), JobId([3; 16]))));
        assert_eq!((board.waiting(ours), board.waiting(theirs)), (1, 0));
        assert_eq!(board.lock().waiting.len(), 1);
    }

    #[test]
    fn the_newest_record_of_an_open_job_is_at_hand() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        let key = |job: u16| Key::from((&tenant(), JobId(u128::from(job).to_be_bytes())));
        let put = |job: u16, state: JobState, revision: u64| {
            let id = JobId(u128::from(job).to_be_bytes());
            board.apply(&key(job), JobRecord { id, ..record(0, 1, state) }, Revision::from(revision));
        };
        let revision = |job| board.recent(&key(job)).map(|snapshot| u64::from(snapshot.revision));
        put(1, JobState::Queued, 1);
        put(1, running(), 3);
        put(1, JobState::Queued, 2);
        assert_eq!(revision(1), Some(3));
        put(2, JobState::Queued, 4);
        put(2, JobState::Cancelled, 5);
        put(3, JobState::Queued, 6);
        board.remove(&key(3));
        assert_eq!((revision(2), revision(3)), (None, None));
        let mut large = record(4, 1, JobState::Queued);
        large.request.body = vec![b' '; MAX_RECENT_REQUEST + 1];
        board.apply(&key(4), large, Revision::from(7));
        assert_eq!(revision(4), None);
        // The bound holds: the jobs that changed last stay.
        for job in 0..u16::try_from(MAX_RECENT.get()).unwrap() {
            put(job + 10, JobState::Queued, u64::from(job) + 10);
        }
        assert_eq!((revision(1), revision(10)), (None, Some(10)));
    }

    #[test]
    fn what_is_older_than_known_changes_nothing() {
        let board = Board::new(4, Duration::from_secs(15), Clock::default());
        put(&board, record(1, 1, JobState::Cancelled), 5);
        put(&board, record(1, 1, JobState::Queued), 4);
        assert_eq!(open(&board), (0, 0));
    }

    #[tokio::test]
    async fn observers_see_the_change_and_leave_nothing_behind() {
        let board = Arc::new(Board::new(4, Duration::from_secs(15), Clock::default()));
        let key = Key::from((&tenant(), JobId([1; 16])));
        let mut observer = board.observe(&key);
        put(&board, record(1, 1, running()), 1);
        let seen = observer.changed().await.unwrap();
        assert_eq!(seen.value.state.name(), JobStateName::Running);
        drop(observer);
        assert!(board.lock().watched.is_empty());
    }
}

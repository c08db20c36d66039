//! Which job is next: a fair order over tenants, and within each tenant over priorities.
//!
//! This is a pure data structure without clock or I/O. Each orchestrator keeps one fair queue of
//! the jobs that its board shows as queued. It asks the queue whenever an announcement permits it
//! to process a job. Announcements are permits, not references: there are as many as there are
//! waiting jobs, and each goes to one orchestrator. The queue decides which job a permit is spent
//! on. So the stream of announcements needs no subject or consumer per tenant or priority, however
//! many tenants there are. A million announcements of one tenant serve the single job of another
//! just as well.
//!
//! - **Tenants** take turns: of those that have a job to start and a free place, the one that
//!   started least recently is next. Among `n` such tenants, none waits for more than `n - 1`
//!   starts of others.
//! - **One tenant** holds at most a stated number of places at once, so that its hanging sessions
//!   leave places for the others.
//! - **Priorities** share a tenant's starts by their weights ([`Priority::weight`]), the more
//!   urgent first. A priority with a waiting job gets at least one of any 21 consecutive starts.
//! - **One priority's** jobs start in the order in which they were accepted, with one exception.
//!   Where any job of that priority would do, an announcement starts the job it names. So two
//!   orchestrators with an announcement each do not reach for the same job.
//!
//! - **A job that found no seat** is parked under the party that had none. Other new jobs of its
//!   [`Group`] need the same party, so they are parked without a look. All are released in the same
//!   order, as many jobs at a time as there are seats. So a full party holds up no job of another
//!   party, however many of its own wait, and each group of them costs one look.
//!
//! A start costs the logarithm of the number of waiting jobs, one step for each tenant at its
//! limit, and at most [`MAX_SKIPPED`] steps past jobs of full parties.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};

use duet_protocol::ids::{PartyId, WalletId};
use duet_wire::{Code, JobId, JobRecord, Pair, Priority, SigningRequest, TenantId};

use crate::reasons::{self, Reasons};

/// How many jobs one call of [`FairQueue::next`] parks without a look. The next one is looked at,
/// so that the call ends.
const MAX_SKIPPED: usize = 1024;

/// Jobs that need the same parties: they have one wallet, allow the same pairs in the same order,
/// and were not tried yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    wallet: WalletId,
    pairs: [Option<Pair>; Pair::ALL.len()],
}

impl Group {
    /// The group of `record`'s job; `None` for a job that was tried, whose attempts may have ruled
    /// out a pair, or whose request does not parse.
    #[must_use]
    pub fn of(record: &JobRecord) -> Option<Self> {
        if !record.attempts.is_empty() {
            return None;
        }
        let request = SigningRequest::from_json(&record.request.body).ok()?;
        let mut pairs = request.pairs.iter().copied();
        Some(Self { wallet: request.wallet, pairs: core::array::from_fn(|_| pairs.next()) })
    }
}

/// A queued job's place in the fair queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Its priority among its tenant's jobs.
    pub priority: Priority,
    /// When it was accepted, in milliseconds since 1970.
    pub since_ms: u64,
    /// The job may start at this time or later, in milliseconds since 1970.
    pub due_ms: u64,
    /// The jobs that wait for the same seats.
    pub group: Option<Group>,
    /// Why the job waits, by its record. A seat that is lacking counts instead.
    pub noted: Option<Code>,
}

impl Ticket {
    /// The ticket of a queued job, which may start at `due_ms`.
    #[must_use]
    pub fn of(record: &JobRecord, due_ms: u64) -> Self {
        Self {
            priority: record.priority,
            since_ms: record.created_at_ms,
            due_ms,
            group: Group::of(record),
            noted: reasons::of(record),
        }
    }
}

/// The fair queue's answer: which job is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This job, which is now in hand.
    Job(TenantId, JobId),
    /// None for now: every tenant with jobs to start already holds as many places as it may, or the
    /// jobs wait for seats.
    Crowded,
    /// None: there is no job to start now.
    NoJob,
}

#[derive(Debug, Clone, Default)]
struct Job {
    /// `None` when the job is no longer queued but still in hand.
    ticket: Option<Ticket>,
    in_hand: bool,
    /// The party that had no seat for it.
    parked: Option<PartyId>,
    /// Whether it was released since it was parked, so that it is looked at next.
    is_released: bool,
}

impl Job {
    /// The group whose lack of a seat is the job's as well.
    fn lacks(&self) -> Option<Group> {
        self.ticket.filter(|_| !self.is_released)?.group
    }
}

/// The jobs of one priority that may start, in their order.
type Lane = BTreeSet<(u64, JobId)>;

#[derive(Debug, Default)]
struct Tenant {
    jobs: BTreeMap<JobId, Job>,
    lanes: [Lane; 3],
    /// How many starts each lane has left before all get their weights anew.
    credit: [u32; 3],
    in_hand: usize,
    /// Whether the tenant is in the queue of ready_tenants.
    in_turn: bool,
}

const fn lane_of(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

impl Tenant {
    fn has_starts(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty())
    }

    /// The lane that is next: the most urgent of those with a job and a start left.
    fn next_lane(&mut self) -> Option<(&mut Lane, &mut u32)> {
        if !self.has_starts() {
            return None;
        }
        let spent = self.lanes.iter().zip(&self.credit).all(|(lane, credit)| lane.is_empty() || *credit == 0);
        if spent {
            self.credit = Priority::ALL.map(Priority::weight);
        }
        self.lanes.iter_mut().zip(&mut self.credit).find(|(lane, credit)| !lane.is_empty() && **credit > 0)
    }
}

/// The order of the waiting jobs.
#[derive(Debug)]
pub struct FairQueue {
    tenants: BTreeMap<TenantId, Tenant>,
    /// The tenants with jobs to start; the first is next.
    ready_tenants: VecDeque<TenantId>,
    /// The jobs that may not start yet, ordered by the time when they may.
    resting: BTreeSet<(u64, TenantId, JobId)>,
    /// The jobs that are parked under each party, in their order.
    parked: BTreeMap<PartyId, FairQueue>,
    /// The groups of jobs that need a seat of a party under which jobs are parked.
    lacking: BTreeMap<Group, PartyId>,
    /// The reasons that the records of the parked jobs show.
    hidden: Reasons,
    max_in_hand_per_tenant: usize,
}

impl FairQueue {
    /// An empty queue, with places for `max_in_hand_per_tenant` jobs of one tenant at once.
    #[must_use]
    pub fn new(max_in_hand_per_tenant: usize) -> Self {
        Self {
            tenants: BTreeMap::new(),
            ready_tenants: VecDeque::new(),
            resting: BTreeSet::new(),
            parked: BTreeMap::new(),
            lacking: BTreeMap::new(),
            hidden: Reasons::default(),
            max_in_hand_per_tenant,
        }
    }

    /// Records that the job is queued, or that its ticket has changed.
    pub fn put(&mut self, tenant: &TenantId, job: JobId, ticket: Ticket) {
        if self.ticket(tenant, job) == Some(ticket) {
            return;
        }
        self.unfile(tenant, job);
        let entry = self.tenants.entry(tenant.clone()).or_default();
        let known = entry.jobs.entry(job).or_default();
        known.ticket = Some(ticket);
        if !known.in_hand {
            // `next` knows the time, and moves the job to its lane once it is due.
            self.resting.insert((ticket.due_ms, tenant.clone(), job));
        }
    }

    /// Records that the job is no longer queued.
    pub fn remove(&mut self, tenant: &TenantId, job: JobId) {
        self.unfile(tenant, job);
        if let Some(entry) = self.tenants.get_mut(tenant)
            && let btree_map::Entry::Occupied(mut known) = entry.jobs.entry(job)
        {
            if known.get().in_hand {
                known.get_mut().ticket = None;
            } else {
                known.remove();
            }
        }
        self.forget_if_empty(tenant);
    }

    /// When the job may be started, if it is queued.
    pub fn due(&self, tenant: &TenantId, job: JobId) -> Option<u64> {
        self.ticket(tenant, job).map(|ticket| ticket.due_ms)
    }

    /// Ends the job's rest, if it is queued.
    pub fn end_rest(&mut self, tenant: &TenantId, job: JobId) {
        if let Some(ticket) = self.ticket(tenant, job) {
            self.put(tenant, job, Ticket { due_ms: 0, ..ticket });
        }
    }

    /// Returns the next job to start at `now_ms` and puts it in hand. `named` is the job that the
    /// announcement names.
    pub fn next(&mut self, now_ms: u64, named: Option<(&TenantId, JobId)>) -> Next {
        self.wake(now_ms);
        let limit = self.max_in_hand_per_tenant;
        let mut skipped = 0;
        loop {
            let has_room = |tenant| self.tenants.get(tenant).is_some_and(|entry| entry.in_hand < limit);
            let Some(position) = self.ready_tenants.iter().position(has_room) else {
                let is_over = self.ready_tenants.is_empty() && self.parked.is_empty();
                return if is_over { Next::NoJob } else { Next::Crowded };
            };
            let Some(tenant) = self.ready_tenants.get(position).cloned() else { return Next::NoJob };
            let Some(entry) = self.tenants.get_mut(&tenant) else { return Next::NoJob };
            let named = named
                .filter(|(owner, _)| **owner == tenant)
                .and_then(|(_, job)| Some((entry.jobs.get(&job)?.ticket?.since_ms, job)));
            let Some((lane, _)) = entry.next_lane() else { return Next::NoJob };
            let place = named.filter(|place| lane.contains(place)).or_else(|| lane.first().copied());
            let Some((since_ms, job)) = place else { return Next::NoJob };
            if skipped < MAX_SKIPPED
                && let Some(party) = entry.jobs.get(&job).and_then(|known| self.lacking.get(&known.lacks()?))
            {
                let party = party.clone();
                skipped += 1;
                self.unfile(&tenant, job);
                self.park_under(&tenant, job, &party);
                continue;
            }
            if let Some((lane, credit)) = entry.next_lane() {
                lane.remove(&(since_ms, job));
                *credit -= 1;
            }
            if let Some(known) = entry.jobs.get_mut(&job) {
                known.in_hand = true;
                known.is_released = false;
            }
            entry.in_hand += 1;
            entry.in_turn = entry.has_starts();
            let is_in_turn = entry.in_turn;
            self.ready_tenants.remove(position);
            if is_in_turn {
                self.ready_tenants.push_back(tenant.clone());
            }
            return Next::Job(tenant, job);
        }
    }

    /// Puts a named job in hand, whether or not it is queued here and however many places its
    /// tenant holds. Returns whether it was not in hand before.
    pub fn hold(&mut self, tenant: &TenantId, job: JobId) -> bool {
        self.unfile(tenant, job);
        let entry = self.tenants.entry(tenant.clone()).or_default();
        let known = entry.jobs.entry(job).or_default();
        if known.in_hand {
            return false;
        }
        known.in_hand = true;
        entry.in_hand += 1;
        true
    }

    /// Releases a job that was in hand. If it is still queued, it may start again at
    /// `rest_until_ms` at the earliest.
    pub fn let_go(&mut self, tenant: &TenantId, job: JobId, rest_until_ms: u64) {
        let Some(entry) = self.tenants.get_mut(tenant) else { return };
        let Some(known) = entry.jobs.get_mut(&job).filter(|known| known.in_hand) else { return };
        known.in_hand = false;
        entry.in_hand -= 1;
        match &mut known.ticket {
            // It has its place there.
            Some(_) if known.parked.is_some() => {}
            Some(ticket) => {
                ticket.due_ms = ticket.due_ms.max(rest_until_ms);
                self.resting.insert((ticket.due_ms, tenant.clone(), job));
            }
            None => {
                entry.jobs.remove(&job);
            }
        }
        self.forget_if_empty(tenant);
    }

    /// Parks a job in hand under the party that has no seat for it, unless it is no longer queued.
    /// The other jobs of its group are parked when their turn comes.
    pub fn park(&mut self, tenant: &TenantId, job: JobId, party: &PartyId) {
        let known = self.tenants.get(tenant).and_then(|entry| entry.jobs.get(&job));
        let Some(known) = known.filter(|known| known.in_hand && known.parked.is_none()) else { return };
        let Some(ticket) = known.ticket else { return };
        if let Some(group) = ticket.group {
            self.lacking.insert(group, party.clone());
        }
        self.park_under(tenant, job, party);
    }

    fn park_under(&mut self, tenant: &TenantId, job: JobId, party: &PartyId) {
        let known = self.tenants.get_mut(tenant).and_then(|entry| entry.jobs.get_mut(&job));
        let Some(known) = known else { return };
        let Some(ticket) = known.ticket else { return };
        known.parked = Some(party.clone());
        known.is_released = false;
        self.hidden.add(ticket.noted);
        let parked = self.parked.entry(party.clone()).or_insert_with(|| Self::new(usize::MAX));
        parked.put(tenant, job, Ticket { due_ms: 0, group: None, ..ticket });
    }

    /// Releases up to `most` of the jobs that are parked under `party`, in their order. Returns how
    /// many are left.
    pub fn unpark(&mut self, party: &PartyId, most: u64) -> usize {
        let Some(mut parked) = self.parked.remove(party) else { return 0 };
        for _ in 0..most {
            let Next::Job(tenant, job) = parked.next(0, None) else { break };
            parked.remove(&tenant, job);
            parked.let_go(&tenant, job, 0);
            let Some(known) = self.tenants.get_mut(&tenant).and_then(|entry| entry.jobs.get_mut(&job)) else {
                continue;
            };
            known.parked = None;
            known.is_released = true;
            self.hidden.remove(known.ticket.and_then(|ticket| ticket.noted));
            if let Some(ticket) = known.ticket.filter(|_| !known.in_hand) {
                self.resting.insert((ticket.due_ms, tenant, job));
            }
        }
        let left = parked.len();
        if left > 0 {
            self.parked.insert(party.clone(), parked);
        } else {
            // The next job that needs the party is looked at.
            self.lacking.retain(|_, lacks| lacks != party);
        }
        left
    }

    /// How many jobs are parked under each party.
    pub fn parked(&self) -> impl Iterator<Item = (&PartyId, usize)> {
        self.parked.iter().map(|(party, parked)| (party, parked.len()))
    }

    /// The party for whose seats the job waits, if it is parked.
    pub fn lacks_seat_of(&self, tenant: &TenantId, job: JobId) -> Option<&PartyId> {
        self.tenants.get(tenant)?.jobs.get(&job)?.parked.as_ref()
    }

    /// Corrects `noted`, which counts the reasons that records show: a parked job waits for a seat.
    #[must_use]
    pub fn reasons(&self, mut noted: Reasons) -> Reasons {
        noted.discount(&self.hidden);
        noted.add_many(Code::NoSeat, self.parked.values().map(Self::len).sum());
        noted
    }

    fn len(&self) -> usize {
        self.tenants.values().map(|entry| entry.jobs.len()).sum()
    }

    fn ticket(&self, tenant: &TenantId, job: JobId) -> Option<Ticket> {
        self.tenants.get(tenant)?.jobs.get(&job)?.ticket
    }

    /// Removes the job from its lane, or from the resting jobs.
    fn unfile(&mut self, tenant: &TenantId, job: JobId) {
        let Some(ticket) = self.ticket(tenant, job) else { return };
        self.resting.remove(&(ticket.due_ms, tenant.clone(), job));
        let Some(entry) = self.tenants.get_mut(tenant) else { return };
        if let Some(party) = entry.jobs.get_mut(&job).and_then(|known| known.parked.take()) {
            self.hidden.remove(ticket.noted);
            if let btree_map::Entry::Occupied(mut parked) = self.parked.entry(party.clone()) {
                parked.get_mut().remove(tenant, job);
                if parked.get().tenants.is_empty() {
                    parked.remove();
                    self.lacking.retain(|_, lacks| *lacks != party);
                }
            }
        }
        for lane in &mut entry.lanes {
            lane.remove(&(ticket.since_ms, job));
        }
        if entry.in_turn && !entry.has_starts() {
            entry.in_turn = false;
            self.ready_tenants.retain(|other| other != tenant);
        }
    }

    /// Moves the jobs that are due into their lanes.
    fn wake(&mut self, now_ms: u64) {
        while self.resting.first().is_some_and(|(due_ms, ..)| *due_ms <= now_ms)
            && let Some((_, tenant, job)) = self.resting.pop_first()
        {
            let Some(entry) = self.tenants.get_mut(&tenant) else { continue };
            let Some(ticket) = entry.jobs.get(&job).and_then(|known| known.ticket) else { continue };
            if let Some(lane) = entry.lanes.get_mut(lane_of(ticket.priority)) {
                lane.insert((ticket.since_ms, job));
            }
            if !entry.in_turn {
                entry.in_turn = true;
                self.ready_tenants.push_back(tenant);
            }
        }
    }

    fn forget_if_empty(&mut self, tenant: &TenantId) {
        if self.tenants.get(tenant).is_some_and(|entry| entry.jobs.is_empty() && entry.in_hand == 0) {
            self.tenants.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests;

//! The run of a seed: what happens, in the order of a virtual clock.

mod clients;
mod driver;
mod loops;
mod put_back;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::{PartyId, SessionId, ShareIndex};
use duet_queue::{
    QueueSettings,
    actions::{Action, ActionId, Caller, Event, Now, Outcome},
    already_signed,
    line::Ticket,
    offers::Offered,
    store::{JobKey, Version},
};
use duet_wire::{Code, InstanceId, JobId, JobState, job::JobRevocation};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use crate::{
    broker::Broker,
    clients::Client,
    jobs::{self, OWNERS, TWINS},
    parties::{Parties, judge_failure},
    process::{Calling, Process},
    timing::Timing,
    trace::Trace,
};

use self::clients::judge_twins;

const PROCESSES: usize = 3;
const JOBS: u64 = 6;
/// How many announcements a process has in hand at once.
const PLACES: usize = 3;
/// When the run begins, in milliseconds since 1970.
const START_MS: u64 = 1_800_000_000_000;
/// For how long faults happen.
const FAULTS_MS: u64 = 60_000;
/// How long the jobs may take to end after that.
const CALM_MS: u64 = 20 * 60_000;
/// How soon an announcement comes again whose process died.
const ACK_WAIT_MS: u64 = 3_000;
/// How often a worker offers its seats.
const OFFER_EVERY_MS: u64 = 1_000;
/// How soon it does when their number has changed.
const OFFER_SOON_MS: u64 = 50;
/// How much happens in a run at most: many times what does. A timer that never ends would go on.
const MAX_HAPPENINGS: u64 = 500_000;
/// How many questions a process puts to parties in one second at most, whatever the queue.
const MAX_QUESTIONS: u32 = 8 * PLACES as u32;

/// Something that will happen.
enum Happening {
    Client(Client),
    Pull(usize),
    Step(usize, u32, u64),
    Sweep(usize),
    Tick(usize, u32),
    Effect(usize, u32, Box<Action>),
    Answer(usize, u32, ActionId, Outcome),
    Learn(usize, u32, Version),
    Report {
        session: SessionId,
        job: JobKey,
        is_signed: Result<(), Code>,
        left: u32,
    },
    /// A worker offers seats, and does so again after the pause if there is one.
    Offer {
        worker: usize,
        again_ms: Option<u64>,
    },
    Hear(usize, u32, PartyId, InstanceId, Offered),
    /// A worker goes away for so long.
    Go(usize, u64),
    /// A process says that it has jobs to start.
    SayAtWork(usize),
    HearAtWork(usize, u32, InstanceId),
    Crash(usize),
    Restart(usize),
    /// An operator copies the broker's store.
    Copy,
    /// The broker comes back with the copy, or empty.
    GoBack,
}

pub(crate) struct World {
    rng: ChaCha8Rng,
    now_ms: u64,
    queue: QueueSettings,
    broker: Broker,
    parties: Parties,
    processes: Vec<Process>,
    agenda: BTreeMap<(u64, u64), Happening>,
    next: u64,
    /// The copy of the broker's store, until it is used.
    copy: Broker,
    /// What the parties signed or began to sign for each job, and keep: whether it was the changed
    /// request.
    charged: BTreeMap<JobId, bool>,
    reports: BTreeMap<u64, Happening>,
    /// For how many seconds the first job's request is valid.
    first_lasts_s: u64,
    /// How many clients wait for an answer.
    clients: u32,
    /// The jobs of which a client was told that they are cancelled.
    cancelled: BTreeSet<JobId>,
    trace: Trace,
    timing: Timing,
}

fn party(index: ShareIndex) -> PartyId {
    let name = match index {
        ShareIndex::Device => "device",
        ShareIndex::Service => "service",
        ShareIndex::Partner => "partner",
    };
    name.parse().unwrap()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl World {
    pub(crate) fn new(seed: u64, is_shown: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let queue = QueueSettings {
            session_timeout: Duration::from_secs(5),
            invitation_timeout: Duration::from_secs(1),
            outcome_grace: Duration::from_millis(500),
            max_attempts: 3,
            give_up_after: Duration::from_secs(5),
            max_retry_pause: Duration::from_secs(3),
            ..QueueSettings::default()
        };
        let clocks_differ = rng.next_u32().is_multiple_of(4);
        let mut processes = Vec::new();
        for number in 0..PROCESSES {
            let ahead_ms = if clocks_differ { i64::from(rng.next_u32() % 3) * 60_000 - 60_000 } else { 0 };
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            processes.push(Process::new(number, &queue, seed, (START_MS, ahead_ms)));
        }
        let parties = Parties::new(&mut rng, &[party(ShareIndex::Service), party(ShareIndex::Partner)]);
        let mut world = Self {
            rng,
            now_ms: START_MS,
            queue,
            broker: Broker::default(),
            parties,
            processes,
            agenda: BTreeMap::new(),
            next: 0,
            copy: Broker::default(),
            charged: BTreeMap::new(),
            reports: BTreeMap::new(),
            first_lasts_s: 0,
            clients: 0,
            cancelled: BTreeSet::new(),
            trace: Trace::new(is_shown),
            timing: Timing::default(),
        };
        world.first_lasts_s = 15 + world.below(35);
        world.draw_clients();
        world.draw_going_back();
        for worker in 0..world.parties.count() {
            let after_ms = world.below(OFFER_EVERY_MS);
            world.schedule(after_ms, Happening::Offer { worker, again_ms: Some(OFFER_EVERY_MS) });
            for _ in 0..world.below(3) {
                let (after_ms, lasts_ms) = (world.below(FAULTS_MS - 10_000), world.below(10_000));
                world.schedule(after_ms, Happening::Go(worker, lasts_ms));
            }
        }
        for process in 0..PROCESSES {
            world.schedule(u64::try_from(process).unwrap() * 100, Happening::SayAtWork(process));
            world.schedule(u64::try_from(process).unwrap() * 7, Happening::Pull(process));
            world.schedule(u64::try_from(process).unwrap() * 300, Happening::Sweep(process));
            for _ in 0..world.below(3) {
                let after_ms = world.below(FAULTS_MS - 10_000);
                world.schedule(after_ms, Happening::Crash(process));
            }
        }
        world
    }

    pub(crate) const fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub(crate) const fn timing(&self) -> Timing {
        self.timing
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.rng.next_u32()) % bound
    }

    const fn is_calm(&self) -> bool {
        self.now_ms >= START_MS + FAULTS_MS
    }

    /// Whether a fault happens that has `percent` of probability.
    fn fault(&mut self, percent: u64) -> bool {
        let drawn = self.below(100);
        !self.is_calm() && drawn < percent
    }

    fn delay(&mut self) -> u64 {
        if self.fault(5) { self.below(3_000) } else { self.below(20) }
    }

    fn schedule(&mut self, after_ms: u64, happening: Happening) {
        self.next += 1;
        self.agenda.insert((self.now_ms + after_ms, self.next), happening);
    }

    /// Runs until all jobs have ended and nothing is left.
    pub(crate) fn run(&mut self) {
        while let Some(((at_ms, _), happening)) = self.agenda.pop_first() {
            assert!(
                at_ms < START_MS + FAULTS_MS + CALM_MS,
                "not all jobs end: {:?}",
                self.broker.jobs.values().map(|versions| versions.last()).collect::<Vec<_>>()
            );
            assert!(self.next < MAX_HAPPENINGS, "something happens again and again");
            self.now_ms = at_ms;
            self.happen(happening);
            if self.is_calm() && self.is_over() {
                return self.judge();
            }
        }
        panic!("nothing happens any more");
    }

    /// Whether every job has ended, and its end is published.
    fn is_settled(&self) -> bool {
        let is_settled = |versions: &Vec<Version>| {
            versions.last().is_some_and(|Version { record, .. }| {
                let is_told = |revocation: &JobRevocation| revocation.waits_for.is_empty();
                record.end_published_at_ms.is_some()
                    && (record.expires_at_ms <= self.now_ms || record.revocation.as_ref().is_none_or(is_told))
            })
        };
        self.broker.jobs.values().all(is_settled)
    }

    /// Whether every job has ended and no core has anything to do.
    fn is_over(&self) -> bool {
        self.is_settled()
            && self.reports.is_empty()
            && self.clients == 0
            && self.processes.iter().all(|process| {
                process.is_up && process.callers.is_empty() && process.core.next_due().is_none()
            })
            && !self
                .agenda
                .values()
                .any(|happening| matches!(happening, Happening::Report { .. } | Happening::Client(_)))
    }

    /// What holds at the end.
    fn judge(&self) {
        for number in 1..JOBS {
            let is_accepted = self.broker.jobs.contains_key(&jobs::key(number));
            assert!(is_accepted || TWINS.contains(&number), "job {number} was not accepted");
        }
        // A claim without a job is kept for a minute, by clocks that agree.
        if self.processes.iter().all(|process| process.ahead_ms == self.processes[0].ahead_ms) {
            judge_twins(TWINS.map(|number| self.broker.jobs.get(&jobs::key(number))?.last()));
        }
        for (job, versions) in &self.broker.jobs {
            let record = &versions.last().unwrap().record;
            self.judge_ends(job, versions);
            let is_unwanted = self.cancelled.contains(&record.id);
            assert!(!is_unwanted || record.state == JobState::Cancelled, "a cancelled job went on");
            match &record.state {
                JobState::Failed { code, .. } => judge_failure(*code),
                JobState::Expired => {
                    let latest_ms = self.now_ms + 60_000;
                    assert!(latest_ms >= record.expires_at_ms, "a job expired early");
                }
                JobState::Signed { .. } => {
                    let charged = self.charged.get(&record.id).copied();
                    let is_owners = *job == jobs::key(OWNERS);
                    assert!(is_owners || charged == Some(jobs::is_changed(record)), "two payloads");
                }
                JobState::Cancelled => {}
                other => panic!("{job:?} is {}", other.name()),
            }
        }
        for process in &self.processes {
            for (party, session) in &process.accepted {
                let made_it = |versions: &Vec<Version>| {
                    versions.last().is_some_and(|version| already_signed(&version.record, *session))
                };
                let is_signed = self.broker.jobs.values().any(made_it);
                // A session of the owner's device ends with the responder's own deadline.
                let is_owners = self
                    .broker
                    .sessions
                    .get(session)
                    .is_none_or(|record| record.initiator.index == ShareIndex::Device);
                assert!(is_signed || is_owners, "{party} was not released from {session}");
            }
        }
    }

    /// Each end has one name. The last one is published; one before may have been put back first.
    fn judge_ends(&self, job: &JobKey, versions: &[Version]) {
        let mut names = BTreeSet::new();
        let mut last = Vec::new();
        let mut has_ended = false;
        for Version { record, .. } in versions {
            if record.state.is_final() && !has_ended {
                let name = format!("{}.{}", job.job, record.updated_at_ms);
                last = match &record.state {
                    JobState::Failed { .. } => vec![format!("{name}.dead"), format!("{name}.ended")],
                    JobState::Signed { .. } => vec![format!("{name}.signed")],
                    _ => vec![format!("{name}.ended")],
                };
                names.extend(last.iter().cloned());
            }
            has_ended = record.state.is_final();
        }
        let prefix = format!("{}.", job.job);
        for published in self.broker.ends.keys().filter(|name| name.starts_with(&prefix)) {
            assert!(names.contains(published), "{published} is no end of {job:?}");
        }
        for name in last {
            assert!(self.broker.ends.contains_key(&name), "{name} is not published");
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Client(client) => self.take_client(client),
            Happening::Pull(process) => {
                self.schedule(100, Happening::Pull(process));
                self.pull(process);
            }
            Happening::Step(process, generation, permit) => {
                if self.is_alive(process, generation) {
                    self.step(process, permit);
                }
            }
            Happening::Sweep(process) => {
                self.schedule(1_000, Happening::Sweep(process));
                self.sweep(process);
            }
            Happening::Tick(process, generation) => {
                if self.is_alive(process, generation) {
                    self.processes[process].tick_at_ms = u64::MAX;
                    self.feed(process, Event::Passed);
                }
            }
            Happening::Effect(process, generation, action) => self.take_effect(process, generation, *action),
            Happening::Answer(process, generation, action, outcome) => {
                if self.is_alive(process, generation) {
                    self.hear(process, action, &outcome);
                    self.feed(process, Event::Answered(action, outcome));
                }
            }
            Happening::Learn(process, generation, version) => {
                if self.is_alive(process, generation) {
                    self.learn(process, version);
                }
            }
            Happening::Report { session, job, is_signed, left } => self.report(session, job, is_signed, left),
            Happening::Offer { worker, again_ms } => self.offer(worker, again_ms),
            Happening::Hear(process, generation, party, instance, offered) => {
                if self.is_alive(process, generation) {
                    self.feed(process, Event::Offered { party, instance, offered });
                }
            }
            Happening::Go(worker, lasts_ms) => self.parties.go(worker, self.now_ms + lasts_ms),
            Happening::SayAtWork(process) => self.say_at_work(process),
            Happening::HearAtWork(process, generation, other) => {
                if self.is_alive(process, generation) {
                    self.feed(process, Event::AtWork(other));
                }
            }
            Happening::Crash(process) => self.crash(process),
            Happening::Restart(process) => self.restart(process),
            Happening::Copy => self.copy = self.whole_broker(),
            Happening::GoBack => self.go_back(),
        }
    }

    fn is_alive(&self, process: usize, generation: u32) -> bool {
        self.processes[process].is_up && self.processes[process].generation == generation
    }

    /// Any process that runs.
    fn draw_process(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..PROCESSES).filter(|process| self.processes[*process].is_up).collect();
        let drawn = u64::try_from(up.len()).ok().filter(|count| *count > 0).map(|count| self.below(count))?;
        up.get(usize::try_from(drawn).ok()?).copied()
    }

    /// Every other process learns of a version sooner or later.
    fn tell(&mut self, version: &Version, but: Option<usize>) {
        for process in (0..PROCESSES).filter(|process| Some(*process) != but) {
            let after_ms = self.delay();
            let generation = self.processes[process].generation;
            self.schedule(after_ms, Happening::Learn(process, generation, version.clone()));
        }
    }

    fn learn(&mut self, process: usize, version: Version) {
        let now_ms = self.now_ms;
        let this = &mut self.processes[process];
        let wall_ms = this.wall_ms(now_ms);
        let job = JobKey::of(&version.record);
        if this.known.get(&job).is_some_and(|(known, _)| known.revision >= version.revision) {
            return;
        }
        let record = &version.record;
        if matches!(record.state, JobState::Queued) {
            let pause_ms = record.next_attempt_at_ms.saturating_sub(record.updated_at_ms);
            let latest_ms = wall_ms + pause_ms.min(millis(self.queue.longest_pause()));
            let due_ms = record.next_attempt_at_ms.min(latest_ms);
            this.line.put(&job.tenant, job.job, Ticket::of(record, due_ms));
        } else {
            this.line.remove(&job.tenant, job.job);
        }
        this.known.insert(job.clone(), (version.clone(), wall_ms));
        let at_it: Vec<Caller> = this
            .callers
            .iter()
            .filter(|(_, calling)| matches!(calling, Calling::Work { job: held, .. } if *held == job))
            .map(|(caller, _)| *caller)
            .collect();
        for caller in at_it {
            self.feed(process, Event::Changed(caller, version.clone()));
        }
    }

    /// Gives the core an event and has its actions done.
    fn feed(&mut self, process: usize, event: Event) {
        let this = &mut self.processes[process];
        let now = Now {
            wall_ms: this.wall_ms(self.now_ms),
            steady: Duration::from_millis(self.now_ms - this.began_ms),
        };
        let actions = self.timing.measure(|| this.core.handle(event, now));
        for action in actions {
            self.act(process, action);
        }
        let this = &mut self.processes[process];
        if let Some(due) = this.core.next_due() {
            let at_ms = this.began_ms + millis(due);
            if at_ms < this.tick_at_ms {
                this.tick_at_ms = at_ms;
                let generation = this.generation;
                self.schedule(at_ms.saturating_sub(self.now_ms), Happening::Tick(process, generation));
            }
        }
    }
}

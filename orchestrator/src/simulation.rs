//! Several orchestrators without a network. The simulation has a store with compare-and-swap, and a
//! stream that delivers late, out of order and more than once. Its parties report at any time, and
//! its processes die between any two steps.
//!
//! Every decision runs the production code. That is the record's transitions
//! ([`JobRecord::apply`]), the event after a failure ([`event_after`]), the choice of a pair
//! ([`plan::decide`]), the fair order ([`FairQueue`]), and the sweeper's findings ([`need`]). Only
//! the transport between them is simulated.

use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::SessionId;
use duet_wire::{
    Code, JobEnded, JobEvent, JobId, JobRecord, JobState, Pair, Priority, Refusal, SignedRequest,
    SignedResult, TenantId, job::StateForm, record::Kept,
};
use proptest::prelude::*;

use crate::{
    board::Summary,
    line::{FairQueue, Next, Ticket},
    plan::{self, Decision, Moment},
    settings::QueueSettings,
    settle::{Failure, event_after, past_attempts, running_pair},
    sweep::{Need, need},
};

const PROCESSES: usize = 3;
const JOBS: usize = 6;
const PLACES: usize = 3;
const PAIRS: [Pair; 1] = [Pair::ServicePartner];
/// How long a session lasts, as the processes have agreed.
const SESSION_MS: u64 = 2_000;

fn tenant(job: usize) -> TenantId {
    ["acme", "globex"][job % 2].parse().unwrap()
}

fn id(job: usize) -> JobId {
    JobId([u8::try_from(job).unwrap(); 16])
}

fn settings() -> QueueSettings {
    QueueSettings {
        session_timeout: core::time::Duration::from_millis(SESSION_MS),
        outcome_grace: core::time::Duration::ZERO,
        give_up_after: core::time::Duration::from_secs(60),
        ..QueueSettings::default()
    }
}

/// An announcement on the stream.
#[derive(Debug, Clone, Copy)]
struct Announcement {
    job: usize,
    at_ms: u64,
}

/// The state of an announcement in hand.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Nothing is chosen yet. `named_tried` says whether its own job was tried out of turn.
    Idle { named_tried: bool },
    /// A job is in hand and has to be read.
    Chosen { job: usize },
    /// The job was read at this version. The next write is compared with it.
    Read { job: usize, version: usize },
    /// The task waits for the job's session.
    Waiting { job: usize, session: usize },
}

struct Process {
    queue: FairQueue,
    tasks: Vec<(Announcement, Task)>,
}

impl Process {
    fn new() -> Self {
        Self { queue: FairQueue::new(2), tasks: Vec::new() }
    }

    fn let_go(&mut self, job: usize, rest_until_ms: u64) {
        self.queue.let_go(&tenant(job), id(job), rest_until_ms);
    }
}

struct Session {
    job: usize,
    expires_at_ms: u64,
    reported: bool,
}

struct World {
    settings: QueueSettings,
    now: u64,
    /// Every version of each job's record, the newest last.
    store: Vec<Vec<JobRecord>>,
    stream: Vec<Announcement>,
    processes: Vec<Process>,
    sessions: Vec<Session>,
    /// Reports under way: the session, and whether it was signed.
    reports: Vec<(usize, bool)>,
    /// The contents of the stream of ends, by message id.
    ends: BTreeMap<String, usize>,
}

impl World {
    fn new() -> Self {
        Self {
            settings: settings(),
            now: 1_000_000,
            store: Vec::new(),
            stream: Vec::new(),
            processes: (0..PROCESSES).map(|_| Process::new()).collect(),
            sessions: Vec::new(),
            reports: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    fn latest(&self, job: usize) -> &JobRecord {
        self.store[job].last().unwrap()
    }

    /// Compare-and-swap: applies `event` if `version` is the newest.
    fn write(&mut self, job: usize, version: usize, event: &JobEvent) -> bool {
        if version + 1 != self.store[job].len() {
            return false;
        }
        let mut record = self.latest(job).clone();
        let fence = record.fence;
        if record.apply(event, fence, self.now).is_err() {
            return false;
        }
        self.store[job].push(record);
        true
    }

    fn newest(&self, job: usize) -> usize {
        self.store[job].len() - 1
    }

    fn submit(&mut self) {
        let job = self.store.len();
        if job == JOBS {
            return;
        }
        let record = JobRecord {
            id: id(job),
            tenant: tenant(job),
            request: SignedRequest { body: b"{}".to_vec(), requester: [0; 32], signature: [0; 64] },
            priority: Priority::ALL[job % 3],
            state: JobState::Queued,
            attempts_started: 0,
            attempts: Vec::new(),
            fence: 0,
            next_attempt_at_ms: self.now,
            waiting: None,
            created_at_ms: self.now,
            updated_at_ms: self.now,
            expires_at_ms: self.now + if job == 0 { 3_000 } else { 1_000_000_000 },
            put_back: None,
            end_published_at_ms: None,
            revocation: None,
            trace: None,
            form: StateForm::default(),
            kept: Kept::default(),
        };
        self.store.push(vec![record]);
        self.stream.push(Announcement { job, at_ms: self.now });
    }

    /// The process learns the job's newest version.
    fn watch(&mut self, process: usize, job: usize) {
        let record = self.store[job].last().unwrap();
        let queue = &mut self.processes[process].queue;
        if matches!(record.state, JobState::Queued) {
            let ticket = Ticket {
                priority: record.priority,
                since_ms: record.created_at_ms,
                due_ms: record.next_attempt_at_ms,
            };
            queue.put(&record.tenant, record.id, ticket);
        } else {
            queue.remove(&record.tenant, record.id);
        }
    }

    fn deliver(&mut self, process: usize, at: usize, copy: bool) {
        if self.processes[process].tasks.len() == PLACES || self.stream.is_empty() {
            return;
        }
        let at = at % self.stream.len();
        if self.stream[at].at_ms > self.now {
            return;
        }
        let announcement = if copy { self.stream[at] } else { self.stream.swap_remove(at) };
        self.processes[process].tasks.push((announcement, Task::Idle { named_tried: false }));
    }

    /// Advances one task by one step. With `stale` it reads an older version.
    fn step(&mut self, process: usize, task: usize, stale: bool) {
        if self.processes[process].tasks.is_empty() {
            return;
        }
        let task = task % self.processes[process].tasks.len();
        let (announcement, state) = self.processes[process].tasks.swap_remove(task);
        if let Some(next) = self.next_state(process, announcement, state, stale) {
            self.processes[process].tasks.push((announcement, next));
        }
    }

    /// The task's next state. `None` when its announcement is spent or has gone back.
    fn next_state(
        &mut self,
        process: usize,
        announcement: Announcement,
        state: Task,
        stale: bool,
    ) -> Option<Task> {
        let named = announcement.job;
        match state {
            Task::Idle { named_tried } => {
                let queue = &mut self.processes[process].queue;
                match queue.next(self.now, Some((&tenant(named), id(named)))) {
                    Next::Job(_, chosen) => Some(Task::Chosen { job: usize::from(chosen.0[0]) }),
                    Next::Crowded => Some(state),
                    Next::NoJob if !named_tried && queue.hold(&tenant(named), id(named)) => {
                        Some(Task::Chosen { job: named })
                    }
                    Next::NoJob => {
                        if let Some(due_ms) = queue.due(&tenant(named), id(named)) {
                            self.stream.push(Announcement { job: named, at_ms: due_ms.max(self.now + 1) });
                        }
                        None
                    }
                }
            }
            Task::Chosen { job } => {
                let newest = self.newest(job);
                Some(Task::Read { job, version: if stale { newest.saturating_sub(1) } else { newest } })
            }
            Task::Read { job, version } => self.decide(process, announcement, job, version),
            Task::Waiting { job, session } => {
                let key = session_id(session);
                if running_pair(self.latest(job), key).is_some() {
                    if self.now < self.sessions[session].expires_at_ms {
                        return Some(state);
                    }
                    self.end_attempt(job, session, &no_outcome());
                }
                let rest = self.latest(job).next_attempt_at_ms;
                self.processes[process].let_go(job, rest);
                if matches!(self.latest(job).state, JobState::Queued) {
                    self.stream.push(Announcement { at_ms: rest, ..announcement });
                }
                None
            }
        }
    }

    fn decide(
        &mut self,
        process: usize,
        announcement: Announcement,
        job: usize,
        version: usize,
    ) -> Option<Task> {
        let record = self.store[job][version].clone();
        match &record.state {
            JobState::Queued if self.now >= record.expires_at_ms => {
                self.write(job, version, &JobEvent::Expire);
                self.processes[process].let_go(job, 0);
                None
            }
            JobState::Queued if self.now < record.next_attempt_at_ms => {
                self.processes[process].let_go(job, record.next_attempt_at_ms);
                self.stream.push(Announcement { at_ms: record.next_attempt_at_ms, ..announcement });
                None
            }
            JobState::Queued => {
                let moment = Moment { now_ms: self.now, jitter: 1.0 };
                match plan::decide(&PAIRS, &past_attempts(&record), |_| Ok(()), &self.settings, moment) {
                    Decision::Try(pair, pause) => {
                        assert!(pause.is_zero(), "a job that is due has rested");
                        let session = self.sessions.len();
                        let start = JobEvent::Start { session: session_id(session), pair };
                        if self.write(job, version, &start) {
                            let expires_at_ms = (self.now + SESSION_MS).min(record.expires_at_ms);
                            self.sessions.push(Session { job, expires_at_ms, reported: false });
                            return Some(Task::Waiting { job, session });
                        }
                    }
                    Decision::Fail(Refusal { code, message }) => {
                        let fail = JobEvent::Fail { code, culprit: None, evidence: None, message };
                        self.write(job, version, &fail);
                    }
                    Decision::AwaitOwner(_) | Decision::Wait(_) => unreachable!("one backend pair, usable"),
                }
                self.processes[process].let_go(job, 0);
                self.watch(process, job);
                Some(Task::Idle { named_tried: true })
            }
            _ => {
                self.watch(process, job);
                self.processes[process].let_go(job, 0);
                Some(Task::Idle { named_tried: true })
            }
        }
    }

    fn end_attempt(&mut self, job: usize, session: usize, failure: &Failure) {
        let record = self.latest(job).clone();
        if let Some(pair) = running_pair(&record, session_id(session)) {
            let moment = Moment { now_ms: self.now, jitter: 0.5 };
            let has_expired = self.now >= record.expires_at_ms;
            let event = event_after(&self.settings, &record, pair, &PAIRS, failure, moment, has_expired);
            self.write(job, self.newest(job), &event);
        }
    }

    fn report(&mut self, session: usize, signed: bool) {
        if let Some(open) = self.sessions.get_mut(session)
            && !open.reported
        {
            open.reported = true;
            self.reports.push((session, signed));
        }
    }

    /// Some orchestrator handles a report, which may arrive again.
    fn take_report(&mut self, at: usize, again: bool) {
        if self.reports.is_empty() {
            return;
        }
        let at = at % self.reports.len();
        let (session, signed) = if again { self.reports[at] } else { self.reports.swap_remove(at) };
        let job = self.sessions[session].job;
        if running_pair(self.latest(job), session_id(session)).is_none() {
            return;
        }
        if signed {
            let body = session.to_string().into_bytes();
            let result = SignedResult { body, key: [0; 32], signature: [0; 64] };
            assert!(self.write(job, self.newest(job), &JobEvent::Sign { result }));
        } else {
            self.end_attempt(job, session, &Failure::from(Refusal::new(Code::Overloaded, "busy")));
        }
    }

    /// A process dies. Its announcements are delivered again, and its successor learns of every
    /// job.
    fn crash(&mut self, process: usize) {
        let dead = core::mem::replace(&mut self.processes[process], Process::new());
        self.stream.extend(dead.tasks.iter().map(|(announcement, _)| *announcement));
        (0..self.store.len()).for_each(|job| self.watch(process, job));
    }

    fn sweep(&mut self, publish: bool) {
        for job in 0..self.store.len() {
            let summary = Summary::new(self.latest(job), 1.into(), self.latest(job).updated_at_ms);
            match need(&self.settings, &summary, self.now) {
                Some(Need::Expire) => {
                    self.write(job, self.newest(job), &JobEvent::Expire);
                }
                Some(Need::EndSession) => {
                    if let JobState::Running { session, .. } = self.latest(job).state {
                        self.end_attempt(job, session_number(session), &abandoned());
                        self.stream.push(Announcement { job, at_ms: self.now });
                    }
                }
                Some(Need::Announce) if self.stream.is_empty() => {
                    self.stream.push(Announcement { job, at_ms: self.now });
                }
                Some(Need::Publish) if publish => self.publish(job),
                Some(Need::Announce | Need::Publish | Need::Remove) | None => {}
            }
        }
    }

    fn publish(&mut self, job: usize) {
        let record = self.latest(job).clone();
        assert!(record.state.name() == duet_wire::JobStateName::Signed || JobEnded::of(&record).is_some());
        *self.ends.entry(format!("{job}.{}", record.updated_at_ms)).or_default() += 1;
        let mut noted = record;
        noted.end_published_at_ms = Some(self.now);
        self.store[job].push(noted);
    }

    /// The invariants that hold at any moment.
    fn check(&self) {
        for versions in &self.store {
            let mut over: Option<&JobRecord> = None;
            let mut sessions = BTreeSet::new();
            for record in versions {
                if let Some(end) = over {
                    assert_eq!(record.state, end.state, "a job that had ended went on");
                } else if record.state.is_final() {
                    over = Some(record);
                }
            }
            let newest = versions.last().unwrap();
            assert!(
                newest.attempts.iter().all(|attempt| sessions.insert(attempt.session)),
                "a session twice"
            );
            assert_eq!(u64::from(newest.attempts_started), newest.fence);
            assert!(versions.windows(2).all(|pair| pair[0].fence <= pair[1].fence), "a fence went back");
            if let JobState::Signed { result } = &newest.state {
                let last = newest.attempts.last().unwrap().session;
                let signed_in: usize = String::from_utf8(result.body.clone()).unwrap().parse().unwrap();
                assert_eq!(session_id(signed_in), last, "a late session's signature was taken");
            }
        }
        let ended: BTreeSet<&str> = self.ends.keys().filter_map(|id| Some(id.split_once('.')?.0)).collect();
        assert_eq!(ended.len(), self.ends.len(), "a job's end was published under two names");
    }

    /// From here on nothing fails any more, so every job has to end.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.sweep(true);
            for process in 0..PROCESSES {
                (0..self.store.len()).for_each(|job| self.watch(process, job));
                self.deliver(process, 0, false);
                for task in 0..2 * PLACES {
                    self.step(process, task, false);
                }
            }
            (0..self.sessions.len()).for_each(|session| self.report(session, true));
            self.take_report(0, false);
            self.now += 250;
            self.check();
            let over = |versions: &Vec<JobRecord>| versions.last().unwrap().end_published_at_ms.is_some();
            if self.store.iter().all(over) {
                return;
            }
        }
        panic!("jobs never ended: {:?}", self.store.iter().map(|v| v.last().unwrap()).collect::<Vec<_>>());
    }
}

fn no_outcome() -> Failure {
    Failure::no_outcome("service".parse().unwrap())
}

fn abandoned() -> Failure {
    Failure::abandoned(Some("service".parse().unwrap()))
}

fn session_id(session: usize) -> SessionId {
    SessionId(u128::try_from(session).unwrap().to_be_bytes())
}

fn session_number(session: SessionId) -> usize {
    usize::try_from(u128::from_be_bytes(session.0)).unwrap()
}

proptest! {
    #[test]
    fn every_accepted_job_ends_once_whatever_dies(
        steps in prop::collection::vec((0..22_u8, any::<u8>(), any::<u8>()), 0..600),
    ) {
        let mut world = World::new();
        world.submit();
        for (what, first, second) in steps {
            let (first, second) = (usize::from(first), usize::from(second));
            let process = first % PROCESSES;
            let job = second % world.store.len();
            match what {
                0 => world.submit(),
                1..=3 => world.watch(process, job),
                4..=6 => world.deliver(process, second, false),
                7 => world.deliver(process, second, true),
                8..=13 => world.step(process, second, false),
                14 => world.step(process, second, true),
                15 | 16 => world.report(second, first % 3 > 0),
                17 => world.take_report(second, false),
                18 => world.take_report(second, true),
                19 => world.crash(process),
                20 => world.sweep(first % 2 == 0),
                _ => world.now += u64::try_from(second).unwrap() * 8,
            }
            world.check();
        }
        world.settle();
        prop_assert_eq!(world.ends.len(), world.store.len());
    }
}

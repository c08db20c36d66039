//! The run of a seed: what happens, in the order of a virtual clock.

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};

use duet_protocol::ids::{Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex};
use duet_queue::{
    QueueSettings,
    actions::{
        Action, ActionId, Caller, Event, FoundSession, Invited, Looked, Now, Outcome, Reply, Request, What,
    },
    already_signed,
    failure::{Failure, running_pair},
    line::{Next, Ticket},
    need::{Need, need},
    store::{JobKey, StoreFailure, Version, Written},
    summary::Summary,
    terms::{PairTerms, Terms},
};
use duet_wire::{Code, JobState, Pair, Refusal, Seat, job::Evidence};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use crate::{
    broker::{Announcement, Broker},
    jobs,
    parties::{Answer, Parties, judge_failure},
    process::{Calling, Permit, Process},
    trace::Trace,
};

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
/// How much happens in a run at most: many times what does. A timer that never ends would go on.
const MAX_HAPPENINGS: u64 = 500_000;
/// How many questions a process puts to parties in one second at most, whatever the queue.
const MAX_QUESTIONS: u32 = 8 * PLACES as u32;

/// Something that will happen.
enum Happening {
    Submit(u64),
    Pull(usize),
    Step(usize, u32, u64),
    Sweep(usize),
    Tick(usize, u32),
    Effect(usize, u32, Box<Action>),
    Answer(usize, u32, ActionId, Outcome),
    Learn(usize, u32, Version),
    Report { session: SessionId, job: JobKey, is_signed: Result<(), Code>, left: u32 },
    Crash(usize),
    Restart(usize),
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
    wake_ups: BTreeMap<String, u64>,
    reports: BTreeMap<u64, Happening>,
    trace: Trace,
}

fn party(index: ShareIndex) -> PartyId {
    if index == ShareIndex::Service { "service" } else { "partner" }.parse().unwrap()
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
        for _ in 0..PROCESSES {
            let ahead_ms = if clocks_differ { i64::from(rng.next_u32() % 3) * 60_000 - 60_000 } else { 0 };
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            processes.push(Process::new(&queue, seed, START_MS, ahead_ms));
        }
        let mut world = Self {
            rng,
            now_ms: START_MS,
            queue,
            broker: Broker::default(),
            parties: Parties::default(),
            processes,
            agenda: BTreeMap::new(),
            next: 0,
            wake_ups: BTreeMap::new(),
            reports: BTreeMap::new(),
            trace: Trace::new(is_shown),
        };
        for job in 0..JOBS {
            let after_ms = world.below(10_000);
            world.schedule(after_ms, Happening::Submit(job));
        }
        for process in 0..PROCESSES {
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

    /// Whether every job has ended and no core has anything to do.
    fn is_over(&self) -> bool {
        let is_settled = |versions: &Vec<Version>| {
            versions.last().is_some_and(|version| version.record.end_published_at_ms.is_some())
        };
        self.broker.jobs.values().all(is_settled)
            && self.reports.is_empty()
            && self.processes.iter().all(|process| {
                process.is_up && process.callers.is_empty() && process.core.next_due().is_none()
            })
            && !self.agenda.values().any(|happening| matches!(happening, Happening::Report { .. }))
    }

    /// What holds at the end.
    fn judge(&self) {
        assert_eq!(self.broker.jobs.len(), usize::try_from(JOBS).unwrap());
        for (job, versions) in &self.broker.jobs {
            let record = &versions.last().unwrap().record;
            let prefix = format!("{}.", job.job);
            let ends = self.broker.ends.keys().filter(|id| id.starts_with(&prefix)).count();
            let dead = usize::from(matches!(record.state, JobState::Failed { .. }));
            assert_eq!(ends, 1 + dead, "{job:?} ended under {ends} names");
            match &record.state {
                JobState::Failed { code, .. } => judge_failure(*code),
                JobState::Expired => {
                    let latest_ms = self.now_ms + 60_000;
                    assert!(latest_ms >= record.expires_at_ms, "a job expired early");
                }
                JobState::Signed { .. } => {}
                other => panic!("{job:?} is {}", other.name()),
            }
        }
        for process in &self.processes {
            for (party, session) in &process.accepted {
                let made_it = |versions: &Vec<Version>| {
                    versions.last().is_some_and(|version| already_signed(&version.record, *session))
                };
                let is_signed = self.broker.jobs.values().any(made_it);
                assert!(is_signed, "{party} was not released from {session}");
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Submit(number) => self.submit(number),
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
            Happening::Crash(process) => self.crash(process),
            Happening::Restart(process) => self.restart(process),
        }
    }

    fn is_alive(&self, process: usize, generation: u32) -> bool {
        self.processes[process].is_up && self.processes[process].generation == generation
    }

    fn submit(&mut self, number: u64) {
        let lasts_ms = if number == 0 { 10_000 + self.below(30_000) } else { 3_600_000 };
        let record = jobs::job(number, self.now_ms, self.now_ms + lasts_ms);
        self.trace.line(self.now_ms, format_args!("job {} is accepted", record.id));
        let job = jobs::key(&record);
        let version = self.broker.create(record);
        self.tell(&version, None);
        if !self.fault(10) {
            self.broker.announcements.push(Announcement { job, at_ms: self.now_ms, deliveries: 1 });
        }
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
            let ticket = Ticket { priority: record.priority, since_ms: record.created_at_ms, due_ms };
            this.line.put(&job.tenant, job.job, ticket);
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
        let actions = this.core.handle(event, now);
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

    fn act(&mut self, process: usize, action: Action) {
        let Action { id, caller, what } = action;
        let generation = self.processes[process].generation;
        let done = |id| Happening::Answer(process, generation, id, Outcome::Done);
        self.trace.line(self.now_ms, format_args!("{process}: {id:?} {caller:?} {}", name(&what)));
        match what {
            What::Reply(reply) => {
                self.schedule(0, done(id));
                self.take_reply(process, caller, reply);
            }
            What::End => {
                self.processes[process].callers.remove(&caller);
                self.schedule(0, done(id));
            }
            What::Learn(version) => {
                self.schedule(0, done(id));
                self.learn(process, version);
            }
            What::Enter { .. } | What::Note(_) | What::DoubtParty { .. } | What::ForgetParties { .. } => {
                self.schedule(0, done(id))
            }
            what => {
                if let What::Invite { .. } | What::AskParties { .. } = &what {
                    self.count_question(process);
                }
                if let What::Invite { seat, session, lasts, .. } = &what {
                    let invited = (seat.party.clone(), *session, self.now_ms + millis(*lasts));
                    self.processes[process].invitations.insert(id, invited);
                }
                if let What::Release(session, seated) = &what {
                    self.processes[process].accepted.remove(&(seated.party.clone(), *session));
                }
                let after_ms = self.delay();
                // A message that is lost has no effect and no answer.
                if !self.fault(2) {
                    let action = Box::new(Action { id, caller, what });
                    self.schedule(after_ms, Happening::Effect(process, generation, action));
                }
            }
        }
    }

    /// Notes a seat of whose acceptance the core hears in time.
    fn hear(&mut self, process: usize, action: ActionId, outcome: &Outcome) {
        let now_ms = self.now_ms;
        let this = &mut self.processes[process];
        let Some((party, session, until_ms)) = this.invitations.remove(&action) else { return };
        if matches!(outcome, Outcome::Invited(Invited::Accepted(_))) && now_ms < until_ms {
            this.accepted.insert((party, session));
        }
    }

    fn count_question(&mut self, process: usize) {
        let second = self.now_ms / 1000;
        let (counted, questions) = &mut self.processes[process].questions;
        if *counted != second {
            (*counted, *questions) = (second, 0);
        }
        *questions += 1;
        assert!(*questions <= MAX_QUESTIONS, "{questions} questions in a second");
    }

    /// An action reaches the broker or a party.
    fn take_effect(&mut self, process: usize, generation: u32, action: Action) {
        let Action { id, what, .. } = action;
        let outcome = match what {
            What::Read { job, may_be_behind } => self.read(process, &job, may_be_behind),
            What::Write { job, revision, record } => self.write(process, generation, &job, revision, &record),
            What::CreateSession(record) => {
                self.broker.sessions.insert(record.session, *record);
                Outcome::Written(Written::Stored(1))
            }
            What::FindSession { job, session } => {
                let seen_at_ms = self.processes[process].known.get(&job).map(|(_, seen)| *seen);
                Outcome::Session(Ok(self
                    .broker
                    .sessions
                    .get(&session)
                    .map(|record| FoundSession { initiator: record.initiator.party.clone(), seen_at_ms })))
            }
            What::RemoveSession(session) => {
                self.broker.sessions.remove(&session);
                Outcome::Done
            }
            What::AskBroker => Outcome::Broker(if self.fault(3) {
                Err(Refusal::new(Code::UnsafeBroker, "one node forgets"))
            } else {
                Ok(())
            }),
            What::AskParties { .. } => self.terms(),
            What::Invite { seat, session, .. } => {
                return self.invite(process, generation, id, &seat, session);
            }
            What::Release(session, seated) => {
                self.parties.leave(&seated.party, session);
                Outcome::Done
            }
            What::Publish { document, message_id } => {
                if self.fault(10) {
                    Outcome::Published(false)
                } else {
                    let kind = match document {
                        duet_queue::actions::Document::DeadLetter(_) => "dead",
                        duet_queue::actions::Document::Result(..) => "signed",
                        duet_queue::actions::Document::Ended(..) => "ended",
                    };
                    *self.broker.ends.entry(format!("{message_id}.{kind}")).or_default() += 1;
                    Outcome::Published(true)
                }
            }
            What::FindEnd(record) => {
                let prefix = format!("{}.{}.", record.id, record.updated_at_ms);
                // Dead letters are in a stream of their own.
                let is_it = |id: &String| id.starts_with(&prefix) && !id.ends_with(".dead");
                Outcome::Found(Some(self.broker.ends.keys().any(is_it)))
            }
            What::Announce { job, wake_up } => {
                self.announce(&job, &wake_up);
                Outcome::Published(true)
            }
            What::Show(..) | What::EndSession(..) => Outcome::Done,
            What::Learn(_)
            | What::DoubtParty { .. }
            | What::ForgetParties { .. }
            | What::Enter { .. }
            | What::Note(_)
            | What::Reply(_)
            | What::End => unreachable!("they are done at once"),
        };
        self.answer(process, generation, id, outcome);
    }

    /// An outcome travels back. It may be lost, or arrive twice.
    fn answer(&mut self, process: usize, generation: u32, id: ActionId, outcome: Outcome) {
        if self.fault(2) {
            return;
        }
        let copies = if self.fault(3) { 2 } else { 1 };
        for _ in 0..copies {
            let after_ms = self.delay();
            self.schedule(after_ms, Happening::Answer(process, generation, id, outcome.clone()));
        }
    }

    fn read(&mut self, process: usize, job: &JobKey, may_be_behind: bool) -> Outcome {
        if self.fault(2) {
            return Outcome::Read(Err(StoreFailure::Unknown("no leader".to_owned())));
        }
        if may_be_behind && let Some((known, _)) = self.processes[process].known.get(job) {
            return Outcome::Read(Ok(Some(known.clone())));
        }
        let is_stale = self.fault(10);
        let versions = self.broker.jobs.get(job).map_or(&[][..], Vec::as_slice);
        let at = versions.len().saturating_sub(if is_stale { 2 } else { 1 });
        Outcome::Read(Ok(versions.get(at).cloned()))
    }

    fn write(
        &mut self,
        process: usize,
        generation: u32,
        job: &JobKey,
        revision: u64,
        record: &Arc<duet_wire::JobRecord>,
    ) -> Outcome {
        if self.fault(1) {
            return Outcome::Written(Written::Failed(StoreFailure::Full));
        }
        let unknown = self.fault(3);
        if unknown && self.fault(50) {
            return Outcome::Written(Written::Failed(StoreFailure::Unknown("not stored".to_owned())));
        }
        let written = self.broker.write(job, revision, record);
        if let Written::Stored(revision) = written {
            self.trace.line(self.now_ms, format_args!("{} is {}", job.job, record.state.name()));
            let version = Version { record: Arc::clone(record), revision };
            self.tell(&version, Some(process));
            let after_ms = if unknown { 500 } else { 0 };
            self.schedule(after_ms, Happening::Learn(process, generation, version));
        }
        Outcome::Written(if unknown {
            Written::Failed(StoreFailure::Unknown("not confirmed".to_owned()))
        } else {
            written
        })
    }

    fn terms(&mut self) -> Outcome {
        let seat = |index| Seat { party: party(index), index };
        let terms = if self.fault(5) {
            Err(Refusal::new(Code::PartyAway, "no worker answers"))
        } else {
            Ok(Terms {
                epoch: Epoch(0),
                paillier_key: PaillierKeyId([1; 16]),
                initiator: seat(ShareIndex::Service),
                responder: seat(ShareIndex::Partner),
            })
        };
        Outcome::Terms(PairTerms::from_iter([(Pair::ServicePartner, terms)]))
    }

    fn invite(&mut self, process: usize, generation: u32, id: ActionId, seat: &Seat, session: SessionId) {
        let until_ms = self.now_ms + millis(self.queue.session_timeout);
        let (now_ms, is_calm) = (self.now_ms, self.is_calm());
        let key = (&seat.party, session);
        let answer = self.parties.invite(&mut self.rng, key, (now_ms, until_ms), is_calm);
        let accepted = || Outcome::Invited(Invited::Accepted(format!("worker{}", seat.index)));
        let job = self
            .broker
            .sessions
            .get(&session)
            .map(|record| JobKey { tenant: record.tenant.clone(), job: record.job });
        let outcome = match answer {
            Answer::Accepts | Answer::AcceptsLate => {
                if let Some(job) = job {
                    self.accept(session, &job);
                }
                if matches!(answer, Answer::AcceptsLate) {
                    let after_ms = 1_000 + self.below(3_000);
                    return self.schedule(after_ms, Happening::Answer(process, generation, id, accepted()));
                }
                accepted()
            }
            Answer::Refuses(code) => {
                Outcome::Invited(Invited::Refused { refusal: Refusal::new(code, "it refuses"), times: None })
            }
            Answer::NoSeat => Outcome::Invited(Invited::NoWorker),
            Answer::Silent => return,
            Answer::Nonsense => {
                Outcome::Invited(Invited::Malformed { sha256: [0; 32], reason: "nonsense".to_owned() })
            }
        };
        let after_ms = self.below(20);
        self.schedule(after_ms, Happening::Answer(process, generation, id, outcome));
    }

    /// A party takes its seat. Once both sit, the session has an outcome.
    fn accept(&mut self, session: SessionId, job: &JobKey) {
        let (service, partner) = (party(ShareIndex::Service), party(ShareIndex::Partner));
        if !self.parties.both_sit(session, [&service, &partner]) {
            return;
        }
        let drawn = if self.is_calm() { 100 } else { self.below(100) };
        let (after_ms, is_signed) = match drawn {
            0..10 => return,
            10..14 => (100, Err(Code::Internal)),
            14..18 => (100, Err(Code::Locked)),
            // It arrives when another session of the job may run.
            18..28 => (6_000 + self.below(10_000), Ok(())),
            _ => (50 + self.below(500), Ok(())),
        };
        let copies = if self.fault(10) { 2 } else { 1 };
        for copy in 0..copies {
            let report = Happening::Report { session, job: job.clone(), is_signed, left: 10 };
            self.schedule(after_ms + copy * 700, report);
        }
    }

    /// Any process takes a report, as its driver does: it judges the session, and the core the job.
    fn report(&mut self, session: SessionId, job: JobKey, is_signed: Result<(), Code>, left: u32) {
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            self.parties.leave(&party(index), session);
        }
        let up: Vec<usize> = (0..PROCESSES).filter(|process| self.processes[*process].is_up).collect();
        let again = Happening::Report { session, job: job.clone(), is_signed, left: left.saturating_sub(1) };
        if up.is_empty() || self.fault(5) {
            if left > 0 {
                self.schedule(1_000, again);
            }
            return;
        }
        let process = up[usize::try_from(self.below(u64::try_from(up.len()).unwrap())).unwrap()];
        let stale = self.fault(10);
        let versions = &self.broker.jobs[&job];
        let version = versions[versions.len().saturating_sub(if stale { 2 } else { 1 })].clone();
        if running_pair(&version.record, session).is_none() {
            return;
        }
        let number = self.processes[process].draw();
        let request = match is_signed {
            Ok(()) => {
                let result = jobs::result(&version.record, session, self.now_ms);
                Request::Sign(version, result)
            }
            Err(code) => {
                let evidence = Some(Evidence::Report { by: party(ShareIndex::Service), sha256: [0; 32] });
                let refusal = Refusal::new(code, "it failed");
                Request::EndAttempt { job, session, failure: Failure { refusal, culprit: None, evidence } }
            }
        };
        if left > 0 {
            self.reports.insert(number, again);
        }
        self.ask(process, Calling::Report { number }, request);
    }

    fn ask(&mut self, process: usize, calling: Calling, request: Request) {
        let caller = Caller(self.processes[process].draw());
        self.processes[process].callers.insert(caller, calling);
        self.feed(process, Event::Asked(caller, request));
    }

    fn take_reply(&mut self, process: usize, caller: Caller, reply: Reply) {
        let Some(calling) = self.processes[process].callers.get(&caller).cloned() else { return };
        match (calling, reply) {
            (Calling::Work { permit, job }, Reply::Looked(looked)) => {
                self.looked(process, permit, &job, looked);
            }
            (Calling::Sweep(job), Reply::Done(_)) => {
                self.processes[process].sweeping.remove(&job);
            }
            (Calling::Report { number, .. }, Reply::Signed(Err(_)) | Reply::Done(Err(_))) => {
                // Its sender gets no acknowledgement and reports again.
                if let Some(again) = self.reports.remove(&number) {
                    self.schedule(1_000, again);
                }
            }
            (Calling::Report { number, .. }, Reply::Signed(Ok(_)) | Reply::Done(Ok(_))) => {
                self.reports.remove(&number);
            }
            (_, reply) => panic!("{reply:?} is the reply to another request"),
        }
    }

    fn pull(&mut self, process: usize) {
        let this = &self.processes[process];
        if !this.is_up || this.permits.len() >= PLACES {
            return;
        }
        let due: Vec<usize> = (0..self.broker.announcements.len())
            .filter(|at| self.broker.announcements[*at].at_ms <= self.now_ms)
            .collect();
        if due.is_empty() {
            return;
        }
        let at = due[usize::try_from(self.below(u64::try_from(due.len()).unwrap())).unwrap()];
        let mut announcement = self.broker.announcements[at].clone();
        if self.fault(5) {
            // It is delivered twice.
            self.broker.announcements[at].deliveries += 1;
            self.broker.announcements[at].at_ms += ACK_WAIT_MS;
        } else {
            announcement = self.broker.announcements.swap_remove(at);
        }
        let permit = self.processes[process].draw();
        self.processes[process].permits.insert(permit, Permit { announcement, is_named_tried: false });
        self.step(process, permit);
    }

    /// Spends an announcement on the next job in fair order.
    fn step(&mut self, process: usize, permit: u64) {
        loop {
            let wall_ms = self.processes[process].wall_ms(self.now_ms);
            let this = &mut self.processes[process];
            let Some(held) = this.permits.get_mut(&permit) else { return };
            let named = held.announcement.job.clone();
            match this.line.next(wall_ms, Some((&named.tenant, named.job))) {
                Next::Job(tenant, job) => {
                    let job = JobKey { tenant, job };
                    let request = Request::Work { job: job.clone(), deliveries: 1 };
                    return self.ask(process, Calling::Work { permit, job }, request);
                }
                Next::Crowded => {
                    let generation = this.generation;
                    return self.schedule(200, Happening::Step(process, generation, permit));
                }
                Next::NoJob if !held.is_named_tried => {
                    held.is_named_tried = true;
                    let deliveries = held.announcement.deliveries;
                    if this.line.hold(&named.tenant, named.job) {
                        let request = Request::Work { job: named.clone(), deliveries };
                        return self.ask(process, Calling::Work { permit, job: named }, request);
                    }
                }
                Next::NoJob => {
                    let due_ms = this.line.due(&named.tenant, named.job);
                    return match due_ms {
                        Some(due_ms) => self.put_back(process, permit, due_ms.saturating_sub(wall_ms)),
                        None => drop(self.processes[process].permits.remove(&permit)),
                    };
                }
            }
        }
    }

    fn put_back(&mut self, process: usize, permit: u64, after_ms: u64) {
        if let Some(Permit { mut announcement, .. }) = self.processes[process].permits.remove(&permit) {
            announcement.at_ms = self.now_ms + after_ms.max(1);
            announcement.deliveries += 1;
            self.broker.announcements.push(announcement);
        }
    }

    fn looked(&mut self, process: usize, permit: u64, job: &JobKey, looked: Looked) {
        let wall_ms = self.processes[process].wall_ms(self.now_ms);
        let line = &mut self.processes[process].line;
        match looked {
            Looked::Worked => {
                line.let_go(&job.tenant, job.job, 0);
                self.processes[process].permits.remove(&permit);
            }
            Looked::Later(pause) => {
                line.let_go(&job.tenant, job.job, wall_ms + millis(pause));
                self.put_back(process, permit, millis(pause));
            }
            Looked::Nothing => {
                line.let_go(&job.tenant, job.job, 0);
                let generation = self.processes[process].generation;
                self.schedule(0, Happening::Step(process, generation, permit));
            }
            Looked::Unreadable(reason) => panic!("{reason}"),
        }
    }

    fn announce(&mut self, job: &JobKey, wake_up: &str) {
        let id = format!("{}.{wake_up}", job.job);
        let since_ms = self.wake_ups.get(&id).copied();
        if since_ms.is_none_or(|since_ms| self.now_ms - since_ms > 120_000) {
            self.wake_ups.insert(id, self.now_ms);
            self.broker.announcements.push(Announcement {
                job: job.clone(),
                at_ms: self.now_ms,
                deliveries: 1,
            });
        }
    }

    fn sweep(&mut self, process: usize) {
        let this = &self.processes[process];
        if !this.is_up {
            return;
        }
        let wall_ms = this.wall_ms(self.now_ms);
        let due: Vec<(JobKey, Need, u32)> = this
            .known
            .iter()
            .filter(|(job, _)| !this.sweeping.contains(*job))
            .filter_map(|(job, (version, seen_ms))| {
                let summary = Summary::new(&version.record, version.revision, *seen_ms);
                let need = need(&self.queue, &summary, wall_ms)?;
                Some((job.clone(), need, version.record.attempts_started))
            })
            .collect();
        for (job, need, attempts) in due {
            let request = match need {
                Need::Expire => Request::Expire(job.clone()),
                Need::EndSession => Request::EndStale(job.clone()),
                Need::Publish => Request::PublishAgain(job.clone()),
                Need::Remove => continue,
                Need::Announce => {
                    if self.broker.announcements.iter().any(|one| one.at_ms <= self.now_ms) {
                        continue;
                    }
                    let in_work = self.processes.iter().any(|process| !process.permits.is_empty())
                        || !self.broker.announcements.is_empty();
                    let period = self.now_ms / millis(self.queue.announce_after);
                    let wake_up = if in_work { attempts.to_string() } else { format!("{attempts}.{period}") };
                    self.announce(&job, &wake_up);
                    continue;
                }
            };
            self.processes[process].sweeping.insert(job.clone());
            self.ask(process, Calling::Sweep(job), request);
        }
    }

    fn crash(&mut self, process: usize) {
        if !self.processes[process].is_up {
            return;
        }
        self.trace.line(self.now_ms, format_args!("{process} crashes"));
        let this = &mut self.processes[process];
        this.is_up = false;
        this.generation += 1;
        let permits = core::mem::take(&mut this.permits);
        let callers = core::mem::take(&mut this.callers);
        for Permit { mut announcement, .. } in permits.into_values() {
            announcement.at_ms = self.now_ms + ACK_WAIT_MS;
            announcement.deliveries += 1;
            self.broker.announcements.push(announcement);
        }
        for calling in callers.into_values() {
            // The sender of a report gets no answer.
            if let Calling::Report { number, .. } = calling
                && let Some(again) = self.reports.remove(&number)
            {
                self.schedule(1_000, again);
            }
        }
        let after_ms = 500 + self.below(5_000);
        self.schedule(after_ms, Happening::Restart(process));
    }

    fn restart(&mut self, process: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let before = &self.processes[process];
        let mut new = Process::new(&self.queue, seed, self.now_ms, before.ahead_ms);
        new.generation = before.generation;
        self.processes[process] = new;
        let newest: Vec<Version> =
            self.broker.jobs.values().filter_map(|versions| versions.last().cloned()).collect();
        for version in newest {
            self.learn(process, version);
        }
    }
}

/// An action's name, for the trace.
fn name(what: &What) -> String {
    match what {
        What::Read { .. } => "read".to_owned(),
        What::Write { record, .. } => format!("write {}", record.state.name()),
        What::Learn(_) => "learn".to_owned(),
        What::CreateSession(record) => format!("create {}", record.session),
        What::FindSession { .. } => "find-session".to_owned(),
        What::EndSession(session, _) => format!("end {session}"),
        What::RemoveSession(session) => format!("remove {session}"),
        What::AskBroker => "ask-broker".to_owned(),
        What::AskParties { .. } => "ask-parties".to_owned(),
        What::DoubtParty { party, .. } => format!("doubt {party}"),
        What::ForgetParties { .. } => "forget-parties".to_owned(),
        What::Enter { session, .. } => format!("enter {session}"),
        What::Invite { seat, session, .. } => format!("invite {} to {session}", seat.party),
        What::Release(session, seated) => format!("release {} from {session}", seated.party),
        What::Show(session, step) => format!("show {session} {step:?}"),
        What::Publish { message_id, .. } => format!("publish {message_id}"),
        What::FindEnd(_) => "find-end".to_owned(),
        What::Announce { .. } => "announce".to_owned(),
        What::Note(_) => "note".to_owned(),
        What::Reply(reply) => format!("reply {reply:?}"),
        What::End => "end".to_owned(),
    }
}

//! What each process does beside its core: it pulls announcements, sweeps, crashes and restarts.

use duet_queue::{
    actions::{Caller, Event, Looked, Reply, Request},
    line::Next,
    need::{Backlog, need},
    store::{JobKey, Version},
    summary::Summary,
};
use rand_chacha::rand_core::Rng as _;

use crate::{
    broker::Announcement,
    process::{Calling, Permit, Process},
};

use super::{ACK_WAIT_MS, Happening, PLACES, World, millis};

impl World {
    pub(super) fn ask(&mut self, process: usize, calling: Calling, request: Request) {
        let caller = Caller(self.processes[process].draw());
        self.processes[process].callers.insert(caller, calling);
        self.feed(process, Event::Asked(caller, request));
    }

    pub(super) fn take_reply(&mut self, process: usize, caller: Caller, reply: Reply) {
        let Some(calling) = self.processes[process].callers.get(&caller).cloned() else { return };
        match (calling, reply) {
            (calling, Reply::WentBack) => self.took_no_reply(process, calling),
            (Calling::Work { permit, job }, Reply::Looked(looked)) => {
                self.looked(process, permit, &job, looked);
            }
            (Calling::Sweep, Reply::Done(_)) => self.processes[process].is_sweeping = false,
            (Calling::Tell(job), Reply::Done(_)) => {
                self.processes[process].telling.remove(&job);
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
            (Calling::Client(client), reply) => self.answer_client(client, reply),
            (_, reply) => panic!("{reply:?} is the reply to another request"),
        }
    }

    pub(super) fn pull(&mut self, process: usize) {
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
    pub(super) fn step(&mut self, process: usize, permit: u64) {
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
            Looked::Nothing | Looked::Parked => {
                line.let_go(&job.tenant, job.job, 0);
                let generation = self.processes[process].generation;
                self.schedule(0, Happening::Step(process, generation, permit));
            }
            Looked::Unreadable(reason) => panic!("{reason}"),
        }
    }

    pub(super) fn announce(&mut self, job: &JobKey, wake_up: &str) {
        let id = format!("{}.{wake_up}", job.job);
        let since_ms = self.broker.wake_ups.get(&id).copied();
        if since_ms.is_none_or(|since_ms| self.now_ms - since_ms > 120_000) {
            self.broker.wake_ups.insert(id, self.now_ms);
            self.broker.announcements.push(Announcement {
                job: job.clone(),
                at_ms: self.now_ms,
                deliveries: 1,
            });
        }
    }

    pub(super) fn sweep(&mut self, process: usize) {
        let this = &self.processes[process];
        if !this.is_up {
            return;
        }
        let wall_ms = this.wall_ms(self.now_ms);
        let (mut due, mut untold) = (Vec::new(), Vec::new());
        for (job, (version, seen_ms)) in &this.known {
            let summary = Summary::new(&version.record, version.revision, *seen_ms);
            if summary.revocation_waits && !this.telling.contains(job) {
                untold.push(job.clone());
            }
            if need(&self.queue, &summary, wall_ms).is_some() {
                due.push(summary);
            }
        }
        for job in untold {
            self.processes[process].telling.insert(job.clone());
            self.ask(process, Calling::Tell(job.clone()), Request::TellParties(job));
        }
        if !due.is_empty() && !self.processes[process].is_sweeping {
            self.processes[process].is_sweeping = true;
            self.ask(process, Calling::Sweep, Request::Sweep(due));
        }
    }

    /// The state of the announcements, as the broker shows it.
    pub(super) fn backlog(&self) -> Backlog {
        if self.broker.announcements.iter().any(|one| one.at_ms <= self.now_ms) {
            return Backlog::Waiting;
        }
        let in_work = self.processes.iter().any(|process| !process.permits.is_empty());
        if in_work || !self.broker.announcements.is_empty() { Backlog::InWork } else { Backlog::Empty }
    }

    /// A caller whose request came to nothing asks again.
    fn took_no_reply(&mut self, process: usize, calling: Calling) {
        match calling {
            // The sender of a report gets no answer.
            Calling::Report { number } => {
                if let Some(again) = self.reports.remove(&number) {
                    self.schedule(1_000, again);
                }
            }
            Calling::Client(client) => {
                self.clients -= 1;
                self.ask_again(client);
            }
            Calling::Sweep => self.processes[process].is_sweeping = false,
            Calling::Tell(job) => {
                self.processes[process].telling.remove(&job);
            }
            Calling::Work { .. } => {}
        }
    }

    pub(super) fn crash(&mut self, process: usize) {
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
            self.took_no_reply(process, calling);
        }
        let after_ms = 500 + self.below(5_000);
        self.schedule(after_ms, Happening::Restart(process));
    }

    pub(super) fn restart(&mut self, process: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let before = &self.processes[process];
        let mut new = Process::new(process, &self.queue, seed, (self.now_ms, before.ahead_ms));
        new.generation = before.generation;
        self.processes[process] = new;
        self.learn_all(process);
    }

    /// A process fills its board.
    pub(super) fn learn_all(&mut self, process: usize) {
        let newest: Vec<Version> =
            self.broker.jobs.values().filter_map(|versions| versions.last().cloned()).collect();
        for version in newest {
            self.learn(process, version);
        }
    }
}

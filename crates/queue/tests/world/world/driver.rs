//! The driver of each core: what its actions do to the broker and the parties.

use duet_protocol::ids::{Epoch, PaillierKeyId, SessionId, ShareIndex};
use duet_queue::{
    actions::{Action, ActionId, FoundSession, Invited, Outcome, Reply, Request, What},
    failure::{Failure, running_pair},
    intake::{Holders, Standing, Submitted, Told},
    room::Fill,
    store::{JobKey, StoreFailure, Written},
    terms::{PairTerms, Terms},
};
use duet_wire::{Code, InstanceId, Manifest, Pair, Refusal, Seat, job::Evidence};

use crate::{
    broker::Broker,
    jobs::{self, REFUSED},
    parties::Answer,
    process::Calling,
};

use super::{Happening, MAX_QUESTIONS, OFFER_SOON_MS, PROCESSES, World, millis, party};

impl World {
    pub(super) fn act(&mut self, process: usize, action: Action) {
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
            What::Park { job, party } => {
                self.processes[process].line.park(&job.tenant, job.job, &party);
                self.schedule(0, done(id));
            }
            What::Unpark { party, most } => {
                let left = self.processes[process].line.unpark(&party, most);
                self.schedule(0, Happening::Answer(process, generation, id, Outcome::Unparked(left)));
            }
            // Jobs that rest are looked at again when their pauses end.
            What::WakeWaiting => self.schedule(0, done(id)),
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
    pub(super) fn hear(&mut self, process: usize, action: ActionId, outcome: &Outcome) {
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
    pub(super) fn take_effect(&mut self, process: usize, generation: u32, action: Action) {
        let Action { id, what, .. } = action;
        let outcome = match what {
            What::Read { job, may_be_behind } => self.read(process, &job, may_be_behind),
            What::Write { job, revision, record } => {
                self.write(process, &job, |broker| broker.write(&job, revision, &record))
            }
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
                Outcome::Removed(Ok(()))
            }
            What::Create(record) => {
                let job = JobKey::of(&record);
                self.write(process, &job, |broker| broker.create(&record))
            }
            What::AskRoom(_) => {
                let nearly_full = self.fault(3).then(|| "JOBS".to_owned());
                Outcome::Room(Fill { nearly_full, ..Fill::default() })
            }
            What::AskBacklog => Outcome::Backlog(self.backlog()),
            What::AskStanding { .. } => Outcome::Standing(Standing {
                is_unknown: false,
                silence: self.fault(5).then(|| Refusal::new(Code::PartyAway, "no party answers")),
                is_tenants: true,
                permission: Ok(()),
                path: Ok(()),
                terms: self.terms(),
            }),
            What::AskHolders { .. } => {
                let parties = vec![party(ShareIndex::Service), party(ShareIndex::Partner)];
                Outcome::Holders(Holders { owner: None, parties })
            }
            What::Tell(..) => Outcome::Told(match self.below(10) {
                0 => Told::Refused(Refusal::new(Code::PolicyRefused, "it keeps none")),
                1..4 if !self.is_calm() => Told::Silence,
                4 if !self.is_calm() => Told::Refused(Refusal::new(Code::Locked, "not now")),
                _ => Told::Kept,
            }),
            What::ReadClaim(digest) => Outcome::Holder(if self.fault(2) {
                Err(StoreFailure::Unknown("no leader".to_owned()))
            } else {
                Ok(self.broker.claims.get(&digest).copied())
            }),
            What::WriteClaim { digest, holder, follows } => {
                let written = self.unsure(|broker| broker.claim(&digest, holder, follows));
                Outcome::Written(written.0)
            }
            What::Remove { .. } | What::Forget(_) => panic!("a job is removed within the hour"),
            What::AskBroker => Outcome::Broker(if self.fault(3) {
                Err(Refusal::new(Code::UnsafeBroker, "one node forgets"))
            } else {
                Ok(())
            }),
            What::AskParties { .. } => Outcome::Terms(self.terms()),
            What::AskParty(_) => Outcome::Done,
            What::Invite { seat, instance, manifest, .. } => {
                let manifest = Manifest::decode(&manifest).unwrap();
                return self.invite(process, generation, id, (&seat, instance.as_ref()), &manifest);
            }
            What::Release(session, seated) => {
                self.parties.leave(&seated.party, session);
                self.offer_soon();
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
            | What::Park { .. }
            | What::Unpark { .. }
            | What::WakeWaiting
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

    /// Stores a version of a job, and has every process learn of it.
    fn write(&mut self, process: usize, job: &JobKey, store: impl FnOnce(&mut Broker) -> Written) -> Outcome {
        let (written, is_stored) = self.unsure(store);
        if is_stored {
            let version = self.broker.jobs[job].last().unwrap().clone();
            self.trace.line(self.now_ms, format_args!("{} is {}", job.job, version.record.state.name()));
            self.tell(&version, Some(process));
            let after_ms = if matches!(written, Written::Stored(_)) { 0 } else { 500 };
            // It may have crashed and started again since it sent the write.
            let generation = self.processes[process].generation;
            self.schedule(after_ms, Happening::Learn(process, generation, version));
        }
        Outcome::Written(written)
    }

    /// A write to the broker, which may fail, and may stay unconfirmed. Returns its outcome, and
    /// whether it is stored.
    fn unsure(&mut self, store: impl FnOnce(&mut Broker) -> Written) -> (Written, bool) {
        if self.fault(1) {
            return (Written::Failed(StoreFailure::Full), false);
        }
        let unknown = self.fault(3);
        if unknown && self.fault(50) {
            return (Written::Failed(StoreFailure::Unknown("not stored".to_owned())), false);
        }
        let written = store(&mut self.broker);
        let is_stored = matches!(written, Written::Stored(_));
        if unknown {
            return (Written::Failed(StoreFailure::Unknown("not confirmed".to_owned())), is_stored);
        }
        (written, is_stored)
    }

    fn terms(&mut self) -> PairTerms {
        let is_away = self.fault(5);
        let is_there =
            |index| index == ShareIndex::Device || self.parties.is_any_there(&party(index), self.now_ms);
        let terms = |pair: Pair| {
            if is_away || !is_there(pair.initiator()) || !is_there(pair.responder()) {
                return (pair, Err(Refusal::new(Code::PartyAway, "no worker answers")));
            }
            let seat = |index| Seat { party: party(index), index };
            let terms = Terms {
                epoch: Epoch(0),
                paillier_key: PaillierKeyId([1; 16]),
                initiator: seat(pair.initiator()),
                responder: seat(pair.responder()),
            };
            (pair, Ok(terms))
        };
        PairTerms::from_iter([Pair::ServicePartner, Pair::DeviceService].map(terms))
    }

    fn invite(
        &mut self,
        process: usize,
        generation: u32,
        id: ActionId,
        (seat, instance): (&Seat, Option<&InstanceId>),
        manifest: &Manifest,
    ) {
        let session = manifest.session;
        let until_ms = self.now_ms + millis(self.queue.session_timeout);
        let (now_ms, is_calm) = (self.now_ms, self.is_calm());
        let key = (&seat.party, session);
        let (answer, name) = self.parties.invite(&mut self.rng, key, instance, (now_ms, until_ms), is_calm);
        let accepted = || Outcome::Invited(Invited::Accepted(name.clone()));
        // No process began it that the broker knows of, if its record was lost meanwhile.
        let job = self
            .broker
            .sessions
            .get(&session)
            .map(|record| JobKey { tenant: record.tenant.clone(), job: record.job });
        let is_changed = jobs::asks_for_more(&manifest.request.body);
        let outcome = match answer {
            Answer::Accepts | Answer::AcceptsLate => {
                self.offer_soon();
                if let Some(job) = job {
                    self.accept(session, &job, is_changed);
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
            Answer::NoWorker => Outcome::Invited(Invited::NoWorker),
            Answer::Silent => return,
            Answer::Nonsense => {
                Outcome::Invited(Invited::Malformed { sha256: [0; 32], reason: "nonsense".to_owned() })
            }
        };
        let after_ms = self.below(20);
        self.schedule(after_ms, Happening::Answer(process, generation, id, outcome));
    }

    /// The workers of whose free seats the number has changed offer them again.
    fn offer_soon(&mut self) {
        for worker in self.parties.changed() {
            self.schedule(OFFER_SOON_MS, Happening::Offer { worker, again_ms: None });
        }
    }

    /// A worker offers its seats to all processes, until every job has ended. Offers are lost.
    pub(super) fn offer(&mut self, worker: usize, again_ms: Option<u64>) {
        if self.is_calm() && self.is_settled() {
            return;
        }
        if let Some(again_ms) = again_ms {
            self.schedule(again_ms, Happening::Offer { worker, again_ms: Some(again_ms) });
        }
        let lies = self.fault(10);
        let Some((party, instance, offered)) = self.parties.offer(worker, self.now_ms, lies) else { return };
        for process in 0..PROCESSES {
            let (after_ms, is_lost) = (self.delay(), self.fault(5));
            if !is_lost {
                let generation = self.processes[process].generation;
                let heard = Happening::Hear(process, generation, party.clone(), instance.clone(), offered);
                self.schedule(after_ms, heard);
            }
        }
    }

    /// A process with jobs in hand says so to the others.
    pub(super) fn say_at_work(&mut self, process: usize) {
        self.schedule(1_000, Happening::SayAtWork(process));
        if !self.processes[process].is_up || !self.processes[process].core.is_at_work() {
            return;
        }
        for other in (0..PROCESSES).filter(|other| *other != process) {
            let (after_ms, generation) = (self.delay(), self.processes[other].generation);
            let name = format!("o{process}").parse().unwrap();
            self.schedule(after_ms, Happening::HearAtWork(other, generation, name));
        }
    }

    /// A party takes its seat. Once both sit, the session has an outcome.
    fn accept(&mut self, session: SessionId, job: &JobKey, is_changed: bool) {
        let (service, partner) = (party(ShareIndex::Service), party(ShareIndex::Partner));
        if !self.parties.both_sit(session, [&service, &partner]) {
            return;
        }
        // They sign nothing else under a key, whatever the queue has forgotten.
        if *self.charged.entry(job.job).or_insert(is_changed) != is_changed {
            let report =
                Happening::Report { session, job: job.clone(), is_signed: Err(Code::Conflict), left: 10 };
            return self.schedule(50, report);
        }
        let drawn = if self.is_calm() { 100 } else { self.below(100) };
        let is_refused = *job == jobs::key(REFUSED);
        let (after_ms, is_signed) = match drawn {
            0..60 if is_refused => (50, Err(Code::PolicyRefused)),
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
    pub(super) fn report(&mut self, session: SessionId, job: JobKey, is_signed: Result<(), Code>, left: u32) {
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            self.parties.leave(&party(index), session);
        }
        self.offer_soon();
        let again = Happening::Report { session, job: job.clone(), is_signed, left: left.saturating_sub(1) };
        let drawn = self.draw_process();
        let Some(process) = drawn.filter(|_| !self.fault(5)) else {
            if left > 0 {
                self.schedule(1_000, again);
            }
            return;
        };
        let stale = self.fault(10);
        // The job may have been lost since.
        let Some(versions) = self.broker.jobs.get(&job) else { return };
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
}

/// An action's name, for the trace.
fn name(what: &What) -> String {
    match what {
        What::Read { .. } => "read".to_owned(),
        What::Write { record, .. } => format!("write {}", record.state.name()),
        What::Learn(_) => "learn".to_owned(),
        What::Create(_) => "create".to_owned(),
        What::Remove { .. } => "remove".to_owned(),
        What::Forget(_) => "forget".to_owned(),
        What::AskRoom(_) => "ask-room".to_owned(),
        What::AskBacklog => "ask-backlog".to_owned(),
        What::AskStanding { .. } => "ask-standing".to_owned(),
        What::AskHolders { .. } => "ask-holders".to_owned(),
        What::Tell(party, _) => format!("tell {party}"),
        What::ReadClaim(_) => "read-claim".to_owned(),
        What::WriteClaim { .. } => "write-claim".to_owned(),
        What::CreateSession(record) => format!("create {}", record.session),
        What::FindSession { .. } => "find-session".to_owned(),
        What::EndSession(session, _) => format!("end {session}"),
        What::RemoveSession(session) => format!("remove {session}"),
        What::AskBroker => "ask-broker".to_owned(),
        What::AskParties { .. } => "ask-parties".to_owned(),
        What::Park { party, .. } => format!("park under {party}"),
        What::Unpark { party, most } => format!("release {most} from under {party}"),
        What::WakeWaiting => "wake-waiting".to_owned(),
        What::AskParty(party) => format!("ask {party}"),
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
        What::Reply(reply) => format!("reply {}", reply_name(reply)),
        What::End => "end".to_owned(),
    }
}

/// A reply's name, for the trace.
fn reply_name(reply: &Reply) -> String {
    match reply {
        Reply::Submitted(Ok(Submitted::Accepted(_))) => "accepted".to_owned(),
        Reply::Submitted(Ok(Submitted::Known(_))) => "known".to_owned(),
        Reply::Changed(Ok(record)) => format!("changed {}", record.state.name()),
        Reply::Begun(Ok(_)) => "begun".to_owned(),
        Reply::Signed(Ok(_)) => "signed".to_owned(),
        other => format!("{other:?}"),
    }
}

//! The clients: they submit, submit again, change their minds, cancel and revoke. The owner
//! approves and rejects. An operator puts dead letters back.

use duet_queue::{
    actions::{Begun, NotBegun, Reply, Request},
    intake::{Denied, Manner, Rejected, Submission, Submitted},
    store::Version,
};
use duet_wire::{Code, JobRecord, JobState, Manifest, Priority, Refusal, error::Class};

use crate::{
    clients::{Client, Deed},
    jobs::{self, OWNERS, REFUSED, TWINS, Variant},
    process::Calling,
};

use super::{Happening, JOBS, START_MS, World};

/// How soon a client asks again.
const AGAIN_MS: u64 = 1_500;

impl World {
    /// Draws what the clients will do.
    pub(super) fn draw_clients(&mut self) {
        for number in 0..JOBS {
            let client = |deed, left| Client { number, deed, left };
            let submit = |variant| client(Deed::Submit(variant), u32::MAX);
            self.will_ask(0, 10_000, submit(Variant::First));
            for (percent, variant) in [(20, Variant::First), (15, Variant::Redated), (20, Variant::Changed)] {
                if self.below(100) < percent {
                    self.will_ask(0, 14_000, submit(variant));
                }
            }
            if self.below(100) < 20 {
                self.will_ask(1_000, 20_000, client(Deed::Cancel, 3));
            }
            if self.below(100) < 15 {
                self.will_ask(1_000, 20_000, client(Deed::Revoke, 3));
            }
            if self.below(100) < 70 {
                self.will_ask(8_000, 60_000, client(Deed::PutBack, 6));
            }
        }
        for _ in 0..4 {
            self.will_ask(1_000, 2_000, Client { number: REFUSED, deed: Deed::PutBack, left: 30 });
        }
        self.will_ask(1_000, 20_000, Client { number: OWNERS, deed: Deed::Approve, left: u32::MAX });
        if self.below(100) < 20 {
            self.will_ask(1_000, 20_000, Client { number: OWNERS, deed: Deed::Reject, left: 5 });
        }
    }

    pub(super) fn will_ask(&mut self, from_ms: u64, within_ms: u64, client: Client) {
        let after_ms = from_ms + self.below(within_ms);
        self.schedule(after_ms, Happening::Client(client));
    }

    /// When the request of a job expires, in seconds since 1970. The first one's expires early.
    fn expires_at(&self, number: u64) -> u64 {
        START_MS / 1000 + if number == 0 { self.first_lasts_s } else { 3_600 }
    }

    pub(super) fn newest(&self, number: u64) -> Option<&Version> {
        self.broker.jobs.get(&jobs::key(number)).and_then(|versions| versions.last())
    }

    /// A client asks any process, as that one's HTTP interface would.
    pub(super) fn take_client(&mut self, client: Client) {
        let Some(process) = self.draw_process() else { return self.ask_again(client) };
        if self.fault(5) {
            return self.ask_again(client);
        }
        let Client { number, deed, .. } = client;
        let job = jobs::key(number);
        let request = match deed {
            Deed::Submit(variant) => {
                let priority = Priority::ALL[usize::try_from(number % 3).unwrap()];
                Request::Submit(Submission {
                    request: jobs::request(number, variant, self.expires_at(number)),
                    manner: Manner { priority, repeats_digest: false },
                    may_exist: self.processes[process].known.contains_key(&job),
                    trace: None,
                })
            }
            Deed::Cancel => Request::Cancel(job),
            Deed::Revoke => match self.newest(number) {
                Some(version) => {
                    Request::Revoke { version: version.clone(), revocation: jobs::revocation(version) }
                }
                None => return self.ask_again(client),
            },
            Deed::Approve => Request::Approve { job, wallet: jobs::WALLET },
            Deed::Reject => Request::Reject { job, wallet: jobs::WALLET },
            Deed::PutBack => Request::PutBack(job),
        };
        self.clients += 1;
        self.ask(process, Calling::Client(client), request);
    }

    /// A client whose answer told it nothing asks again later.
    pub(super) fn ask_again(&mut self, client: Client) {
        if client.left > 0 {
            let left = client.left - 1;
            self.schedule(AGAIN_MS, Happening::Client(Client { left, ..client }));
        }
    }

    pub(super) fn answer_client(&mut self, client: Client, reply: Reply) {
        self.clients -= 1;
        match (client.deed, reply) {
            (Deed::Submit(variant), Reply::Submitted(submitted)) => {
                self.answer_submission(client, variant, submitted);
            }
            (Deed::Approve, Reply::Begun(begun)) => self.answer_owner(client, begun),
            (_, Reply::Changed(Ok(record))) => self.judge_change(client.deed, &record),
            (_, Reply::Changed(Err(Denied::Refused(refusal)))) if !is_worth_a_repetition(&refusal) => {}
            (_, Reply::Changed(Err(_))) => self.ask_again(client),
            (_, reply) => panic!("{reply:?} is the reply to another request"),
        }
    }

    /// One key names one request, whatever the broker does.
    fn answer_submission(
        &mut self,
        client: Client,
        variant: Variant,
        submitted: Result<Submitted, Rejected>,
    ) {
        let is_changed = variant == Variant::Changed;
        match submitted {
            Ok(Submitted::Accepted(version) | Submitted::Known(version)) => {
                let stored = self.newest(client.number).unwrap();
                assert_eq!(stored.record.id, version.record.id);
                assert_eq!(jobs::is_changed(&stored.record), is_changed, "a client has another client's job");
            }
            Err(Rejected::Conflict(job)) => {
                let stored = self.newest(client.number).unwrap();
                assert_eq!(stored.record.id, job);
                assert_ne!(jobs::is_changed(&stored.record), is_changed, "a client is refused its own job");
            }
            Err(Rejected::Duplicate(job)) => {
                let twin = TWINS.iter().find(|twin| **twin != client.number).unwrap();
                assert_eq!(jobs::key(*twin).job, job);
                // It waits for a failure of the other one.
                self.ask_again(Client { left: client.left.min(3), ..client });
            }
            Err(Rejected::Problem(problem)) if problem.code == Code::JobExpired => {
                assert_eq!(client.number, 0, "a request is refused early");
            }
            Err(Rejected::Full(_) | Rejected::Store(_)) => self.ask_again(client),
            Err(Rejected::Problem(problem)) => {
                assert_eq!(problem.code.class(), Class::Wait, "{problem:?}");
                self.ask_again(client);
            }
        }
    }

    /// The owner's device gets its session, or asks again until the job has ended.
    fn answer_owner(&mut self, client: Client, begun: Result<Begun, NotBegun>) {
        if let Ok(Begun::Session(manifest)) = begun {
            let session = Manifest::decode(&manifest).unwrap().session;
            let is_signed = match self.below(100) {
                _ if self.is_calm() => Some(Ok(())),
                0..15 => None,
                15..25 => Some(Err(Code::Internal)),
                _ => Some(Ok(())),
            };
            if let Some(is_signed) = is_signed {
                let after_ms = 50 + self.below(500);
                let job = jobs::key(client.number);
                self.schedule(after_ms, Happening::Report { session, job, is_signed, left: 10 });
            }
        }
        if !self.newest(client.number).is_some_and(|newest| newest.record.state.is_final()) {
            self.ask_again(client);
        }
    }

    /// A change that a client was told of has happened.
    fn judge_change(&mut self, deed: Deed, record: &JobRecord) {
        match deed {
            Deed::Cancel => {
                assert_eq!(record.state, JobState::Cancelled);
                self.cancelled.insert(record.id);
            }
            Deed::Revoke => assert!(record.revocation.is_some()),
            Deed::Reject => {
                assert!(matches!(record.state, JobState::Failed { code: Code::RejectedByOwner, .. }));
            }
            Deed::PutBack => {
                assert!(record.put_back.is_some());
                // What the parties refuse as a conflict they refuse for ever.
                let is_changed = jobs::is_changed(record);
                let conflicts = self.charged.get(&record.id).is_some_and(|charged| *charged != is_changed);
                if record.id == jobs::key(REFUSED).job && !conflicts {
                    self.will_ask(200, 1_000, Client { number: REFUSED, deed, left: 30 });
                }
                if record.id == jobs::key(OWNERS).job {
                    let owner = Client { number: OWNERS, deed: Deed::Approve, left: u32::MAX };
                    self.schedule(AGAIN_MS, Happening::Client(owner));
                }
            }
            Deed::Submit(_) | Deed::Approve => panic!("{deed:?} changes no job"),
        }
    }
}

/// Whether a client that is refused so asks again: later the job may be there, or have failed.
fn is_worth_a_repetition(refusal: &Refusal) -> bool {
    matches!(refusal.code, Code::NotFound | Code::Conflict | Code::DuplicateDigest)
        || refusal.code.class() == Class::Wait
}

/// A transaction is signed for one job at most, unless the client means both.
pub(super) fn judge_twins(twins: [Option<&Version>; 2]) {
    let signed =
        twins.into_iter().flatten().filter(|twin| matches!(twin.record.state, JobState::Signed { .. }));
    let payments = signed.filter(|twin| !jobs::is_changed(&twin.record)).count();
    assert!(payments < 2, "a transaction was signed for two jobs");
}

//! The core of the queue: takes events, and says what to do.

mod cancel;
mod change;
mod claim;
mod hand;
mod owner;
mod redrive;
mod session;
mod settle;
mod submit;
mod sweep;
mod work;

use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use duet_protocol::ids::PartyId;
use duet_wire::InstanceId;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

use self::hand::{Hand, Late, State, lock};
use crate::{
    actions::{Action, ActionId, Caller, Event, Invited, Now, Outcome, Reply, Request, What},
    offers::Total,
    settings::QueueSettings,
    store::JobKey,
};

pub use self::settle::already_signed;

/// How many invitations whose time is over are remembered, to release a worker that accepts late.
/// Each is forgotten with its session. Without room, the worker keeps its seat until its deadline.
const MAX_LATE_INVITATIONS: usize = 256;

/// What a [`Core`] goes by.
#[derive(Debug, Clone)]
pub struct Config {
    /// How jobs are processed and tried again.
    pub queue: QueueSettings,
    /// For how long the broker drops a message that repeats another one's id.
    pub duplicate_window: Duration,
    /// This process's name among the orchestrators.
    pub own_name: InstanceId,
}

/// Whose actions those are that no caller asked for.
const NO_CALLER: Caller = Caller(u64::MAX);

/// How long a party may take to say whether it still answers. The driver's own deadline is shorter.
const PARTY_PATIENCE: Duration = Duration::from_secs(10);

type Run = Pin<Box<dyn Future<Output = Option<Reply>> + Send>>;

/// What is under way for one caller.
struct Procedure {
    run: Run,
    /// The job that is given up if the procedure panics.
    in_hand: Option<JobKey>,
}

/// The life of jobs: their submission, their attempts and invitations, and their ends.
///
/// It is a function of its configuration, its seed and the events so far. It knows no broker, clock
/// or task. What it wants done it returns as [`Action`]s.
pub struct Core {
    state: Arc<Mutex<State>>,
    queue: Arc<QueueSettings>,
    duplicate_window: Duration,
    procedures: BTreeMap<Caller, Procedure>,
    late: BTreeMap<ActionId, Late>,
    /// The parties that are being asked whether they answer, and until when.
    asked: BTreeMap<ActionId, (PartyId, Duration)>,
    /// The parties under which jobs are being released, with the number of the last job that was
    /// parked before.
    releasing: BTreeMap<ActionId, (PartyId, Option<u64>)>,
}

impl core::fmt::Debug for Core {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Core").field("procedures", &self.procedures.len()).finish_non_exhaustive()
    }
}

impl Core {
    /// A core that draws session ids and pauses from `seed`, which has to be secret and used once
    /// where session ids must not be guessed.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(ChaCha20Rng::from_seed(seed), config.own_name))),
            queue: Arc::new(config.queue),
            duplicate_window: config.duplicate_window,
            procedures: BTreeMap::new(),
            late: BTreeMap::new(),
            asked: BTreeMap::new(),
            releasing: BTreeMap::new(),
        }
    }

    /// Takes an event. Returns what to do, in this order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        lock(&self.state).now = now;
        match event {
            Event::Asked(caller, request) => self.begin(caller, request),
            Event::Answered(action, outcome) => self.answer(action, outcome),
            // The caller may have had its reply.
            Event::Changed(caller, version) if self.procedures.contains_key(&caller) => {
                lock(&self.state).see(caller, version);
                self.go_on(caller);
            }
            Event::Changed(..) => {}
            Event::Connected(is_connected) => lock(&self.state).is_connected = is_connected,
            Event::WentBack => self.go_back(),
            Event::Disputed(dispute) => lock(&self.state).dispute = dispute,
            Event::Offered { party, instance, offered } => {
                let mut state = lock(&self.state);
                if state.offers.hear(&party, instance, offered, now.steady) {
                    state.act(NO_CALLER, What::WakeWaiting);
                }
            }
            Event::AtWork(orchestrator) => {
                lock(&self.state).offers.hear_at_work(orchestrator, now.steady);
            }
            Event::Passed => self.pass(),
        }
        self.look_at_offers();
        core::mem::take(&mut lock(&self.state).actions)
    }

    /// When the core wants to hear [`Event::Passed`], by the clock that is never set; `None` if
    /// nothing depends on the time.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let state = lock(&self.state);
        let answers = state.open.values().filter(|open| open.outcome.is_none()).map(|open| open.due);
        let late = self.late.values().map(|late| late.until);
        let asked = self.asked.values().map(|(_, until)| *until);
        let waits = state.waits.values().copied();
        answers.chain(waits).chain(late).chain(asked).chain(state.offers.next_due()).min()
    }

    /// What the workers of each party offer.
    #[must_use]
    pub fn offered(&self) -> BTreeMap<PartyId, Total> {
        lock(&self.state).offers.totals()
    }

    /// Whether it has something in hand for a caller.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        !self.procedures.is_empty()
    }

    /// Asks the parties whose workers offer no seats any more whether they still answer. Releases
    /// jobs that are parked under parties with seats.
    fn look_at_offers(&mut self) {
        let mut state = lock(&self.state);
        let now = state.now.steady;
        for party in state.offers.lapse(now) {
            let action = state.act(NO_CALLER, What::AskParty(party.clone()));
            self.asked.insert(action, (party, now.saturating_add(PARTY_PATIENCE)));
        }
        for (party, most) in state.offers.take_releases(now) {
            let action = state.act(NO_CALLER, What::Unpark { party: party.clone(), most });
            let last = state.offers.last_lack(&party);
            self.releasing.insert(action, (party, last));
        }
    }

    fn begin(&mut self, caller: Caller, request: Request) {
        let hand = Hand::new(Arc::clone(&self.state), caller, Arc::clone(&self.queue), self.duplicate_window);
        let mut in_hand = None;
        let run: Run =
            match request {
                Request::Work { job, deliveries } => {
                    in_hand = Some(job.clone());
                    Box::pin(async move { Some(Reply::Looked(work::work(&hand, &job, deliveries).await)) })
                }
                Request::Submit(submission) => {
                    Box::pin(async move { Some(Reply::Submitted(submit::submit(&hand, &submission).await)) })
                }
                Request::SubmitForOwner(submission) => {
                    Box::pin(async move { Some(Reply::Begun(owner::submit(&hand, &submission).await)) })
                }
                Request::Approve { job, wallet } => {
                    Box::pin(async move { Some(Reply::Begun(owner::approve(&hand, &job, wallet).await)) })
                }
                Request::Reject { job, wallet } => {
                    Box::pin(async move { Some(Reply::Changed(owner::reject(&hand, &job, wallet).await)) })
                }
                Request::Cancel(job) => {
                    Box::pin(async move { Some(Reply::Changed(cancel::cancel(&hand, &job).await)) })
                }
                Request::Revoke { version, revocation } => Box::pin(async move {
                    Some(Reply::Changed(cancel::revoke(&hand, version, &revocation).await))
                }),
                Request::TellParties(job) => Box::pin(async move {
                    Some(Reply::Done(cancel::tell_parties(&hand, &job).await.map(|()| true)))
                }),
                Request::PutBack(job) => {
                    Box::pin(async move { Some(Reply::Changed(redrive::put_back(&hand, &job).await)) })
                }
                Request::EndAttempt { job, session, failure } => Box::pin(async move {
                    let ended = settle::end_attempt(&hand, &job, session, failure).await;
                    Some(Reply::Done(ended.map(|()| true)))
                }),
                Request::Sign(version, sealed) => {
                    Box::pin(async move { settle::sign(&hand, version, sealed).await })
                }
                Request::Sweep(found) => Box::pin(async move {
                    sweep::sweep(&hand, found).await;
                    Some(Reply::Done(Ok(true)))
                }),
                Request::LookPastOwners(waiting) => Box::pin(async move {
                    sweep::look_past_owners(&hand, waiting).await;
                    Some(Reply::Done(Ok(true)))
                }),
            };
        self.procedures.insert(caller, Procedure { run, in_hand });
        self.go_on(caller);
    }

    fn answer(&mut self, action: ActionId, outcome: Outcome) {
        if let Some(late) = self.late.remove(&action) {
            return self.release_late(&late, &outcome);
        }
        if let Some((party, _)) = self.asked.remove(&action) {
            return lock(&self.state).offers.answered(&party);
        }
        if let Some((party, last)) = self.releasing.remove(&action) {
            if matches!(outcome, Outcome::Unparked(0)) {
                lock(&self.state).offers.lacks_no_more(&party, last);
            }
            return;
        }
        let caller = match lock(&self.state).open.get_mut(&action) {
            Some(open) if open.outcome.is_none() => {
                open.outcome = Some(outcome);
                open.caller
            }
            _ => return,
        };
        self.go_on(caller);
    }

    fn release_late(&self, late: &Late, outcome: &Outcome) {
        if let Outcome::Invited(Invited::Accepted(instance)) = outcome
            && let Some(seated) = session::seated(&late.party, instance)
        {
            lock(&self.state).act(late.caller, What::Release(late.session, seated));
        }
    }

    /// Ends everything that is under way, as a crash would. It goes by revisions, and one may be
    /// another version's now: a compare-and-swap would replace what no procedure has read.
    fn go_back(&mut self) {
        let mut state = lock(&self.state);
        for (id, open) in &mut state.open {
            if open.outcome.is_none()
                && let Some(late) = open.invitation.take()
                && self.late.len() < MAX_LATE_INVITATIONS
            {
                self.late.insert(*id, late);
            }
        }
        drop(state);
        for (caller, procedure) in core::mem::take(&mut self.procedures) {
            // It gives back its seats as it is dropped.
            drop(procedure);
            self.end(caller, Some(Reply::WentBack));
        }
    }

    /// Replies to a caller whose procedure is over.
    fn end(&self, caller: Caller, reply: Option<Reply>) {
        let mut state = lock(&self.state);
        if let Some(reply) = reply {
            state.act(caller, What::Reply(reply));
        }
        state.act(caller, What::End);
        state.forget(caller);
    }

    /// Ends what is due.
    fn pass(&mut self) {
        let mut callers = Vec::new();
        let mut state = lock(&self.state);
        let now = state.now.steady;
        self.late.retain(|_, late| late.until > now);
        for (_, (party, _)) in self.asked.extract_if(.., |_, (_, until)| *until <= now) {
            state.offers.answered(&party);
        }
        for (id, open) in &mut state.open {
            if open.outcome.is_some() || open.due > now {
                continue;
            }
            open.outcome = Some(Outcome::Unknown);
            callers.push(open.caller);
            if let Some(late) = open.invitation.take()
                && self.late.len() < MAX_LATE_INVITATIONS
            {
                self.late.insert(*id, late);
            }
        }
        callers.extend(state.waits.iter().filter(|(_, until)| **until <= now).map(|(caller, _)| *caller));
        drop(state);
        for caller in callers {
            self.go_on(caller);
        }
    }

    /// Takes a procedure as far as it goes.
    fn go_on(&mut self, caller: Caller) {
        let Some(procedure) = self.procedures.get_mut(&caller) else { return };
        let run = &mut procedure.run;
        let mut context = Context::from_waker(Waker::noop());
        let reply = match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(&mut context))) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(reply)) => reply,
            Err(_) => match procedure.in_hand.take() {
                Some(job) => return self.end_or_give_up(caller, job),
                None => Some(Reply::Broke),
            },
        };
        self.procedures.remove(&caller);
        self.end(caller, reply);
    }

    /// Goes on after a procedure for `job` has panicked.
    fn end_or_give_up(&mut self, caller: Caller, job: JobKey) {
        let hand = Hand::new(Arc::clone(&self.state), caller, Arc::clone(&self.queue), self.duplicate_window);
        let run: Run = Box::pin(async move { Some(Reply::Looked(work::end_or_give_up(&hand, &job).await)) });
        self.procedures.insert(caller, Procedure { run, in_hand: None });
        self.go_on(caller);
    }
}

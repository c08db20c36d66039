//! What a procedure has in hand: it gives actions out, awaits their outcomes, and reads the time.
//!
//! A procedure is an `async fn` that awaits nothing else. [`crate::Core`] polls it when one of its
//! actions has an outcome, its job has changed, or its time has come. So a procedure reads from top
//! to bottom, and is still a state machine without a runtime.

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_protocol::ids::{PartyId, SessionId, WalletId};
use duet_wire::{Code, InstanceId, JobRecord, Refusal, TenantId};
use rand_chacha::{ChaCha20Rng, rand_core::Rng as _};

use crate::{
    actions::{Action, ActionId, Answers, Caller, FoundSession, Invited, Note, Now, Outcome, Seated, What},
    offers::{Lack, Offers, Use},
    room::Full,
    settings::QueueSettings,
    store::{JobKey, StoreFailure, Version, Written},
    terms::PairTerms,
    time::whole_millis,
};

/// How long an answer may take that another party or the broker gives. The driver's own deadlines
/// are shorter; this one is for answers that are lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to confirm an action from whose outcome nothing follows. Parties of a
/// session that began have to be invited before it is over.
const PATIENCE_FOR_NOTHING: Duration = Duration::from_secs(2);

/// An action that has no outcome yet, or whose outcome was not looked at.
pub(super) struct Open {
    pub(super) caller: Caller,
    pub(super) due: Duration,
    pub(super) outcome: Option<Outcome>,
    /// For an invitation: until when a worker may accept, in which session.
    pub(super) invitation: Option<Late>,
}

/// An invitation whose time is over. A worker that accepts now is released.
#[derive(Debug, Clone)]
pub(super) struct Late {
    pub(super) caller: Caller,
    pub(super) session: SessionId,
    pub(super) party: PartyId,
    pub(super) until: Duration,
}

/// The newest change of a caller's job.
struct Seen {
    version: Version,
    is_new: bool,
}

/// What all procedures share.
pub(super) struct State {
    pub(super) now: Now,
    pub(super) is_connected: bool,
    /// How the clocks of the broker's nodes differ, if they do.
    pub(super) dispute: Option<Refusal>,
    pub(super) offers: Offers,
    rng: ChaCha20Rng,
    next_action: u64,
    pub(super) actions: Vec<Action>,
    pub(super) open: BTreeMap<ActionId, Open>,
    /// Until when callers wait for a change.
    pub(super) waits: BTreeMap<Caller, Duration>,
    seen: BTreeMap<Caller, Seen>,
}

impl State {
    pub(super) const fn new(rng: ChaCha20Rng, own_name: InstanceId) -> Self {
        Self {
            now: Now { wall_ms: 0, steady: Duration::ZERO },
            is_connected: true,
            dispute: None,
            offers: Offers::new(own_name),
            rng,
            next_action: 0,
            actions: Vec::new(),
            open: BTreeMap::new(),
            waits: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn act(&mut self, caller: Caller, what: What) -> ActionId {
        let id = ActionId(self.next_action);
        self.next_action += 1;
        self.actions.push(Action { id, caller, what });
        id
    }

    /// Records a change of the caller's job, unless a later one is known.
    pub(super) fn see(&mut self, caller: Caller, version: Version) {
        if self.seen.get(&caller).is_none_or(|seen| seen.version.revision < version.revision) {
            self.seen.insert(caller, Seen { version, is_new: true });
        }
    }

    /// Records what a caller's own write made of its job.
    fn wrote(&mut self, caller: Caller, version: Version) {
        if self.seen.get(&caller).is_none_or(|seen| seen.version.revision < version.revision) {
            self.seen.insert(caller, Seen { version, is_new: false });
        }
    }

    /// Forgets everything about a caller.
    pub(super) fn forget(&mut self, caller: Caller) {
        self.seen.remove(&caller);
        self.waits.remove(&caller);
        self.open.retain(|_, open| open.caller != caller);
    }
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a procedure has in hand.
#[derive(Clone)]
pub(super) struct Hand {
    state: Arc<Mutex<State>>,
    caller: Caller,
    pub(super) queue: Arc<QueueSettings>,
    /// For how long the broker drops repeated messages.
    pub(super) duplicate_window: Duration,
}

impl Hand {
    pub(super) const fn new(
        state: Arc<Mutex<State>>,
        caller: Caller,
        queue: Arc<QueueSettings>,
        duplicate_window: Duration,
    ) -> Self {
        Self { state, caller, queue, duplicate_window }
    }

    /// The broker's time, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        lock(&self.state).now.wall_ms
    }

    /// How the clocks of the broker's nodes differ, if they do. Then none of them can be trusted to
    /// end a job.
    pub(super) fn dispute(&self) -> Option<Refusal> {
        lock(&self.state).dispute.clone()
    }

    /// Whether something that ends at `end_ms` is over.
    pub(super) fn has_passed(&self, end_ms: u64) -> bool {
        let state = lock(&self.state);
        state.dispute.is_none() && state.now.wall_ms >= end_ms
    }

    /// A number from 0 to 1 that keeps pauses of several processes apart.
    pub(super) fn jitter(&self) -> f64 {
        f64::from(lock(&self.state).rng.next_u32()) / f64::from(u32::MAX)
    }

    pub(super) fn draw_session(&self) -> SessionId {
        let mut id = [0; 16];
        lock(&self.state).rng.fill_bytes(&mut id);
        SessionId(id)
    }

    /// Whether there was a connection to the broker at the last event.
    pub(super) fn is_connected(&self) -> bool {
        lock(&self.state).is_connected
    }

    /// Has something done at once. Its outcome may be awaited.
    pub(super) fn act(&self, what: What) -> Pending {
        let mut state = lock(&self.state);
        let (due, invitation) = match &what {
            What::Invite { seat, instance: _, manifest: _, session, lasts } => {
                let late = Late {
                    caller: self.caller,
                    session: *session,
                    party: seat.party.clone(),
                    until: state.now.steady.saturating_add(*lasts),
                };
                (self.queue.invitation_timeout, Some(late))
            }
            What::Show(..)
            | What::EndSession(..)
            | What::RemoveSession(_)
            | What::Release(..)
            | What::Forget(_) => (PATIENCE_FOR_NOTHING, None),
            _ => (PATIENCE, None),
        };
        let due = state.now.steady.saturating_add(due);
        let id = state.act(self.caller, what);
        state.open.insert(id, Open { caller: self.caller, due, outcome: None, invitation });
        Pending { state: Arc::clone(&self.state), id }
    }

    /// Waits for `left` at most until the job in hand changes. Returns the change, or `None` when
    /// the time is over.
    pub(super) fn change_within(&self, left: Duration) -> Waiting<'_> {
        let until = lock(&self.state).now.steady.saturating_add(left);
        Waiting { hand: self, until }
    }

    /// How long it is until `until`, by the clock that is never set.
    pub(super) fn time_until(&self, until: Duration) -> Duration {
        until.saturating_sub(lock(&self.state).now.steady)
    }

    pub(super) fn steady(&self) -> Duration {
        lock(&self.state).now.steady
    }

    /// Whether the newest known change settled the job in hand.
    pub(super) fn saw_it_settled(&self) -> bool {
        lock(&self.state).seen.get(&self.caller).is_some_and(|seen| seen.version.record.state.is_final())
    }

    pub(super) async fn read(
        &self,
        job: &JobKey,
        may_be_behind: bool,
    ) -> Result<Option<Version>, StoreFailure> {
        match self.act(What::Read { job: job.clone(), may_be_behind }).await {
            Outcome::Read(read) => read,
            _ => Err(StoreFailure::unanswered()),
        }
    }

    pub(super) async fn write(&self, job: &JobKey, revision: u64, record: Arc<JobRecord>) -> Written {
        let write = What::Write { job: job.clone(), revision, record: Arc::clone(&record) };
        let written = written(self.act(write).await);
        if let Written::Stored(revision) = written {
            lock(&self.state).wrote(self.caller, Version { record, revision });
        }
        written
    }

    /// Stores a new job, unless there is one under its key.
    pub(super) async fn create(&self, record: Arc<JobRecord>) -> Written {
        written(self.act(What::Create(record)).await)
    }

    /// Announces a job. The broker stores announcements with equal `wake_up` once. Returns whether
    /// it did.
    pub(super) async fn announce(&self, job: &JobKey, wake_up: String) -> bool {
        matches!(self.act(What::Announce { job: job.clone(), wake_up }).await, Outcome::Published(true))
    }

    /// Whether sessions may begin on the broker.
    pub(super) async fn require_broker(&self) -> Result<(), Refusal> {
        match self.act(What::AskBroker).await {
            Outcome::Broker(broker) => broker,
            _ => Err(Refusal::new(Code::BrokerUnreachable, "the broker cannot be reached")),
        }
    }

    /// Whether `tenant` may have one more job.
    pub(super) async fn admit(&self, tenant: &TenantId) -> Result<(), Full> {
        match self.act(What::AskRoom(tenant.clone())).await {
            Outcome::Room(fill) => fill.admit(&self.queue, self.now_ms()),
            // What is not known to be full is not full.
            _ => Ok(()),
        }
    }

    pub(super) async fn find_session(
        &self,
        job: &JobKey,
        session: SessionId,
    ) -> Result<Option<FoundSession>, StoreFailure> {
        match self.act(What::FindSession { job: job.clone(), session }).await {
            Outcome::Session(found) => found,
            _ => Err(StoreFailure::unanswered()),
        }
    }

    pub(super) async fn ask_parties(&self, wallet: WalletId, answers: Answers) -> PairTerms {
        match self.act(What::AskParties { wallet, answers }).await {
            Outcome::Terms(terms) => terms,
            _ => PairTerms::default(),
        }
    }

    /// A party's answer to its invitation, or `None` if there is none in time.
    pub(super) async fn invited(&self, invitation: What) -> Option<Invited> {
        match self.act(invitation).await {
            Outcome::Invited(invited) => Some(invited),
            _ => None,
        }
    }

    /// Takes a seat of `party` for a session of `wallet`. With `alone` it leaves none to other
    /// orchestrators.
    pub(super) fn take(&self, party: &PartyId, wallet: WalletId, alone: bool) -> Result<Place, Lack> {
        let mut state = lock(&self.state);
        let now = state.now.steady;
        let instance = state.offers.take(party, wallet, alone, now)?;
        Ok(Place { state: Arc::clone(&self.state), party: party.clone(), instance, outcome: Use::None })
    }

    /// Parks the job in hand until `party` has a seat.
    pub(super) fn park(&self, job: &JobKey, party: PartyId) {
        lock(&self.state).offers.lacks(party.clone());
        drop(self.act(What::Park { job: job.clone(), party }));
    }

    /// Records which worker of a party signed for a wallet.
    pub(super) fn note_signed(&self, seated: Seated, wallet: WalletId) {
        lock(&self.state).offers.note_signed(&seated.party, wallet, seated.instance);
    }

    pub(super) fn note(&self, note: Note) {
        drop(self.act(What::Note(note)));
    }
}

/// A seat in hand for a session to come. Dropping it gives it back, unless the worker took it.
pub(super) struct Place {
    state: Arc<Mutex<State>>,
    party: PartyId,
    /// The worker. `None`: the party's workers are invited by its name.
    pub(super) instance: Option<InstanceId>,
    outcome: Use,
}

impl Place {
    /// Notes how the seat was used.
    pub(super) fn settle(mut self, outcome: Use) {
        self.outcome = outcome;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(instance) = &self.instance {
            lock(&self.state).offers.settle(&self.party, instance, self.outcome);
        }
    }
}

/// The outcome of a write.
pub(super) fn written(outcome: Outcome) -> Written {
    match outcome {
        Outcome::Written(written) => written,
        _ => Written::Failed(StoreFailure::unanswered()),
    }
}

/// An action whose outcome can be awaited. Dropping it leaves the action as it is.
pub(super) struct Pending {
    state: Arc<Mutex<State>>,
    id: ActionId,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = lock(&self.state);
        let Some(open) = state.open.get_mut(&self.id) else { return Poll::Ready(Outcome::Unknown) };
        match open.outcome.take() {
            Some(outcome) => {
                state.open.remove(&self.id);
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.state).open.remove(&self.id);
    }
}

/// A wait for the next change of the job in hand.
pub(super) struct Waiting<'a> {
    hand: &'a Hand,
    until: Duration,
}

impl Future for Waiting<'_> {
    type Output = Option<Version>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Version>> {
        let caller = self.hand.caller;
        let mut state = lock(&self.hand.state);
        let ready = match state.seen.get_mut(&caller).filter(|seen| seen.is_new) {
            Some(seen) => {
                seen.is_new = false;
                Some(Some(seen.version.clone()))
            }
            None => (state.now.steady >= self.until).then_some(None),
        };
        match ready {
            Some(change) => {
                state.waits.remove(&caller);
                Poll::Ready(change)
            }
            None => {
                state.waits.insert(caller, self.until);
                Poll::Pending
            }
        }
    }
}

/// Milliseconds for a record.
pub(super) fn after(now_ms: u64, pause: Duration) -> u64 {
    now_ms.saturating_add(whole_millis(pause))
}

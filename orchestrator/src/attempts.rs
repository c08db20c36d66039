//! Drives the core of the queue ([`duet_queue::Core`]): performs its actions, and tells it their
//! outcomes, the changes of jobs in hand, and the time. It knows no job's state.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use duet_bus::{
    Address, Incoming,
    kv::{Entry, Key},
    trace,
};
use duet_protocol::{
    codec,
    ids::{PartyId, SessionId, WalletId},
};
use duet_queue::{
    Config, Core,
    actions::{
        Action, ActionId, Begun, Caller, Event, Looked, NotBegun, NotSigned, Now, Outcome, Reply, Request,
        What,
    },
    failure::Failure,
    intake::{Denied, Rejected, Submission, Submitted},
    offers::{Offered, Total},
    store::{JobKey, StoreFailure, Version},
    summary::Summary,
    verified::{SealedResult, VerifiedRevocation},
};
use duet_wire::{InstanceId, JobRecord, Offer, Refusal};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Duration, Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{Instrument as _, Span};

use crate::{board::Board, jobs::StoreError, orchestrator::Orchestrator};

/// How many requests and changes wait for the core at most. It takes each in microseconds; then the
/// callers wait.
const MAX_WAITING: usize = 1024;

/// How often an orchestrator says that it has jobs to start, and shows what workers offer.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What the driver hears from other parts of the process.
enum Message {
    Asked { caller: Caller, request: Box<Request>, reply: oneshot::Sender<Reply>, span: Span },
    Changed(Caller, Version),
    Heard(Event),
}

/// Requests to the core, for all parts of the process.
pub(crate) struct Attempts {
    messages: mpsc::Sender<Message>,
    callers: AtomicU64,
    /// What the parties' workers offer, as the core knows it.
    offered: Arc<Mutex<BTreeMap<PartyId, Total>>>,
}

/// The other end of [`Attempts`], for [`run`].
pub(crate) struct Asked {
    messages: mpsc::Receiver<Message>,
    offered: Arc<Mutex<BTreeMap<PartyId, Total>>>,
}

/// The version of a job that its entry shows.
pub(crate) fn version_of(entry: &Entry<JobRecord>) -> Version {
    Version { record: Arc::new(entry.value.clone()), revision: entry.revision.into() }
}

/// What a reply says that is none to the request.
fn broke(reply: &Reply) -> StoreError {
    let reason = match reply {
        Reply::WentBack => "the broker went back to an earlier copy of its store meanwhile",
        _ => "the orchestrator failed at the job",
    };
    StoreError(StoreFailure::Unknown(reason.to_owned()))
}

/// How often a request is made again because the broker went back.
const MAX_REPETITIONS: u32 = 2;

/// How soon a job is looked at again that was in hand when the broker went back.
const AFTER_GOING_BACK: Duration = Duration::from_secs(1);

impl Attempts {
    pub(crate) fn new() -> (Self, Asked) {
        let (messages, asked) = mpsc::channel(MAX_WAITING);
        let offered = Arc::<Mutex<_>>::default();
        let asked = Asked { messages: asked, offered: Arc::clone(&offered) };
        (Self { messages, callers: AtomicU64::default(), offered }, asked)
    }

    async fn begin(&self, request: Request) -> (Caller, oneshot::Receiver<Reply>) {
        let caller = Caller(self.callers.fetch_add(1, Ordering::Relaxed));
        let (reply, replied) = oneshot::channel();
        let asked = Message::Asked { caller, request: Box::new(request), reply, span: Span::current() };
        // Without a driver the process ends, and the caller finds its reply dropped.
        drop(self.messages.send(asked).await);
        (caller, replied)
    }

    /// Asks the core. If the broker goes back meanwhile, asks again what holds for any version of
    /// the job.
    async fn ask(&self, request: Request) -> Reply {
        for _ in 0..MAX_REPETITIONS {
            if request.goes_by_a_version() {
                break;
            }
            let (_, replied) = self.begin(request.clone()).await;
            match replied.await.unwrap_or(Reply::Broke) {
                Reply::WentBack => {}
                reply => return reply,
            }
        }
        let (_, replied) = self.begin(request).await;
        replied.await.unwrap_or(Reply::Broke)
    }

    async fn ask_done(&self, request: Request) -> Result<bool, StoreError> {
        match self.ask(request).await {
            Reply::Done(done) => done.map_err(StoreError::from),
            other => Err(broke(&other)),
        }
    }

    async fn ask_begun(&self, request: Request) -> Result<Begun, NotBegun> {
        match self.ask(request).await {
            Reply::Begun(begun) => begun,
            other => Err(NotBegun::Store(broke(&other).into())),
        }
    }

    async fn ask_changed(&self, request: Request) -> Result<Arc<JobRecord>, Denied> {
        match self.ask(request).await {
            Reply::Changed(changed) => changed,
            other => Err(Denied::Store(broke(&other).into())),
        }
    }

    /// Accepts a request as a job, and announces it.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<Submitted, Rejected> {
        match self.ask(Request::Submit(submission)).await {
            Reply::Submitted(submitted) => submitted,
            other => Err(Rejected::Store(broke(&other).into())),
        }
    }

    /// Accepts the request of a wallet's owner as a job, and begins the session in which the
    /// owner's device signs it.
    pub(crate) async fn submit_for_owner(&self, submission: Submission) -> Result<Begun, NotBegun> {
        self.ask_begun(Request::SubmitForOwner(submission)).await
    }

    /// Begins the session in which the owner's device signs a job of `wallet` that waits.
    pub(crate) async fn approve(&self, job: JobKey, wallet: WalletId) -> Result<Begun, NotBegun> {
        self.ask_begun(Request::Approve { job, wallet }).await
    }

    /// Ends a job of `wallet` that waits for its owner.
    pub(crate) async fn reject(&self, job: JobKey, wallet: WalletId) -> Result<(), Denied> {
        self.ask_changed(Request::Reject { job, wallet }).await.map(drop)
    }

    /// Withdraws a job, unless it runs or is settled. A running session may already have made the
    /// signature, which cannot be revoked.
    pub(crate) async fn cancel(&self, job: JobKey) -> Result<Arc<JobRecord>, Denied> {
        self.ask_changed(Request::Cancel(job)).await
    }

    /// Notes that a job's request is revoked, and tells the parties once.
    pub(crate) async fn revoke(
        &self,
        version: Version,
        revocation: VerifiedRevocation,
    ) -> Result<Arc<JobRecord>, Denied> {
        self.ask_changed(Request::Revoke { version, revocation }).await
    }

    /// Tells the parties that have not acknowledged a job's revocation.
    pub(crate) async fn tell_parties(&self, job: JobKey) -> Result<(), StoreError> {
        self.ask_done(Request::TellParties(job)).await.map(drop)
    }

    /// Puts a dead letter back into the queue.
    pub(crate) async fn put_back(&self, job: JobKey) -> Result<Arc<JobRecord>, Denied> {
        self.ask_changed(Request::PutBack(job)).await
    }

    /// Takes what another process says of itself: a worker of its seats, or an orchestrator that it
    /// has jobs to start.
    async fn hear(&self, event: Event) {
        drop(self.messages.send(Message::Heard(event)).await);
    }

    /// Has everything that is under way end, since the broker went back.
    pub(crate) async fn went_back(&self) {
        self.hear(Event::WentBack).await;
    }

    /// What the workers of `party` offer together.
    pub(crate) fn offered(&self, party: &PartyId) -> Total {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.get(party).copied().unwrap_or_default()
    }

    /// Takes the job in hand as far as it goes now. Its announcement was delivered `deliveries`
    /// times. `None` after a failure of the core itself.
    pub(crate) async fn work(&self, board: &Arc<Board>, key: &Key, deliveries: i64) -> Option<Looked> {
        let (tenant, job) = key.tenant_and_job()?;
        // Observes before the first read, so that no change is missed.
        let mut observer = board.observe(key);
        let (caller, mut replied) =
            self.begin(Request::Work { job: JobKey { tenant, job }, deliveries }).await;
        loop {
            tokio::select! {
                reply = &mut replied => return match reply.unwrap_or(Reply::Broke) {
                    Reply::Looked(looked) => Some(looked),
                    Reply::WentBack => Some(Looked::Later(AFTER_GOING_BACK)),
                    _ => None,
                },
                Some(snapshot) = observer.changed() => {
                    drop(self.messages.send(Message::Changed(caller, version_of(&snapshot))).await);
                }
            }
        }
    }

    /// Ends a session without a signature, unless the job has left it.
    pub(crate) async fn end_attempt(
        &self,
        job: JobKey,
        session: SessionId,
        failure: Failure,
    ) -> Result<(), StoreError> {
        self.ask_done(Request::EndAttempt { job, session, failure }).await.map(drop)
    }

    /// Stores a job's result. What follows from that needs no caller.
    pub(crate) async fn sign(&self, version: Version, result: SealedResult) -> Result<(), NotSigned> {
        match self.ask(Request::Sign(version, result)).await {
            Reply::Signed(signed) => signed.map(drop),
            other => Err(NotSigned::Store(broke(&other).into())),
        }
    }

    /// Gives the jobs `found` what they need that no process works on.
    pub(crate) async fn sweep(&self, found: Vec<Summary>) -> Result<(), StoreError> {
        self.ask_done(Request::Sweep(found)).await.map(drop)
    }

    /// Announces jobs that wait for their owner although they prefer other pairs.
    pub(crate) async fn look_past_owners(&self, waiting: Vec<Summary>) -> Result<(), StoreError> {
        self.ask_done(Request::LookPastOwners(waiting)).await.map(drop)
    }
}

/// A caller whose procedure is under way.
struct Asking {
    reply: Option<oneshot::Sender<Reply>>,
    span: Span,
}

struct Driver {
    core: Core,
    orchestrator: Arc<Orchestrator>,
    callers: HashMap<Caller, Asking>,
    tasks: JoinSet<(ActionId, Outcome)>,
    began: Instant,
    is_connected: bool,
    dispute: Option<Refusal>,
    own_name: InstanceId,
    /// When the other orchestrators were told last that this one has jobs to start.
    said_at: Option<Instant>,
}

impl Orchestrator {
    /// Takes a worker's offer of seats. Ignores parties that are not configured.
    pub(crate) async fn take_offer(&self, incoming: Incoming) {
        let Address::Seats { party, instance } = incoming.address else { return };
        match codec::decode::<Offer>(&incoming.payload) {
            Ok(Offer { number, seats, free_seats: free, .. }) => {
                if self.directory.hear_offer(&party) {
                    let offered = Offered { number, seats, free };
                    self.attempts.hear(Event::Offered { party, instance, offered }).await;
                }
            }
            Err(error) => tracing::debug!(%party, %error, "an offer does not parse"),
        }
    }

    /// Takes note that another orchestrator has jobs to start.
    pub(crate) async fn take_at_work(&self, incoming: Incoming) {
        if let Address::AtWork(orchestrator) = incoming.address {
            self.attempts.hear(Event::AtWork(orchestrator)).await;
        }
    }

    async fn say_at_work(&self, own_name: InstanceId) {
        if let Err(error) = self.bus.publish(&Address::AtWork(own_name), Vec::new()).await {
            tracing::debug!(%error, "the other orchestrators do not hear that this one has jobs to start");
        }
    }
}

/// Drives the core until it is dropped. `seed` is secret and used once.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, asked: Asked, seed: [u8; 32], own_name: InstanceId) {
    let duplicate_window = orchestrator.storage.duplicate_window;
    let config = Config { queue: orchestrator.queue.clone(), duplicate_window, own_name: own_name.clone() };
    let mut saying = interval(SAY_EVERY);
    saying.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Asked { mut messages, offered } = asked;
    let mut driver = Driver {
        core: Core::new(config, seed),
        orchestrator,
        callers: HashMap::new(),
        tasks: JoinSet::new(),
        began: Instant::now(),
        is_connected: true,
        dispute: None,
        own_name,
        said_at: None,
    };
    loop {
        let due = driver.core.next_due().map(|due| driver.began + due);
        let passed = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => core::future::pending().await,
            }
        };
        let event = tokio::select! {
            Some(done) = driver.tasks.join_next() => match done {
                Ok((action, outcome)) => Event::Answered(action, outcome),
                Err(error) => {
                    tracing::error!(%error, "the orchestrator failed at a step of a job");
                    continue;
                }
            },
            message = messages.recv() => match message {
                Some(Message::Asked { caller, request, reply, span }) => {
                    driver.callers.insert(caller, Asking { reply: Some(reply), span });
                    Event::Asked(caller, *request)
                }
                Some(Message::Changed(caller, version)) => Event::Changed(caller, version),
                Some(Message::Heard(event)) => event,
                None => return,
            },
            () = passed => Event::Passed,
            _ = saying.tick() => {
                *offered.lock().unwrap_or_else(PoisonError::into_inner) = driver.core.offered();
                driver.say_at_work();
                continue;
            }
        };
        driver.take(event);
        driver.say_at_work();
    }
}

impl Driver {
    /// Tells the other orchestrators that this one has jobs to start, if it has, and unless it did
    /// a moment ago.
    fn say_at_work(&mut self) {
        let said = self.said_at.is_some_and(|said_at| said_at.elapsed() < SAY_EVERY);
        if said || !self.core.is_at_work() {
            return;
        }
        self.said_at = Some(Instant::now());
        let (orchestrator, own_name) = (Arc::clone(&self.orchestrator), self.own_name.clone());
        tokio::spawn(async move { orchestrator.say_at_work(own_name).await });
    }

    fn take(&mut self, event: Event) {
        let is_connected = self.orchestrator.bus.is_connected();
        let mut events = VecDeque::with_capacity(3);
        if core::mem::replace(&mut self.is_connected, is_connected) != is_connected {
            events.push_back(Event::Connected(is_connected));
        }
        let dispute = self.orchestrator.clock.require_agreement().err();
        if self.dispute != dispute {
            self.dispute.clone_from(&dispute);
            events.push_back(Event::Disputed(dispute));
        }
        events.push_back(event);
        while let Some(event) = events.pop_front() {
            let now = Now { wall_ms: self.orchestrator.clock.now_ms(), steady: self.began.elapsed() };
            for action in self.core.handle(event, now) {
                let id = action.id;
                if let Some(outcome) = self.perform(action) {
                    events.push_back(Event::Answered(id, outcome));
                }
            }
        }
    }

    /// Performs an action. Returns its outcome, unless it takes time.
    fn perform(&mut self, action: Action) -> Option<Outcome> {
        let Action { id, caller, what } = action;
        match what {
            What::Reply(reply) => {
                if let Some(asked) = self.callers.get_mut(&caller).and_then(|asking| asking.reply.take()) {
                    // The caller may be gone.
                    drop(asked.send(reply));
                }
            }
            What::End => drop(self.callers.remove(&caller)),
            What::Park { job, party } => self.orchestrator.board.park(&job, &party),
            What::Unpark { party, most } => {
                return Some(Outcome::Unparked(self.orchestrator.board.unpark(&party, most)));
            }
            What::Enter { session, trace } => {
                if let Some(asking) = self.callers.get_mut(&caller) {
                    let span = tracing::info_span!(parent: &asking.span, "session", %session);
                    trace::follow(&span, trace.as_deref());
                    asking.span = span;
                }
            }
            what => {
                let span = self.callers.get(&caller).map_or_else(Span::none, |asking| asking.span.clone());
                let orchestrator = Arc::clone(&self.orchestrator);
                self.tasks.spawn(async move { (id, orchestrator.perform(what).await) }.instrument(span));
                return None;
            }
        }
        Some(Outcome::Done)
    }
}

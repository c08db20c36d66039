//! Processes of a party: they answer invitations, run sessions by the party's own code, die at a
//! step of their store, and start again.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use duet_protocol::ids::SessionId;
use duet_wire::{Code, OutcomeResult};
use futures::{
    StreamExt as _,
    channel::{mpsc, oneshot},
};

use super::{
    engines::WorldEngine,
    executor::ProcessId,
    fixture::{Fixture, Holder},
    host::WorldHost,
    judge::Seat,
    run::Run,
};
use crate::{
    clock::Clock,
    compute::Compute,
    context::Context,
    session::{Accepted, Ended, SessionLimits, accept, finish_pending, run},
    store::{
        Readiness, StoreError,
        memory::{MemoryStore, Moment, Steps},
    },
};

/// How many sessions a process has seats for.
const SEATS: usize = 3;
/// The interval of housekeeping.
const HOUSEKEEPING_MS: u64 = 5_000;
/// How long a session may be in its store after its time is over.
const STORE_MS: u64 = 5_000;

/// An invitation, and who waits for the answer.
pub(super) struct Invited {
    pub(super) manifest: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<(), Code>>,
}

/// A process as others see it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: ProcessId,
    pub(super) invitations: mpsc::UnboundedSender<Invited>,
    pub(super) store: MemoryStore,
    pub(super) seats: Seats,
}

/// The seats of a process that are taken, each with what releases it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<SessionId, oneshot::Sender<()>>>>);

impl Seats {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<SessionId, oneshot::Sender<()>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.with(|taken| taken.len())
    }

    /// Ends a session.
    pub(super) fn release(&self, session: SessionId) {
        if let Some(releases) = self.with(|taken| taken.remove(&session)) {
            releases.send(()).ok();
        }
    }

    fn take(&self, session: SessionId) -> (Taken, oneshot::Receiver<()>) {
        let (sender, released) = oneshot::channel();
        self.with(|taken| taken.insert(session, sender));
        (Taken { seats: self.clone(), session }, released)
    }
}

/// A seat that is taken, until it is dropped.
struct Taken {
    seats: Seats,
    session: SessionId,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // What releases it is dropped when the seats are no longer held.
        drop(self.seats.with(|taken| taken.remove(&self.session)));
    }
}

/// What happens around each step of a process's store.
#[derive(Debug)]
struct StoreSteps<E> {
    run: Run<E>,
    place: (usize, usize),
    process: ProcessId,
}

impl<E: WorldEngine> Steps for StoreSteps<E> {
    fn step(
        &self,
        operation: &'static str,
        moment: Moment,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
        let network = &self.run.network;
        if network.is_calm() {
            return Box::pin(std::future::ready(Ok(())));
        }
        match network.executor.below(600) {
            0..3 => {
                network.executor.trace(format_args!("process {} dies: {operation} {moment:?}", self.process));
                self.run.crash(self.place);
                Box::pin(std::future::pending())
            }
            3..6 => {
                let source = "the world has it fail".into();
                Box::pin(std::future::ready(Err(StoreError::Unavailable { operation, source })))
            }
            6..200 => {
                let sleep = network.executor.sleep_ms(1 + network.executor.below(20));
                Box::pin(async {
                    sleep.await;
                    Ok(())
                })
            }
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

impl<E: WorldEngine> Run<E> {
    /// Starts a process of a holder.
    pub(super) fn start(&self, place: (usize, usize), fixture: &'static Fixture) {
        let (holder, executor) = (&fixture.holders[place.0], &self.network.executor);
        let process = executor.number();
        let steps = StoreSteps { run: self.clone(), place, process };
        let store = self.network.judge(|judge| judge.stores[place.0].open(Arc::new(steps)));
        let context = self.context(place, holder, &store);
        let (invitations, received) = mpsc::unbounded();
        let seats = Seats::default();
        executor.trace(format_args!("process {process} starts at {place:?}"));
        let live = Live { id: process, invitations, store, seats: seats.clone() };
        self.with(|inner| inner.live.insert(place, live));
        let serving = Process { run: self.clone(), context, holder, process, place, seats };
        executor.spawn(Some(process), serving.serve(received));
    }

    fn context(&self, place: (usize, usize), holder: &Holder, store: &MemoryStore) -> Context {
        let executor = self.network.executor.clone();
        let mut context = Context::new(holder.vault.over(Arc::new(store.clone())));
        context.compute = Compute::seeded(executor.below(u64::MAX));
        let ahead_ms = self.with(|inner| inner.ahead_ms[&place]);
        context.clock = Clock::new(move || executor.now_ms().saturating_add_signed(ahead_ms));
        context
    }

    /// A process dies, with all it has in memory, and is started again later.
    pub(super) fn crash(&self, place: (usize, usize)) {
        let Some(live) = self.with(|inner| inner.live.remove(&place)) else { return };
        let executor = &self.network.executor;
        executor.kill(live.id);
        live.store.died();
        let (run, sleep) = (self.clone(), executor.sleep_ms(500 + executor.below(4_000)));
        executor.spawn(None, async move {
            sleep.await;
            run.start(place, run.fixture);
        });
    }
}

/// One start of a process.
struct Process<E> {
    run: Run<E>,
    context: Context,
    holder: &'static Holder,
    process: ProcessId,
    place: (usize, usize),
    seats: Seats,
}

impl<E> Clone for Process<E> {
    fn clone(&self) -> Self {
        let (run, context, seats) = (self.run.clone(), self.context.clone(), self.seats.clone());
        Self { run, context, seats, ..*self }
    }
}

impl<E: WorldEngine> Process<E> {
    async fn serve(self, mut invitations: mpsc::UnboundedReceiver<Invited>) {
        let executor = self.run.network.executor.clone();
        self.finish().await;
        executor.spawn(Some(self.process), self.clone().keep_house());
        while let Some(invited) = invitations.next().await {
            executor.spawn(Some(self.process), self.clone().invited(invited));
        }
    }

    async fn finish(&self) {
        if let Err(error) = finish_pending::<E>(&self.context, &self.holder.party).await {
            self.run.network.executor.trace(format_args!("{} finishes nothing: {error}", self.process));
        }
    }

    async fn keep_house(self) {
        loop {
            self.run.network.executor.sleep_ms(HOUSEKEEPING_MS).await;
            if let Readiness::Unready(_) = self.context.store().readiness() {
                drop(self.context.store().recover().await);
            }
            self.finish().await;
        }
    }

    async fn invited(self, Invited { manifest, reply }: Invited) {
        let host = WorldHost::<E>::new(&self.run.network, self.process, self.place.0);
        let executor = &self.run.network.executor;
        let is_ready = self.context.store().readiness() == Readiness::Ready;
        if self.seats.taken() >= SEATS || !is_ready {
            reply.send(Err(Code::Overloaded)).ok();
            return;
        }
        let identity = &self.holder.identity;
        let (accepted, rounds) = match accept(&self.context, &host, identity, manifest).await {
            Ok(accepted) => accepted,
            Err(error) => {
                executor.trace(format_args!("{} refuses: {error}", self.process));
                reply.send(Err(error.code())).ok();
                return;
            }
        };
        let session = accepted.manifest.session;
        let (seat, released) = self.seats.take(session);
        reply.send(Ok(())).ok();
        let cut = async {
            match released.await {
                Ok(()) => Ended::Released,
                Err(_) => std::future::pending().await,
            }
        };
        let began_ms = executor.now_ms();
        let limits = SessionLimits::default();
        let ended = run(&self.context, &host, &accepted, rounds, limits, cut, seat).await;
        let took_ms = executor.now_ms() - began_ms;
        let most_ms = u64::try_from(limits.session.as_millis()).unwrap() + STORE_MS;
        assert!(took_ms <= most_ms, "{session} took {took_ms} ms");
        self.ended(&accepted, ended);
    }

    fn ended(&self, accepted: &Accepted<E>, ended: Ended) {
        let manifest = &accepted.manifest;
        let (session, job, digest) = (manifest.session, manifest.job, accepted.digest);
        let seat = Seat { holder: self.place.0, process: self.process, session, job, digest };
        let network = &self.run.network;
        network.executor.trace(format_args!("{seat:?} ends: {ended:?}"));
        network.judge(|judge| judge.ended(&seat, &ended));
        if let Some(outcome) = ended.outcome(accepted)
            && !network.fault(8)
        {
            let signed = match outcome.result {
                OutcomeResult::Signed { signature } => Ok(signature),
                OutcomeResult::Failed { code, .. } => Err(code),
                OutcomeResult::Answered => return,
            };
            self.run.with(|inner| inner.reports.insert((self.place.0, session), signed));
        }
    }
}

/// How long after the last fault a run may take until nothing is left.
pub(super) const REST: Duration = Duration::from_secs(150);

/// A session's id from two numbers.
pub(super) fn session_id(number: u64) -> SessionId {
    SessionId(u128::from(number).to_be_bytes())
}

//! The run of a seed: two parties with two processes each, and what the orchestrators ask of them.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use duet_protocol::{
    ids::{Epoch, SessionId, ShareIndex},
    signature::RecoverableSignature,
};
use duet_wire::{Code, JobId, Manifest, Pair, Seat, SignedRequest, SigningRequest};
use futures::{
    channel::oneshot,
    future::{Either, select},
};

use super::{
    engines::WorldEngine,
    executor::{Executor, START_MS, Tasks},
    fixture::{Fixture, fixture},
    judge::Judge,
    network::{FAULTS_MS, Network},
    process::{Invited, Live, REST, session_id},
};

/// The indices of the holders in the fixture.
const INITIATOR: usize = 0;
const RESPONDER: usize = 1;
/// How long the jobs may take to be signed after the last fault.
const CALM_MS: u64 = 10 * 60_000;
/// How long an orchestrator waits for an answer to an invitation.
const ANSWER_MS: u64 = 5_000;

/// A run. Cheap to clone.
#[derive(Debug)]
pub(super) struct Run<E> {
    pub(super) network: Network,
    pub(super) fixture: &'static Fixture,
    inner: Arc<Mutex<Inner>>,
    engine: PhantomData<fn() -> E>,
}

impl<E> Clone for Run<E> {
    fn clone(&self) -> Self {
        let (network, inner) = (self.network.clone(), Arc::clone(&self.inner));
        Self { network, inner, ..*self }
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) live: BTreeMap<(usize, usize), Live>,
    /// How far the clock of each process is ahead.
    pub(super) ahead_ms: BTreeMap<(usize, usize), i64>,
    /// What the orchestrators were told, by holder and session.
    pub(super) reports: BTreeMap<(usize, SessionId), Result<RecoverableSignature, Code>>,
    jobs: u64,
}

/// How a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Signed,
    /// The initiator's key is locked.
    Locked,
}

impl<E: WorldEngine> Run<E> {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a seed with `jobs` jobs. Returns the hash of its trace.
    pub(super) fn of_seed(seed: u64, jobs: u64, is_shown: bool) -> u64 {
        let executor = Executor::new(seed, is_shown);
        let fixture = fixture();
        let stores = fixture.holders.iter().map(|holder| holder.store.copied()).collect();
        let has_cheats = executor.below(4) == 0;
        let judge = Judge::new(stores);
        let network = Network::new(executor.clone(), has_cheats, judge);
        let places = [INITIATOR, RESPONDER].map(|holder| [0, 1].map(|process| (holder, process)));
        let ahead_ms = |place| (place, i64::try_from(executor.below(40_000)).unwrap() - 20_000);
        let mut ahead_ms: BTreeMap<_, _> = places.as_flattened().iter().copied().map(ahead_ms).collect();
        if executor.below(4) == 0 {
            // One process refuses almost everything.
            let wrong_ms = if executor.below(2) == 0 { 300_000 } else { -300_000 };
            ahead_ms.insert((usize::try_from(executor.below(2)).unwrap(), 1), wrong_ms);
        }
        let inner = Inner { ahead_ms, jobs, ..Inner::default() };
        let run = Self { network, fixture, inner: Arc::new(Mutex::new(inner)), engine: PhantomData };
        for place in places.as_flattened() {
            run.start(*place, fixture);
        }
        for number in 0..jobs {
            executor.spawn(None, run.clone().job(number));
        }
        let mut tasks = Tasks::default();
        let latest_ms = START_MS + FAULTS_MS + CALM_MS;
        executor.run(&mut tasks, latest_ms, || run.with(|inner| inner.jobs == 0));
        assert_eq!(run.with(|inner| inner.jobs), 0, "a job was not signed");
        // Sessions that still go on end, and what was left behind is judged.
        let rest_ms = executor.now_ms().max(START_MS + FAULTS_MS) + u64::try_from(REST.as_millis()).unwrap();
        executor.run(&mut tasks, rest_ms, || false);
        for (place, live) in run.with(|inner| std::mem::take(&mut inner.live)) {
            assert_eq!(live.seats.taken(), 0, "seats are taken at {place:?}");
        }
        run.network.judge(|judge| judge.over());
        executor.trace_hash()
    }

    /// Has a job signed.
    async fn job(self, number: u64) {
        let executor = self.network.executor.clone();
        executor.sleep_ms(executor.below(30_000)).await;
        let mut order = Order { number, is_other: false, issued: 0, sessions: Vec::new(), attempt: 0 };
        let done = loop {
            order.attempt += 1;
            // A client that changes its payload under the same key.
            if self.network.fault(20) {
                order.is_other = !order.is_other;
            }
            match self.attempt(&mut order).await {
                Ok(done) => break done,
                Err(Code::Conflict) => order.is_other = !order.is_other,
                Err(Code::TooManyAnswers) => order.issued += 1,
                Err(_) => {}
            }
            executor.sleep_ms(300 + executor.below(1_500)).await;
        };
        executor.trace(format_args!("job {number} is done: {done:?}"));
        self.with(|inner| inner.jobs -= 1);
    }

    /// One session.
    async fn attempt(&self, order: &mut Order) -> Result<Done, Code> {
        let (network, executor) = (&self.network, &self.network.executor);
        let used = order.sessions.last().copied().filter(|_| network.fault(12));
        let session = used.unwrap_or_else(|| session_id(executor.number()));
        order.sessions.push(session);
        let (manifest, request) = order.manifest(self.fixture, session, executor.now_ms());
        let digest = request.payload.digest().unwrap();
        for holder in [RESPONDER, INITIATOR] {
            let worker = usize::try_from(executor.below(2)).unwrap();
            if network.fault(20) {
                // The same session to the other process.
                let (run, manifest) = (self.clone(), manifest.clone());
                let sleep = executor.sleep_ms(executor.below(3_000));
                executor.spawn(None, async move {
                    sleep.await;
                    run.invite((holder, 1 - worker), manifest).await.ok();
                });
            }
            let invited = self.invite((holder, worker), manifest.clone()).await;
            if invited == Err(Code::Locked) && network.judge(|judge| judge.is_locked()) {
                return Ok(Done::Locked);
            }
            invited?;
        }
        let until_ms = executor.now_ms() + 45_000;
        while executor.now_ms() < until_ms {
            executor.sleep_ms(250).await;
            if network.fault(1) {
                self.release(session);
            }
            match self.with(|inner| inner.reports.remove(&(INITIATOR, session))) {
                Some(Ok(signature)) => {
                    E::verify(self.fixture, digest, &signature);
                    assert_eq!(network.judge(|judge| judge.digest_of(request.job())), Some(digest));
                    return Ok(Done::Signed);
                }
                Some(Err(code)) => return Err(code),
                None => {}
            }
        }
        Err(Code::Deadline)
    }

    async fn invite(&self, place: (usize, usize), manifest: Vec<u8>) -> Result<(), Code> {
        let executor = &self.network.executor;
        executor.sleep_ms(1 + executor.below(40)).await;
        let (reply, answer) = oneshot::channel();
        let invited = Invited { manifest, reply };
        let is_heard = self.with(|inner| match inner.live.get(&place) {
            Some(live) => live.invitations.unbounded_send(invited).is_ok(),
            None => false,
        });
        if !is_heard {
            return Err(Code::Overloaded);
        }
        match select(answer, executor.sleep_ms(ANSWER_MS)).await {
            Either::Left((Ok(answer), _)) => answer,
            _ => Err(Code::Deadline),
        }
    }

    /// Takes the session's seats back.
    fn release(&self, session: SessionId) {
        self.network.executor.trace(format_args!("{session} is released"));
        self.with(|inner| {
            for live in inner.live.values() {
                live.seats.release(session);
            }
        });
    }
}

/// What a client wants, and what was tried for it.
struct Order {
    number: u64,
    /// Whether it asks for another payload than at first.
    is_other: bool,
    /// How often the request was signed anew.
    issued: u64,
    sessions: Vec<SessionId>,
    attempt: u32,
}

impl Order {
    fn manifest(&self, fixture: &Fixture, session: SessionId, now_ms: u64) -> (Vec<u8>, SigningRequest) {
        let Self { number, is_other, issued, .. } = self;
        let body = format!(
            r#"{{"version":2,"tenant":"acme","wallet":"{}","payload":{{"kind":"personal_message","text":"pay {}"}},"idempotency_key":"job-{number}","issued_at":{},"expires_at":{},"pairs":["service+partner"]}}"#,
            fixture.wallet,
            u8::from(*is_other),
            START_MS / 1000 + issued,
            START_MS / 1000 + 3_600,
        );
        let request = SigningRequest::from_json(body.as_bytes()).unwrap();
        let job: JobId = request.job();
        let seat = |holder: usize, index| Seat { party: fixture.holders[holder].party.clone(), index };
        let manifest = Manifest {
            session,
            job,
            attempt: self.attempt,
            wallet: fixture.wallet,
            epoch: Epoch(0),
            paillier_key: fixture.paillier_key,
            initiator: seat(INITIATOR, Pair::ServicePartner.initiator()),
            responder: seat(RESPONDER, ShareIndex::Partner),
            request: SignedRequest::sign(body.into_bytes(), &fixture.requester),
            expires_at_ms: now_ms + 40_000,
        };
        (manifest.encode().unwrap(), request)
    }
}

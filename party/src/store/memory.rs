//! A share store in memory, for the seeded world. Each decision is made on a copy of the state,
//! which replaces it, so that a decision is whole or not there, as a transaction is.

mod audit;
mod keys;
mod policy;
mod records;
mod sessions;
mod state;
mod wallets;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_wire::audit::Draft;

pub(crate) use self::state::Decided;
use self::state::State;
use super::{
    AnswersOf, Lock, LockOutcome, MAX_ANSWERS_PER_REQUEST, Readiness, StoreError,
    backend::Attached,
    health::{Health, UnwrittenLock},
};

/// When a step is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Nothing is done yet.
    Before,
    /// It is done, and the caller does not know it yet.
    After,
}

/// What happens around each step of a store: it takes time, it fails, the process dies.
pub(crate) trait Steps: fmt::Debug + Send + Sync + 'static {
    /// Waits. On an error before a step nothing is done. One after it leaves its outcome unknown.
    fn step(
        &self,
        operation: &'static str,
        moment: Moment,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;
}

/// Every step succeeds at once.
#[derive(Debug)]
struct AtOnce;

impl Steps for AtOnce {
    fn step(
        &self,
        _: &'static str,
        _: Moment,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A store in memory, as one process has it open.
#[derive(Debug, Clone)]
pub(crate) struct MemoryStore {
    state: Arc<Mutex<Arc<State>>>,
    steps: Arc<dyn Steps>,
    instance: [u8; 16],
    health: Health,
    attached: Attached,
}

impl MemoryStore {
    /// An empty store.
    pub(crate) fn create() -> Self {
        Self::opened(Arc::default(), Arc::new(AtOnce))
    }

    /// The same store as another process opens it.
    pub(crate) fn open(&self, steps: Arc<dyn Steps>) -> Self {
        Self::opened(Arc::clone(&self.state), steps)
    }

    /// A store of its own that holds the same.
    pub(crate) fn copied(&self) -> Self {
        Self::opened(Arc::new(Mutex::new(Arc::clone(&self.lock_state()))), Arc::new(AtOnce))
    }

    fn opened(state: Arc<Mutex<Arc<State>>>, steps: Arc<dyn Steps>) -> Self {
        let health = Health::untried();
        drop(health.recovered(Ok(())));
        let mut store = Self { state, steps, instance: [0; 16], health, attached: Attached::default() };
        store.instance = store.change(|state| {
            state.opened += 1;
            let instance = u128::from(state.opened).to_be_bytes();
            state.openings.insert(instance);
            instance
        });
        store
    }

    /// What was decided of sessions, in order.
    pub(crate) fn decided(&self) -> Vec<Decided> {
        self.lock_state().decided.clone()
    }

    /// Whether a verdict is pending.
    pub(crate) fn has_pending(&self) -> bool {
        !self.lock_state().pending.is_empty()
    }

    /// The process that has this opening has died.
    pub(crate) fn died(&self) {
        let instance = self.instance;
        self.change(|state| state.openings.remove(&instance));
    }

    fn lock_state(&self) -> MutexGuard<'_, Arc<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(Arc::make_mut(&mut self.lock_state()))
    }

    /// Reads.
    async fn read<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&State) -> T + Send,
    ) -> Result<T, StoreError> {
        self.steps.step(operation, Moment::Before).await?;
        let state = Arc::clone(&self.lock_state());
        Ok(read(&state))
    }

    /// Decides, whole or not at all.
    async fn write<T: Send>(
        &self,
        operation: &'static str,
        write: impl FnOnce(&mut State) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        self.steps.step(operation, Moment::Before).await?;
        let written = {
            let mut state = self.lock_state();
            let mut next = State::clone(&state);
            let written = write(&mut next)?;
            *state = Arc::new(next);
            written
        };
        self.steps.step(operation, Moment::After).await?;
        Ok(written)
    }

    fn with(&self, attached: Attached) -> Self {
        Self { attached, ..self.clone() }
    }

    fn note(&self, entry: Draft) -> Self {
        self.with(Attached { noted: Some(Arc::new(entry)), ..self.attached.clone() })
    }

    /// Locks a key, and records that.
    async fn write_lock(&self, lock: &UnwrittenLock) -> Result<LockOutcome, StoreError> {
        self.write("lock a Paillier key", |state| {
            let outcome = state.lock(&lock.lock);
            if let (LockOutcome::Locked, Some(entry)) = (outcome, &lock.entry) {
                state.append(std::slice::from_ref(&**entry));
            }
            Ok(outcome)
        })
        .await
    }

    async fn lock(&self, lock: &Lock) -> Result<LockOutcome, StoreError> {
        let lock = UnwrittenLock { lock: lock.clone(), entry: self.attached.noted.clone() };
        let written = self.write_lock(&lock).await;
        written.inspect_err(|error| self.health.fail(Some(lock), error))
    }

    async fn try_recover(&self) -> Result<(), StoreError> {
        for lock in self.health.unwritten_locks() {
            self.write_lock(&lock).await?;
            self.health.written(&lock);
        }
        self.write("write a canary", |_| Ok(())).await
    }
}

impl State {
    /// Appends what goes with a decision.
    fn note(&mut self, attached: &Attached) -> Result<(), StoreError> {
        super::audit::require_open(self.note_if_open(attached))
    }

    fn note_if_open(&mut self, attached: &Attached) -> bool {
        attached.noted.as_deref().is_none_or(|entry| self.append(std::slice::from_ref(entry)))
    }

    /// Counts an answer, and keeps what its job signs.
    fn count_answer(&mut self, attached: &Attached, at_ms: u64) -> Result<(), StoreError> {
        let Some(of) = attached.answering.as_deref() else { return Ok(()) };
        let AnswersOf { request, role, expires_at_ms, job, signs, remembered } = *of;
        let (answers, _) = self.answers.entry((request, role as u8)).or_insert((0, expires_at_ms));
        if *answers >= MAX_ANSWERS_PER_REQUEST {
            return Err(StoreError::TooManyAnswers);
        }
        *answers += 1;
        let new = state::Job { signs, charged_at_ms: at_ms, expires_at_ms, remembered };
        let job = self.jobs.entry(job).or_insert(new);
        if job.signs != signs {
            return Err(StoreError::OtherPayload { charged_at_ms: job.charged_at_ms });
        }
        job.expires_at_ms = job.expires_at_ms.max(expires_at_ms);
        job.remembered = remembered.or(job.remembered);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    super::conformance::all(|| async {
        let store = MemoryStore::create();
        assert_eq!(super::RecordStore::readiness(&store), Readiness::Ready);
        [store.open(Arc::new(AtOnce)), store]
    })
    .await;
}

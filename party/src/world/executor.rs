//! The executor: tasks are polled in an order that the seed draws, and time passes when none is
//! ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use super::trace::Trace;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A start of a process. Its tasks die with it.
pub(super) type ProcessId = u64;

/// When the run begins, in milliseconds since 1970.
pub(super) const START_MS: u64 = 1_800_000_000_000;
/// How many times tasks are polled at most: many times what a run needs.
const MAX_POLLS: u64 = 2_000_000;

/// The time, the tasks and the draws of a run. Cheap to clone.
#[derive(Clone)]
pub(super) struct Executor {
    inner: Arc<Mutex<Inner>>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

struct Inner {
    now_ms: u64,
    rng: ChaCha8Rng,
    next: u64,
    timers: BTreeMap<(u64, u64), Waker>,
    spawned: Vec<(u64, Option<ProcessId>, Work)>,
    dead: BTreeSet<ProcessId>,
    trace: Trace,
}

/// Makes a task ready again.
struct Ready {
    task: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).insert(self.task);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Executor")
    }
}

impl Executor {
    pub(super) fn new(seed: u64, is_shown: bool) -> Self {
        let inner = Inner {
            now_ms: START_MS,
            rng: ChaCha8Rng::seed_from_u64(seed),
            next: 0,
            timers: BTreeMap::new(),
            spawned: Vec::new(),
            dead: BTreeSet::new(),
            trace: Trace::new(is_shown),
        };
        Self { inner: Arc::new(Mutex::new(inner)), ready: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.inner().now_ms
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.inner().rng.next_u64() % bound
    }

    /// A number that no other call returns.
    pub(super) fn number(&self) -> u64 {
        let mut inner = self.inner();
        inner.next += 1;
        inner.next
    }

    /// Notes what happened.
    pub(super) fn trace(&self, line: impl std::fmt::Display) {
        let mut inner = self.inner();
        let at_ms = inner.now_ms - START_MS;
        inner.trace.line(at_ms, line);
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.inner().trace.hash()
    }

    pub(super) fn sleep(&self, duration: Duration) -> Sleep {
        let until_ms = self.now_ms().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Sleep { executor: self.clone(), until: (until_ms, self.number()) }
    }

    pub(super) fn sleep_ms(&self, ms: u64) -> Sleep {
        self.sleep(Duration::from_millis(ms))
    }

    /// Begins a task, which dies with `owner`.
    pub(super) fn spawn(&self, owner: Option<ProcessId>, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.number();
        self.inner().spawned.push((task, owner, Box::pin(work)));
    }

    /// Drops the tasks of a process, before any of them is polled again.
    pub(super) fn kill(&self, process: ProcessId) {
        self.inner().dead.insert(process);
    }

    /// Runs until `until_ms`, or until nothing will happen any more.
    pub(super) fn run(&self, tasks: &mut Tasks, until_ms: u64, is_over: impl Fn() -> bool) {
        while tasks.polls < MAX_POLLS && !is_over() {
            let (spawned, dead) = {
                let mut inner = self.inner();
                (std::mem::take(&mut inner.spawned), inner.dead.clone())
            };
            for (task, owner, work) in spawned {
                tasks.tasks.insert(task, (owner, work));
                lock(&self.ready).insert(task);
            }
            tasks.tasks.retain(|_, (owner, _)| owner.is_none_or(|owner| !dead.contains(&owner)));
            let ready: Vec<u64> = {
                let mut ready = lock(&self.ready);
                ready.retain(|task| tasks.tasks.contains_key(task));
                ready.iter().copied().collect()
            };
            let drawn = match ready.len() {
                0 | 1 => ready.first(),
                several => ready.get(usize::try_from(self.below(several as u64)).unwrap_or_default()),
            };
            let Some(task) = drawn else {
                // Nothing is ready: time passes.
                let mut inner = self.inner();
                let Some(next) = inner.timers.first_entry() else { return };
                let (at_ms, _) = *next.key();
                if at_ms > until_ms {
                    inner.now_ms = until_ms;
                    return;
                }
                let waker = next.remove();
                inner.now_ms = at_ms.max(inner.now_ms);
                drop(inner);
                waker.wake();
                continue;
            };
            lock(&self.ready).remove(task);
            let waker = Waker::from(Arc::new(Ready { task: *task, ready: Arc::clone(&self.ready) }));
            let Some((_, work)) = tasks.tasks.get_mut(task) else { continue };
            tasks.polls += 1;
            if work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks.tasks.remove(task);
            }
        }
        assert!(tasks.polls < MAX_POLLS, "the run never ends");
    }
}

/// The tasks of a run. They are outside of the executor, so that a task may use it while it is
/// polled.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<u64, (Option<ProcessId>, Work)>,
    polls: u64,
}

/// Returns when its time has come.
pub(super) struct Sleep {
    executor: Executor,
    until: (u64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.executor.inner();
        if inner.now_ms >= self.until.0 {
            return Poll::Ready(());
        }
        inner.timers.insert(self.until, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.executor.inner().timers.remove(&self.until);
    }
}

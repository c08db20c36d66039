//! Whether a store may be relied on for locks, and the locks it still owes. In the memory of one
//! process: every worker answers for the locks that it could not write itself.

use std::{future::Future, sync::Arc};

use duet_wire::audit::Draft;
use tokio::sync::watch;

use super::{Lock, LockOutcome, Readiness, StoreError, UnlockRefused};

/// Locks that could not be written are remembered up to this many; each is a bad signature under
/// another key, and the store is unready from the first.
const MAX_UNWRITTEN_LOCKS: usize = 1024;
/// Wrong passphrases without a delay; from then on it doubles, from one second to five minutes.
const FREE_UNLOCK_ATTEMPTS: u32 = 3;
const MAX_UNLOCK_DELAY_MS: u64 = 5 * 60 * 1000;

/// A lock that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnwrittenLock {
    pub(super) lock: Lock,
    /// What is recorded with it.
    pub(super) entry: Option<Arc<Draft>>,
}

/// A store's readiness. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Health(watch::Sender<State>);

#[derive(Debug)]
struct State {
    readiness: Readiness,
    unwritten_locks: Vec<UnwrittenLock>,
}

impl Health {
    /// Of a store that has yet to prove that it can write.
    pub(super) fn untried() -> Self {
        let readiness = Readiness::Unready("not tried yet".to_owned());
        Self(watch::Sender::new(State { readiness, unwritten_locks: Vec::new() }))
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.0.borrow().readiness.clone()
    }

    /// Returns when the store is ready, or when it is not.
    pub(super) async fn until(&self, ready: bool) {
        let mut changes = self.0.subscribe();
        // The sender is here, so it does not fail.
        changes.wait_for(|state| (state.readiness == Readiness::Ready) == ready).await.ok();
    }

    pub(super) fn require_ready(&self) -> Result<(), StoreError> {
        match self.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::Unready(reason) => Err(StoreError::NotReady(reason)),
        }
    }

    /// Notes that a write failed, and which lock is still to be written.
    pub(super) fn fail(&self, lock: Option<UnwrittenLock>, error: &StoreError) {
        self.0.send_modify(|state| {
            state.readiness = Readiness::Unready(error.to_string());
            if let Some(lock) = lock
                && state.unwritten_locks.len() < MAX_UNWRITTEN_LOCKS
                && !state.unwritten_locks.contains(&lock)
            {
                state.unwritten_locks.push(lock);
            }
        });
    }

    /// Notes when a session's decision could not be written: a good verdict that has no way out
    /// leaves the same traces as a lock that could not be written.
    pub(super) fn judge<T>(&self, decided: Result<T, StoreError>) -> Result<T, StoreError> {
        decided.inspect_err(|error| {
            if let StoreError::Unavailable { .. } = error {
                self.fail(None, error);
            }
        })
    }

    pub(super) fn unwritten_locks(&self) -> Vec<UnwrittenLock> {
        self.0.borrow().unwritten_locks.clone()
    }

    pub(super) fn written(&self, lock: &UnwrittenLock) {
        self.0.send_modify(|state| state.unwritten_locks.retain(|other| other != lock));
    }

    /// What a recovery came to: ready, unless a lock failed meanwhile.
    pub(super) fn recovered(&self, tried: Result<(), StoreError>) -> Result<(), StoreError> {
        tried.inspect_err(|error| self.fail(None, error))?;
        self.0.send_modify(|state| {
            if state.unwritten_locks.is_empty() {
                state.readiness = Readiness::Ready;
            }
        });
        self.require_ready()
    }

    /// Has `write` write a lock, in a task of its own: a caller that is cancelled must not take the
    /// lock with it.
    pub(super) async fn lock<F>(
        &self,
        lock: UnwrittenLock,
        write: impl FnOnce(UnwrittenLock) -> F,
    ) -> Result<LockOutcome, StoreError>
    where
        F: Future<Output = Result<LockOutcome, StoreError>> + Send + 'static,
    {
        let (health, owed, spare) = (self.clone(), lock.clone(), lock.clone());
        let writing = write(lock);
        let task =
            tokio::spawn(async move { writing.await.inspect_err(|error| health.fail(Some(owed), error)) });
        task.await.unwrap_or_else(|_| {
            let error = StoreError::NotReady("the runtime stopped while a lock was written".to_owned());
            self.fail(Some(spare), &error);
            Err(error)
        })
    }
}

/// How often a store was tried to be opened with a passphrase, and when it may be next, as a
/// setting holds it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnlockAttempts {
    pub(super) failures: u32,
    next_at_ms: u64,
}

impl UnlockAttempts {
    /// Failures (4 bytes), then the time of the next attempt (8 bytes).
    pub(super) fn parse(setting: Option<&[u8]>) -> Self {
        setting
            .and_then(|value| value.split_first_chunk::<4>())
            .and_then(|(count, at)| {
                let next_at_ms = u64::from_be_bytes(at.try_into().ok()?);
                Some(Self { failures: u32::from_be_bytes(*count), next_at_ms })
            })
            .unwrap_or_default()
    }

    /// Counts one more, if it is time for it.
    pub(super) fn another(self, now_ms: u64) -> Result<Self, UnlockRefused> {
        // The bound keeps a clock that was wrong once from locking the owner out for years.
        let wait_ms = self.next_at_ms.saturating_sub(now_ms).min(MAX_UNLOCK_DELAY_MS);
        if wait_ms > 0 {
            return Err(UnlockRefused::TooEarly { failures: self.failures, wait_ms });
        }
        let failures = self.failures.saturating_add(1);
        let delay_ms = match failures.saturating_sub(FREE_UNLOCK_ATTEMPTS) {
            0 => 0,
            doublings @ 1..=16 => (500_u64 << doublings).min(MAX_UNLOCK_DELAY_MS),
            _ => MAX_UNLOCK_DELAY_MS,
        };
        Ok(Self { failures, next_at_ms: now_ms.saturating_add(delay_ms) })
    }

    pub(super) fn to_setting(self) -> Vec<u8> {
        [self.failures.to_be_bytes().as_slice(), self.next_at_ms.to_be_bytes().as_slice()].concat()
    }
}

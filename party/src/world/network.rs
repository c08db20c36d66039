//! The network between the parties: messages are lost, late, repeated, changed, or another
//! session's. Faults happen until the run is calm.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use duet_protocol::ids::{PartyId, SessionId};
use futures::channel::{mpsc, oneshot};

use super::{
    executor::{Executor, START_MS},
    judge::Judge,
};

/// For how long faults happen.
pub(super) const FAULTS_MS: u64 = 40_000;
/// How many messages are kept to be sent into other sessions.
const KEPT: usize = 8;

/// A message at its receiver, and the question that an answer belongs to.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub(super) payload: Bytes,
    pub(super) question: u64,
}

/// The network. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) executor: Executor,
    /// Whether responders answer wrongly now and then.
    has_cheats: bool,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    listeners: BTreeMap<(SessionId, PartyId), Vec<mpsc::UnboundedSender<Delivered>>>,
    questions: BTreeMap<u64, oneshot::Sender<Bytes>>,
    kept: VecDeque<Bytes>,
    judge: Judge,
}

impl Network {
    pub(super) fn new(executor: Executor, has_cheats: bool, judge: Judge) -> Self {
        let inner = Inner { judge, ..Inner::default() };
        Self { executor, has_cheats, inner: Arc::new(Mutex::new(inner)) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn judge<T>(&self, judge: impl FnOnce(&mut Judge) -> T) -> T {
        self.with(|inner| judge(&mut inner.judge))
    }

    /// Whether faults are over.
    pub(super) fn is_calm(&self) -> bool {
        self.executor.now_ms() >= START_MS + FAULTS_MS
    }

    /// Whether something bad happens that does so `percent` times of a hundred.
    pub(super) fn fault(&self, percent: u64) -> bool {
        !self.is_calm() && self.executor.below(100) < percent
    }

    pub(super) fn is_honest(&self) -> bool {
        !(self.has_cheats && self.fault(25))
    }

    pub(super) fn listen(&self, session: SessionId, to: &PartyId) -> mpsc::UnboundedReceiver<Delivered> {
        let (sender, receiver) = mpsc::unbounded();
        self.with(|inner| inner.listeners.entry((session, to.clone())).or_default().push(sender));
        receiver
    }

    /// Whether some process listens.
    pub(super) fn is_heard(&self, to: &(SessionId, PartyId)) -> bool {
        self.with(|inner| inner.listeners.get(to).is_some_and(|all| all.iter().any(|one| !one.is_closed())))
    }

    /// Sends a question. Returns its answer, unless one of the two is lost.
    pub(super) fn send(&self, to: (SessionId, PartyId), message: Bytes) -> oneshot::Receiver<Bytes> {
        let (sender, receiver) = oneshot::channel();
        let question = self.executor.number();
        let other = self.with(|inner| {
            inner.questions.insert(question, sender);
            inner.kept.push_back(message.clone());
            if inner.kept.len() > KEPT { inner.kept.pop_front() } else { None }
        });
        if let Some(other) = other.filter(|_| self.fault(4)) {
            self.deliver(to.clone(), Delivered { payload: other, question });
        }
        for payload in self.copies(message) {
            self.deliver(to.clone(), Delivered { payload, question });
        }
        receiver
    }

    fn deliver(&self, to: (SessionId, PartyId), delivered: Delivered) {
        let (network, sleep) = (self.clone(), self.executor.sleep_ms(self.delay_ms()));
        self.executor.spawn(None, async move {
            sleep.await;
            network.with(|inner| {
                for listener in inner.listeners.get(&to).into_iter().flatten() {
                    drop(listener.unbounded_send(delivered.clone()));
                }
            });
        });
    }

    /// Sends an answer. The first that arrives counts.
    pub(super) fn answer(&self, question: u64, answer: Bytes) {
        for payload in self.copies(answer) {
            let (network, sleep) = (self.clone(), self.executor.sleep_ms(self.delay_ms()));
            self.executor.spawn(None, async move {
                sleep.await;
                if let Some(asker) = network.with(|inner| inner.questions.remove(&question)) {
                    drop(asker.send(payload));
                }
            });
        }
    }

    /// What becomes of a message on its way.
    fn copies(&self, message: Bytes) -> Vec<Bytes> {
        if self.fault(4) {
            return Vec::new();
        }
        if self.fault(4) {
            let mut changed = message.to_vec();
            let at = usize::try_from(self.executor.below(changed.len() as u64)).unwrap();
            changed[at] ^= 1;
            return if self.fault(50) { vec![changed.into(), message] } else { vec![changed.into()] };
        }
        if self.fault(6) { vec![message.clone(), message] } else { vec![message] }
    }

    fn delay_ms(&self) -> u64 {
        if self.fault(3) { 1_000 + self.executor.below(14_000) } else { 1 + self.executor.below(60) }
    }
}

//! What must hold in every run.

use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::SessionId;
use duet_wire::JobId;

use super::{engines::Seen, executor::ProcessId};
use crate::{
    session::Ended,
    store::memory::{Decided, MemoryStore},
};

/// A party's place in a session: which holder, in which process, for which job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) holder: usize,
    pub(super) process: ProcessId,
    pub(super) session: SessionId,
    pub(super) job: JobId,
    pub(super) digest: [u8; 32],
}

/// Judges what the parties send, and how their sessions end.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The holders' stores.
    pub(super) stores: Vec<MemoryStore>,
    /// The session and holder of each nonce and answer.
    once: BTreeMap<[u8; 32], (SessionId, usize)>,
    /// The nonce and the answer of each session and holder.
    nonces: BTreeMap<(SessionId, usize), [u8; 32]>,
    answers: BTreeMap<SessionId, [u8; 32]>,
    /// What each job signs.
    digests: BTreeMap<JobId, [u8; 32]>,
}

impl Judge {
    pub(super) fn new(stores: Vec<MemoryStore>) -> Self {
        Self { stores, ..Self::default() }
    }

    fn has_decided(&self, holder: usize, decided: Decided) -> bool {
        self.stores[holder].decided().contains(&decided)
    }

    /// A party sends a message.
    pub(super) fn sent(&mut self, seat: &Seat, seen: Seen) {
        let Seat { holder, session, job, digest, .. } = *seat;
        assert!(self.has_decided(holder, Decided::Claimed(session)), "{seat:?} was not claimed");
        let (Seen::R1(value) | Seen::R2(value) | Seen::C3(value)) = seen else { return };
        let before = self.once.insert(value, (session, holder));
        assert!(before.is_none_or(|before| before == (session, holder)), "{seen:?} was used twice");
        if let Seen::C3(answer) = seen {
            let charged = Decided::Charged(session, digest);
            assert!(self.has_decided(holder, charged), "{seat:?} answers before it is charged");
            let before = self.answers.insert(session, answer);
            assert!(before.is_none_or(|before| before == answer), "{seat:?} answers twice");
            let before = self.digests.insert(job, digest);
            assert!(before.is_none_or(|before| before == digest), "{job} signs two payloads");
        } else {
            let before = self.nonces.insert((session, holder), value);
            assert!(before.is_none_or(|before| before == value), "{seat:?} has two nonces");
        }
    }

    /// A session ended for a party.
    pub(super) fn ended(&mut self, seat: &Seat, ended: &Ended) {
        let Seat { holder, session, job, digest, .. } = *seat;
        match ended {
            Ended::Signed { .. } => {
                assert!(self.has_decided(holder, Decided::Released(session)), "{seat:?} went past the gate");
                let before = self.digests.insert(job, digest);
                assert!(before.is_none_or(|before| before == digest), "{job} signs two payloads");
            }
            Ended::Failed { culprit: Some(_), .. } => {
                assert!(self.has_decided(holder, Decided::Locked(session)), "{seat:?} blames without a lock");
            }
            _ => {}
        }
    }

    /// Whether an answer that was wrong locked the initiator's key.
    pub(super) fn is_locked(&self) -> bool {
        self.stores[0].decided().iter().any(|decided| matches!(decided, Decided::Locked(_)))
    }

    /// The digest that a job signs, if one was answered.
    pub(super) fn digest_of(&self, job: JobId) -> Option<[u8; 32]> {
        self.digests.get(&job).copied()
    }

    /// Nothing is left when all is calm.
    pub(super) fn over(&self) {
        for store in &self.stores {
            assert!(!store.has_pending(), "a verdict is still pending");
            let mut once = BTreeSet::new();
            for decided in store.decided() {
                if let Decided::Claimed(_) | Decided::Charged(..) | Decided::Locked(_) = decided {
                    assert!(once.insert(format!("{decided:?}")), "{decided:?} twice");
                }
            }
        }
    }
}

//! Symbolic parties: their workers offer seats, accept, refuse by each class, fall silent, answer
//! late, and go away for a while.

use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::{PartyId, SessionId};
use duet_queue::offers::Offered;
use duet_wire::{Code, InstanceId, error::Class};
use rand_chacha::{ChaCha8Rng, rand_core::Rng as _};

/// Codes of which each says nothing about the job.
pub(crate) const WAIT: [Code; 5] =
    [Code::Locked, Code::Overloaded, Code::StaleEpoch, Code::NeedsRotation, Code::UnknownWallet];

/// How many seats a worker offers beyond those that it has, when it lies.
const LIE: u32 = 3;

/// How many offers of a worker count in one second at most: those that it makes when the number of
/// its seats changes, and the one before.
const OFFERS_IN_A_SECOND: u32 = 6;

/// A party's answer to an invitation.
pub(crate) enum Answer {
    Accepts,
    /// It accepts when the orchestrator no longer waits.
    AcceptsLate,
    Refuses(Code),
    /// There is no worker of that name, or none at all.
    NoWorker,
    Silent,
    Nonsense,
}

struct Worker {
    party: PartyId,
    instance: InstanceId,
    /// How many sessions it takes at once.
    seats: u32,
    /// Whether it is of a version that offers seats.
    offers_seats: bool,
    number: u64,
    gone_until_ms: u64,
    /// How many seats were free in its last offer, or are in the one that it is about to make.
    offered: u32,
    /// How often it was invited by its name in the second `.0`.
    invited: (u64, u32),
}

#[derive(Default)]
pub(crate) struct Parties {
    workers: Vec<Worker>,
    /// Whose seat is taken, and until when.
    seats: BTreeMap<(PartyId, SessionId), (usize, u64)>,
    invited: BTreeSet<(PartyId, SessionId)>,
}

impl Parties {
    /// A number below `bound`.
    fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
        rng.next_u32() % bound
    }

    /// One or two workers for each of `parties`. In one seed of four, those of a party offer no
    /// seats.
    pub(crate) fn new(rng: &mut ChaCha8Rng, parties: &[PartyId]) -> Self {
        let mut workers = Vec::new();
        for party in parties {
            let offers_seats = !rng.next_u32().is_multiple_of(4);
            for number in 0..=Self::below(rng, 2) {
                workers.push(Worker {
                    party: party.clone(),
                    instance: format!("{party}{number}").parse().unwrap(),
                    seats: 1 + Self::below(rng, 3),
                    offers_seats,
                    number: 0,
                    gone_until_ms: 0,
                    offered: 0,
                    invited: (0, 0),
                });
            }
        }
        Self { workers, ..Self::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.workers.len()
    }

    fn taken(&self, worker: usize) -> u32 {
        u32::try_from(self.seats.values().filter(|(taken, _)| *taken == worker).count()).unwrap()
    }

    fn is_there(&self, worker: usize, now_ms: u64) -> bool {
        self.workers[worker].gone_until_ms <= now_ms
    }

    /// Whether the party has a worker that is not gone.
    pub(crate) fn is_any_there(&self, party: &PartyId, now_ms: u64) -> bool {
        let mut workers = (0..self.workers.len()).filter(|worker| self.workers[*worker].party == *party);
        workers.any(|worker| self.is_there(worker, now_ms))
    }

    /// A worker goes away with its sessions.
    pub(crate) fn go(&mut self, worker: usize, until_ms: u64) {
        self.workers[worker].gone_until_ms = until_ms;
        self.seats.retain(|_, (taken, _)| *taken != worker);
    }

    /// The workers with another number of free seats than in their last offers, each once.
    pub(crate) fn changed(&mut self) -> Vec<usize> {
        let free: Vec<u32> = (0..self.workers.len()).map(|worker| self.free(worker)).collect();
        let mut changed = Vec::new();
        for (number, (worker, free)) in self.workers.iter_mut().zip(free).enumerate() {
            if core::mem::replace(&mut worker.offered, free) != free {
                changed.push(number);
            }
        }
        changed
    }

    fn free(&self, worker: usize) -> u32 {
        self.workers[worker].seats.saturating_sub(self.taken(worker))
    }

    /// What a worker offers now, and who it is.
    pub(crate) fn offer(
        &mut self,
        worker: usize,
        now_ms: u64,
        lies: bool,
    ) -> Option<(PartyId, InstanceId, Offered)> {
        self.seats.retain(|_, (_, until_ms)| *until_ms > now_ms);
        let free = self.free(worker);
        self.workers[worker].offered = free;
        if !self.workers[worker].offers_seats || !self.is_there(worker, now_ms) {
            return None;
        }
        let this = &mut self.workers[worker];
        this.number += 1;
        let free = if lies { free + LIE } else { free };
        let offered = Offered { number: this.number, seats: this.seats, free };
        Some((this.party.clone(), this.instance.clone(), offered))
    }

    /// The worker that gets the invitation. One that was invited by its name gets few in a second,
    /// whatever the queue: the seats that it has and pretends to have, for each offer of that time.
    fn find(&mut self, party: &PartyId, instance: Option<&InstanceId>, now_ms: u64) -> Option<usize> {
        let mut workers = (0..self.workers.len()).filter(|worker| self.workers[*worker].party == *party);
        let Some(instance) = instance else {
            return workers.find(|worker| {
                self.is_there(*worker, now_ms) && self.taken(*worker) < self.workers[*worker].seats
            });
        };
        let worker = workers.find(|worker| self.workers[*worker].instance == *instance).unwrap();
        let this = &mut self.workers[worker];
        if this.invited.0 != now_ms / 1000 {
            this.invited = (now_ms / 1000, 0);
        }
        this.invited.1 += 1;
        let most = OFFERS_IN_A_SECOND * (this.seats + LIE);
        assert!(this.invited.1 <= most, "{instance} was invited {} times in a second", this.invited.1);
        self.is_there(worker, now_ms).then_some(worker)
    }

    pub(crate) fn invite(
        &mut self,
        rng: &mut ChaCha8Rng,
        (party, session): (&PartyId, SessionId),
        instance: Option<&InstanceId>,
        (now_ms, until_ms): (u64, u64),
        is_calm: bool,
    ) -> (Answer, String) {
        assert!(self.invited.insert((party.clone(), session)), "{party} was invited twice to {session}");
        self.seats.retain(|_, (_, until_ms)| *until_ms > now_ms);
        let Some(worker) = self.find(party, instance, now_ms) else {
            return (Answer::NoWorker, String::new());
        };
        let name = self.workers[worker].instance.to_string();
        if self.taken(worker) >= self.workers[worker].seats {
            return (Answer::Refuses(Code::NoSeat), name);
        }
        let answer = match if is_calm { 100 } else { Self::below(rng, 100) } {
            0..8 => Answer::Refuses(WAIT[usize::try_from(Self::below(rng, 5)).unwrap()]),
            8..10 => Answer::Refuses(Code::Internal),
            10 => Answer::Refuses(Code::PolicyRefused),
            11..15 => Answer::Silent,
            15..19 => Answer::AcceptsLate,
            19 => Answer::Nonsense,
            20..23 => Answer::NoWorker,
            _ => Answer::Accepts,
        };
        if matches!(answer, Answer::Accepts | Answer::AcceptsLate) {
            self.seats.insert((party.clone(), session), (worker, until_ms));
        }
        (answer, name)
    }

    /// Whether both `parties` sit in the session.
    pub(crate) fn both_sit(&self, session: SessionId, parties: [&PartyId; 2]) -> bool {
        parties.iter().all(|party| self.seats.contains_key(&((*party).clone(), session)))
    }

    pub(crate) fn leave(&mut self, party: &PartyId, session: SessionId) {
        self.seats.remove(&(party.clone(), session));
    }
}

/// What the code of a job that failed has to mean. Stated here, and not taken from the table that
/// the core goes by.
pub(crate) fn judge_failure(code: Code) {
    let says_nothing = WAIT.contains(&code) || code == Code::NoSeat;
    assert!(!says_nothing && code.class() != Class::Wait, "a job failed by {code}");
}

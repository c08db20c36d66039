//! Symbolic parties: they accept, refuse by each class, fall silent or answer late.

use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::{PartyId, SessionId};
use duet_wire::{Code, error::Class};
use rand_chacha::{ChaCha8Rng, rand_core::Rng as _};

/// How many sessions a party has seats for.
const SEATS: usize = 3;

/// Codes of which each says nothing about the job.
pub(crate) const WAIT: [Code; 5] =
    [Code::Locked, Code::Overloaded, Code::StaleEpoch, Code::NeedsRotation, Code::UnknownWallet];

/// A party's answer to an invitation.
pub(crate) enum Answer {
    Accepts,
    /// It accepts when the orchestrator no longer waits.
    AcceptsLate,
    Refuses(Code),
    NoSeat,
    Silent,
    Nonsense,
}

#[derive(Default)]
pub(crate) struct Parties {
    /// Until when each seat is taken.
    seats: BTreeMap<(PartyId, SessionId), u64>,
    invited: BTreeSet<(PartyId, SessionId)>,
}

impl Parties {
    /// A number below `bound`.
    fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
        rng.next_u32() % bound
    }

    pub(crate) fn invite(
        &mut self,
        rng: &mut ChaCha8Rng,
        (party, session): (&PartyId, SessionId),
        (now_ms, until_ms): (u64, u64),
        is_calm: bool,
    ) -> Answer {
        assert!(self.invited.insert((party.clone(), session)), "{party} was invited twice to {session}");
        self.seats.retain(|_, until_ms| *until_ms > now_ms);
        if self.seats.keys().filter(|(owner, _)| owner == party).count() >= SEATS {
            return Answer::NoSeat;
        }
        let answer = match if is_calm { 100 } else { Self::below(rng, 100) } {
            0..8 => Answer::Refuses(WAIT[usize::try_from(Self::below(rng, 5)).unwrap()]),
            8..10 => Answer::Refuses(Code::Internal),
            10 => Answer::Refuses(Code::PolicyRefused),
            11..15 => Answer::Silent,
            15..19 => Answer::AcceptsLate,
            19 => Answer::Nonsense,
            20..23 => Answer::NoSeat,
            _ => Answer::Accepts,
        };
        if matches!(answer, Answer::Accepts | Answer::AcceptsLate) {
            self.seats.insert((party.clone(), session), until_ms);
        }
        answer
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
    assert!(!WAIT.contains(&code) && code.class() != Class::Wait, "a job failed by {code}");
}

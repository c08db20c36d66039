//! Why jobs wait, and how many.

use std::collections::BTreeMap;

use duet_protocol::ids::PartyId;
use duet_wire::{Code, JobRecord, JobState, Refusal, error::Class};

/// Why the job waits, if it does and is not in work.
#[must_use]
pub fn of(record: &JobRecord) -> Option<Code> {
    match record.state {
        JobState::Queued | JobState::AwaitingOwner => record.waiting.as_ref().map(|waiting| waiting.code),
        JobState::Running { .. }
        | JobState::Signed { .. }
        | JobState::Failed { .. }
        | JobState::Expired
        | JobState::Cancelled
        | JobState::Unknown(_) => None,
    }
}

/// The reason of a job that waits for a seat of `party`.
#[must_use]
pub fn no_seat(party: &PartyId) -> Refusal {
    Refusal::new(Code::NoSeat, format!("all seats of {party} are taken"))
}

/// Whether a job that waits under this code waits for a party that gives no answer.
#[must_use]
pub const fn is_silence(code: Code) -> bool {
    matches!(code, Code::PartyAway | Code::Deadline)
}

/// How many jobs wait, by reason. A code of a later release counts as `unknown`.
#[derive(Debug, Clone, Default)]
pub struct Reasons(BTreeMap<&'static str, (Code, usize)>);

impl Reasons {
    /// Counts a job that waits under `code`.
    pub fn add(&mut self, code: Option<Code>) {
        if let Some(code) = code {
            self.add_many(code, 1);
        }
    }

    /// Discounts a job that was counted.
    pub fn remove(&mut self, code: Option<Code>) {
        if let Some((_, count)) = code.and_then(|code| self.0.get_mut(code.as_str())) {
            *count = count.saturating_sub(1);
        }
    }

    /// Counts `jobs` more that wait under `code`.
    pub fn add_many(&mut self, code: Code, jobs: usize) {
        self.0.entry(code.as_str()).or_insert((code, 0)).1 += jobs;
    }

    /// Discounts all jobs of `others`, which were counted.
    pub fn discount(&mut self, others: &Self) {
        for (name, (_, jobs)) in &others.0 {
            if let Some((_, count)) = self.0.get_mut(name) {
                *count = count.saturating_sub(*jobs);
            }
        }
    }

    /// How many jobs wait under each code: every one under which jobs may wait, and any other that
    /// one does.
    #[must_use]
    pub fn by_code(&self) -> Vec<(Code, usize)> {
        let may_wait = |code: &Code| matches!(code.class(), Class::Wait) || is_silence(*code);
        let may_wait = Code::ALL.iter().copied().filter(may_wait);
        let none = may_wait.map(|code| (code.as_str(), (code, 0)));
        let all: BTreeMap<_, _> = none.chain(self.0.iter().map(|(name, count)| (*name, *count))).collect();
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_a_wait_has_a_count() {
        let mut reasons = Reasons::default();
        for code in [Some(Code::Locked), Some(Code::Locked), Some(Code::Deadline), None] {
            reasons.add(code);
        }
        reasons.remove(Some(Code::Locked));
        let count =
            |code| reasons.by_code().iter().find(|(known, _)| *known == code).map(|(_, count)| *count);
        assert_eq!(
            [Code::Locked, Code::Deadline, Code::PartyAway, Code::PolicyRefused].map(count),
            [Some(1), Some(1), Some(0), None]
        );
    }
}

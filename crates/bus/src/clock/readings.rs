//! Readings of the broker's clock: how far it is from this machine's steady one.

use core::fmt;
use std::collections::VecDeque;

use duet_wire::validity;

/// How many rounds of questions are remembered.
const MAX_ROUNDS: usize = 8;

/// The clocks of the broker's nodes may differ by this much, in milliseconds.
const NODES_APART_MS: u64 = 2_000;

/// How far a clock that is being corrected may move between the first and the last of the rounds
/// that are remembered, in milliseconds.
const SLEW_MS: u64 = 250;

/// One reading of a node's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    node: String,
    /// How far the node's clock is ahead of the steady one, in milliseconds.
    offset_ms: i64,
    /// Half of the round trip, in milliseconds: the reading is off by this much at most.
    within_ms: u64,
}

impl Reading {
    /// A node's clock that showed `now_ms` between two moments of the steady clock, all in
    /// milliseconds.
    pub(super) fn taken(node: &str, now_ms: u64, sent_ms: u64, received_ms: u64) -> Self {
        let steady_ms = sent_ms.midpoint(received_ms);
        Self {
            node: node.to_owned(),
            offset_ms: i64::try_from(i128::from(now_ms) - i128::from(steady_ms)).unwrap_or_default(),
            // Both clocks show whole milliseconds.
            within_ms: received_ms.saturating_sub(sent_ms).div_ceil(2).saturating_add(1),
        }
    }

    /// The least by which two clocks differ, whatever the round trips hide, in milliseconds.
    const fn differs_by_ms(&self, other: &Self) -> u64 {
        let hidden_ms = self.within_ms.saturating_add(other.within_ms);
        self.offset_ms.abs_diff(other.offset_ms).saturating_sub(hidden_ms)
    }
}

/// Two nodes of the broker whose clocks differ by more than two seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    ahead: String,
    behind: String,
    by_ms: u64,
    /// How many nodes had answered.
    nodes: usize,
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ahead, behind, by_ms, .. } = self;
        let by = validity::span(*by_ms);
        write!(
            f,
            "the clock of the broker's node {ahead} is {by} ahead of that of {behind}; until they agree, nothing expires"
        )
    }
}

/// What the broker's nodes told of their clocks in the last rounds of questions.
#[derive(Debug, Default)]
pub(super) struct Readings {
    rounds: VecDeque<Reading>,
    apart: Option<Apart>,
}

impl Readings {
    /// Notes a round in which the nodes were asked together. `expected` is how many there are.
    pub(super) fn note(&mut self, mut round: Vec<Reading>, expected: usize) {
        round.sort_by_key(|reading| reading.offset_ms);
        let apart = widest(&round);
        let has_all =
            round.len() >= expected || self.apart.as_ref().is_none_or(|known| round.len() >= known.nodes);
        // If fewer nodes answer than differed, those that do may be the wrong ones.
        if apart.is_some() || has_all {
            self.apart = apart;
        }
        // The middle node's clock is right unless most are wrong. Of two, the one that is behind
        // ends nothing too early.
        let middle = round.len().saturating_sub(1) / 2;
        let Some(reading) = round.into_iter().nth(middle) else { return };
        // The clock was set, or another server tells another time.
        self.rounds.retain(|earlier| earlier.differs_by_ms(&reading) <= SLEW_MS);
        self.rounds.push_back(reading);
        if self.rounds.len() > MAX_ROUNDS {
            self.rounds.pop_front();
        }
    }

    fn best(&self) -> Option<&Reading> {
        self.rounds.iter().min_by_key(|reading| reading.within_ms)
    }

    /// How far the broker's clock is ahead of the steady one, in milliseconds: by the middle of the
    /// shortest round trip.
    pub(super) fn offset_ms(&self) -> Option<i64> {
        self.best().map(|reading| reading.offset_ms)
    }

    /// How far off that may be, in milliseconds.
    pub(super) fn within_ms(&self) -> u64 {
        self.best().map_or(0, |reading| reading.within_ms)
    }

    /// The nodes whose clocks differ, if any do.
    pub(super) const fn apart(&self) -> Option<&Apart> {
        self.apart.as_ref()
    }
}

/// The two clocks of the round, which is in the order of its offsets, that differ most, if they
/// differ by too much.
fn widest(round: &[Reading]) -> Option<Apart> {
    let pairs = round.iter().enumerate().flat_map(|(at, ahead)| {
        round.iter().take(at).map(move |behind| (ahead, behind, ahead.differs_by_ms(behind)))
    });
    let (ahead, behind, by_ms) = pairs.max_by_key(|(.., by_ms)| *by_ms)?;
    (by_ms > NODES_APART_MS).then(|| Apart {
        ahead: ahead.node.clone(),
        behind: behind.node.clone(),
        by_ms,
        nodes: round.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(node: &str, offset_ms: i64, within_ms: u64) -> Reading {
        Reading { node: node.to_owned(), offset_ms, within_ms }
    }

    fn noted(rounds: impl IntoIterator<Item = Vec<Reading>>) -> Readings {
        let mut readings = Readings::default();
        for round in rounds {
            readings.note(round, 1);
        }
        readings
    }

    #[test]
    fn the_middle_of_the_shortest_of_the_last_eight_round_trips_counts() {
        assert_eq!(Readings::default().offset_ms(), None);
        assert_eq!(Reading::taken("n1", 1_000, 100, 140), reading("n1", 880, 21));
        let short = vec![reading("n1", 1_000, 2)];
        let long = || vec![reading("n1", 1_300, 400)];
        let readings = noted([long(), short.clone(), long()]);
        assert_eq!((readings.offset_ms(), readings.within_ms()), (Some(1_000), 2));
        let later = core::iter::once(short).chain((0..8).map(|_| long()));
        assert_eq!(noted(later).offset_ms(), Some(1_300), "the shortest is too long ago");
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let readings = noted([vec![reading("n1", 0, 1)], vec![reading("n1", 60_000, 500)]]);
        assert_eq!(readings.offset_ms(), Some(60_000));
    }

    #[test]
    fn the_middle_node_tells_the_time() {
        let round = vec![reading("n3", 60_000, 1), reading("n1", 10, 5), reading("n2", 0, 5)];
        assert_eq!(noted([round]).offset_ms(), Some(10));
        assert_eq!(noted([vec![reading("n1", 900, 1), reading("n2", 0, 5)]]).offset_ms(), Some(0));
    }

    #[test]
    fn nodes_agree_within_two_seconds() {
        let round = |ahead_ms| vec![reading("n1", 0, 1), reading("n2", ahead_ms, 1)];
        assert_eq!(noted([round(2_002)]).apart(), None, "what the round trips hide is no fault");
        let readings = noted([round(2_003)]);
        let apart = readings.apart().unwrap().to_string();
        assert!(apart.contains("node n2 is 3 s ahead of that of n1"), "{apart}");
        assert_eq!(noted([round(2_003), round(0)]).apart(), None);
    }
}

//! The epochs of a broker that may go back in time.
//!
//! A broker goes back when it is put back to an earlier copy of its store, or loses the store. Its
//! streams then count on from lower sequences, so one sequence stands for two messages, one after
//! the other. Each time an orchestrator finds that out, it begins an epoch: it stores the next
//! number, with the last sequence of each stream at that moment. Up to there the streams hold what
//! they held in the epochs before.
//!
//! This file decides and stores nothing ([`crate::stores`] does): what was seen in an epoch, what
//! is there now, and which epochs have begun since.

use core::{fmt, str::FromStr};
use std::collections::BTreeMap;

use duet_bus::streams::RESULTS;
use duet_protocol::ids::PartyId;
use duet_wire::{Code, Problem, record::Kept, stored_record};
use serde::{Deserialize, Serialize};

/// The epoch of a broker that has never gone back.
pub(crate) const FIRST: u64 = 1;

/// How many beginnings are kept, some 1.5 KiB each. A cursor from before the oldest is refused.
const MAX_BEGUN: usize = 128;

/// How far the next epoch may lie after the present one. A party may say that it saw a later one,
/// so no lie uses up the numbers, however often it is told.
const MAX_STEP: u64 = 1 << 32;

/// A party's word alone begins one epoch in this time, a day.
const WORD_PAUSE_MS: u64 = 24 * 60 * 60 * 1000;

/// How far a stream or bucket goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// When it was created, in nanoseconds since 1970 by the broker's clock.
    pub(crate) created_ns: u64,
    /// The sequence of its last message.
    pub(crate) last: u64,
}

/// The beginning of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    /// The epoch.
    number: u64,
    /// When it began, in milliseconds since 1970.
    at_ms: u64,
    /// How far the streams went then. 0 for one that was lost.
    streams: BTreeMap<String, Mark>,
    /// The parties on whose word alone it began. Empty when an orchestrator saw it itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    on_word_of: Vec<PartyId>,
}

/// The present epoch, and how the later ones began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Epochs {
    epoch: u64,
    begun: Vec<Begun>,
    /// No beginning of this epoch or an earlier one is kept.
    #[serde(default)]
    forgotten: u64,
    #[serde(skip)]
    kept: Kept,
}

stored_record!(Epochs);

impl Default for Epochs {
    fn default() -> Self {
        Self { epoch: FIRST, begun: Vec::new(), forgotten: 0, kept: Kept::default() }
    }
}

impl Epochs {
    /// The present epoch.
    pub(crate) const fn present(&self) -> u64 {
        self.epoch
    }

    /// Whether it is known how the epochs after `epoch` began, and it led to the present one.
    fn leads_here(&self, epoch: u64) -> bool {
        let is_known = epoch == FIRST || self.begun.iter().any(|begun| begun.number == epoch);
        is_known && epoch >= self.forgotten && epoch <= self.epoch
    }

    /// How far each stream went when epochs began whose numbers are those of other epochs in
    /// `known`, at the lowest. Empty if each number stands for one epoch. One stands for two when
    /// the broker was put back to before an epoch began, and an orchestrator found that out which
    /// had not heard of that epoch.
    pub(crate) fn begun_again(&self, known: &Self) -> BTreeMap<String, Mark> {
        let is_other = |begun: &Begun, other: &Begun| other.number == begun.number && other != begun;
        let again = self.begun.iter().filter(|begun| known.begun.iter().any(|other| is_other(begun, other)));
        let mut lowest: BTreeMap<String, Mark> = BTreeMap::new();
        for (name, mark) in again.flat_map(|begun| &begun.streams) {
            let entry = lowest.entry(name.clone()).or_insert(*mark);
            entry.last = entry.last.min(mark.last);
        }
        lowest
    }

    /// Whether `stream`, seen up to `seen` in `epoch`, either still goes so far or was found to go
    /// less far when a later epoch began. Otherwise the broker has gone back, and no orchestrator
    /// has found out. `now` is how far it goes.
    pub(crate) fn explain(&self, stream: &str, epoch: u64, seen: Mark, now: Mark) -> bool {
        let lacks = |mark: &Mark| mark.created_ns != seen.created_ns || mark.last < seen.last;
        let later = self.begun.iter().filter(|begun| begun.number > epoch);
        let was_found = later.filter_map(|begun| begun.streams.get(stream)).any(lacks);
        was_found || epoch < self.forgotten || (epoch <= self.epoch && !lacks(&now))
    }

    /// Whether an epoch may begin now because `party` says that it saw more than there is. It does
    /// no harm to wait for an orchestrator that saw it itself, or for tomorrow: the parties sign no
    /// second payload under a key either way.
    pub(crate) fn may_begin_on_word_of(&self, party: &PartyId, now_ms: u64) -> bool {
        let is_recent = |begun: &Begun| now_ms.saturating_sub(begun.at_ms) < WORD_PAUSE_MS;
        !self.begun.iter().any(|begun| is_recent(begun) && begun.on_word_of.contains(party))
    }

    /// These epochs, and the next one after all of them and after `after`, but for what lies more
    /// than [`MAX_STEP`] ahead.
    pub(crate) fn with_next(
        &self,
        after: u64,
        at_ms: u64,
        streams: BTreeMap<String, Mark>,
        on_word_of: Vec<PartyId>,
    ) -> Self {
        let mut next = self.clone();
        next.epoch = after.clamp(self.epoch, self.epoch.saturating_add(MAX_STEP)).saturating_add(1);
        next.begun.push(Begun { number: next.epoch, at_ms, streams, on_word_of });
        while next.begun.len() > MAX_BEGUN {
            next.forgotten = next.begun.remove(0).number;
        }
        next
    }

    /// The place from which a reader goes on after `cursor`.
    ///
    /// # Errors
    /// When other ends may have had the cursor's place since.
    pub(crate) fn resume(&self, cursor: Cursor) -> Result<u64, CursorGone> {
        let later = self.begun.iter().filter(|begun| begun.number > cursor.epoch);
        let marks = later.filter_map(|begun| begun.streams.get(RESULTS)).map(|mark| mark.last);
        let valid_up_to = if self.leads_here(cursor.epoch) { marks.min() } else { Some(0) };
        match valid_up_to {
            Some(up_to) if cursor.place > up_to => {
                Err(CursorGone { cursor, valid_up_to: Cursor { epoch: self.epoch, place: up_to } })
            }
            _ => Ok(cursor.place),
        }
    }
}

/// A place in the sequence of ends: the place of the last end that was read, 0 before the first,
/// and the epoch of the broker in which it was read. Written `<epoch>.<place>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cursor {
    pub(crate) epoch: u64,
    pub(crate) place: u64,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { epoch: FIRST, place: 0 }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.place)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;
    /// Reads a cursor. A bare place, as the version before wrote it, is of the first epoch.
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let number = |text: &str| text.parse().map_err(|_| InvalidCursor);
        Ok(match text.split_once('.') {
            Some((epoch, place)) => Self { epoch: number(epoch)?, place: number(place)? },
            None => Self { epoch: FIRST, place: number(text)? },
        })
    }
}

/// The text is not a cursor of this interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor: the id of an event, or `next` of a page")]
pub(crate) struct InvalidCursor;

/// A reader has ends that the broker forgot, and other ends may have their places now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the broker went back to an earlier copy of its store, or lost it, after the cursor {cursor} was given out. Of what this \
     reader has, the broker still holds the ends up to {valid_up_to}. Go on with after={valid_up_to}, and pass over the jobs \
     whose ends it has already"
)]
pub(crate) struct CursorGone {
    /// The reader's.
    cursor: Cursor,
    /// Up to here the ends are those that the reader has.
    valid_up_to: Cursor,
}

impl From<CursorGone> for Problem {
    fn from(gone: CursorGone) -> Self {
        Self::new(Code::CursorGone, gone.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "S";

    fn mark(created_ns: u64, last: u64) -> Mark {
        Mark { created_ns, last }
    }

    fn at(epoch: u64, place: u64) -> Cursor {
        Cursor { epoch, place }
    }

    /// The next epoch, in which both streams go so far.
    fn next(epochs: &Epochs, after: u64, mark: Mark) -> Epochs {
        epochs.with_next(after, 7, [STREAM, RESULTS].map(|name| (name.to_owned(), mark)).into(), Vec::new())
    }

    #[test]
    fn what_is_seen_is_explained_while_it_is_there_or_once_its_loss_was_found() {
        let first = Epochs::default();
        let explain = |epochs: &Epochs, epoch, seen, now| epochs.explain(STREAM, epoch, seen, now);
        assert!(explain(&first, 1, mark(9, 100), mark(9, 100)));
        assert!(explain(&first, 1, mark(9, 100), mark(9, 130)));
        assert!(!explain(&first, 1, mark(9, 100), mark(9, 99)), "put back");
        assert!(!explain(&first, 1, mark(9, 0), mark(8, 500)), "another stream");
        // A party that saw the second epoch knows more than the broker.
        assert!(!explain(&first, 2, mark(9, 10), mark(9, 100)));
        // Another orchestrator has found the loss, also when the stream has outgrown the mark.
        let second = next(&first, 1, mark(9, 80));
        assert!(explain(&second, 1, mark(9, 100), mark(9, 80)));
        assert!(explain(&second, 1, mark(9, 100), mark(9, 120)));
        // What was seen below the mark is still there, unless the broker went back once more.
        assert!(explain(&second, 1, mark(9, 70), mark(9, 80)));
        assert!(!explain(&second, 1, mark(9, 70), mark(9, 60)));
        assert!(!explain(&second, 2, mark(9, 90), mark(9, 85)));
    }

    #[test]
    fn an_epoch_is_later_than_all_that_were_seen() {
        let copy = next(&Epochs::default(), 1, mark(9, 80));
        assert_eq!(copy.present(), 2);
        assert_eq!(next(&copy, 7, mark(9, 50)).present(), 8);
        // A party that names the last number of all uses up few.
        let lied = next(&Epochs::default(), u64::MAX, mark(9, 50));
        assert_eq!(lied.present(), 2 + MAX_STEP);
        // A broker that lost everything goes on after what honest parties remember.
        assert_eq!(next(&Epochs::default(), 200, mark(9, 0)).present(), 201);
    }

    #[test]
    fn an_epoch_with_the_number_of_a_known_one_is_another() {
        // One orchestrator found the broker put back at 80 and another one, later, at 60.
        let known = next(&Epochs::default(), 1, mark(9, 80));
        let others = next(&Epochs::default(), 1, mark(9, 60));
        assert_eq!(known.present(), others.present());
        assert_eq!(others.begun_again(&others), BTreeMap::new());
        assert_eq!(next(&known, 2, mark(9, 90)).begun_again(&known), BTreeMap::new());
        assert_eq!(others.begun_again(&Epochs::default()), BTreeMap::new());
        let again = others.begun_again(&known);
        assert_eq!(again.get(RESULTS), Some(&mark(9, 60)));
        // The next epoch begins with what both have in common, so no cursor of either leads beyond.
        let third = others.with_next(2, 7, again, Vec::new());
        assert_eq!(third.resume(at(2, 60)), Ok(60));
        assert!(third.resume(at(2, 61)).is_err());
    }

    #[test]
    fn cursors_are_read_as_they_are_written_and_bare_places_are_of_the_first_epoch() {
        for text in ["1.0", "2.17", "7.18446744073709551615"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert_eq!("17".parse(), Ok(at(1, 17)));
        for text in ["", ".", "1.", ".1", "1.2.3", "x", "-1", "1.x", "1 .2"] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }

    #[test]
    fn a_cursor_is_valid_up_to_the_lowest_sequence_that_a_later_epoch_began_with() {
        let first = Epochs::default();
        assert_eq!(first.resume(at(1, 500)), Ok(500));
        let second = next(&first, 1, mark(9, 80));
        let gone = |cursor, up_to| Err(CursorGone { cursor, valid_up_to: up_to });
        assert_eq!(second.resume(at(1, 80)), Ok(80));
        assert_eq!(second.resume(at(1, 81)), gone(at(1, 81), at(2, 80)));
        assert_eq!(second.resume(at(2, 81)), Ok(81));
        let third = next(&second, 2, mark(9, 60));
        assert_eq!(third.resume(at(1, 70)), gone(at(1, 70), at(3, 60)));
        assert_eq!(third.resume(at(2, 70)), gone(at(2, 70), at(3, 60)));
        assert_eq!((third.resume(at(1, 60)), third.resume(at(3, 61))), (Ok(60), Ok(61)));
        let fourth = next(&third, 3, mark(9, 90));
        assert_eq!(fourth.resume(at(1, 70)), gone(at(1, 70), at(4, 60)));
        assert_eq!(fourth.resume(at(3, 90)), Ok(90));
    }

    #[test]
    fn an_epoch_that_the_broker_forgot_leaves_nothing_to_go_on_from() {
        // The copy is of the first epoch; an orchestrator remembered the fourth.
        let fifth = next(&Epochs::default(), 4, mark(9, 80));
        for (cursor, is_valid) in [(at(3, 10), false), (at(3, 0), true), (at(9, 1), false), (at(1, 80), true)]
        {
            assert_eq!(fifth.resume(cursor).is_ok(), is_valid, "{cursor}");
        }
    }

    #[test]
    fn a_partys_word_alone_begins_one_epoch_a_day() {
        let (service, partner): (PartyId, PartyId) = ("service".parse().unwrap(), "partner".parse().unwrap());
        let first = Epochs::default();
        assert!(first.may_begin_on_word_of(&service, 0));
        let second = first.with_next(1, 1000, BTreeMap::new(), vec![service.clone()]);
        for (party, now_ms, may) in [
            (&service, 1000, false),
            // A clock that was set back.
            (&service, 0, false),
            (&service, 999 + WORD_PAUSE_MS, false),
            (&service, 1000 + WORD_PAUSE_MS, true),
            (&partner, 1000, true),
        ] {
            assert_eq!(second.may_begin_on_word_of(party, now_ms), may, "{party} {now_ms}");
        }
        let read: Epochs = serde_json::from_str(&serde_json::to_string(&second).unwrap()).unwrap();
        assert_eq!(read, second);
    }

    #[test]
    fn only_so_many_beginnings_are_kept() {
        let mut epochs = Epochs::default();
        for _ in 0..MAX_BEGUN + 2 {
            epochs = next(&epochs, 1, mark(9, 80));
        }
        assert_eq!((epochs.begun.len(), epochs.forgotten), (MAX_BEGUN, 3));
        assert!(epochs.resume(at(1, 10)).is_err());
        assert_eq!(
            epochs.resume(at(3, 10)),
            Err(CursorGone { cursor: at(3, 10), valid_up_to: at(epochs.epoch, 0) })
        );
        assert_eq!(epochs.resume(at(4, 10)), Ok(10));
        let text = serde_json::to_string(&epochs).unwrap();
        assert!(text.len() < 1 << 18);
        assert_eq!(serde_json::from_str::<Epochs>(&text).unwrap(), epochs);
    }
}

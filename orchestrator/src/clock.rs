//! The time by which an orchestrator judges and writes: the broker's.
//!
//! Several orchestrators share deadlines, and one machine's clock may be wrong. So `now` is this
//! machine's steady clock plus its distance to the broker's clock ([`readings`]), which each node
//! tells when it is asked about its settings. Before the first answer, the machine's own clock
//! counts.
//!
//! While the clocks of the broker's nodes differ, none of them can be trusted to end a job: nothing
//! expires ([`Clock::has_passed`]).
//!
//! No other file of this crate asks the machine for the time of day; `cargo xtask test fmt` checks
//! that.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use duet_bus::inspect::{Answer, Node};
use duet_queue::time::difference_ms;
use duet_wire::{Code, Refusal, validity};

mod readings;

pub(crate) use duet_queue::time::{until, whole_millis};

use readings::{Apart, Reading, Readings};

/// A machine's clock that differs by more is worth a line in the log, in milliseconds.
const NOTED_MS: u64 = 1_000;

/// An orchestrator on a machine whose clock differs by more is not ready, in milliseconds.
const WRONG_MS: u64 = 5_000;

/// How this machine's clock stands to the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    #[default]
    Right,
    Noted,
    Wrong,
}

/// What was last logged.
#[derive(Debug, Default)]
struct Logged {
    standing: Standing,
    are_apart: bool,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    readings: Mutex<Readings>,
    logged: Mutex<Logged>,
}

/// The broker's time. Cheap to clone; clones share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Inner>);

impl Default for Clock {
    /// The machine's own clock, until [`Self::learn`] is told of the broker's.
    fn default() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            readings: Mutex::default(),
            logged: Mutex::default(),
        }))
    }
}

impl Clock {
    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment by this machine's steady clock, in milliseconds since this clock was made.
    fn steady_ms(&self, moment: Instant) -> u64 {
        whole_millis(moment.saturating_duration_since(self.0.started))
    }

    /// The broker's time in milliseconds since 1970, or this machine's while the broker has told
    /// none.
    pub(crate) fn now_ms(&self) -> u64 {
        let offset_ms = self.readings().offset_ms();
        match offset_ms {
            Some(offset_ms) => self.steady_ms(Instant::now()).saturating_add_signed(offset_ms),
            None => machine_ms(),
        }
    }

    /// What this machine's own clock shows, in milliseconds since 1970.
    pub(crate) fn machine_ms(&self) -> u64 {
        machine_ms()
    }

    /// Whether something that ends at `end_ms` is over. Nothing is while the broker's nodes differ.
    pub(crate) fn has_passed(&self, end_ms: u64) -> bool {
        self.require_agreement().is_ok() && self.now_ms() >= end_ms
    }

    /// That the clocks of the broker's nodes agree.
    ///
    /// # Errors
    /// `clock-differs`, with the nodes and the difference.
    pub(crate) fn require_agreement(&self) -> Result<(), Refusal> {
        match self.readings().apart() {
            Some(apart) => Err(Refusal::new(Code::ClockDiffers, apart.to_string())),
            None => Ok(()),
        }
    }

    /// How far the broker's clock is ahead of this machine's, in milliseconds. `None` until the
    /// broker has told its time.
    pub(crate) fn broker_ahead_ms(&self) -> Option<i64> {
        self.readings().offset_ms()?;
        Some(difference_ms(self.now_ms(), machine_ms()))
    }

    fn standing(&self) -> (Standing, i64) {
        let ahead_ms = self.broker_ahead_ms().unwrap_or_default();
        // What the shortest round trip hides is no fault of this machine.
        let hidden_ms = self.readings().within_ms();
        let differs_by_ms = ahead_ms.unsigned_abs().saturating_sub(hidden_ms);
        let standing = if differs_by_ms > WRONG_MS {
            Standing::Wrong
        } else if differs_by_ms > NOTED_MS {
            Standing::Noted
        } else {
            Standing::Right
        };
        (standing, ahead_ms)
    }

    /// That this machine's clock is not far off the broker's. Jobs are timed by the broker's all
    /// the same.
    ///
    /// # Errors
    /// `clock-differs`, with the difference.
    pub(crate) fn require_right_machine(&self) -> Result<(), Refusal> {
        match self.standing() {
            (Standing::Right | Standing::Noted, _) => Ok(()),
            (Standing::Wrong, ahead_ms) => Err(Refusal::new(Code::ClockDiffers, off_by(ahead_ms))),
        }
    }

    /// Notes what the broker's nodes told of their clocks when they were asked together. `expected`
    /// is how many nodes there are. Logs what has changed.
    pub(crate) fn learn(&self, nodes: &[Answer<Node>], expected: usize) {
        let round: Vec<Reading> = nodes
            .iter()
            .map(|answer| {
                let (sent_ms, received_ms) =
                    (self.steady_ms(answer.sent_at), self.steady_ms(answer.received_at));
                Reading::taken(&answer.value.name, answer.value.now_ms, sent_ms, received_ms)
            })
            .collect();
        self.readings().note(round, expected);
        self.log();
    }

    fn log(&self) {
        let (standing, ahead_ms) = self.standing();
        let apart = self.readings().apart().map(Apart::to_string);
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.standing != standing {
            logged.standing = standing;
            match standing {
                Standing::Right => tracing::info!("this machine's clock agrees with the broker's"),
                Standing::Noted => tracing::warn!("clocks differ: {}", off_by(ahead_ms)),
                Standing::Wrong => {
                    tracing::error!("clocks differ: {}; this process is not ready", off_by(ahead_ms));
                }
            }
        }
        if logged.are_apart != apart.is_some() {
            logged.are_apart = apart.is_some();
            match apart {
                Some(apart) => tracing::error!("clocks differ: {apart}"),
                None => tracing::info!("the clocks of the broker's nodes agree; jobs expire again"),
            }
        }
    }
}

fn off_by(ahead_ms: i64) -> String {
    let relation = validity::relation(ahead_ms.unsigned_abs(), 0);
    let relation = if ahead_ms > 0 { relation.replace("ahead of", "behind") } else { relation };
    format!("this machine's clock is {relation} the broker's, which times the jobs; set this machine's clock")
}

/// What this machine's own clock shows; 0 if it is set before 1970.
fn machine_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, whole_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a node whose clock is so far ahead of this machine's.
    fn told(name: &str, ahead_ms: i64) -> Answer<Node> {
        let value = Node {
            id: name.to_owned(),
            name: name.to_owned(),
            version: String::new(),
            now_ms: machine_ms().saturating_add_signed(ahead_ms),
            sync_always: Some(true),
            is_in_cluster: false,
            cluster: None,
        };
        let at = Instant::now();
        Answer { value, sent_ms: 0, received_ms: 0, sent_at: at, received_at: at }
    }

    #[test]
    fn the_broker_tells_the_time_and_not_this_machine() {
        let clock = Clock::default();
        assert_eq!(clock.broker_ahead_ms(), None);
        assert!(clock.has_passed(machine_ms()), "before the first answer, this machine's clock counts");
        clock.learn(&[told("n1", -300_000)], 1);
        assert!(clock.now_ms() < machine_ms() - 299_000);
        assert!(!clock.has_passed(machine_ms() - 200_000), "this machine is ahead");
        assert!(clock.has_passed(machine_ms() - 301_000));
        let refusal = clock.require_right_machine().unwrap_err();
        assert_eq!(refusal.code, Code::ClockDiffers);
        assert!(refusal.message.contains("this machine's clock is 5 min ahead of the broker's"), "{refusal}");
        clock.learn(&[told("n1", 3_000)], 1);
        assert_eq!(clock.require_right_machine(), Ok(()), "worth a line in the log and no more");
        assert_eq!(clock.standing().0, Standing::Noted);
    }

    #[test]
    fn nothing_expires_while_the_nodes_differ() {
        let clock = Clock::default();
        let long_ago = machine_ms() - 3_600_000;
        clock.learn(&[told("n1", 0), told("n2", 60_000)], 2);
        assert!(!clock.has_passed(long_ago));
        let refusal = clock.require_agreement().unwrap_err();
        assert_eq!(refusal.code, Code::ClockDiffers);
        assert!(refusal.message.contains("n1") && refusal.message.contains("n2"), "{refusal}");
        clock.learn(&[told("n1", 0)], 2);
        assert!(!clock.has_passed(long_ago), "the one that answers may be the wrong one");
        clock.learn(&[told("n1", 0), told("n2", 0)], 2);
        assert!(clock.has_passed(long_ago));
    }
}

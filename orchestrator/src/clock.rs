//! The time by which an orchestrator judges and writes: the broker's.
//!
//! Several orchestrators share deadlines, and one machine's clock may be wrong. So `now` is the
//! broker's time ([`BrokerClock`]), which each node tells when it is asked about its settings.
//! Before the first answer, the machine's own clock counts.
//!
//! While the clocks of the broker's nodes differ, none of them can be trusted to end a job: nothing
//! expires ([`Clock::has_passed`]).
//!
//! No file of this crate asks the machine for the time of day; `cargo xtask test fmt` checks that.

use std::sync::{Arc, Mutex, PoisonError};

use duet_bus::{
    BrokerClock,
    inspect::{Answer, Node},
};
use duet_wire::{Code, Refusal};

pub(crate) use duet_bus::clock::machine_ms;
pub(crate) use duet_queue::time::{until, whole_millis};

/// The broker's time. Cheap to clone; clones share what they know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    broker: BrokerClock,
    /// Whether it was last logged that the clocks of the broker's nodes differ.
    are_apart: Arc<Mutex<bool>>,
}

impl Clock {
    /// The broker's time in milliseconds since 1970, or this machine's while the broker has told
    /// none.
    pub(crate) fn now_ms(&self) -> u64 {
        self.broker.now_ms()
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
        match self.broker.apart() {
            Some(apart) => Err(Refusal::new(Code::ClockDiffers, apart.to_string())),
            None => Ok(()),
        }
    }

    /// How far the broker's clock is ahead of this machine's, in milliseconds. `None` until the
    /// broker has told its time.
    pub(crate) fn broker_ahead_ms(&self) -> Option<i64> {
        self.broker.ahead_ms()
    }

    /// That this machine's clock is not far off the broker's. Jobs are timed by the broker's all
    /// the same.
    ///
    /// # Errors
    /// `clock-differs`, with both times and the difference.
    pub(crate) fn require_right_machine(&self) -> Result<(), Refusal> {
        self.broker.require_right_machine()
    }

    /// Notes what the broker's nodes told of their clocks when they were asked together. Logs what
    /// has changed.
    pub(crate) fn learn(&self, nodes: &[Answer<Node>]) {
        let clocks: Vec<_> = nodes.iter().map(|answer| answer.map(Node::clock)).collect();
        self.broker.learn(&clocks);
        let apart = self.broker.apart();
        let mut are_apart = self.are_apart.lock().unwrap_or_else(PoisonError::into_inner);
        if *are_apart != apart.is_some() {
            *are_apart = apart.is_some();
            match apart {
                Some(apart) => tracing::error!("clocks differ: {apart}"),
                None => tracing::info!("the clocks of the broker's nodes agree; jobs expire again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use duet_bus::inspect::Cluster;

    use super::*;

    /// The answer of a node of so many, whose clock is so far ahead of this machine's.
    fn told(name: &str, nodes: usize, ahead_ms: i64) -> Answer<Node> {
        let value = Node {
            id: name.to_owned(),
            name: name.to_owned(),
            version: String::new(),
            now_ms: machine_ms().saturating_add_signed(ahead_ms),
            sync_always: Some(true),
            is_in_cluster: nodes > 1,
            cluster: Some(Cluster { size: nodes, leader: None }),
        };
        let at = std::time::Instant::now();
        Answer { value, sent_ms: 0, received_ms: 0, sent_at: at, received_at: at }
    }

    #[test]
    fn what_ends_ends_by_the_brokers_time() {
        let clock = Clock::default();
        assert!(clock.has_passed(machine_ms()), "before the first answer, this machine's clock counts");
        clock.learn(&[told("n1", 1, -300_000)]);
        assert!(!clock.has_passed(machine_ms() - 200_000), "this machine is ahead");
        assert!(clock.has_passed(machine_ms() - 301_000));
    }

    #[test]
    fn nothing_expires_while_the_nodes_differ() {
        let clock = Clock::default();
        let long_ago = machine_ms() - 3_600_000;
        clock.learn(&[told("n1", 2, 0), told("n2", 2, 60_000)]);
        assert!(!clock.has_passed(long_ago));
        let refusal = clock.require_agreement().unwrap_err();
        assert_eq!(refusal.code, Code::ClockDiffers);
        assert!(refusal.message.contains("n1") && refusal.message.contains("n2"), "{refusal}");
        clock.learn(&[told("n1", 2, 0)]);
        assert!(!clock.has_passed(long_ago), "the one that answers may be the wrong one");
        clock.learn(&[told("n1", 2, 0), told("n2", 2, 0)]);
        assert!(clock.has_passed(long_ago));
    }
}

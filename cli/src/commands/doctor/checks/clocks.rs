//! Clocks, against the broker's.

use super::words::{counted, span};
use crate::commands::doctor::{
    facts::{Facts, Reading},
    finding::{Cause, Check, Finding},
};

/// A clock that differs by more is worth a look, in milliseconds.
const NOTED_MS: u64 = 1_000;
/// A clock that differs by more is wrong, in milliseconds.
const WRONG_MS: u64 = 5_000;
/// Clocks of the broker's nodes may differ by this much, in milliseconds.
const NODES_APART_MS: u64 = 2_000;

/// A clock and whose it is.
struct Clock {
    whose: String,
    reading: Reading,
}

/// How two clocks differ.
struct Difference {
    ahead_ms: i64,
    /// The least by which they differ, whatever the round trips hide, in milliseconds.
    at_least_ms: u64,
}

fn difference(one: Reading, other: Reading) -> Difference {
    let ahead_ms = one.ahead_ms.saturating_sub(other.ahead_ms);
    let hidden = one.within_ms.saturating_add(other.within_ms);
    Difference { ahead_ms, at_least_ms: ahead_ms.unsigned_abs().saturating_sub(hidden) }
}

/// Compares every clock that is known with the broker's. Without the broker's, compares with this
/// machine's.
pub(super) fn against_the_broker(facts: &Facts) -> Check {
    let nodes = facts.broker.nodes.iter().flatten().map(|answer| {
        let reading = Reading::taken(answer.value.now_ms, answer.sent_ms, answer.received_ms);
        Clock { whose: answer.value.name.clone(), reading }
    });
    let nodes: Vec<Clock> = nodes.collect();
    let here = Reading { ahead_ms: 0, within_ms: 0 };
    let broker = nodes.iter().min_by_key(|node| node.reading.within_ms);
    let (against, reference) = broker.map_or(("this machine's", here), |node| ("the broker's", node.reading));

    let mut clocks = processes(facts);
    if broker.is_some() {
        clocks.push(Clock { whose: "this machine".to_owned(), reading: here });
    }
    let mut findings: Vec<Finding> = nodes
        .iter()
        .filter(|node| difference(node.reading, reference).at_least_ms > NODES_APART_MS)
        .map(|node| {
            let message = said(&difference(node.reading, reference), "another node's");
            Finding::failed(Cause::NodeClocksDiffer, node.whose.as_str(), message, REMEDY)
        })
        .collect();
    findings.extend(clocks.iter().filter_map(|clock| {
        let difference = difference(clock.reading, reference);
        if difference.at_least_ms <= NOTED_MS {
            return None;
        }
        let make = if difference.at_least_ms > WRONG_MS { Finding::failed } else { Finding::warning };
        Some(make(Cause::ClockOff, clock.whose.as_str(), said(&difference, against), REMEDY))
    }));
    let looked_at = counted(clocks.len() + nodes.len(), "clock");
    Check { name: "clocks", summary: format!("{looked_at}, compared with {against}"), findings }
}

const REMEDY: &str = "Set that machine's clock and keep it set: run chrony or systemd-timesyncd there (`timedatectl set-ntp true`), and \
     look at `chronyc tracking` or `timedatectl timesync-status`.";

fn said(difference: &Difference, against: &str) -> String {
    let side = if difference.ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("its clock is {} {side} {against}", span(difference.ahead_ms.unsigned_abs()))
}

/// The clocks of the processes that tell theirs.
fn processes(facts: &Facts) -> Vec<Clock> {
    let orchestrators = facts.orchestrators.iter().filter_map(|orchestrator| {
        Some(Clock { whose: format!("orchestrator {}", orchestrator.url), reading: orchestrator.clock? })
    });
    let parties = facts.parties.iter().flat_map(|party| {
        let workers = party.workers.iter().flatten().flatten();
        workers.map(|worker| Clock {
            whose: format!("{} {}", party.party, worker.instance),
            reading: worker.clock,
        })
    });
    orchestrators.chain(parties).collect()
}

#[cfg(test)]
mod tests {
    use duet_bus::inspect::{Answer, Node};

    use super::*;
    use crate::commands::doctor::{
        facts::{BrokerHistory, OrchestratorFacts, Readiness},
        finding::Status,
        samples,
    };

    fn node(now_ms: u64) -> Answer<Node> {
        let value = Node {
            id: String::new(),
            name: format!("node-{now_ms}"),
            version: String::new(),
            now_ms,
            sync_always: Some(true),
            is_in_cluster: false,
            cluster: None,
        };
        let at = std::time::Instant::now();
        Answer { value, sent_ms: 100_000, received_ms: 100_002, sent_at: at, received_at: at }
    }

    /// Looks at an orchestrator whose clock is so far ahead of this machine's.
    fn look(nodes: &[u64], ahead_ms: i64) -> Vec<(Cause, Status, String)> {
        let mut facts = samples::facts();
        facts.broker.nodes = Ok(nodes.iter().copied().map(node).collect());
        facts.orchestrators = vec![OrchestratorFacts {
            url: "http://o".to_owned(),
            readiness: Readiness::Ready(BrokerHistory::default()),
            version: None,
            max_in_flight: None,
            clock: Some(Reading { ahead_ms, within_ms: 1 }),
        }];
        let check = against_the_broker(&facts);
        check.findings.into_iter().map(|found| (found.cause, found.status, found.message)).collect()
    }

    #[test]
    fn a_clock_is_judged_by_the_brokers() {
        let noted = |message: &str| vec![(Cause::ClockOff, Status::Warning, message.to_owned())];
        let wrong = |message: &str| vec![(Cause::ClockOff, Status::Failed, message.to_owned())];
        assert_eq!(look(&[100_001], 0), []);
        assert_eq!(look(&[100_001], 1_000), []);
        assert_eq!(look(&[100_001], -4_000), noted("its clock is 4 s behind the broker's"));
        assert_eq!(look(&[100_001], 60_000), wrong("its clock is 60 s ahead of the broker's"));
        assert_eq!(look(&[100_001], -300_000), wrong("its clock is 5 min behind the broker's"));
        // This machine, with a worker, and the broker differ. The orchestrator agrees with the
        // broker.
        let here = look(&[160_001], 60_000);
        let behind = wrong("its clock is 60 s behind the broker's");
        assert_eq!(here, [behind.clone(), behind].concat());
    }

    #[test]
    fn what_a_round_trip_hides_is_no_fault() {
        let one = Reading { ahead_ms: 2_000, within_ms: 1_500 };
        let other = Reading { ahead_ms: 0, within_ms: 400 };
        assert_eq!(difference(one, other).at_least_ms, 100);
    }

    #[test]
    fn nodes_agree_within_two_seconds() {
        assert_eq!(look(&[100_001, 101_900], 0), []);
        let apart = look(&[100_001, 103_001], 0);
        assert_eq!(
            apart.first().map(|found| (found.0, found.1)),
            Some((Cause::NodeClocksDiffer, Status::Failed))
        );
    }

    #[test]
    fn without_the_brokers_clock_this_machines_is_the_measure() {
        let mut facts = samples::facts();
        facts.broker.nodes = Err(samples::unasked());
        assert!(against_the_broker(&facts).summary.ends_with("this machine's"));
    }
}

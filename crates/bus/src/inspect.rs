//! What the broker says of itself.
//!
//! Its nodes and connections answer to [`Role::Sys`](crate::Role) alone, its streams to
//! [`Role::Orchestrator`](crate::Role). The nodes also answer to an orchestrator on
//! [`Address::Broker`], and to parties and gateways on [`Address::Clock`].

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use semver::Version;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::timeout;

pub use crate::gather::Answer;
use crate::{connect::Bus, request::RequestError, subjects::Address};

/// The oldest server that keeps what it acknowledges. Servers before it could lose writes that they
/// had flushed (nats-server issue 8475).
pub const OLDEST_SERVER: Version = Version::new(2, 15, 1);

/// Where nodes tell of their JetStream, and where of their connections.
const NODES: &str = "$SYS.REQ.SERVER.PING.JSZ";
const CONNECTIONS: &str = "$SYS.REQ.SERVER.PING.CONNZ";

/// How long further nodes have after the first one has answered.
const MORE_NODES: Duration = Duration::from_secs(1);

/// The most connections that one node lists.
const MAX_CONNECTIONS: usize = 4096;

/// The JetStream error for a stream that does not exist.
const STREAM_NOT_FOUND: u64 = 10_059;

/// Why the broker told nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// No answer came in time, or this role may not ask.
    #[error("the broker does not answer on {subject}")]
    Silent {
        /// Where it was asked.
        subject: String,
    },
    /// The answer is not what this build expects.
    #[error("the broker's answer on {subject} is not understood: {reason}")]
    Malformed {
        /// Where it was asked.
        subject: String,
        /// What is wrong.
        reason: String,
    },
    /// The broker refused the question.
    #[error("the broker refuses to answer on {subject}: {reason}")]
    Refused {
        /// Where it was asked.
        subject: String,
        /// What the broker said.
        reason: String,
    },
}

/// One node of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id, which it draws at each start.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version of its server.
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Whether it flushes each message to its disk before it acknowledges it. `None` without
    /// JetStream.
    pub sync_always: Option<bool>,
    /// Whether it belongs to a cluster.
    pub is_in_cluster: bool,
    /// What it knows of the cluster. `None` for a server alone, and for one that has not met the
    /// others yet.
    pub cluster: Option<Cluster>,
}

/// A node's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeClock {
    /// The node's name.
    pub node: String,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// How many nodes there are, by its word.
    pub nodes: usize,
}

/// A node's answer that this build does not understand, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedNode(String);

/// What a node knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How many nodes the cluster has.
    pub size: usize,
    /// The leader of JetStream, if there is one.
    pub leader: Option<String>,
}

/// A copy of a stream on another node than the leader's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its node.
    pub node: String,
    /// Whether the node is out of reach.
    pub is_away: bool,
    /// Whether it has what the leader has.
    pub is_current: bool,
    /// How many operations it is behind.
    pub lag: u64,
}

/// A stream, or a bucket's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// How many messages it holds.
    pub messages: u64,
    /// How many bytes it holds.
    pub bytes: u64,
    /// The bound in bytes; 0 or below means none.
    pub max_bytes: i64,
    /// Whether it refuses what does not fit. Otherwise it drops its oldest messages.
    pub refuses_when_full: bool,
    /// Whether a message may have a time to live. The markers of a bucket remain if not.
    pub permits_ttl: bool,
    /// How many copies there are to be.
    pub replicas: usize,
    /// The node that leads it, if there is one. A server alone leads all its streams.
    pub leader: Option<String>,
    /// The other copies, as the leader knows them.
    pub followers: Vec<Replica>,
}

impl Bus {
    /// Asks all nodes for their state, and waits `deadline` for the first. Ends once all nodes of
    /// the cluster have answered.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn nodes(&self, deadline: Duration) -> Result<Vec<Answer<Node>>, InspectError> {
        let size = |answer: &Answer<Result<Node, _>>| answer.value.as_ref().map_or(1, Node::cluster_size);
        let waits = (deadline, MORE_NODES);
        let answers = self
            .gather(NODES, Bytes::from_static(b"{}"), waits, Node::read, |answers| {
                answers.iter().map(size).min().is_some_and(|size| answers.len() >= size)
            })
            .await;
        understood(answers, NODES)
    }

    /// Asks all nodes for their state as an orchestrator may. Waits `first` for an answer and
    /// `rest` for more, unless those so far are `enough`.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    /// Once polled, the question may have been sent. Answers to a dropped question are discarded.
    pub async fn nodes_for_orchestrators(
        &self,
        first: Duration,
        rest: Duration,
        enough: impl Fn(&[Answer<Result<Node, MalformedNode>>]) -> bool,
    ) -> Result<Vec<Answer<Result<Node, MalformedNode>>>, RequestError> {
        self.gather(&Address::Broker.to_string(), Bytes::new(), (first, rest), Node::read, enough).await
    }

    /// Asks all nodes for their clocks, as a party or a gateway may. Waits `deadline` for the first
    /// answer. A node whose answer is not understood is left out.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    /// Once polled, the question may have been sent. Answers to a dropped question are discarded.
    pub async fn clocks(&self, deadline: Duration) -> Result<Vec<Answer<NodeClock>>, RequestError> {
        let nodes =
            |answer: &Answer<Result<NodeClock, _>>| answer.value.as_ref().map_or(1, |clock| clock.nodes);
        let waits = (deadline, MORE_NODES);
        let answers = self
            .gather(&Address::Clock.to_string(), Bytes::new(), waits, NodeClock::read, |answers| {
                answers.iter().map(nodes).max().is_some_and(|nodes| answers.len() >= nodes)
            })
            .await?;
        Ok(answers.into_iter().filter_map(|answer| answer.understood().ok()).collect())
    }

    /// The clients connected to the broker: how many there are of each name. A process of Duet has
    /// its role's name. `nodes` is how many nodes there are to ask.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn connected(
        &self,
        nodes: usize,
        deadline: Duration,
    ) -> Result<BTreeMap<String, usize>, InspectError> {
        let question = Bytes::from(format!("{{\"limit\":{MAX_CONNECTIONS}}}"));
        let read = |answer: &[u8]| serde_json::from_slice(answer);
        let answers = self
            .gather(CONNECTIONS, question, (deadline, MORE_NODES), read, |answers| answers.len() >= nodes)
            .await;
        let mut connected = BTreeMap::new();
        let answers: Vec<Answer<ConnectionsAnswer>> = understood(answers, CONNECTIONS)?;
        for connection in answers.into_iter().flat_map(|answer| answer.value.data.connections) {
            *connected.entry(connection.name).or_default() += 1;
        }
        Ok(connected)
    }

    /// Asks for the state of a stream; `None` when there is none of this name.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn stream_report(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<Option<StreamReport>, InspectError> {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        let asked = timeout(deadline, self.client().request(subject.clone(), Bytes::new())).await;
        let Ok(Ok(message)) = asked else { return Err(InspectError::Silent { subject }) };
        let answer: StreamAnswer = parse(&message.payload, &subject)?;
        match answer {
            StreamAnswer { error: Some(error), .. } if error.err_code == STREAM_NOT_FOUND => Ok(None),
            StreamAnswer { error: Some(error), .. } => {
                Err(InspectError::Refused { subject, reason: error.description })
            }
            StreamAnswer { config: Some(config), state: Some(state), cluster, .. } => {
                Ok(Some(stream_report(config, state, cluster)))
            }
            _ => Err(InspectError::Malformed { subject, reason: "it describes no stream".to_owned() }),
        }
    }
}

/// The answers on `subject`, if all are understood.
fn understood<T, E: core::fmt::Display>(
    answers: Result<Vec<Answer<Result<T, E>>>, RequestError>,
    subject: &str,
) -> Result<Vec<Answer<T>>, InspectError> {
    let answers = answers.map_err(|_| InspectError::Silent { subject: subject.to_owned() })?;
    answers
        .into_iter()
        .map(Answer::understood)
        .collect::<Result<_, E>>()
        .map_err(|error| InspectError::Malformed { subject: subject.to_owned(), reason: error.to_string() })
}

fn parse<A: DeserializeOwned>(payload: &[u8], subject: &str) -> Result<A, InspectError> {
    serde_json::from_slice(payload)
        .map_err(|error| InspectError::Malformed { subject: subject.to_owned(), reason: error.to_string() })
}

fn stream_report(config: StreamConfig, state: StreamState, group: Option<RaftGroup>) -> StreamReport {
    let group = group.unwrap_or_default();
    StreamReport {
        messages: state.messages,
        bytes: state.bytes,
        max_bytes: config.max_bytes,
        refuses_when_full: config.discard == "new",
        permits_ttl: config.allow_msg_ttl,
        replicas: config.num_replicas,
        leader: group.leader,
        followers: group
            .replicas
            .into_iter()
            .map(|peer| Replica {
                node: peer.name,
                is_away: peer.offline,
                is_current: peer.current,
                lag: peer.lag,
            })
            .collect(),
    }
}

/// An answer of the server's monitoring, as far as it is read.
#[derive(Deserialize)]
struct JetStreamAnswer {
    server: Server,
    data: JetStreamState,
}

#[derive(Deserialize)]
struct Server {
    id: String,
    name: String,
    ver: String,
    /// The name of its cluster, if it has one.
    cluster: Option<String>,
    time: String,
}

#[derive(Deserialize)]
struct JetStreamState {
    #[serde(default)]
    disabled: bool,
    config: Option<JetStreamConfig>,
    meta_cluster: Option<MetaCluster>,
}

/// The server leaves out `sync_always` when it is off.
#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
}

#[derive(Deserialize)]
struct MetaCluster {
    leader: Option<String>,
    #[serde(default)]
    cluster_size: usize,
}

impl Server {
    /// Its clock, in milliseconds since 1970.
    fn now_ms(&self) -> Result<u64, MalformedNode> {
        let now = OffsetDateTime::parse(&self.time, &Rfc3339)
            .map_err(|error| MalformedNode(format!("{} is no time: {error}", self.time)))?;
        Ok(u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default())
    }
}

/// A node's statistics, as far as they are read.
#[derive(Deserialize)]
struct StatisticsAnswer {
    server: Server,
    statsz: Statistics,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    active_servers: usize,
}

impl NodeClock {
    fn read(answer: &[u8]) -> Result<Self, MalformedNode> {
        let StatisticsAnswer { server, statsz } =
            serde_json::from_slice(answer).map_err(|error| MalformedNode(error.to_string()))?;
        Ok(Self { now_ms: server.now_ms()?, node: server.name, nodes: statsz.active_servers.max(1) })
    }
}

impl Node {
    /// Reads a node's answer.
    ///
    /// # Errors
    /// When this build does not understand it.
    pub fn read(answer: &[u8]) -> Result<Self, MalformedNode> {
        let malformed = |reason: String| MalformedNode(reason);
        let JetStreamAnswer { server, data } =
            serde_json::from_slice(answer).map_err(|error| malformed(error.to_string()))?;
        let now_ms = server.now_ms()?;
        let sync_always = match (data.disabled, data.config) {
            (true, _) => None,
            (false, Some(config)) => Some(config.sync_always),
            (false, None) => return Err(malformed("its JetStream is on and has no settings".to_owned())),
        };
        Ok(Self {
            id: server.id,
            name: server.name,
            version: server.ver,
            now_ms,
            sync_always,
            is_in_cluster: server.cluster.is_some(),
            cluster: data.meta_cluster.map(|cluster| Cluster {
                size: cluster.cluster_size,
                leader: cluster.leader.filter(|leader| !leader.is_empty()),
            }),
        })
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> NodeClock {
        NodeClock { node: self.name.clone(), now_ms: self.now_ms, nodes: self.cluster_size() }
    }

    /// Whether its server is older than [`OLDEST_SERVER`], or says no version.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        !Version::parse(&self.version).is_ok_and(|version| version >= OLDEST_SERVER)
    }

    /// How many nodes with a JetStream there are by this one's word. A node of a cluster that has
    /// not met the others yet cannot say: [`usize::MAX`].
    #[must_use]
    pub fn cluster_size(&self) -> usize {
        match &self.cluster {
            Some(cluster) => cluster.size.max(1),
            None if self.is_in_cluster => usize::MAX,
            None => 1,
        }
    }
}

#[derive(Deserialize)]
struct ConnectionsAnswer {
    data: Connections,
}

#[derive(Deserialize)]
struct Connections {
    #[serde(default, deserialize_with = "absent_is_empty")]
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct StreamAnswer {
    error: Option<ApiError>,
    config: Option<StreamConfig>,
    state: Option<StreamState>,
    cluster: Option<RaftGroup>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct StreamConfig {
    max_bytes: i64,
    num_replicas: usize,
    discard: String,
    #[serde(default)]
    allow_msg_ttl: bool,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
}

#[derive(Default, Deserialize)]
struct RaftGroup {
    leader: Option<String>,
    #[serde(default, deserialize_with = "absent_is_empty")]
    replicas: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    lag: u64,
}

/// The server writes `null` for an empty list.
fn absent_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_whether_it_flushes() {
        let answer = |config: &str| {
            let text = format!(
                r#"{{"server": {{"id": "N1", "name": "n1", "ver": "2.15.1", "time": "2026-11-30T14:07:02.798134622Z"}},
                    "data": {{{config}, "meta_cluster": {{"leader": "", "cluster_size": 3}}}}}}"#
            );
            Node::read(text.as_bytes()).unwrap()
        };
        // With `always` the interval still says two minutes.
        let always = answer(r#""config": {"sync_interval": 120000000000, "sync_always": true}"#);
        assert_eq!((always.sync_always, always.now_ms), (Some(true), 1_796_047_622_798));
        assert_eq!(always.cluster, Some(Cluster { size: 3, leader: None }));
        assert_eq!(answer(r#""config": {"sync_interval": 120000000000}"#).sync_always, Some(false));
        assert_eq!(answer(r#""disabled": true, "config": {}"#).sync_always, None);
    }

    #[test]
    fn a_stream_of_a_cluster_names_its_copies() {
        let text = r#"{"config": {"max_bytes": 1000, "num_replicas": 3, "discard": "new"},
            "state": {"messages": 2, "bytes": 900},
            "cluster": {"leader": "n1", "replicas": [
                {"name": "n2", "current": true, "active": 1}, {"name": "n3", "current": false, "offline": true, "lag": 7}]}}"#;
        let StreamAnswer { config, state, cluster, .. } = serde_json::from_str(text).unwrap();
        let report = stream_report(config.unwrap(), state.unwrap(), cluster);
        assert_eq!((report.bytes, report.leader.as_deref()), (900, Some("n1")));
        let away = Replica { node: "n3".to_owned(), is_away: true, is_current: false, lag: 7 };
        assert_eq!(report.followers.last(), Some(&away));
        assert!(report.refuses_when_full);
        assert!(!report.permits_ttl, "the broker leaves out what is not permitted");
    }
}

//! What the broker says of itself, for an operator's tools.
//!
//! Its nodes and connections answer to [`Role::Sys`](crate::Role) alone, its streams to
//! [`Role::Orchestrator`](crate::Role).

use core::time::Duration;
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::StatusCode;
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, timeout, timeout_at};

use crate::connect::Bus;

/// The most nodes whose answers are read.
const MAX_NODES: usize = 64;

/// How long further nodes have after the first one has answered, if it does not say how many there
/// are.
const MORE_NODES: Duration = Duration::from_millis(300);

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

/// An answer and the moments around it, by this machine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was answered.
    pub value: T,
    /// When the question was sent, in milliseconds since 1970.
    pub sent_ms: u64,
    /// When the answer arrived, in milliseconds since 1970.
    pub received_ms: u64,
}

/// One node of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The version of its server.
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Whether it flushes each message to its disk before it acknowledges it. `None` without
    /// JetStream.
    pub sync_always: Option<bool>,
    /// What it knows of the cluster. `None` for a server alone.
    pub cluster: Option<Cluster>,
}

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
    /// How many copies there are to be.
    pub replicas: usize,
    /// The node that leads it, if there is one. A server alone leads all its streams.
    pub leader: Option<String>,
    /// The other copies, as the leader knows them.
    pub followers: Vec<Replica>,
}

impl Bus {
    /// Asks all nodes for their state, and waits at most `deadline`. Ends once all nodes of the
    /// cluster have answered.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn nodes(&self, deadline: Duration) -> Result<Vec<Answer<Node>>, InspectError> {
        let is_enough = |nodes: &[Answer<Node>]| {
            let size = |node: &Answer<Node>| node.value.cluster.as_ref().map(|cluster| cluster.size);
            nodes.iter().find_map(size).is_some_and(|size| nodes.len() >= size)
        };
        self.gather_nodes("$SYS.REQ.SERVER.PING.JSZ", "{}", deadline, is_enough, |answer: JetStreamAnswer| {
            answer.node()
        })
        .await
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
        let question = format!("{{\"limit\":{MAX_CONNECTIONS}}}");
        let answers = self
            .gather_nodes(
                "$SYS.REQ.SERVER.PING.CONNZ",
                &question,
                deadline,
                |answers| answers.len() >= nodes,
                |answer: ConnectionsAnswer| Ok(answer.data.connections),
            )
            .await?;
        let mut connected = BTreeMap::new();
        for connection in answers.into_iter().flat_map(|answer| answer.value) {
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

    /// Asks every node, and gathers answers until `is_enough` or until none comes any more.
    async fn gather_nodes<A: DeserializeOwned, T>(
        &self,
        subject: &str,
        question: &str,
        deadline: Duration,
        is_enough: impl Fn(&[Answer<T>]) -> bool,
        read: impl Fn(A) -> Result<T, String>,
    ) -> Result<Vec<Answer<T>>, InspectError> {
        let silent = || InspectError::Silent { subject: subject.to_owned() };
        let inbox = self.client().new_inbox();
        let mut answers = self.client().subscribe(inbox.clone()).await.map_err(|_| silent())?;
        let mut end = Instant::now() + deadline;
        let sent_ms = now_ms();
        self.client()
            .publish_with_reply(subject.to_owned(), inbox, Bytes::copy_from_slice(question.as_bytes()))
            .await
            .map_err(|_| silent())?;
        let mut gathered = Vec::new();
        while let Ok(Some(message)) = timeout_at(end, answers.next()).await {
            if message.status == Some(StatusCode::NO_RESPONDERS) {
                return Err(silent());
            }
            let received_ms = now_ms();
            let value = read(parse(&message.payload, subject)?)
                .map_err(|reason| InspectError::Malformed { subject: subject.to_owned(), reason })?;
            gathered.push(Answer { value, sent_ms, received_ms });
            if is_enough(&gathered) || gathered.len() == MAX_NODES {
                break;
            }
            end = end.min(Instant::now() + MORE_NODES);
        }
        if gathered.is_empty() { Err(silent()) } else { Ok(gathered) }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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
    name: String,
    ver: String,
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

impl JetStreamAnswer {
    fn node(self) -> Result<Node, String> {
        let Self { server, data } = self;
        let now = OffsetDateTime::parse(&server.time, &Rfc3339)
            .map_err(|error| format!("{} is no time: {error}", server.time))?;
        Ok(Node {
            name: server.name,
            version: server.ver,
            now_ms: u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
            sync_always: data.config.filter(|_| !data.disabled).map(|config| config.sync_always),
            cluster: data.meta_cluster.map(|cluster| Cluster {
                size: cluster.cluster_size,
                leader: cluster.leader.filter(|leader| !leader.is_empty()),
            }),
        })
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
                r#"{{"server": {{"name": "n1", "ver": "2.15.1", "time": "2026-11-30T14:07:02.798134622Z"}},
                    "data": {{{config}, "meta_cluster": {{"leader": "", "cluster_size": 3}}}}}}"#
            );
            serde_json::from_str::<JetStreamAnswer>(&text).unwrap().node().unwrap()
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
    }
}

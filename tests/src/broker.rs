//! A real broker: `nats-server` with the repository's own `nats.conf`, on free ports, with fresh
//! credentials and an empty store, killed on drop.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use duet_bus::{
    Bus, ConnectSettings, Role,
    credentials::{InitSettings, Layout, initialise},
};
use tempfile::TempDir;
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
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a server that was asked to stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Lines of the server's log that are kept for looking at.
const LOG_LINES: usize = 500;

/// A broker of one test's own.
#[derive(Debug)]
pub struct Broker {
    // Fields are dropped in this order: the server is killed before its directory is removed.
    running: Option<Running>,
    temporary: Option<TempDir>,
    credentials: PathBuf,
    program: PathBuf,
    port: u16,
    monitor_port: u16,
    log: Arc<Mutex<VecDeque<String>>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    reader: JoinHandle<()>,
}

impl Drop for Running {
    /// Kills the server and waits until it is gone, so that it writes nothing while its store is removed.
    fn drop(&mut self) {
        // Ended already, or an error that nobody is left to be told of.
        let _ = self.child.start_kill();
        let killed = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && killed.elapsed() < STOP_DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Broker {
    /// Makes credentials and starts the server; returns when it accepts connections.
    ///
    /// # Errors
    /// When there is no usable `nats-server`, or it refuses the configuration; its log is part of
    /// the error.
    pub async fn start() -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("duet-broker-").tempdir()?;
        initialise(temporary.path(), &InitSettings::default())?;
        let mut broker = Self::start_in(temporary.path()).await?;
        broker.temporary = Some(temporary);
        Ok(broker)
    }

    /// Starts the server with the credentials and the store in `credentials`, where `duet init`
    /// has been.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(credentials: &Path) -> Result<Self> {
        let mut broker = Self {
            credentials: credentials.to_owned(),
            temporary: None,
            program: program().await?,
            port: 0,
            monitor_port: 0,
            log: Arc::default(),
            running: None,
        };
        broker.resume().await?;
        Ok(broker)
    }

    /// Where it listens, for [`ConnectSettings::urls`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// The port it listens on, the same before and after a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its monitoring, over plain HTTP on the loopback.
    #[must_use]
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// The directory that `duet init` would have filled.
    #[must_use]
    pub fn credentials(&self) -> &Path {
        &self.credentials
    }

    /// How `role` connects.
    ///
    /// # Errors
    /// When its seed cannot be read.
    pub fn settings(&self, role: Role) -> Result<ConnectSettings> {
        Ok(ConnectSettings::from_directory(self.credentials(), role, &self.url())?)
    }

    /// Connects as `role`.
    ///
    /// # Errors
    /// When the broker refuses or cannot be reached.
    pub async fn connect(&self, role: Role) -> Result<Bus> {
        Ok(Bus::connect(self.settings(role)?).await?)
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

    /// Starts it again on the same port and store.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the broker is running");
        let port = |known: u16| if known == 0 { "-1".to_owned() } else { known.to_string() };
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(repository().join("nats.conf"))
            .envs(Layout::new(self.credentials()).read_broker_environment()?)
            .env("DUET_BROKER_PORT", port(self.port))
            .env("DUET_MONITOR_LISTEN", format!("\"127.0.0.1:{}\"", port(self.monitor_port)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal reaches the server's owner alone, who ends it when its clients have ended.
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

    /// Kills it and starts it again.
    ///
    /// # Errors
    /// As [`Self::kill`] and [`Self::resume`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.resume().await
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
        while let Some(line) = lines.next_line().await? {
            let chosen = |mark: &str| -> Option<u16> {
                line.split_once(mark)?.1.rsplit(':').next()?.trim().parse().ok()
            };
            if let Some(port) = chosen("Listening for client connections on ") {
                self.port = port;
            }
            if let Some(port) = chosen("Starting http monitor on ") {
                self.monitor_port = port;
            }
            let ready = line.contains("Server is ready");
            remember(&self.log, line);
            if ready {
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

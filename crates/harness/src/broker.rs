//! A real broker: `nats-server` with the repository's `nats.conf`, on free ports, with fresh
//! credentials and an empty store. Dropping it kills it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use duet_bus::{Bus, ConnectSettings, Role};
use duet_credentials::{InitSettings, Layout, initialise};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::nats_server::NatsServer;

/// The broker of one test.
#[derive(Debug)]
pub struct Broker {
    // Fields drop in this order: the server is killed before its directory is removed.
    server: NatsServer,
    temporary: Option<TempDir>,
    credentials: PathBuf,
}

impl Broker {
    /// Makes credentials, starts the server, and waits until it accepts connections.
    ///
    /// # Errors
    /// When there is no usable `nats-server`, or when it refuses the configuration. The error
    /// contains its log.
    pub async fn start() -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("duet-broker-").tempdir()?;
        initialise(temporary.path(), &InitSettings::default())?;
        let mut broker = Self::start_in(temporary.path()).await?;
        broker.temporary = Some(temporary);
        Ok(broker)
    }

    /// Starts the server with the credentials and the store in `credentials`, which `duet init`
    /// filled.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(credentials: &Path) -> Result<Self> {
        Self::start_at(credentials, 0).await
    }

    /// Starts what [`Self::start_in`] starts, at this port for clients. 0 picks a free one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(credentials: &Path, port: u16) -> Result<Self> {
        let environment = Layout::new(credentials).read_broker_environment()?;
        let mut server = NatsServer::new("nats.conf", false, environment).await?;
        server.set_port(port);
        server.resume().await?;
        Ok(Self { server, temporary: None, credentials: credentials.to_owned() })
    }

    /// Changes its configuration for the next start, as [`NatsServer::change_configuration`] does.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn change_configuration(&mut self, change: impl Fn(&str) -> String) -> Result<()> {
        self.server.change_configuration(&self.credentials.join("changed"), change)
    }

    /// Has the next start read the repository's configuration again.
    pub fn restore_configuration(&mut self) {
        self.server.restore_configuration();
    }

    /// Its URL for [`ConnectSettings::urls`].
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Its port, which stays the same after a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.server.ports().client
    }

    /// The URL of its monitoring, over plain HTTP on the loopback.
    #[must_use]
    pub fn monitoring_url(&self) -> String {
        self.server.monitoring_url()
    }

    /// The directory with its credentials, as `duet init` fills it.
    #[must_use]
    pub fn credentials(&self) -> &Path {
        &self.credentials
    }

    /// The settings with which `role` connects.
    ///
    /// # Errors
    /// When its seed cannot be read.
    pub fn settings(&self, role: Role) -> Result<ConnectSettings> {
        Ok(Layout::new(self.credentials()).connect_settings(role, &self.url())?)
    }

    /// Connects as `role`.
    ///
    /// # Errors
    /// When the broker refuses the role, or cannot be reached.
    pub async fn connect(&self, role: Role) -> Result<Bus> {
        Ok(Bus::connect(self.settings(role)?).await?)
    }

    /// Kills it like a power cut, without a warning or a flush.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts it again with the same port and store.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn resume(&mut self) -> Result<()> {
        self.server.resume().await
    }

    /// Removes everything that it stored, as a new disk would. It must not be running.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn empty(&self) -> Result<()> {
        let store = Layout::new(&self.credentials).store();
        Ok(std::fs::remove_dir_all(store)?)
    }

    /// Copies what it stored. It must not be running.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn copy(&self, to: &Path) -> Result<()> {
        copy_directory(&Layout::new(&self.credentials).store(), to)
    }

    /// Stores what a copy has, after [`Self::empty`]. It must not be running.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn put_back(&self, copy: &Path) -> Result<()> {
        copy_directory(copy, &Layout::new(&self.credentials).store())
    }

    /// Kills it and starts it again.
    ///
    /// # Errors
    /// As [`Self::kill`] and [`Self::resume`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.resume().await
    }

    /// Kills it, removes all its streams and buckets, and starts it again.
    ///
    /// # Errors
    /// As [`Self::restart`], or when its store cannot be removed.
    pub async fn restart_empty(&mut self) -> Result<()> {
        self.kill().await?;
        let store = Layout::new(&self.credentials)
            .read_broker_environment()?
            .into_iter()
            .find_map(|(name, value)| (name == "DUET_STORE_DIR").then_some(value))
            .context("the broker has no store")?;
        std::fs::remove_dir_all(Path::new(store.trim_matches('"')).join("jetstream"))?;
        self.resume().await
    }

    /// Stops it as an operator does, and starts it again with the present contents of its
    /// credentials directory.
    ///
    /// # Errors
    /// When it does not end. Also as [`Self::start`].
    pub async fn restart_anew(&mut self) -> Result<()> {
        self.server.signal(Signal::TERM)?;
        self.server.ended().await?;
        self.server.set_environment(Layout::new(&self.credentials).read_broker_environment()?);
        self.server.resume().await
    }

    /// Waits until it has ended by itself. For tests that send it a signal.
    ///
    /// # Errors
    /// When it has not ended within half a minute.
    pub async fn ended(&mut self) -> Result<()> {
        self.server.ended().await
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

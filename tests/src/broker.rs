//! A real broker: `nats-server` with the repository's own `nats.conf`, on free ports, with fresh
//! credentials and an empty store, killed on drop.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use duet_bus::{Bus, ConnectSettings, Role};
use duet_credentials::{InitSettings, Layout, initialise};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::nats_server::NatsServer;

/// A broker of one test's own.
#[derive(Debug)]
pub struct Broker {
    // Fields are dropped in this order: the server is killed before its directory is removed.
    server: NatsServer,
    temporary: Option<TempDir>,
    credentials: PathBuf,
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
        let environment = Layout::new(credentials).read_broker_environment()?;
        let mut server = NatsServer::new("nats.conf", false, environment).await?;
        server.resume().await?;
        Ok(Self { server, temporary: None, credentials: credentials.to_owned() })
    }

    /// Where it listens, for [`ConnectSettings::urls`].
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The port it listens on, the same before and after a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.server.ports().client
    }

    /// Its monitoring, over plain HTTP on the loopback.
    #[must_use]
    pub fn monitoring_url(&self) -> String {
        self.server.monitoring_url()
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
        Ok(Layout::new(self.credentials()).connect_settings(role, &self.url())?)
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
        self.server.kill().await
    }

    /// Starts it again on the same port and store.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn resume(&mut self) -> Result<()> {
        self.server.resume().await
    }

    /// Removes everything that it has stored, as a new disk does. It must not be running.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn empty(&self) -> Result<()> {
        let store = Layout::new(&self.credentials).store();
        Ok(std::fs::remove_dir_all(store)?)
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

    /// Asks it to end, as an operator does, and starts it again with what its credentials directory
    /// says by now.
    ///
    /// # Errors
    /// When it does not end, and as [`Self::start`].
    pub async fn restart_anew(&mut self) -> Result<()> {
        self.server.signal(Signal::TERM)?;
        self.server.ended().await?;
        self.server.set_environment(Layout::new(&self.credentials).read_broker_environment()?);
        self.server.resume().await
    }

    /// Waits until it has ended by itself, for tests that send it a signal.
    ///
    /// # Errors
    /// When it has not ended after half a minute.
    pub async fn ended(&mut self) -> Result<()> {
        self.server.ended().await
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }
}

//! The network between processes on this machine: TCP relays that a test can cut, stall and slow
//! down. They can also overhear clients' connections to the broker.
//!
//! TCP hides loss and reordering: a lost packet is a pause, and messages overtake each other only
//! on different connections. So loss is [`Passage::Stalled`] for a moment, and a half-open link is
//! stalled for longer. Links with different delays reorder messages.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::capture::{Spoken, Tap};

/// Bytes moved at once: more than one message of the protocol, but too few to hide a stall.
const CHUNK_BYTES: usize = 16 * 1024;

/// Chunks in transit in each direction: one mebibyte, like a network's buffers. Then the sender
/// waits.
const CHUNKS_UNDER_WAY: usize = 64;

/// How long a new connection may take to open, while nothing delays it.
const OPENING_DEADLINE: Duration = Duration::from_secs(10);

/// Whether data passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    /// Data passes.
    #[default]
    Open,
    /// No data passes, and neither side learns of it. New connections open and stay silent.
    Stalled,
    /// Connections are closed, and new ones close at once.
    Cut,
}

/// The effect of a link on data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Whether data passes.
    pub passage: Passage,
    /// The delay in each direction.
    pub delay: Duration,
}

impl Condition {
    /// Like no link at all.
    pub const GOOD: Self = Self { passage: Passage::Open, delay: Duration::ZERO };

    /// All data passes, with this delay.
    #[must_use]
    pub const fn slow(delay: Duration) -> Self {
        Self { passage: Passage::Open, delay }
    }

    /// No data passes.
    #[must_use]
    pub const fn not(passage: Passage) -> Self {
        Self { passage, delay: Duration::ZERO }
    }
}

/// A relay from its own port to a target that may change. Dropping it closes all connections.
#[derive(Debug)]
pub struct Link {
    name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    condition: watch::Sender<Condition>,
    tap: Option<Tap>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Link {
    /// A link called `name`, without a target yet. With a `tap`, it carries clients of the broker,
    /// and the tap overhears them.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn new(name: impl Into<String>, tap: Option<Tap>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            condition: watch::Sender::new(Condition::GOOD),
            tap,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { name: name.into(), address, shared, accepting })
    }

    /// Its name, which tells what it connects.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sends new connections to `port` of the loopback.
    pub fn lead_to(&self, port: u16) {
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Changes the condition from now on, also for open connections.
    pub fn set(&self, condition: Condition) {
        self.shared.condition.send_replace(condition);
    }

    /// The present condition.
    #[must_use]
    pub fn condition(&self) -> Condition {
        *self.shared.condition.borrow()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the link, which aborts them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection, until one side closes it or the link is cut.
async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut condition = shared.condition.subscribe();
    let cut = {
        let mut condition = shared.condition.subscribe();
        async move { drop(condition.wait_for(|now| now.passage == Passage::Cut).await) }
    };
    let carried = async {
        // On a stalled link no connection begins either.
        condition.wait_for(|now| now.passage != Passage::Stalled).await?;
        let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        let server = TcpStream::connect(target.context("the link leads nowhere yet")?).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        match &shared.tap {
            None => relay(client, server, None, &condition).await,
            Some(tap) => {
                let ends = timeout(OPENING_DEADLINE, tap.open(client, server)).await??;
                relay(ends.client, ends.server, Some(ends.spoken), &condition).await
            }
        }
    };
    tokio::select! {
        () = cut => {}
        // Both ends notice by themselves that a connection broke.
        _ = carried => {}
    }
}

async fn relay(
    client: impl AsyncRead + AsyncWrite + Send,
    server: impl AsyncRead + AsyncWrite + Send,
    spoken: Option<Spoken>,
    condition: &watch::Receiver<Condition>,
) -> Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        ended = pump(from_client, to_server, spoken, condition.clone()) => ended,
        ended = pump(from_server, to_client, None, condition.clone()) => ended,
    }
}

/// Moves bytes one way. Each chunk waits for the delay that applies when it arrives.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut spoken: Option<Spoken>,
    mut condition: watch::Receiver<Condition>,
) -> Result<()> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let delays = condition.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<_, anyhow::Error>(());
            }
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if let Some(spoken) = &mut spoken {
                spoken.hear(&chunk);
            }
            let due = Instant::now() + delays.borrow().delay;
            if sender.send((due, chunk)).await.is_err() {
                bail!("the other side is gone");
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            condition.wait_for(|now| now.passage == Passage::Open).await?;
            to.write_all(&chunk).await?;
            to.flush().await?;
        }
        Ok(())
    };
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that returns what it receives, and a link to it.
    async fn echo() -> (Link, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::new("echo", None).await.unwrap();
        link.lead_to(listener.local_addr().unwrap().port());
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        (link, serving)
    }

    async fn echoed(stream: &mut TcpStream, text: &[u8]) -> Result<()> {
        stream.write_all(text).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, text);
        Ok(())
    }

    #[tokio::test]
    async fn a_slow_link_is_late_by_its_delay_both_ways() {
        let (link, _serving) = echo().await;
        let delay = Duration::from_millis(40);
        link.set(Condition::slow(delay));
        let mut stream = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let started = Instant::now();
        echoed(&mut stream, b"late").await.unwrap();
        // The lower bound holds even on the busiest machine.
        assert!(started.elapsed() >= 2 * delay, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_stalled_link_keeps_what_was_said_and_a_cut_one_loses_it() {
        let (link, _serving) = echo().await;
        let mut stream = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        echoed(&mut stream, b"open").await.unwrap();

        link.set(Condition::not(Passage::Stalled));
        stream.write_all(b"held").await.unwrap();
        assert!(timeout(Duration::from_millis(50), stream.read_u8()).await.is_err());
        link.set(Condition::GOOD);
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"held");

        link.set(Condition::not(Passage::Cut));
        assert!(echoed(&mut stream, b"lost").await.is_err());
        let mut refused = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        assert!(echoed(&mut refused, b"lost").await.is_err());
        link.set(Condition::GOOD);
        let mut again = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        echoed(&mut again, b"open again").await.unwrap();
    }
}

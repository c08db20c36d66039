//! Overhears what processes send to the broker, without taking part.
//!
//! A subscriber would take part: while it listens, the broker never reports that there is no
//! subscriber. But exactly that report makes an initiator send its first message again. So a
//! [`Tap`] sits on a link. It has the broker's own certificate, decrypts the client's side, and
//! encrypts it again. It records each message with the process that sent it.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The longest greeting of the broker, in bytes.
const MAX_GREETING_BYTES: usize = 64 * 1024;

/// One run of a process. A process that is killed and started again has another run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The process's name.
    pub process: Arc<str>,
    /// The number of the run, from 1.
    pub number: u32,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.process, self.number)
    }
}

/// A message from a client to the broker.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The sender.
    pub by: Run,
    /// The subject.
    pub subject: String,
    /// The subject for an answer.
    pub reply: Option<String>,
    /// The payload.
    pub payload: Bytes,
}

/// All overheard messages. Those of one connection are in order.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Mutex<Vec<Sighting>>>);

impl Capture {
    /// The messages overheard so far.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, sighting: Sighting) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
    }
}

/// Overhears one process's link to one broker.
#[derive(Clone)]
pub struct Tap {
    process: Arc<str>,
    run: Arc<AtomicU32>,
    capture: Capture,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("process", &self.process).finish_non_exhaustive()
    }
}

/// Both ends of a connection, decrypted, and the parser of the client's side.
#[derive(Debug)]
pub struct Ends {
    /// Towards the client.
    pub client: server::TlsStream<TcpStream>,
    /// Towards the broker.
    pub server: client::TlsStream<TcpStream>,
    /// The parser of the client's messages.
    pub spoken: Spoken,
}

impl Tap {
    /// A tap for `process`. `run` holds the number of its current run. The certificate, key and
    /// authority are those of the broker at the other end of the link.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn new(
        process: &str,
        run: Arc<AtomicU32>,
        capture: Capture,
        [certificate, key, authority]: [&Path; 3],
    ) -> Result<Self> {
        // The process may contain several providers, and rustls would refuse to choose one.
        rustls::crypto::ring::default_provider().install_default().ok();
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self {
            process: process.into(),
            run,
            capture,
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// Opens a connection between a client and the broker. Forwards the greeting, which comes in
    /// the clear, and starts TLS on both sides.
    ///
    /// # Errors
    /// When one of them fails.
    pub async fn open(&self, mut client: TcpStream, mut server: TcpStream) -> Result<Ends> {
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"\n") {
            ensure!(greeting.len() < MAX_GREETING_BYTES, "a greeting without an end");
            greeting.push(server.read_u8().await?);
        }
        client.write_all(&greeting).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let server = self.connector.connect(name, server).await?;
        let client = self.acceptor.accept(client).await?;
        let by = Run { process: Arc::clone(&self.process), number: self.run.load(Ordering::Relaxed) };
        Ok(Ends { client, server, spoken: Spoken::new(by, self.capture.clone()) })
    }
}

/// Parses a client's side of one connection.
#[derive(Debug)]
pub struct Spoken {
    by: Run,
    capture: Capture,
    unread: BytesMut,
    lost: bool,
}

impl Spoken {
    fn new(by: Run, capture: Capture) -> Self {
        Self { by, capture, unread: BytesMut::new(), lost: false }
    }

    /// Parses the next bytes.
    pub fn hear(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        self.unread.extend_from_slice(bytes);
        loop {
            match self.next() {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    // The broker, too, closes a connection that it does not understand.
                    self.lost = true;
                    return;
                }
            }
        }
    }

    /// Parses one command from the front. Returns `false` when it is incomplete.
    fn next(&mut self) -> Result<bool> {
        let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") else { return Ok(false) };
        let line = std::str::from_utf8(self.unread.get(..end).unwrap_or_default())?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |text: &str| text.parse::<usize>().context("not a length");
        let (subject, reply, header, total) = match words.as_slice() {
            ["PUB", subject, total] => (*subject, None, 0, number(total)?),
            ["PUB", subject, reply, total] => (*subject, Some(*reply), 0, number(total)?),
            ["HPUB", subject, header, total] => (*subject, None, number(header)?, number(total)?),
            ["HPUB", subject, reply, header, total] => {
                (*subject, Some(*reply), number(header)?, number(total)?)
            }
            _ => {
                let _ = self.unread.split_to(end + 2);
                return Ok(true);
            }
        };
        let whole = end + 2 + total + 2;
        if self.unread.len() < whole {
            return Ok(false);
        }
        let (subject, reply) = (subject.to_owned(), reply.map(str::to_owned));
        let message = self.unread.split_to(whole).freeze();
        if is_worth_noting(&subject) {
            let payload = message.slice(end + 2 + header..end + 2 + total);
            // A copy: the slice would keep the whole buffer in memory.
            let payload = Bytes::copy_from_slice(&payload);
            self.capture.note(Sighting { by: self.by.clone(), subject, reply, payload });
        }
        Ok(true)
    }
}

/// Whether a subject is Duet's own, or an answer. Messages to streams, buckets and the sender
/// itself are not recorded.
fn is_worth_noting(subject: &str) -> bool {
    subject.starts_with("duet.") || (subject.starts_with("_INBOX_") && !subject.contains(".sync."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_heard_however_they_are_cut_up() {
        let said = b"CONNECT {\"verbose\":false}\r\nPING\r\nSUB duet.v1.x 1\r\nPUB duet.v1.a 2\r\nhi\r\n\
                     PUB duet.v1.b _INBOX_service.x.1 4\r\n\r\n\r\n\r\nPUB $JS.API.INFO _INBOX_o.y 0\r\n\r\n\
                     HPUB duet.v1.c 12 15\r\nNATS/1.0\r\n\r\nabc\r\nPUB _INBOX_service.x.1 1\r\nz\r\n";
        for size in [1, 2, 3, 7, said.len()] {
            let capture = Capture::default();
            let by = Run { process: "one".into(), number: 3 };
            let mut spoken = Spoken::new(by, capture.clone());
            for chunk in said.chunks(size) {
                spoken.hear(chunk);
            }
            let heard: Vec<_> = capture
                .sightings()
                .into_iter()
                .map(|one| (one.by.to_string(), one.subject, one.reply, one.payload.to_vec()))
                .collect();
            let by = || "one#3".to_owned();
            assert_eq!(
                heard,
                [
                    (by(), "duet.v1.a".to_owned(), None, b"hi".to_vec()),
                    (
                        by(),
                        "duet.v1.b".to_owned(),
                        Some("_INBOX_service.x.1".to_owned()),
                        b"\r\n\r\n".to_vec()
                    ),
                    (by(), "duet.v1.c".to_owned(), None, b"abc".to_vec()),
                    (by(), "_INBOX_service.x.1".to_owned(), None, b"z".to_vec()),
                ],
                "{size}"
            );
        }
    }
}

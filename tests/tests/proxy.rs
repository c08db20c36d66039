//! A proxy like a company's. It records everything that it receives.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

/// The most that is kept of one connection, in bytes.
const MAX_CONNECTION_SIZE_BYTES: usize = 1024 * 1024;

/// The answer to each request.
const REFUSAL: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The variables with which clients configure a proxy.
pub(crate) const VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// A proxy that forwards nothing, and records its requests.
#[derive(Debug)]
pub(crate) struct RecordingProxy {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    _task: AbortOnDropHandle<()>,
}

impl RecordingProxy {
    /// Starts a proxy on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let all = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(listen(stream, Arc::clone(&all)));
            }
        });
        Ok(Self { port, heard, _task: AbortOnDropHandle::new(task) })
    }

    /// Its URL, for the variables.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that it has received, as text.
    #[must_use]
    pub(crate) fn heard(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }
}

async fn listen(mut stream: TcpStream, heard: Arc<Mutex<Vec<u8>>>) {
    let (mut buffer, mut size, mut is_answered) = (vec![0; 4096], 0, false);
    while size < MAX_CONNECTION_SIZE_BYTES {
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        size += read;
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(buffer.get(..read).unwrap_or_default());
        if !is_answered && stream.write_all(REFUSAL).await.is_err() {
            return;
        }
        is_answered = true;
    }
}

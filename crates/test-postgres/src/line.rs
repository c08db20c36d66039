//! The line between a store and its server, which a test cuts.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// The server's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";
/// Nothing cuts the line.
const WHOLE: usize = usize::MAX;

/// Passes everything between the connections that are made through it and a server. When it
/// is cut, it closes them, and every new one.
#[derive(Debug)]
pub struct Line {
    folder: TempDir,
    server: PathBuf,
    /// How many bytes of the server's answers still pass.
    left: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Line {
    /// A whole line to the server in the folder `server`. Connections pass while the caller's
    /// runtime runs.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn to(server: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join(SOCKET))?;
        let left = Arc::new(AtomicUsize::new(WHOLE));
        let (allowed, to) = (Arc::clone(&left), server.join(SOCKET));
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, left) = (to.clone(), Arc::clone(&allowed));
                tokio::spawn(async move { carry(client, &to, &left).await });
            }
        });
        Ok(Self { folder, server: server.to_path_buf(), left, listening })
    }

    /// The address of a database of the server, through this line.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let [far, near] = [&*self.server, self.folder.path()].map(|folder| folder.display().to_string());
        database.replace(&far, &near)
    }

    /// Cuts the line as soon as so many more bytes of the server's answers have passed.
    pub fn cut_after(&self, bytes: usize) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    /// Lets everything pass again.
    pub fn mend(&self) {
        self.cut_after(WHOLE);
    }

    /// Whether nothing passes any more.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn carry(client: UnixStream, server: &Path, left: &AtomicUsize) {
    if left.load(Ordering::SeqCst) == 0 {
        return;
    }
    let Ok(server) = UnixStream::connect(server).await else { return };
    let (mut questions, mut to_client) = client.into_split();
    let (mut answers, mut to_server) = server.into_split();
    let asking = tokio::io::copy(&mut questions, &mut to_server);
    let answering = async {
        let mut bytes = [0; 4096];
        loop {
            let Ok(read @ 1..) = answers.read(&mut bytes).await else { return };
            let take = |left: usize| Some(if left == WHOLE { left } else { left.saturating_sub(read) });
            let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap_or_default();
            let passing = bytes.get(..read.min(before)).unwrap_or_default();
            if to_client.write_all(passing).await.is_err() || read > before {
                return;
            }
        }
    };
    tokio::select! {
        _ = asking => {}
        () = answering => {}
    }
}

//! nginx as a reverse proxy, with Debian's settings.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use duet_harness::process::Process;
use tempfile::TempDir;
use tokio::{
    net::UnixStream,
    process::Command,
    time::{interval, timeout},
};

/// How long nginx may take before it listens.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The interval at which the test checks whether it listens.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running nginx in front of one server. It listens on a socket file, so it needs no free port.
#[derive(Debug)]
pub(crate) struct Nginx {
    _process: Process,
    directory: TempDir,
}

impl Nginx {
    /// Starts nginx in front of `upstream`, an `http` URL.
    ///
    /// # Errors
    /// When nginx is not installed or does not start.
    pub(crate) async fn in_front_of(upstream: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("duet-nginx-").tempdir()?;
        let configuration = directory.path().join("nginx.conf");
        fs::write(&configuration, settings(directory.path(), upstream))?;
        let mut command = Command::new(program());
        command.arg("-p").arg(directory.path()).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        let mut process = Process::start("nginx", command, directory.path())?;
        let socket = directory.path().join("socket");
        let mut look_again = interval(LOOK_INTERVAL);
        let listens = timeout(START_DEADLINE, async {
            while UnixStream::connect(&socket).await.is_err() && process.is_running().unwrap_or(false) {
                look_again.tick().await;
            }
        });
        listens.await.context("nginx does not listen")?;
        if !process.is_running()? {
            return Err(process.failure("ended"));
        }
        Ok(Self { _process: process, directory })
    }

    /// A client that reaches the server through nginx, under any host name.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub(crate) fn client(&self) -> Result<reqwest::Client> {
        Ok(reqwest::Client::builder().no_proxy().unix_socket(self.directory.path().join("socket")).build()?)
    }
}

/// nginx on the path, or where Debian installs it, which is not on every user's path.
fn program() -> PathBuf {
    let packaged = Path::new("/usr/sbin/nginx");
    if packaged.is_file() { packaged.to_path_buf() } else { PathBuf::from("nginx") }
}

/// The `http` section of Debian's `/etc/nginx/nginx.conf`, with one reverse proxy as nginx's
/// documentation shows it. Buffering and compression have their defaults.
fn settings(directory: &Path, upstream: &str) -> String {
    let directory = directory.display();
    format!(
        "daemon off;
        user root root;
        pid {directory}/pid;
        worker_processes 1;
        events {{ worker_connections 64; }}
        http {{
            sendfile on;
            tcp_nopush on;
            types_hash_max_size 2048;
            default_type application/octet-stream;
            access_log off;
            gzip on;
            client_body_temp_path {directory}/body;
            proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi;
            uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            server {{
                listen unix:{directory}/socket;
                location / {{
                    proxy_pass {upstream};
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                }}
            }}
        }}
        "
    )
}

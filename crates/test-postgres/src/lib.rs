//! A real PostgreSQL server for tests and measurements. Each [`PostgresServer`] is a cluster in a
//! temporary folder. It listens on a Unix socket and, on request, on the loopback. Its settings
//! make commits durable.
//!
//! [`PostgresServer::shared`] uses the server that the variable [`SHARED`] names, or else starts
//! one for the process. The program `test-postgres` starts such a server for a whole run of tests,
//! because the test runner gives each test a process of its own. [`PostgresServer::database`] gives
//! each test a [`Database`] of its own. A server ends with the process that started it, even if
//! that process is killed. A shell beside it holds the other end of a pipe. When the pipe closes,
//! the shell stops the server and removes its folder.

mod line;
mod programs;

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgConnection},
};

pub use self::line::Line;
use crate::programs::{Account, server_account, server_programs};

/// How long the server may take to accept connections or to end, even on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The variable that names the folder of a running server, for [`PostgresServer::shared`].
pub const SHARED: &str = "DUET_TEST_POSTGRES";

/// The role that owns test databases. It is no superuser, as a party's role should not be one.
const ROLE: &str = "duet";
/// The port that names the socket. It need not be free: each server has a folder of its own.
const SOCKET_PORT: u16 = 5432;

/// Waits until the test process closes its end of the pipe. Then it ends the server at once and
/// removes its folder. A background process of a shell ignores signals until it installs its
/// handlers, so the shell repeats the signal.
const WATCH: &str = r#"
"$@" >>"$DUET_FOLDER/log" 2>&1 </dev/null &
server=$!
trap '' INT TERM HUP
cat >/dev/null
while kill -QUIT "$server" 2>/dev/null; do sleep 0.1; done &
telling=$!
wait "$server"
kill -KILL "$telling"
[ -e "$DUET_FOLDER/keep" ] || rm -rf "$DUET_FOLDER"
"#;

/// A running server. Dropping it ends the server and removes its files.
#[derive(Debug)]
pub struct PostgresServer {
    folder: PathBuf,
    owner: Owner,
    watch: Option<Child>,
    settings: Vec<String>,
    password: String,
    databases: AtomicU32,
}

/// A database for one test, empty at first.
#[derive(Debug, Clone)]
pub struct Database {
    /// The database's address without the password, in the form of `--store`.
    pub url: String,
    /// The password of its owner.
    pub password: String,
    name: String,
    superuser: PgConnectOptions,
}

/// The process that started a server, and ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    This,
    Other,
}

impl PostgresServer {
    /// The server that [`SHARED`] names, or else this process's own, which the first call starts.
    ///
    /// # Errors
    /// When PostgreSQL 13 or newer is not installed, or when the server does not start.
    pub async fn shared() -> Result<&'static Self> {
        static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::attach_or_launch().map_err(|error| format!("{error:#}")));
        let server = server.as_ref().map_err(|error| anyhow!("{error}"))?;
        server.ready().await?;
        Ok(server)
    }

    /// Starts a server with additional `settings`, each as `name=value`.
    ///
    /// # Errors
    /// As [`Self::shared`].
    pub async fn start(settings: &[&str]) -> Result<Self> {
        Self::start_in(&env::temp_dir(), settings).await
    }

    /// A server with `settings` of its own that keeps everything in a folder of its own below
    /// `parent`. The user that the server runs as must be able to reach `parent`.
    ///
    /// # Errors
    /// As [`Self::shared`].
    pub async fn start_in(parent: &Path, settings: &[&str]) -> Result<Self> {
        let server = Self::launch(parent, settings)?;
        server.ready().await?;
        Ok(server)
    }

    fn attach_or_launch() -> Result<Self> {
        let Some(folder) = env::var_os(SHARED).map(PathBuf::from) else {
            return Self::launch(&env::temp_dir(), &[]);
        };
        let password = fs::read_to_string(folder.join("password"))
            .with_context(|| format!("{SHARED} names no server's folder: {}", folder.display()))?;
        Ok(Self {
            folder,
            owner: Owner::Other,
            watch: None,
            settings: Vec::new(),
            password,
            databases: AtomicU32::new(0),
        })
    }

    /// The folder with everything that belongs to the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn launch(parent: &Path, settings: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("duet-pg-").tempdir_in(parent)?.keep();
        let mut password = [0; 16];
        getrandom::fill(&mut password)?;
        let mut server = Self {
            folder,
            owner: Owner::This,
            watch: None,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            password: hex::encode(password),
            databases: AtomicU32::new(0),
        };
        server.initialise()?;
        server.resume()?;
        Ok(server)
    }

    fn initialise(&self) -> Result<()> {
        let account = server_account()?;
        let password = self.folder.join("password");
        File::create(&password)?.write_all(self.password.as_bytes())?;
        for path in [&self.folder, &password] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            if let Some(Account { user, group }) = account {
                std::os::unix::fs::chown(path, Some(user), Some(group))?;
            }
        }
        let mut command = self.as_server(server_programs()?.join("initdb"))?;
        // The folder is removed after the test: only the server's own writes need to reach the
        // disk.
        command
            .args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "--username=postgres"])
            .args(["--auth=scram-sha-256", "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(self.data());
        let output = command.output().context("initdb does not start")?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// A command as the server's user. PostgreSQL refuses to run as root.
    fn as_server(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null()).process_group(0);
        if let Some(Account { user, group }) = server_account()? {
            command.gid(group).uid(user);
        }
        Ok(command)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the server again after [`Self::kill`], on the same data.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn resume(&mut self) -> Result<()> {
        if self.owner == Owner::Other {
            bail!("another process started the server");
        }
        if self.watch.is_some() {
            bail!("the server is running");
        }
        let _ = fs::remove_file(self.folder.join("keep"));
        let mut command = self.as_server("sh")?;
        command
            .args(["-c", WATCH, "watch"])
            .arg(server_programs()?.join("postgres"))
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=64MB"])
            .env("DUET_FOLDER", &self.folder)
            .env_remove("PGDATA");
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let watch = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.watch = Some(watch.context("the server does not start")?);
        Ok(())
    }

    /// Ends the server at once, without flushing or telling its sessions. [`Self::resume`] starts
    /// it again, and it recovers from its log as after a crash.
    ///
    /// # Errors
    /// When it is not running, or when it does not end within a minute.
    pub fn kill(&mut self) -> Result<()> {
        let mut watch = self.watch.take().context("the server is not running")?;
        File::create(self.folder.join("keep"))?;
        drop(watch.stdin.take());
        let started = Instant::now();
        while watch.try_wait()?.is_none() {
            if started.elapsed() > START_DEADLINE {
                bail!("the server does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// When it accepts none within a minute. The error contains its log.
    pub async fn ready(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.superuser("postgres").connect().await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if started.elapsed() > START_DEADLINE => {
                    let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                    bail!("PostgreSQL did not become ready: {error}\n{log}");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// What the server has logged so far.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.folder.join("log"))?).into_owned())
    }

    fn superuser(&self, database: &str) -> PgConnectOptions {
        let server = PgConnectOptions::new_without_pgpass().socket(&self.folder).port(SOCKET_PORT);
        as_superuser(server.database(database), &self.password)
    }

    /// Connects as superuser to the database that always exists.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn maintenance(&self) -> Result<PgConnection> {
        Ok(self.superuser("postgres").connect().await?)
    }

    /// Changes the password of the role that owns the databases. Open connections stay open.
    ///
    /// # Errors
    /// When the server cannot be reached, or before the first database was made.
    pub async fn change_password(&self, password: &str) -> Result<()> {
        let mut connection = self.maintenance().await?;
        let change = format!("ALTER ROLE {ROLE} PASSWORD '{}'", password.replace('\'', "''"));
        sqlx::query(AssertSqlSafe(change)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Creates a database, owned by a role that is no superuser.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn database(&self) -> Result<Database> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        // Several processes may share the server.
        let name = format!("duet_{}_{number}", std::process::id());
        let mut connection = self.maintenance().await?;
        let role = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{}'", self.password);
        match sqlx::query(AssertSqlSafe(role)).execute(&mut connection).await {
            // Tests run in parallel: another one has created the role, or is creating it now.
            Err(sqlx::Error::Database(error))
                if ["42710", "23505"].contains(&&*error.code().unwrap_or_default()) => {}
            made => made.map(drop)?,
        }
        let create = format!("CREATE DATABASE {name} OWNER {ROLE} TEMPLATE template0");
        sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(Database {
            url: format!(
                "postgresql://{ROLE}@localhost/{name}?host={}&port={SOCKET_PORT}",
                self.folder.display()
            ),
            password: self.password.clone(),
            superuser: self.superuser(&name),
            name,
        })
    }
}

impl Database {
    /// A database that [`PostgresServer::database`] made, from the address and the password that it
    /// returned.
    ///
    /// # Errors
    /// When `url` is no address of such a database.
    pub fn at(url: &str, password: &str) -> Result<Self> {
        let owner: PgConnectOptions = url.parse()?;
        let name = owner.get_database().context("the address names no database")?.to_owned();
        let superuser = as_superuser(owner, password);
        Ok(Self { url: url.to_owned(), password: password.to_owned(), name, superuser })
    }

    /// The database's name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connects as the server's superuser.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn administer(&self) -> Result<PgConnection> {
        Ok(self.superuser.connect().await?)
    }

    /// Runs a statement as the server's superuser.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn run(&self, statement: &str) -> Result<()> {
        let mut connection = self.administer().await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Makes every write to the database fail, as on a full disk, or lets writes succeed again.
    /// Ends the open sessions.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn refuse_writes(&self, refuse: bool) -> Result<()> {
        let (name, value) = (&self.name, if refuse { "on" } else { "off" });
        self.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}")).await?;
        self.end_other_sessions().await
    }

    /// Ends every session except its own, and returns when they are gone. Until then, a session
    /// that was told to end still answers.
    ///
    /// # Errors
    /// When the server cannot be reached, or when a session does not end.
    pub async fn end_other_sessions(&self) -> Result<()> {
        let mut connection = self.administer().await?;
        let started = Instant::now();
        while !sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        .fetch_all(&mut connection)
        .await?
        .is_empty()
        {
            if started.elapsed() > START_DEADLINE {
                bail!("a session does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(connection.close().await?)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.owner == Owner::Other {
            return;
        }
        if let Some(mut watch) = self.watch.take() {
            drop(watch.stdin.take());
            // The shell has stopped the server and removed the folder. A failure has no caller to
            // return to.
            let _ = watch.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The options of a connection as superuser, who has the password of the databases' owner.
fn as_superuser(options: PgConnectOptions, password: &str) -> PgConnectOptions {
    options
        .username("postgres")
        .password(password)
        // This connection may write even while [`Database::refuse_writes`] refuses all other
        // writes.
        .options([("default_transaction_read_only", "off")])
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_has_just_begun_can_be_killed() {
        let mut server = PostgresServer::start(&[]).await.unwrap();
        for _ in 0..5 {
            server.kill().unwrap();
            server.resume().unwrap();
            server.kill().unwrap();
            server.resume().unwrap();
            server.ready().await.unwrap();
        }
    }
}

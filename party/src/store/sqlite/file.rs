//! The database file: how it is named, and whether it is a whole share store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use crate::store::{StoreError, columns::unavailable};

/// How long a connection waits for another one that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How a SQLite store is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The database file; `-wal`, `-shm` and `.generation` lie beside it.
    pub path: PathBuf,
    /// The largest size of the database in pages of 4 KiB. `None`: what the disk holds.
    pub max_size_pages: Option<u32>,
    /// Whether opening it adds to its schema what this build needs.
    pub expands: bool,
}

impl SqliteOptions {
    /// The store at `path`, as large as the disk allows, expanded when it is opened.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_size_pages: None, expands: true }
    }

    /// How every connection is made that writes.
    pub(super) fn connect(&self) -> SqliteConnectOptions {
        let connect = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(false)
            // A commit is on the disk when it returns: locks and charges depend on it.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .pragma("trusted_schema", "OFF")
            // Overwrites deleted content with zeros.
            .pragma("secure_delete", "ON");
        match self.max_size_pages {
            Some(pages) => connect.pragma("max_page_count", pages.to_string()),
            None => connect,
        }
    }
}

/// Refuses a file that is no whole share store, and changes nothing in it: SQLite would make a new,
/// empty database of an empty file, and tables of ours in anything else.
pub(super) async fn expect_store(path: &Path, what: &str) -> Result<(), StoreError> {
    let refuse = |reason: String| Err(StoreError::NotAStore { path: path.to_owned(), reason });
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::Exists(format!("there is no share store at {}", path.display())));
        }
        Err(source) => return Err(StoreError::File { path: path.to_owned(), source }),
    };
    if metadata.is_dir() {
        return refuse("it is a folder; name the file in it".to_owned());
    }
    if metadata.len() == 0 {
        return refuse(format!(
            "the file is empty; put {what} back from a copy, or remove the file if it was never more than that"
        ));
    }
    // No journal mode is asked for, so that nothing is written.
    let options =
        SqliteConnectOptions::new().filename(path).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
    let looked = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let tables: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(tables)
    };
    match looked.await {
        Ok(1..) => Ok(()),
        Ok(_) => refuse("it is a database of something else".to_owned()),
        Err(sqlx::Error::Database(error)) if is_damaged(error.as_ref()) => {
            refuse(format!("{}; put {what} back from a copy that is whole", error.message()))
        }
        Err(error) => Err(unavailable("open")(error)),
    }
}

/// Refuses a backup that is cut short or changed: every page is read and compared with what SQLite
/// expects of it.
pub(super) async fn check_whole(backup: &Path) -> Result<(), StoreError> {
    let refuse = |reason: &str| {
        let reason = format!("it is not whole ({reason}); take another backup");
        Err(StoreError::NotAStore { path: backup.to_owned(), reason })
    };
    let options = SqliteConnectOptions::new().filename(backup).create_if_missing(false).read_only(true);
    let looked = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let verdict: String =
            sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
        // SQLite reads zeros where a file ends too early.
        let size: i64 =
            sqlx::query_scalar("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
                .fetch_one(&mut connection)
                .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>((verdict, size))
    };
    let length = std::fs::metadata(backup)
        .map_err(|source| StoreError::File { path: backup.to_owned(), source })?
        .len();
    match looked.await {
        Ok((_, size)) if i64::try_from(length).is_ok_and(|length| length < size) => {
            refuse(&format!("{length} of {size} bytes"))
        }
        Ok((verdict, _)) if verdict == "ok" => Ok(()),
        Ok((verdict, _)) => refuse(&verdict),
        Err(sqlx::Error::Database(error)) if is_damaged(error.as_ref()) => refuse(error.message()),
        Err(error) => Err(unavailable("restore")(error)),
    }
}

/// Whether SQLite says that a file is none of its own, or is not whole.
fn is_damaged(error: &dyn sqlx::error::DatabaseError) -> bool {
    // SQLITE_CORRUPT and SQLITE_NOTADB, in the lower byte of what may be an extended code.
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

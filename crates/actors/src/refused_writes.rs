//! Makes a party's SQLite file refuse writes while the party has it open, as a full disk would.
//!
//! A trigger on each table raises an error before anything is written. The party sees it as it sees
//! every failed write.

use std::path::Path;

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// What a file refuses to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Everything.
    All,
    /// What decides, locks among it. A pending verdict is still written.
    Decisions,
}

/// The tables that a pending verdict is written to.
const OF_PENDING: [&str; 4] = ["answers", "job_digests", "pending_verdicts", "records"];

const WRITES: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

async fn open(file: &Path) -> Result<SqliteConnection> {
    Ok(SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?)
}

/// Refuses writes to `file` until [`accept`].
///
/// # Errors
/// When the file cannot be opened, or refuses writes already.
pub async fn refuse(file: &Path, refused: Refused) -> Result<()> {
    let mut connection = open(file).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let accepts = |table: &str| refused == Refused::Decisions && OF_PENDING.contains(&table);
    for table in tables.iter().filter(|table| !accepts(table)) {
        for write in WRITES {
            let trigger = format!(
                "CREATE TRIGGER refused_{write}_{table} BEFORE {write} ON {table}
                 BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            );
            sqlx::query(AssertSqlSafe(trigger)).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(connection.close().await?)
}

/// Accepts writes to `file` again.
///
/// # Errors
/// When the file cannot be opened.
pub async fn accept(file: &Path) -> Result<()> {
    let mut connection = open(file).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let triggers: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'refused_%'")
            .fetch_all(&mut *transaction)
            .await?;
    for trigger in triggers {
        sqlx::query(AssertSqlSafe(format!("DROP TRIGGER {trigger}"))).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(connection.close().await?)
}

//! Advisory locks, by which decisions exclude each other beyond single rows, and the deadline of
//! everything.

use std::{future::Future, time::Duration};

use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr as _, SqlStr};

use crate::store::StoreError;

/// Everything the store does ends by then, one way or the other: longer than the server's own
/// deadlines together.
const DEADLINE: Duration = Duration::from_secs(25);

/// Numbers of advisory locks: for decisions that exclude each other beyond single rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum AdvisoryLock {
    Home = 1,
    Unlock = 2,
    House = 3,
    Token = 4,
    Wallet = 5,
    Scope = 6,
    Policy = 7,
    Chain = 8,
    /// That an opening of the store lives; the only one that a session holds, not a transaction.
    Presence = 9,
    PublicKey = 10,
}

impl AdvisoryLock {
    /// Waits for the lock of `name`, which ends with the transaction.
    pub(super) async fn take(self, connection: &mut PgConnection, name: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
            .bind(self as i32)
            .bind(number_of(name))
            .execute(connection)
            .await
            .map(drop)
    }

    /// What begins a transaction that has the lock of `name`, for itself or with others that share
    /// it, in one trip to the server.
    pub(super) fn beginning(self, name: &[u8], is_shared: bool) -> SqlStr {
        let (number, name, shared) = (self as i32, number_of(name), if is_shared { "_shared" } else { "" });
        AssertSqlSafe(format!("BEGIN; SELECT pg_advisory_xact_lock{shared}({number}, {name})")).into_sql_str()
    }

    /// Takes the lock if no transaction has it.
    pub(super) async fn try_take(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, 0)")
            .bind(self as i32)
            .fetch_one(connection)
            .await
    }
}

/// Identifiers are random or hashes: any four bytes of one tell most apart.
pub(super) fn number_of(name: &[u8]) -> i32 {
    name.first_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

/// What `work` comes to, unless the server says nothing at all.
pub(super) async fn within<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let silent =
        |_| StoreError::Unavailable { operation, source: "the database server does not answer".into() };
    tokio::time::timeout(DEADLINE, work).await.map_err(silent)?
}

//! The share store in a PostgreSQL database, shared by the workers of a party wherever they run.
//!
//! Each method is one transaction, and each decision one function over a connection ([`wallets`],
//! [`keys`], [`policy`]), so that whatever has to be written together with a decision is written
//! there: what is spent by it, and what is recorded of it ([`audit`]).
//!
//! # How decisions are serialised
//! SQLite has one writer, so a transaction there sees nothing move. Here transactions run side by
//! side at `READ COMMITTED`, and each decision names what it depends on:
//!
//! - *Once, ever* (a session, a charge, a pin, a key): `INSERT … ON CONFLICT DO NOTHING`. The
//!   second of two at once waits for the first at the unique index and then inserts nothing.
//! - *A row's state* (the lock, a commit): the row is locked, `FOR UPDATE` or by the `UPDATE`
//!   itself. At `READ COMMITTED` a transaction that waited for it goes on with the version that was
//!   committed meanwhile.
//! - *A count or a newest one* (a token's quota, the enrolments of a wallet, the first key of a
//!   scope, what was spent of a wallet's limits): a turn, which is an advisory lock that ends with
//!   the transaction ([`Turn`]). Turns that share a number by accident merely wait for each other.
//! - *Which key records are sealed under*: a transaction that writes one reads the key's id
//!   `FOR SHARE`; a change of the key updates it first ([`key_change`]).
//! - *The place in the audit chain*: the chain's row is locked, last of all, until the transaction
//!   ends. So transactions that are recorded are committed one after the other, as on SQLite.
//!
//! `SERIALIZABLE` would decide the same things, at the price of transactions that fail and have to
//! be repeated, and it orders transactions without regard to real time, which is just what the gate
//! must not do.
//!
//! # The gate
//! [`release_verdict`](crate::store::KeyStore::release_verdict) counts the verdict in the key's row
//! and reads its state by the same `UPDATE`. A lock (an `UPDATE` of that row too) that was
//! committed before is seen; one that is being written is waited for, because the two exclude each
//! other, and then seen; so no verdict leaves after a lock. Both commit alike, with a flush: on a
//! standby, on a server without room, on a disk that fails, neither a good verdict nor a bad one
//! leaves. Otherwise a bad verdict, which has to stay silent there, could be told from a good one.
//!
//! # Deadlines
//! The server ends a statement, a wait for a lock and an abandoned transaction by itself;
//! [`within`] bounds what a server or network that says nothing at all can take. The caller does
//! not know then whether a commit took place, which every method allows for.

mod audit;
mod home;
mod key_change;
mod keys;
mod open;
mod pending;
mod policy;
#[cfg(test)]
mod tests;
mod wallets;
mod witness;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use duet_wire::audit::Draft;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, SqlSafeStr as _, SqlStr, Transaction};

pub(super) use self::home::mark_restored;
pub use self::open::{AddressError, PostgresOptions};
use self::{home::Home, keys::write_lock, pending::Presence};
use super::{
    AnswersOf, KEY_ID, KeyChange, LockOutcome, Readiness, RecordStore, Spending, StoreError, UnlockRefused,
    columns::{index_column, other_key, unavailable, wallet_column},
    health::{Health, UnlockAttempts, UnwrittenLock},
};
use crate::at_rest::{RecordLabel, SealedRecord};

/// Everything the store does ends by then, one way or the other: longer than the server's own
/// deadlines together.
const DEADLINE: Duration = Duration::from_secs(25);

/// A share store in a PostgreSQL database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    options: PostgresOptions,
    home: Home,
    presence: Presence,
    health: Health,
    /// What is appended to the audit log with the next decision.
    noted: Option<Arc<Draft>>,
    /// What is charged to limits with the next decision.
    spending: Option<Arc<Spending>>,
    /// Which request the next decision's answer is counted for.
    answering: Option<Arc<AnswersOf>>,
}

/// Decisions that take turns beyond single rows; numbers of advisory locks.
#[derive(Debug, Clone, Copy)]
enum Turn {
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

impl Turn {
    /// Waits for the turn of `name`; it ends with the transaction.
    async fn take(self, connection: &mut PgConnection, name: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
            .bind(self as i32)
            .bind(number_of(name))
            .execute(connection)
            .await
            .map(drop)
    }

    /// What begins a transaction that has the turn of `name`, for itself or with others that share
    /// it, in one trip to the server.
    fn beginning(self, name: &[u8], is_shared: bool) -> SqlStr {
        let (number, name, shared) = (self as i32, number_of(name), if is_shared { "_shared" } else { "" });
        AssertSqlSafe(format!("BEGIN; SELECT pg_advisory_xact_lock{shared}({number}, {name})")).into_sql_str()
    }

    /// Takes the turn if no transaction has it.
    async fn try_take(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, 0)")
            .bind(self as i32)
            .fetch_one(connection)
            .await
    }
}

/// Identifiers are random or hashes: any four bytes of one tell most apart.
fn number_of(name: &[u8]) -> i32 {
    name.first_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

/// What `work` comes to, unless the server says nothing at all.
async fn within<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let silent =
        |_| StoreError::Unavailable { operation, source: "the database server does not answer".into() };
    tokio::time::timeout(DEADLINE, work).await.map_err(silent)?
}

/// Stores a record, unless it is sealed under another key than the store's. Which one that is stays
/// so until the transaction ends.
async fn write_record(
    connection: &mut PgConnection,
    label: &RecordLabel,
    record: &SealedRecord,
) -> Result<(), sqlx::Error> {
    let key = record.sealed_with();
    for _ in 0..2 {
        let stored = sqlx::query(
            "WITH current AS (SELECT value FROM settings WHERE name = $8 FOR SHARE)
             INSERT INTO records (kind, wallet, share_index, epoch, item, sealed) SELECT $1, $2, $3, $4, $5, $6
             WHERE $7::BYTEA IS NULL OR $7 = (SELECT value FROM current)
             ON CONFLICT (wallet, kind, share_index, epoch, item) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(label.kind as i64)
        .bind(wallet_column(label))
        .bind(index_column(label))
        .bind(i64::from(label.epoch.0))
        .bind(label.item.as_slice())
        .bind(record.as_bytes())
        .bind(key.as_ref().map(|key| key.0.as_slice()))
        .bind(KEY_ID)
        .execute(&mut *connection)
        .await?;
        if stored.rows_affected() > 0 {
            return Ok(());
        }
        // Either the store has another key, or it does not say yet which one it has.
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(KEY_ID)
            .bind(key.as_ref().map(|key| key.0.as_slice()))
            .execute(&mut *connection)
            .await?;
    }
    Err(other_key())
}

async fn remove_record(connection: &mut PgConnection, label: &RecordLabel) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM records WHERE kind = $1 AND wallet = $2 AND share_index = $3 AND epoch = $4 AND item = $5",
    )
    .bind(label.kind as i64)
    .bind(wallet_column(label))
    .bind(index_column(label))
    .bind(i64::from(label.epoch.0))
    .bind(label.item.as_slice())
    .execute(connection)
    .await
    .map(drop)
}

async fn read_setting(connection: &mut PgConnection, name: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

async fn write_setting(connection: &mut PgConnection, name: &str, value: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(connection)
    .await
    .map(drop)
}

impl PostgresStore {
    pub(super) const fn options(&self) -> &PostgresOptions {
        &self.options
    }

    async fn begin(&self, operation: &'static str) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.pool.begin().await.map_err(unavailable(operation))
    }

    async fn try_lock(&self, lock: &UnwrittenLock) -> Result<LockOutcome, StoreError> {
        const OPERATION: &str = "lock a Paillier key";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = write_lock(&mut transaction, &lock.lock).await.map_err(&failed)?;
            if let (LockOutcome::Locked, Some(entry)) = (outcome, &lock.entry) {
                audit::append(&mut transaction, [Draft::clone(entry)]).await?;
            }
            transaction.commit().await.map_err(&failed)?;
            Ok(outcome)
        })
        .await
    }

    async fn try_recover(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "write a canary";
        // The server may have been replaced by another one meanwhile.
        self.enter().await?;
        self.presence.show(&self.options).await?;
        for lock in self.health.unwritten_locks() {
            self.try_lock(&lock).await?;
            self.health.written(&lock);
        }
        let mut canary = [0; 32];
        getrandom::fill(&mut canary).map_err(|_| StoreError::Corrupt("no randomness"))?;
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            write_setting(&mut connection, "canary", &canary).await.map_err(unavailable(OPERATION))
        })
        .await
    }
}

#[async_trait]
impl RecordStore for PostgresStore {
    fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    async fn until_ready(&self, ready: bool) {
        self.health.until(ready).await;
    }

    async fn recover(&self) -> Result<(), StoreError> {
        let tried = self.try_recover().await;
        self.health.recovered(tried)
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        const OPERATION: &str = "read a setting";
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            read_setting(&mut connection, name).await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        const OPERATION: &str = "write a setting";
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            write_setting(&mut connection, name, value).await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn count_unlock_attempt(&self, now_ms: u64) -> Result<u32, UnlockRefused> {
        const OPERATION: &str = "count an attempt to open it";
        let failed = unavailable(OPERATION);
        let mut transaction = self.begin(OPERATION).await?;
        Turn::Unlock.take(&mut transaction, &[]).await.map_err(&failed)?;
        let stored = read_setting(&mut transaction, "unlock-attempts").await.map_err(&failed)?;
        let attempts = UnlockAttempts::parse(stored.as_deref()).another(now_ms)?;
        write_setting(&mut transaction, "unlock-attempts", &attempts.to_setting()).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(attempts.failures)
    }

    async fn clear_unlock_attempts(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM settings WHERE name = 'unlock-attempts'")
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(unavailable("clear the attempts to open it"))
    }

    async fn record(&self, label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError> {
        const OPERATION: &str = "read a record";
        within(OPERATION, async {
            let sealed: Option<Vec<u8>> = sqlx::query_scalar(
                "SELECT sealed FROM records
                 WHERE wallet = $1 AND kind = $2 AND share_index = $3 AND epoch = $4 AND item = $5",
            )
            .bind(wallet_column(label))
            .bind(label.kind as i64)
            .bind(index_column(label))
            .bind(i64::from(label.epoch.0))
            .bind(label.item.as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?;
            Ok(sealed.map(SealedRecord::from_bytes))
        })
        .await
    }

    async fn put_records(&self, records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError> {
        const OPERATION: &str = "write records";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            for (label, record) in records {
                write_record(&mut transaction, label, record).await.map_err(&failed)?;
            }
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn change_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        self.replace_key(change).await
    }

    async fn remove_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM settings WHERE name = $1 AND value = $2")
            .bind(name)
            .bind(value)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(unavailable("remove a setting"))
    }

    async fn was_restored(&self) -> Result<bool, StoreError> {
        Ok(self.setting("restored").await?.is_some())
    }

    async fn close(&self) {
        self.presence.close().await;
        self.pool.close().await;
    }
}

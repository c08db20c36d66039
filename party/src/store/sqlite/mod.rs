//! The share store in a SQLite file: write-ahead log, `synchronous = FULL`, one writer.
//!
//! Each method is one transaction. [`wallets`] and [`keys`] hold those on wallets and on this party's
//! own Paillier keys, [`audit`] the audit chains; here are records, settings and the store's health.

mod audit;
mod keys;
mod open;
mod policy;
#[cfg(test)]
mod tests;
mod wallets;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use duet_protocol::ids::{Epoch, PaillierKeyId, SessionId, ShareIndex, WalletId};
use duet_wire::audit::Draft;
use sqlx::{Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction, sqlite::SqliteRow};

pub use self::open::SqliteOptions;
use self::{
    keys::write_lock,
    open::{read_setting, write_setting},
};
use super::{LockOutcome, PaillierState, Readiness, RecordStore, Spending, StoreError, UnlockRefused};
use crate::at_rest::{RecordKind, RecordLabel, SealedRecord};

/// Locks that could not be written are remembered up to this many; each is a bad signature under
/// another key, and the store is unready from the first.
const MAX_UNWRITTEN_LOCKS: usize = 1024;
/// Wrong passphrases without a delay; from then on it doubles, from one second to five minutes.
const FREE_UNLOCK_ATTEMPTS: u32 = 3;
const MAX_UNLOCK_DELAY_MS: u64 = 5 * 60 * 1000;

/// A share store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    writer: SqlitePool,
    reader: SqlitePool,
    health: Arc<Mutex<Health>>,
    /// What is appended to the audit log with the next decision.
    noted: Option<Arc<Draft>>,
    /// What is charged to limits with the next decision.
    spending: Option<Arc<Spending>>,
}

#[derive(Debug)]
struct Health {
    readiness: Readiness,
    unwritten_locks: Vec<UnwrittenLock>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct UnwrittenLock {
    key: PaillierKeyId,
    session: SessionId,
    evidence: Vec<u8>,
    at_ms: u64,
    entry: Option<Arc<Draft>>,
}

fn unavailable(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Unavailable { operation, source: source.into() }
}

fn state_number(state: PaillierState) -> i64 {
    match state {
        PaillierState::Ready => 0,
        PaillierState::Locked => 1,
        PaillierState::NeedsRotation => 2,
    }
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn bytes<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N], StoreError> {
    let value: Vec<u8> = row.try_get(column).map_err(unavailable("read a row"))?;
    value.try_into().map_err(|_| StoreError::Corrupt("bytes of another length"))
}

fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let value: i64 = row.try_get(column).map_err(unavailable("read a row"))?;
    T::try_from(value).map_err(|_| StoreError::Corrupt("a number out of range"))
}

fn index(row: &SqliteRow, column: &str) -> Result<ShareIndex, StoreError> {
    ShareIndex::try_from(number::<u8>(row, column)?).map_err(|_| StoreError::Corrupt("not a share index"))
}

fn wallet_column(label: &RecordLabel) -> &[u8] {
    label.wallet.as_ref().map_or(&[], |wallet| wallet.as_bytes())
}

async fn write_record(
    connection: &mut SqliteConnection,
    label: &RecordLabel,
    record: &SealedRecord,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO records (kind, wallet, share_index, epoch, item, sealed) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (kind, wallet, share_index, epoch, item) DO UPDATE SET sealed = excluded.sealed",
    )
    .bind(label.kind as u8)
    .bind(wallet_column(label))
    .bind(label.index.map_or(0, u8::from))
    .bind(label.epoch.0)
    .bind(label.item.as_slice())
    .bind(record.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

async fn remove_record(connection: &mut SqliteConnection, label: &RecordLabel) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM records WHERE kind = ? AND wallet = ? AND share_index = ? AND epoch = ? AND item = ?",
    )
    .bind(label.kind as u8)
    .bind(wallet_column(label))
    .bind(label.index.map_or(0, u8::from))
    .bind(label.epoch.0)
    .bind(label.item.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

impl SqliteStore {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    async fn write(&self, operation: &'static str) -> Result<Transaction<'_, Sqlite>, StoreError> {
        // IMMEDIATE takes the write lock at once: what is read inside is what is decided upon.
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable(operation))
    }

    fn health<T>(&self, f: impl FnOnce(&mut Health) -> T) -> T {
        f(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fail(&self, lock: Option<UnwrittenLock>, error: &StoreError) {
        self.health(|health| {
            health.readiness = Readiness::Unready(error.to_string());
            if let Some(lock) = lock
                && health.unwritten_locks.len() < MAX_UNWRITTEN_LOCKS
                && !health.unwritten_locks.contains(&lock)
            {
                health.unwritten_locks.push(lock);
            }
        });
    }

    fn require_ready(&self) -> Result<(), StoreError> {
        match self.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::Unready(reason) => Err(StoreError::NotReady(reason)),
        }
    }

    async fn try_lock(&self, lock: &UnwrittenLock) -> Result<LockOutcome, StoreError> {
        let failed = unavailable("lock a Paillier key");
        let mut transaction = self.write("lock a Paillier key").await?;
        let outcome = write_lock(&mut transaction, lock).await.map_err(&failed)?;
        if let (LockOutcome::Locked, Some(entry)) = (outcome, &lock.entry) {
            audit::append(&mut transaction, [Draft::clone(entry)]).await?;
        }
        transaction.commit().await.map_err(&failed)?;
        if outcome == LockOutcome::Locked {
            self.record_generation().await?;
        }
        Ok(outcome)
    }

    async fn try_recover(&self) -> Result<(), StoreError> {
        let failed = unavailable("write a canary");
        for lock in self.health(|health| health.unwritten_locks.clone()) {
            self.try_lock(&lock).await?;
            self.health(|health| health.unwritten_locks.retain(|other| *other != lock));
        }
        let mut transaction = self.write("write a canary").await?;
        let mut canary = [0; 32];
        getrandom::fill(&mut canary).map_err(|_| StoreError::Corrupt("no randomness"))?;
        write_setting(&mut transaction, "canary", &canary).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }
}

#[async_trait]
impl RecordStore for SqliteStore {
    fn readiness(&self) -> Readiness {
        self.health(|health| health.readiness.clone())
    }

    async fn recover(&self) -> Result<(), StoreError> {
        match self.try_recover().await {
            Ok(()) => {
                // A lock that failed meanwhile keeps the store unready.
                self.health(|health| {
                    if health.unwritten_locks.is_empty() {
                        health.readiness = Readiness::Ready;
                    }
                });
                self.require_ready()
            }
            Err(error) => {
                self.fail(None, &error);
                Err(error)
            }
        }
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = unavailable("read a setting");
        let mut connection = self.reader.acquire().await.map_err(&failed)?;
        read_setting(&mut connection, name).await.map_err(&failed)
    }

    async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let failed = unavailable("write a setting");
        let mut connection = self.writer.acquire().await.map_err(&failed)?;
        write_setting(&mut connection, name, value).await.map_err(&failed)
    }

    async fn count_unlock_attempt(&self, now_ms: u64) -> Result<u32, UnlockRefused> {
        let failed = unavailable("count an attempt to open it");
        let mut transaction = self.write("count an attempt to open it").await?;
        let stored = read_setting(&mut transaction, "unlock-attempts").await.map_err(&failed)?;
        // Failures (4 bytes), then the time of the next attempt (8 bytes).
        let (failures, next_at_ms) = stored
            .as_deref()
            .and_then(|value| value.split_first_chunk::<4>())
            .and_then(|(count, at)| {
                Some((u32::from_be_bytes(*count), u64::from_be_bytes(at.try_into().ok()?)))
            })
            .unwrap_or((0, 0));
        // The bound keeps a clock that was wrong once from locking the owner out for years.
        let wait_ms = next_at_ms.saturating_sub(now_ms).min(MAX_UNLOCK_DELAY_MS);
        if wait_ms > 0 {
            return Err(UnlockRefused::TooEarly { failures, wait_ms });
        }
        let failures = failures.saturating_add(1);
        let doublings = failures.saturating_sub(FREE_UNLOCK_ATTEMPTS);
        let delay_ms = match doublings {
            0 => 0,
            1..=16 => (500_u64 << doublings).min(MAX_UNLOCK_DELAY_MS),
            _ => MAX_UNLOCK_DELAY_MS,
        };
        let value =
            [failures.to_be_bytes().as_slice(), now_ms.saturating_add(delay_ms).to_be_bytes().as_slice()]
                .concat();
        write_setting(&mut transaction, "unlock-attempts", &value).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(failures)
    }

    async fn clear_unlock_attempts(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM settings WHERE name = 'unlock-attempts'")
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(unavailable("clear the attempts to open it"))
    }

    async fn record(&self, label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError> {
        let failed = unavailable("read a record");
        sqlx::query(
            "SELECT sealed FROM records
             WHERE kind = ? AND wallet = ? AND share_index = ? AND epoch = ? AND item = ?",
        )
        .bind(label.kind as u8)
        .bind(wallet_column(label))
        .bind(label.index.map_or(0, u8::from))
        .bind(label.epoch.0)
        .bind(label.item.as_slice())
        .fetch_optional(&self.reader)
        .await
        .map_err(&failed)?
        .map(|row| row.try_get(0).map(SealedRecord::from_bytes).map_err(&failed))
        .transpose()
    }

    async fn put_records(&self, records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError> {
        let failed = unavailable("write records");
        let mut transaction = self.write("write records").await?;
        for (label, record) in records {
            write_record(&mut transaction, label, record).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }

    async fn record_labels(&self) -> Result<Vec<RecordLabel>, StoreError> {
        let failed = unavailable("list its records");
        sqlx::query("SELECT kind, wallet, share_index, epoch, item FROM records")
            .fetch_all(&self.reader)
            .await
            .map_err(&failed)?
            .iter()
            .map(|row| {
                let wallet: Vec<u8> = row.try_get("wallet").map_err(&failed)?;
                let wallet = match wallet.len() {
                    0 => None,
                    _ => Some(WalletId(bytes(row, "wallet")?)),
                };
                let index = match number::<u8>(row, "share_index")? {
                    0 => None,
                    _ => Some(index(row, "share_index")?),
                };
                Ok(RecordLabel {
                    kind: RecordKind::from_number(number(row, "kind")?)
                        .ok_or(StoreError::Corrupt("not a record's kind"))?,
                    wallet,
                    index,
                    epoch: Epoch(number(row, "epoch")?),
                    item: row.try_get("item").map_err(&failed)?,
                })
            })
            .collect()
    }

    async fn replace_records(
        &self,
        records: &[(RecordLabel, SealedRecord)],
        setting: (&str, &[u8]),
    ) -> Result<(), StoreError> {
        let failed = unavailable("replace its records");
        let mut transaction = self.write("replace its records").await?;
        for (label, record) in records {
            write_record(&mut transaction, label, record).await.map_err(&failed)?;
        }
        write_setting(&mut transaction, setting.0, setting.1).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn was_restored(&self) -> Result<bool, StoreError> {
        Ok(self.setting("restored").await?.is_some())
    }
}

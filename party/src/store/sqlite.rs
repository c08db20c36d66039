//! The share store in a SQLite file: write-ahead log, `synchronous = FULL`, one writer.
//!
//! Each method is one transaction. [`wallets`] and [`keys`] hold those on wallets and on this
//! party's own Paillier keys, [`pending`] verdicts that are about to be reached, [`audit`] the
//! audit chains; here are records, settings and the store's health.

mod audit;
mod keys;
mod open;
mod pending;
mod policy;
mod presence;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod wallets;
mod witness;

use async_trait::async_trait;
use duet_wire::audit::Draft;
use sqlx::{Row as _, Sqlite, SqliteConnection, Transaction};

use self::{
    keys::write_lock,
    rows::{read_setting, remove_record, write_record, write_setting},
};
pub use self::{open::SqliteOptions, store::SqliteStore};
use super::{
    KEY_DESCRIPTOR, KEY_ID, KEY_SUCCESSION, KeyChange, LockOutcome, NewKey, Readiness, RecordStore,
    StoreError, UnlockRefused,
    columns::{index_column, record_label, unavailable, wallet_column},
    health::{UnlockAttempts, UnwrittenLock},
    rewrapped,
};
use crate::at_rest::{RecordLabel, SealedRecord};

/// Records in memory while they are wrapped anew.
const RECORDS_AT_A_TIME: u32 = 500;

/// Wraps every record anew. The transaction is the only writer: nothing is added meanwhile.
async fn rewrap_records(connection: &mut SqliteConnection, key: &NewKey) -> Result<u64, StoreError> {
    let failed = unavailable("change its key");
    write_setting(connection, KEY_ID, &key.id.0).await.map_err(&failed)?;
    if let Some(succession) = &key.succession {
        write_setting(connection, KEY_SUCCESSION, succession).await.map_err(&failed)?;
    }
    let (mut count, mut last) = (0, 0_i64);
    loop {
        let rows = sqlx::query(
            "SELECT rowid AS number, kind, wallet, share_index, epoch, item, sealed FROM records
             WHERE rowid > ? ORDER BY rowid LIMIT ?",
        )
        .bind(last)
        .bind(RECORDS_AT_A_TIME)
        .fetch_all(&mut *connection)
        .await
        .map_err(&failed)?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            last = row.try_get("number").map_err(&failed)?;
            let record = rewrapped(key, &record_label(row)?, row.try_get("sealed").map_err(&failed)?)?;
            sqlx::query("UPDATE records SET sealed = ? WHERE rowid = ?")
                .bind(record.as_bytes())
                .bind(last)
                .execute(&mut *connection)
                .await
                .map_err(&failed)?;
            count += 1;
        }
    }
    for (label, record) in &key.records {
        write_record(connection, label, record).await.map_err(&failed)?;
    }
    Ok(count)
}

impl SqliteStore {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// A transaction that writes.
    pub(super) async fn write(&self, operation: &'static str) -> Result<Transaction<'_, Sqlite>, StoreError> {
        // IMMEDIATE takes the write lock at once: what is read inside is what is decided upon.
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable(operation))
    }

    async fn try_lock(&self, lock: &UnwrittenLock) -> Result<LockOutcome, StoreError> {
        let failed = unavailable("lock a Paillier key");
        let mut transaction = self.write("lock a Paillier key").await?;
        let outcome = write_lock(&mut transaction, &lock.lock).await.map_err(&failed)?;
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
        self.presence.show(&self.path)?;
        let failed = unavailable("write a canary");
        for lock in self.health.unwritten_locks() {
            self.try_lock(&lock).await?;
            self.health.written(&lock);
        }
        let mut transaction = self.write("write a canary").await?;
        let mut canary = [0; 32];
        getrandom::fill(&mut canary).map_err(|_| StoreError::Corrupt("no randomness"))?;
        write_setting(&mut transaction, "canary", &canary).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        // A lock that was written when the file beside the store could not be is known to the store
        // alone.
        self.record_generation().await
    }
}

#[async_trait]
impl RecordStore for SqliteStore {
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
        let attempts = UnlockAttempts::parse(stored.as_deref()).another(now_ms)?;
        write_setting(&mut transaction, "unlock-attempts", &attempts.to_setting()).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(attempts.failures)
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
        .bind(index_column(label))
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

    async fn change_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        let failed = unavailable("change its key");
        let mut transaction = self.write("change its key").await?;
        let current = read_setting(&mut transaction, KEY_DESCRIPTOR).await.map_err(&failed)?;
        if current != change.replaces {
            return Err(StoreError::KeyChanged);
        }
        write_setting(&mut transaction, KEY_DESCRIPTOR, &change.descriptor).await.map_err(&failed)?;
        let count = match &change.key {
            Some(key) => rewrap_records(&mut transaction, key).await?,
            None => 0,
        };
        self.append_noted_if_open(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(count)
    }

    async fn remove_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM settings WHERE name = ? AND value = ?")
            .bind(name)
            .bind(value)
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(unavailable("remove a setting"))
    }

    async fn was_restored(&self) -> Result<bool, StoreError> {
        Ok(self.setting("restored").await?.is_some())
    }

    async fn close(&self) {
        self.reader.close().await;
        self.presence.hide();
        self.unflushed.close().await;
        self.writer.close().await;
    }
}

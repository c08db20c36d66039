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
//!   scope, what was spent of a wallet's limits): an advisory lock that ends with the transaction
//!   ([`AdvisoryLock`]). Names that share a number by accident merely wait for each other.
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

mod advisory_lock;
mod audit;
mod home;
mod key_change;
mod keys;
mod open;
mod options;
mod pending;
mod place;
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
use sqlx::{Postgres, Transaction};

pub(super) use self::home::mark_restored;
use self::{
    advisory_lock::{AdvisoryLock, number_of, within},
    keys::write_lock,
    rows::{read_setting, remove_record, write_record, write_setting},
};
pub use self::{
    options::{AddressError, PostgresOptions},
    store::PostgresStore,
};
use super::{
    KeyChange, LockOutcome, Readiness, RecordStore, StoreError, UnlockRefused,
    columns::{index_column, unavailable, wallet_column},
    health::{UnlockAttempts, UnwrittenLock},
};
use crate::at_rest::{RecordLabel, SealedRecord};

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
        AdvisoryLock::Unlock.take(&mut transaction, &[]).await.map_err(&failed)?;
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

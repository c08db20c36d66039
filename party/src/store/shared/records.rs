//! Records, settings, and the store's health.

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, SessionId};

use crate::{
    at_rest::{RecordLabel, SealedRecord},
    clock::Clock,
    store::{
        KEY_ID, KEY_SUCCESSION, KeyChange, LIMITS_USED_UP_SINCE, LockOutcome, NewKey, PaillierState,
        RESTORED_AT, Readiness, RecordStore, StoreError, UnlockRefused, audit,
        backend::Backend,
        columns::{Columns as _, blob, index_column, other_key, unavailable, wallet_column},
        connection::{Connection, NamedLock, Value, values},
        health::{UnlockAttempts, UnwrittenLock},
        pending_label,
    },
};

/// The setting that counts the attempts to open the store.
const UNLOCK_ATTEMPTS: &str = "unlock-attempts";

/// Stores a record, unless it is sealed under another key than the store's. Which one that is stays
/// so until the transaction ends.
pub(in crate::store) async fn write_record<C: Connection>(
    connection: &mut C,
    label: &RecordLabel,
    record: &SealedRecord,
) -> Result<(), sqlx::Error> {
    let key = record.sealed_with();
    let key = key.as_ref().map(|key| key.0.as_slice());
    for _ in 0..2 {
        let statement = [
            "WITH held AS (SELECT value FROM settings WHERE name = $8",
            C::FOR_SHARE,
            ")
             INSERT INTO records (kind, wallet, share_index, epoch, item, sealed) SELECT $1, $2, $3, $4, $5, $6
             WHERE $7 = (SELECT value FROM held) OR $7 IS NULL
             ON CONFLICT (kind, wallet, share_index, epoch, item) DO UPDATE SET sealed = excluded.sealed",
        ];
        let [kind, wallet, index, epoch, item] = label_values(label);
        let values = values![kind, wallet, index, epoch, item, record.as_bytes(), key, KEY_ID];
        if connection.run(&statement, values).await? > 0 {
            return Ok(());
        }
        // Either the store has another key, or it does not say yet which one it has.
        connection
            .run(
                &["INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"],
                values![KEY_ID, key],
            )
            .await?;
    }
    Err(other_key())
}

/// What stands for a label in the placeholders of a statement.
fn label_values(label: &RecordLabel) -> [Value<'_>; 5] {
    [
        Value::Number(Some(label.kind as i64)),
        wallet_column(label).into(),
        index_column(label).into(),
        label.epoch.into(),
        label.item.as_slice().into(),
    ]
}

pub(in crate::store) async fn remove_record(
    connection: &mut impl Connection,
    label: &RecordLabel,
) -> Result<(), sqlx::Error> {
    connection
        .run(
            &["DELETE FROM records
             WHERE kind = $1 AND wallet = $2 AND share_index = $3 AND epoch = $4 AND item = $5"],
            &label_values(label),
        )
        .await
        .map(drop)
}

pub(in crate::store) async fn read_setting(
    connection: &mut impl Connection,
    name: &str,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let row = connection.row(&["SELECT value FROM settings WHERE name = $1"], values![name]).await?;
    row.map_or(Ok(None), |row| row.bytes_at("value"))
}

/// Writes a setting.
const WRITE_SETTING: &str = "INSERT INTO settings (name, value) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

pub(in crate::store) async fn write_setting(
    connection: &mut impl Connection,
    name: &str,
    value: &[u8],
) -> Result<(), sqlx::Error> {
    connection.run(&[WRITE_SETTING], values![name, value]).await.map(drop)
}

/// Writes which key the records are sealed under from now on.
pub(in crate::store) async fn write_key_id(
    connection: &mut impl Connection,
    key: &NewKey,
) -> Result<(), sqlx::Error> {
    write_setting(connection, KEY_ID, &key.id.0).await?;
    match &key.succession {
        Some(succession) => write_setting(connection, KEY_SUCCESSION, succession).await,
        None => Ok(()),
    }
}

/// Marks every Paillier key as needing rotation, and the store as restored.
pub(in crate::store) async fn mark_restored(connection: &mut impl Connection) -> Result<(), sqlx::Error> {
    write_setting(connection, "restored", &[1]).await?;
    // Revocations and charges of the time before are not known here.
    let now = Clock::system().now_ms().to_be_bytes();
    write_setting(connection, RESTORED_AT, &now).await?;
    write_setting(connection, LIMITS_USED_UP_SINCE, &now).await?;
    // A lock that survived stays a lock: it says more.
    connection
        .run(
            &["UPDATE paillier_keys SET state = $1 WHERE state = $2"],
            values![PaillierState::NeedsRotation, PaillierState::Ready],
        )
        .await?;
    connection.run(&["UPDATE deals SET restored = 1"], values![]).await?;
    // What was recorded after the copy was made is not known here: the chain is not to be forked.
    super::audit::close(connection).await
}

/// Locks a key in a transaction of its own, and records that.
pub(super) async fn try_lock<B: Backend>(store: &B, lock: &UnwrittenLock) -> Result<LockOutcome, StoreError> {
    const OPERATION: &str = "lock a Paillier key";
    let outcome = B::within(OPERATION, async {
        let failed = unavailable(OPERATION);
        let mut transaction = store.begin(OPERATION).await?;
        let outcome = B::write_lock(&mut transaction, &lock.lock).await.map_err(&failed)?;
        if let (LockOutcome::Locked, Some(entry)) = (outcome, lock.entry.as_deref()) {
            audit::append(&mut *transaction, std::slice::from_ref(entry)).await?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(outcome)
    })
    .await?;
    if outcome == LockOutcome::Locked {
        store.record_generation().await?;
    }
    Ok(outcome)
}

async fn try_recover<B: Backend>(store: &B) -> Result<(), StoreError> {
    const OPERATION: &str = "write a canary";
    store.appear().await?;
    for lock in store.health().unwritten_locks() {
        try_lock(store, &lock).await?;
        store.health().written(&lock);
    }
    let mut canary = [0; 32];
    getrandom::fill(&mut canary).map_err(|_| StoreError::Corrupt("no randomness"))?;
    store.execute(OPERATION, &[WRITE_SETTING], values!["canary", &canary]).await?;
    // A lock that was written when the file beside the store could not be is known to the database
    // alone.
    store.record_generation().await
}

#[async_trait]
impl<B: Backend> RecordStore for B {
    fn readiness(&self) -> Readiness {
        self.health().readiness()
    }

    async fn until_ready(&self, ready: bool) {
        self.health().until(ready).await;
    }

    async fn recover(&self) -> Result<(), StoreError> {
        let tried = try_recover(self).await;
        self.health().recovered(tried)
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let statement = ["SELECT value FROM settings WHERE name = $1"];
        self.find("read a setting", &statement, values![name], |row| blob(row, "value")).await
    }

    async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.execute("write a setting", &[WRITE_SETTING], values![name, value]).await.map(drop)
    }

    async fn count_unlock_attempt(&self, now_ms: u64) -> Result<u32, UnlockRefused> {
        const OPERATION: &str = "count an attempt to open it";
        let failed = unavailable(OPERATION);
        let mut transaction = self.begin(OPERATION).await?;
        transaction.take(NamedLock::Unlock, &[]).await.map_err(&failed)?;
        let stored = read_setting(&mut *transaction, UNLOCK_ATTEMPTS).await.map_err(&failed)?;
        let attempts = UnlockAttempts::parse(stored.as_deref()).another(now_ms)?;
        write_setting(&mut *transaction, UNLOCK_ATTEMPTS, &attempts.to_setting()).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(attempts.failures)
    }

    async fn clear_unlock_attempts(&self) -> Result<(), StoreError> {
        let statement = ["DELETE FROM settings WHERE name = $1"];
        self.execute("clear the attempts to open it", &statement, values![UNLOCK_ATTEMPTS]).await.map(drop)
    }

    async fn record(&self, label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError> {
        self.find(
            "read a record",
            &["SELECT sealed FROM records
             WHERE kind = $1 AND wallet = $2 AND share_index = $3 AND epoch = $4 AND item = $5"],
            &label_values(label),
            |row| blob(row, "sealed").map(SealedRecord::from_bytes),
        )
        .await
    }

    async fn put_records(&self, records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError> {
        const OPERATION: &str = "write records";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            for (label, record) in records {
                write_record(&mut *transaction, label, record).await.map_err(&failed)?;
            }
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn change_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        self.write_key(change).await
    }

    async fn remove_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let statement = ["DELETE FROM settings WHERE name = $1 AND value = $2"];
        self.execute("remove a setting", &statement, values![name, value]).await.map(drop)
    }

    async fn was_restored(&self) -> Result<bool, StoreError> {
        Ok(self.setting("restored").await?.is_some())
    }

    async fn close(&self) {
        self.shut().await;
    }
}

/// Forgets what was pending of a session.
pub(in crate::store) async fn remove_pending(
    connection: &mut impl Connection,
    session: SessionId,
) -> Result<(), sqlx::Error> {
    remove_record(connection, &pending_label(session)).await?;
    connection.run(&["DELETE FROM pending_verdicts WHERE session = $1"], values![&session]).await.map(drop)
}

/// Forgets everything that was pending under a key, which is locked by now.
pub(in crate::store) async fn remove_pending_of_key(
    connection: &mut impl Connection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    // In the order of their ids, so that two that forget at once do not wait for each other.
    let statement = ["SELECT session FROM pending_verdicts WHERE paillier_key = $1 ORDER BY session"];
    for row in connection.rows(&statement, values![&key]).await? {
        if let Some(session) = row.bytes_at("session")?.and_then(|session| session.try_into().ok()) {
            remove_pending(connection, SessionId(session)).await?;
        }
    }
    Ok(())
}

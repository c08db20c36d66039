//! The decisions as SQLite makes them. Each is a transaction that has the write lock from its
//! beginning, so that it may look first and write then. What goes with a decision (its charge to
//! the limits, its answer, its record) is written after it in that transaction.

use std::future::Future;

use duet_protocol::ids::{PaillierKeyId, SessionId};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::{SqliteStore, presence::Presence};
use crate::store::{
    Charge, KEY_DESCRIPTOR, KeyChange, Lock, LockOutcome, NewKey, NewPending, PaillierState, StoreError,
    backend::{Attached, Backend, Claim},
    columns::{paillier_state, record_label, unavailable},
    connection::{Connection as _, values},
    health::Health,
    rewrapped,
    shared::{
        keys::{count_failure, destroy_key, note_enrolled_under},
        pending::insert_pending,
        policy::forget,
        records::{
            read_setting, remove_pending, remove_pending_of_key, write_key_id, write_record, write_setting,
        },
    },
    spending::{due, looks, write},
};

/// Takes the write lock at once: what is read inside is what is decided upon.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// Records in memory while they are wrapped anew.
const RECORDS_AT_A_TIME: u32 = 500;

impl Backend for SqliteStore {
    type Database = Sqlite;
    type Connection = SqliteConnection;

    fn health(&self) -> &Health {
        &self.health
    }

    fn attached(&self) -> &Attached {
        &self.attached
    }

    fn with(&self, attached: Attached) -> Self {
        Self { attached, ..self.clone() }
    }

    fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    async fn begin(&self, operation: &'static str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with(BEGIN).await.map_err(unavailable(operation))
    }

    /// The database is in this process: nothing but its own waits, which end, takes long.
    async fn within<T: Send>(
        _operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        work.await
    }

    async fn record_generation(&self) -> Result<(), StoreError> {
        self.write_generation_file().await
    }

    fn instance(&self) -> [u8; 16] {
        self.presence.id()
    }

    async fn appear(&self) -> Result<(), StoreError> {
        self.presence.show(&self.path)
    }

    async fn ended(&self, others: Vec<[u8; 16]>) -> Result<Vec<[u8; 16]>, StoreError> {
        Ok(others.into_iter().filter(|id| Presence::has_ended(&self.path, id)).collect())
    }

    async fn shut(&self) {
        self.reader.close().await;
        self.presence.hide();
        self.unflushed.close().await;
        self.writer.close().await;
    }

    async fn write_claim(&self, claim: &Claim) -> Result<bool, StoreError> {
        const OPERATION: &str = "claim a session";
        let mut transaction = self.begin(OPERATION).await?;
        let written = transaction
            .run(
                &["INSERT OR IGNORE INTO sessions (id, wallet, claimed_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4)"],
                values![&claim.session, &claim.wallet, claim.now_ms, claim.expires_at_ms],
            )
            .await
            .map_err(unavailable(OPERATION))?;
        self.commit_decision(transaction, written == 1, claim.now_ms, OPERATION).await
    }

    async fn write_charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        const OPERATION: &str = "charge a signature";
        let mut transaction = self.begin(OPERATION).await?;
        let written = transaction
            .run(
                &["INSERT OR IGNORE INTO charges (session, wallet, digest, charged_at_ms) VALUES ($1, $2, $3, $4)"],
                values![&charge.session, &charge.wallet, &charge.digest, charge.charged_at_ms],
            )
            .await
            .map_err(unavailable(OPERATION))?;
        self.commit_decision(transaction, written == 1, charge.charged_at_ms, OPERATION).await
    }

    /// The transaction has the write lock: no verdict is counted between the look at the state and
    /// the change of it.
    async fn write_lock(connection: &mut SqliteConnection, lock: &Lock) -> Result<LockOutcome, sqlx::Error> {
        let changed = connection
            .run(
                &["UPDATE paillier_keys
                 SET state = $1, locked_session = $2, locked_evidence = $3, locked_at_ms = $4,
                   locked_card = CASE WHEN $5 IS NULL AND scope LIKE 'responder/%'
                                      THEN unhex(substr(scope, 11, 64)) ELSE $5 END
                 WHERE id = $6 AND state <> $1"],
                values![
                    PaillierState::Locked,
                    &lock.session,
                    lock.evidence.as_slice(),
                    lock.at_ms,
                    lock.card.as_ref().map(|card| card.as_bytes().as_slice()),
                    &lock.key
                ],
            )
            .await?;
        if changed == 0 {
            remove_pending_of_key(connection, lock.key).await?;
            return Ok(LockOutcome::AlreadyLocked);
        }
        if let Some(wallet) = lock.wallet {
            note_enrolled_under(connection, wallet, lock.key).await?;
        }
        destroy_key(connection, lock.key).await?;
        count_failure(connection, lock.key).await?;
        connection.raise_generation().await?;
        Ok(LockOutcome::Locked)
    }

    /// The write lock: whatever lock is being written is written before or after this. The flush
    /// that ends it is the one that a lock waits for as well: where a bad verdict cannot be
    /// written, no good one leaves.
    async fn write_verdict(
        &self,
        key: PaillierKeyId,
        session: SessionId,
    ) -> Result<Option<PaillierState>, StoreError> {
        const OPERATION: &str = "release a verdict";
        let failed = unavailable(OPERATION);
        let mut transaction = self.begin(OPERATION).await?;
        let row = transaction
            .row(
                &["UPDATE paillier_keys SET verdicts = verdicts + (state = $1) WHERE id = $2 RETURNING state"],
                values![PaillierState::Ready, &key],
            )
            .await
            .map_err(&failed)?;
        remove_pending(&mut *transaction, session).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        row.as_ref().map(paillier_state).transpose()
    }

    /// On a connection that does not flush. In the write-ahead log a commit of it is in the
    /// system's hands when it returns, and on the disk with the writer's next.
    async fn write_pending(&self, pending: &NewPending) -> Result<(), StoreError> {
        if !self.presence.is_shown() {
            return Err(StoreError::NotReady("it is not known beside its siblings yet".to_owned()));
        }
        let failed = unavailable("write a pending verdict");
        // The writer's lock among all of this process: SQLite's own lock is not fair.
        let _turn = self.writer.acquire().await.map_err(&failed)?;
        let mut transaction = self.unflushed.begin_with(BEGIN).await.map_err(&failed)?;
        insert_pending(&mut *transaction, pending, self.presence.id(), &self.attached).await?;
        transaction.commit().await.map_err(&failed)
    }

    async fn write_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        const OPERATION: &str = "change its key";
        let failed = unavailable(OPERATION);
        let mut transaction = self.begin(OPERATION).await?;
        let current = read_setting(&mut *transaction, KEY_DESCRIPTOR).await.map_err(&failed)?;
        if current != change.replaces {
            return Err(StoreError::KeyChanged);
        }
        write_setting(&mut *transaction, KEY_DESCRIPTOR, &change.descriptor).await.map_err(&failed)?;
        let count = match &change.key {
            Some(key) => rewrap_records(&mut transaction, key).await?,
            None => 0,
        };
        self.attached.append_if_open(&mut *transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(count)
    }
}

impl SqliteStore {
    /// Commits what was decided of a session, with what is attached to a decision that is new.
    async fn commit_decision(
        &self,
        mut transaction: Transaction<'_, Sqlite>,
        new: bool,
        at_ms: u64,
        operation: &'static str,
    ) -> Result<bool, StoreError> {
        if new {
            self.charge_limits(&mut transaction).await?;
            self.attached.count_answer(&mut *transaction, at_ms).await?;
            self.attached.append(&mut *transaction).await?;
        }
        transaction.commit().await.map_err(unavailable(operation))?;
        Ok(new)
    }

    /// Charges what [`PolicyStore::spending`](crate::store::PolicyStore::spending) was given, if
    /// anything and if it has not been before.
    async fn charge_limits(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let Some(spending) = self.attached.spending.as_deref() else { return Ok(()) };
        let failed = unavailable("charge a limit");
        let accounts = spending.accounts();
        let mut rows = Vec::new();
        for mut look in looks(spending, &accounts, QueryBuilder::<Sqlite>::default()) {
            rows.extend(look.build().fetch_all(&mut *connection).await.map_err(&failed)?);
        }
        let Some(due) = due(spending, &accounts, &rows)? else { return Ok(()) };
        let mut write = write::<Sqlite>(spending, &due, ["", ";"]);
        write.build().execute(&mut *connection).await.map_err(&failed)?;
        forget(connection, spending, &due).await.map_err(&failed)
    }
}

/// Wraps every record anew. The transaction is the only writer: nothing is added meanwhile.
async fn rewrap_records(connection: &mut SqliteConnection, key: &NewKey) -> Result<u64, StoreError> {
    let failed = unavailable("change its key");
    write_key_id(connection, key).await.map_err(&failed)?;
    let (mut count, mut last) = (0, 0_i64);
    loop {
        let rows = connection
            .rows(
                &["SELECT rowid AS number, kind, wallet, share_index, epoch, item, sealed FROM records
                 WHERE rowid > $1 ORDER BY rowid LIMIT $2"],
                values![last, RECORDS_AT_A_TIME],
            )
            .await
            .map_err(&failed)?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            last = row.try_get("number").map_err(&failed)?;
            let record = rewrapped(key, &record_label(row)?, row.try_get("sealed").map_err(&failed)?)?;
            connection
                .run(&["UPDATE records SET sealed = $1 WHERE rowid = $2"], values![record.as_bytes(), last])
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

//! Paillier keys, whom they are agreed with, their locks; sessions and charges.

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    SqliteStore, UnwrittenLock, bytes, integer, number, open::raise_generation, remove_record, state_number,
    unavailable, write_record,
};
use crate::{
    at_rest::{RecordKind, RecordLabel, SealedRecord},
    store::{
        Charge, Gate, KeyStore, LockOutcome, OwnEnrolment, PaillierKeyRow, PaillierScope, PaillierState,
        SessionStore, StoreError,
    },
};

/// How long a key stays after it was superseded: for sessions that were checked before and are claimed
/// after, and for a key just made by another process that is yet to be offered.
const SUPERSEDED_FOR_MS: u64 = 60_000;

fn paillier_row(row: &SqliteRow) -> Result<PaillierKeyRow, StoreError> {
    Ok(PaillierKeyRow {
        id: PaillierKeyId(bytes(row, "id")?),
        scope: row.try_get("scope").map_err(unavailable("read a row"))?,
        state: match number::<u8>(row, "state")? {
            0 => PaillierState::Ready,
            1 => PaillierState::Locked,
            2 => PaillierState::NeedsRotation,
            _ => return Err(StoreError::Corrupt("not a Paillier key's state")),
        },
    })
}

fn optional_key(row: &SqliteRow, column: &str) -> Result<Option<PaillierKeyId>, StoreError> {
    let value: Option<Vec<u8>> = row.try_get(column).map_err(unavailable("read a row"))?;
    value
        .map(|value| value.try_into().map(PaillierKeyId))
        .transpose()
        .map_err(|_| StoreError::Corrupt("a key id of another length"))
}

/// Locks a key in the transaction it is given.
pub(super) async fn write_lock(
    connection: &mut SqliteConnection,
    lock: &UnwrittenLock,
) -> Result<LockOutcome, sqlx::Error> {
    let changed = sqlx::query(
        "UPDATE paillier_keys SET state = ?, locked_session = ?, locked_evidence = ?, locked_at_ms = ?
         WHERE id = ? AND state <> ?",
    )
    .bind(state_number(PaillierState::Locked))
    .bind(lock.session.as_bytes().as_slice())
    .bind(lock.evidence.as_slice())
    .bind(integer(lock.at_ms))
    .bind(lock.key.as_bytes().as_slice())
    .bind(state_number(PaillierState::Locked))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if changed == 0 {
        return Ok(LockOutcome::AlreadyLocked);
    }
    raise_generation(connection, 0).await?;
    Ok(LockOutcome::Locked)
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn put_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let failed = unavailable("store a Paillier key");
        let mut transaction = self.write("store a Paillier key").await?;
        let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
        // Never over an existing key: its state, a lock perhaps, must survive a repetition.
        let inserted = sqlx::query(
            "INSERT OR IGNORE INTO paillier_keys (id, scope, state, sequence, created_at_ms)
             VALUES (?, ?, ?, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM paillier_keys), ?)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(scope.to_string())
        .bind(state_number(state))
        .bind(integer(now_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected();
        if inserted == 0 {
            return Ok(());
        }
        write_record(&mut transaction, &label, record).await.map_err(&failed)?;
        raise_generation(&mut transaction, 0).await.map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        self.record_generation().await
    }

    async fn paillier_key(&self, id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError> {
        sqlx::query("SELECT * FROM paillier_keys WHERE id = ? AND removed_at_ms IS NULL")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read a Paillier key"))?
            .as_ref()
            .map(paillier_row)
            .transpose()
    }

    async fn paillier_keys(&self, scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError> {
        sqlx::query(
            "SELECT * FROM paillier_keys WHERE scope = ? AND removed_at_ms IS NULL ORDER BY sequence DESC",
        )
        .bind(scope.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list Paillier keys"))?
        .iter()
        .map(paillier_row)
        .collect()
    }

    async fn all_paillier_keys(&self) -> Result<Vec<PaillierKeyRow>, StoreError> {
        sqlx::query("SELECT * FROM paillier_keys WHERE removed_at_ms IS NULL ORDER BY sequence DESC")
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list Paillier keys"))?
            .iter()
            .map(paillier_row)
            .collect()
    }

    async fn remove_superseded_keys(&self, now_ms: u64) -> Result<Vec<PaillierKeyId>, StoreError> {
        let failed = unavailable("remove superseded Paillier keys");
        let mut transaction = self.write("remove superseded Paillier keys").await?;
        const UNUSED: &str = "EXISTS (SELECT 1 FROM paillier_keys AS newer
                WHERE newer.scope = paillier_keys.scope AND newer.sequence > paillier_keys.sequence)
             AND NOT EXISTS (SELECT 1 FROM own_enrolments
                WHERE agreed = paillier_keys.id OR offered = paillier_keys.id)";
        // Nothing is written where nothing changes.
        for statement in [
            format!(
                "UPDATE paillier_keys SET superseded_at_ms = ?1
                 WHERE removed_at_ms IS NULL AND superseded_at_ms IS NULL AND {UNUSED}"
            ),
            format!(
                "UPDATE paillier_keys SET superseded_at_ms = NULL
                 WHERE removed_at_ms IS NULL AND superseded_at_ms IS NOT NULL AND NOT ({UNUSED})"
            ),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(integer(now_ms))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        let removable = sqlx::query(
            "SELECT id FROM paillier_keys
             WHERE removed_at_ms IS NULL AND superseded_at_ms + ?1 <= ?2 AND NOT EXISTS (
               SELECT 1 FROM sessions
               WHERE claimed_at_ms <= paillier_keys.superseded_at_ms + ?1 AND expires_at_ms > ?2)",
        )
        .bind(integer(SUPERSEDED_FOR_MS))
        .bind(integer(now_ms))
        .fetch_all(&mut *transaction)
        .await
        .map_err(&failed)?
        .iter()
        .map(|row| bytes(row, "id").map(PaillierKeyId))
        .collect::<Result<Vec<_>, _>>()?;
        for id in &removable {
            let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
            remove_record(&mut transaction, &label).await.map_err(&failed)?;
            // The row stays, with its lock: the key cannot be brought back as a new one.
            sqlx::query("UPDATE paillier_keys SET removed_at_ms = ? WHERE id = ?")
                .bind(integer(now_ms))
                .bind(id.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(removable)
    }

    async fn offer_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO own_enrolments (wallet, responder, offered) VALUES (?, ?, ?)
             ON CONFLICT (wallet, responder) DO UPDATE SET offered = excluded.offered",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(responder.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(unavailable("note an offer"))
    }

    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        let failed = unavailable("note an agreement");
        let mut transaction = self.write("note an agreement").await?;
        sqlx::query(
            "INSERT INTO own_enrolments (wallet, responder, agreed) VALUES (?1, ?2, ?3)
             ON CONFLICT (wallet, responder) DO UPDATE SET
               agreed = excluded.agreed,
               offered = CASE WHEN offered = excluded.agreed THEN NULL ELSE offered END",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(responder.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)
    }

    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError> {
        // No party has an empty name, and no key is empty.
        sqlx::query("INSERT OR IGNORE INTO own_enrolments (wallet, responder, agreed) VALUES (?, '', x'')")
            .bind(wallet.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(unavailable("waive an enrolment"))
    }

    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError> {
        sqlx::query("SELECT agreed, offered FROM own_enrolments WHERE wallet = ? AND responder = ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(responder.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read an agreement"))?
            .map_or(Ok(OwnEnrolment::default()), |row| {
                Ok(OwnEnrolment {
                    agreed: optional_key(&row, "agreed")?,
                    offered: optional_key(&row, "offered")?,
                })
            })
    }

    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError> {
        sqlx::query(
            "SELECT id FROM wallets WHERE commit_ack IS NOT NULL AND share_index = ?
             AND NOT EXISTS (SELECT 1 FROM own_enrolments WHERE wallet = id AND agreed IS NOT NULL)
             ORDER BY committed_at_ms LIMIT ?",
        )
        .bind(u8::from(index))
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list wallets without an enrolment"))?
        .iter()
        .map(|row| bytes(row, "id").map(WalletId))
        .collect()
    }

    async fn lock_paillier_key(
        &self,
        key: PaillierKeyId,
        session: SessionId,
        evidence: &[u8],
        now_ms: u64,
    ) -> Result<LockOutcome, StoreError> {
        let entry = self.noted.clone();
        let lock = UnwrittenLock { key, session, evidence: evidence.to_vec(), at_ms: now_ms, entry };
        // In a task of its own: a caller that is cancelled must not take the lock with it.
        let (store, spare) = (self.clone(), lock.clone());
        let task = tokio::spawn(async move {
            store.try_lock(&lock).await.inspect_err(|error| store.fail(Some(lock.clone()), error))
        });
        task.await.unwrap_or_else(|_| {
            let error = StoreError::NotReady("the runtime stopped while a lock was written".to_owned());
            self.fail(Some(spare), &error);
            Err(error)
        })
    }

    async fn release_verdict(&self, key: PaillierKeyId) -> Result<Gate, StoreError> {
        self.require_ready()?;
        let failed = unavailable("read a Paillier key's lock");
        // Takes the write lock: whatever lock is being written is written before or after this.
        let mut transaction = self.write("read a Paillier key's lock").await?;
        let row = sqlx::query("SELECT * FROM paillier_keys WHERE id = ?")
            .bind(key.as_bytes().as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        // A lock may have failed to be written between the first look and the transaction.
        self.require_ready()?;
        match row.as_ref().map(paillier_row).transpose()?.map(|row| row.state) {
            Some(PaillierState::Ready) => Ok(Gate::Open),
            Some(state) => Ok(Gate::Closed(state)),
            None => Err(StoreError::Corrupt("a Paillier key vanished")),
        }
    }
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn claim_session(
        &self,
        session: SessionId,
        wallet: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let failed = unavailable("claim a session");
        let mut transaction = self.write("claim a session").await?;
        let new = sqlx::query(
            "INSERT OR IGNORE INTO sessions (id, wallet, claimed_at_ms, expires_at_ms) VALUES (?, ?, ?, ?)",
        )
        .bind(session.as_bytes().as_slice())
        .bind(wallet.as_bytes().as_slice())
        .bind(integer(now_ms))
        .bind(integer(expires_at_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected()
            == 1;
        if new {
            self.charge_limits(&mut transaction).await?;
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(new)
    }

    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        let failed = unavailable("charge a signature");
        let mut transaction = self.write("charge a signature").await?;
        let new = sqlx::query(
            "INSERT OR IGNORE INTO charges (session, wallet, digest, charged_at_ms) VALUES (?, ?, ?, ?)",
        )
        .bind(charge.session.as_bytes().as_slice())
        .bind(charge.wallet.as_bytes().as_slice())
        .bind(charge.digest.as_slice())
        .bind(integer(charge.charged_at_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected()
            == 1;
        if new {
            self.charge_limits(&mut transaction).await?;
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(new)
    }

    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM charges WHERE wallet = ? AND digest = ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(digest.as_slice())
            .fetch_one(&self.reader)
            .await
            .map_err(unavailable("count charges"))?;
        u64::try_from(count).map_err(|_| StoreError::Corrupt("a negative count"))
    }
}

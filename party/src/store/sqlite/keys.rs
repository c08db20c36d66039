//! Paillier keys, whom they are agreed with, their locks; sessions and charges.

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::{
    SqliteStore,
    open::raise_generation,
    remove_record,
    rows::{remove_pending, remove_pending_of_key},
    write_record,
};
use crate::{
    at_rest::{RecordKind, RecordLabel, SealedRecord},
    store::{
        Charge, Culprit, Gate, KeyStore, Lock, LockOutcome, MAX_REVOCATIONS, OwnEnrolment, PaillierKeyRow,
        PaillierScope, PaillierState, RESTORED_AT, RequestFacts, Revoked, RevokedRequest, SUPERSEDED_FOR_MS,
        SessionStore, Standing, StoreError, UnblamedLock, WalletRow,
        columns::{
            bytes, culprit, integer, number, own_enrolment, paillier_row, request_facts, standing,
            state_number, unavailable, unblamed_lock, wallet_row,
        },
        health::UnwrittenLock,
    },
};

/// Locks a key in the transaction it is given, and destroys it.
pub(super) async fn write_lock(
    connection: &mut SqliteConnection,
    lock: &Lock,
) -> Result<LockOutcome, sqlx::Error> {
    let changed = sqlx::query(
        "UPDATE paillier_keys
         SET state = ?1, locked_session = ?2, locked_evidence = ?3, locked_at_ms = ?4,
           locked_card = CASE WHEN ?5 IS NULL AND scope LIKE 'responder/%'
                              THEN unhex(substr(scope, 11, 64)) ELSE ?5 END
         WHERE id = ?6 AND state <> ?1",
    )
    .bind(state_number(PaillierState::Locked))
    .bind(lock.session.as_bytes().as_slice())
    .bind(lock.evidence.as_slice())
    .bind(integer(lock.at_ms))
    .bind(lock.card.as_ref().map(|card| card.as_bytes().as_slice()))
    .bind(lock.key.as_bytes().as_slice())
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if changed == 0 {
        remove_pending_of_key(connection, lock.key).await?;
        return Ok(LockOutcome::AlreadyLocked);
    }
    if let Some(wallet) = lock.wallet {
        note_enrolled_under(connection, wallet, lock.key).await?;
    }
    destroy_key(connection, lock.key).await?;
    count_failure(connection, lock.key).await?;
    raise_generation(connection, 0).await?;
    Ok(LockOutcome::Locked)
}

/// Removes a locked key, and what is pending under it.
pub(super) async fn destroy_key(
    connection: &mut SqliteConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    remove_pending_of_key(connection, key).await?;
    remove_record(connection, &RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes())).await
}

/// Counts the lock of a key for every wallet that was ever enrolled under it.
pub(super) async fn count_failure(
    connection: &mut SqliteConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE wallets SET failures = failures + 1
         WHERE id IN (SELECT wallet FROM enrolled_under WHERE paillier_key = ?)",
    )
    .bind(key.as_bytes().as_slice())
    .execute(connection)
    .await
    .map(drop)
}

/// What this party thinks of a card, in the transaction it is given.
pub(super) async fn standing_of(
    connection: &mut SqliteConnection,
    card: CardFingerprint,
) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM paillier_keys WHERE locked_card = ?1)
                  + EXISTS (SELECT 1 FROM suspects WHERE card = ?1) AS locks,
                (SELECT COUNT(*) FROM accepted_culprits WHERE card = ?1) AS accepted",
    )
    .bind(card.as_bytes().as_slice())
    .fetch_one(connection)
    .await
    .map_err(unavailable("look for a card's locks"))?;
    standing(&row)
}

/// That a responder may have a wallet's share encrypted under a key, for good.
async fn note_enrolled_under(
    connection: &mut SqliteConnection,
    wallet: WalletId,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR IGNORE INTO enrolled_under (paillier_key, wallet) VALUES (?, ?)")
        .bind(key.as_bytes().as_slice())
        .bind(wallet.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Stores a key unless it is known; whether it was not.
async fn insert_key(
    connection: &mut SqliteConnection,
    id: PaillierKeyId,
    scope: &PaillierScope,
    record: &SealedRecord,
    state: PaillierState,
    now_ms: u64,
) -> Result<bool, sqlx::Error> {
    // Never over an existing key: its state, a lock perhaps, must survive a repetition.
    let inserted = sqlx::query(
        "INSERT OR IGNORE INTO paillier_keys (id, scope, state, sequence, created_at_ms)
         VALUES (?, ?, ?, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM paillier_keys), ?)",
    )
    .bind(id.as_bytes().as_slice())
    .bind(scope.to_string())
    .bind(state_number(state))
    .bind(integer(now_ms))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
    write_record(connection, &label, record).await?;
    raise_generation(connection, 0).await?;
    Ok(true)
}

/// Notes that a wallet has agreed with a responder, or has none to agree with.
async fn mark_enrolled(connection: &mut SqliteConnection, wallet: WalletId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE wallets SET enrolled = 1 WHERE id = ? AND enrolled = 0")
        .bind(wallet.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
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
        if !insert_key(&mut transaction, id, scope, record, state, now_ms).await.map_err(&failed)? {
            return Ok(());
        }
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        self.record_generation().await
    }

    async fn put_first_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<PaillierKeyRow, StoreError> {
        let failed = unavailable("store a first Paillier key");
        let mut transaction = self.write("store a first Paillier key").await?;
        let name = scope.to_string();
        let known = sqlx::query(
            "SELECT * FROM paillier_keys WHERE scope = ? AND removed_at_ms IS NULL
             ORDER BY sequence DESC LIMIT 1",
        )
        .bind(&name)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(&failed)?;
        if let Some(row) = known {
            return paillier_row(&row);
        }
        let state = PaillierState::Ready;
        if insert_key(&mut transaction, id, scope, record, state, now_ms).await.map_err(&failed)? {
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(&failed)?;
        self.record_generation().await?;
        Ok(PaillierKeyRow { id, scope: name, state })
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
             WHERE removed_at_ms IS NULL AND superseded_at_ms + ?1 <= ?2
             AND NOT EXISTS (SELECT 1 FROM pending_verdicts WHERE paillier_key = paillier_keys.id)
             AND NOT EXISTS (
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
        let failed = unavailable("note an offer");
        let mut transaction = self.write("note an offer").await?;
        sqlx::query(
            "INSERT INTO own_enrolments (wallet, responder, offered) VALUES (?, ?, ?)
             ON CONFLICT (wallet, responder) DO UPDATE SET offered = excluded.offered",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(responder.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        note_enrolled_under(&mut transaction, wallet, key).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        let failed = unavailable("note an agreement");
        let mut transaction = self.write("note an agreement").await?;
        // A worker that was slow does not bring an older key back.
        sqlx::query(
            "INSERT INTO own_enrolments AS own (wallet, responder, agreed) VALUES (?1, ?2, ?3)
             ON CONFLICT (wallet, responder) DO UPDATE SET
               agreed = CASE WHEN (SELECT sequence FROM paillier_keys WHERE id = own.agreed)
                                > (SELECT sequence FROM paillier_keys WHERE id = excluded.agreed)
                             THEN own.agreed ELSE excluded.agreed END,
               offered = CASE WHEN own.offered = excluded.agreed THEN NULL ELSE own.offered END",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(responder.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        note_enrolled_under(&mut transaction, wallet, key).await.map_err(&failed)?;
        mark_enrolled(&mut transaction, wallet).await.map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)
    }

    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError> {
        let failed = unavailable("waive an enrolment");
        let mut connection = self.writer.acquire().await.map_err(&failed)?;
        mark_enrolled(&mut connection, wallet).await.map_err(&failed)
    }

    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError> {
        sqlx::query("SELECT agreed, offered FROM own_enrolments WHERE wallet = ? AND responder = ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(responder.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read an agreement"))?
            .map_or(Ok(OwnEnrolment::default()), |row| own_enrolment(&row))
    }

    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError> {
        sqlx::query(
            "SELECT id FROM wallets WHERE commit_ack IS NOT NULL AND enrolled = 0 AND share_index = ?
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

    async fn lock_paillier_key(&self, lock: &Lock) -> Result<LockOutcome, StoreError> {
        let lock = UnwrittenLock { lock: lock.clone(), entry: self.noted.clone() };
        let store = self.clone();
        self.health.lock(lock, |lock| async move { store.try_lock(&lock).await }).await
    }

    async fn release_verdict(&self, key: PaillierKeyId, session: SessionId) -> Result<Gate, StoreError> {
        self.health.require_ready()?;
        let failed = unavailable("release a verdict");
        let row = async {
            // Takes the write lock: whatever lock is being written is written before or after this.
            // The flush that ends it is the one that a lock waits for as well: where a bad verdict
            // cannot be written, no good one leaves.
            let mut transaction = self.write("release a verdict").await?;
            let row = sqlx::query(
                "UPDATE paillier_keys SET verdicts = verdicts + (state = ?1) WHERE id = ?2 RETURNING *",
            )
            .bind(state_number(PaillierState::Ready))
            .bind(key.as_bytes().as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
            remove_pending(&mut transaction, session).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            Ok(row)
        };
        let row = self.health.judge(row.await)?;
        // A lock may have failed to be written between the first look and the transaction.
        self.health.require_ready()?;
        match row.as_ref().map(paillier_row).transpose()?.map(|row| row.state) {
            Some(PaillierState::Ready) => Ok(Gate::Open),
            Some(state) => Ok(Gate::Closed(state)),
            None => Err(StoreError::Corrupt("a Paillier key vanished")),
        }
    }

    async fn standing(&self, card: CardFingerprint) -> Result<Standing, StoreError> {
        let mut connection = self.reader.acquire().await.map_err(unavailable("look for a card's locks"))?;
        standing_of(&mut connection, card).await
    }

    async fn culprits(&self) -> Result<Vec<Culprit>, StoreError> {
        sqlx::query(
            "SELECT blamed.card, COUNT(*) AS locks,
                    (SELECT COUNT(*) FROM accepted_culprits AS a WHERE a.card = blamed.card) AS accepted
             FROM (SELECT locked_card AS card FROM paillier_keys WHERE locked_card IS NOT NULL
                   UNION ALL SELECT DISTINCT card FROM suspects) AS blamed
             GROUP BY blamed.card ORDER BY blamed.card",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list culprits"))?
        .iter()
        .map(culprit)
        .collect()
    }

    async fn unblamed_locks(&self) -> Result<Vec<UnblamedLock>, StoreError> {
        sqlx::query(
            "SELECT id, scope, locked_evidence FROM paillier_keys
             WHERE state = ? AND locked_card IS NULL AND scope LIKE 'wallet/%'
               AND NOT EXISTS (SELECT 1 FROM suspects WHERE paillier_key = id)
             ORDER BY sequence",
        )
        .bind(state_number(PaillierState::Locked))
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list locks that blame no card"))?
        .iter()
        .map(unblamed_lock)
        .collect()
    }

    async fn blame(&self, key: PaillierKeyId, cards: &[CardFingerprint]) -> Result<(), StoreError> {
        let failed = unavailable("blame a card for a lock");
        let mut transaction = self.write("blame a card for a lock").await?;
        let statement = match cards {
            [_] => {
                "UPDATE paillier_keys SET locked_card = ?2
                 WHERE id = ?1 AND state = ?3 AND locked_card IS NULL"
            }
            _ => {
                "INSERT OR IGNORE INTO suspects (paillier_key, card)
                 SELECT id, ?2 FROM paillier_keys WHERE id = ?1 AND state = ?3 AND locked_card IS NULL"
            }
        };
        for card in cards {
            sqlx::query(statement)
                .bind(key.as_bytes().as_slice())
                .bind(card.as_bytes().as_slice())
                .bind(state_number(PaillierState::Locked))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }

    async fn accept_culprit(&self, card: CardFingerprint, now_ms: u64) -> Result<Standing, StoreError> {
        let failed = unavailable("accept a culprit");
        let mut transaction = self.write("accept a culprit").await?;
        let standing = standing_of(&mut transaction, card).await?;
        // Never ahead of the first lock, and never after the second.
        if standing.locks != 1 || standing.is_accepted {
            return Ok(standing);
        }
        sqlx::query("INSERT INTO accepted_culprits (card, accepted_at_ms) VALUES (?, ?)")
            .bind(card.as_bytes().as_slice())
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(Standing { is_accepted: true, ..standing })
    }

    async fn losses(&self, wallet: WalletId) -> Result<Vec<u64>, StoreError> {
        sqlx::query(
            "SELECT verdicts FROM paillier_keys JOIN enrolled_under ON paillier_key = id
             WHERE wallet = ? AND state = ? ORDER BY sequence",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(state_number(PaillierState::Locked))
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list a wallet's locks"))?
        .iter()
        .map(|row| number(row, "verdicts"))
        .collect()
    }

    async fn failed_wallets(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        sqlx::query(
            "SELECT * FROM wallets WHERE commit_ack IS NOT NULL AND failures > 0
             ORDER BY failures DESC, id LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list wallets with failures"))?
        .iter()
        .map(wallet_row)
        .collect()
    }
}

impl SqliteStore {
    /// Commits what was decided of a session; with what is new go its charge to the limits and its
    /// record.
    async fn commit_decision(
        &self,
        mut transaction: Transaction<'_, Sqlite>,
        new: bool,
        failed: impl Fn(sqlx::Error) -> StoreError,
    ) -> Result<bool, StoreError> {
        if new {
            self.charge_limits(&mut transaction).await?;
            self.count_answer(&mut transaction).await?;
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(new)
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
        let decided = async {
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
            self.commit_decision(transaction, new, failed).await
        };
        self.health.judge(decided.await)
    }

    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        let decided = async {
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
            self.commit_decision(transaction, new, failed).await
        };
        self.health.judge(decided.await)
    }

    async fn revoke_request(&self, revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError> {
        let failed = unavailable("keep a revocation");
        let mut transaction = self.write("keep a revocation").await?;
        sqlx::query("DELETE FROM revocations WHERE wallet = ? AND expires_at_ms <= ?")
            .bind(revoked.wallet.as_bytes().as_slice())
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM revocations WHERE wallet = ?")
            .bind(revoked.wallet.as_bytes().as_slice())
            .fetch_one(&mut *transaction)
            .await
            .map_err(&failed)?;
        if kept >= MAX_REVOCATIONS {
            return Ok(Revoked::Full);
        }
        let is_new = sqlx::query(
            "INSERT OR IGNORE INTO revocations (wallet, request, revoked_by, expires_at_ms) VALUES (?, ?, ?, ?)",
        )
        .bind(revoked.wallet.as_bytes().as_slice())
        .bind(revoked.request.as_slice())
        .bind(revoked.by.as_slice())
        .bind(integer(revoked.expires_at_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected()
            == 1;
        if is_new {
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(if is_new { Revoked::Now } else { Revoked::Before })
    }

    async fn request_facts(&self, wallet: WalletId, request: [u8; 32]) -> Result<RequestFacts, StoreError> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM revocations WHERE wallet = ? AND request = ?) AS is_revoked,
               (SELECT value FROM settings WHERE name = ?) AS restored_at",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(request.as_slice())
        .bind(RESTORED_AT)
        .fetch_one(&self.reader)
        .await
        .map_err(unavailable("read what bears on a request"))?;
        request_facts(&row)
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

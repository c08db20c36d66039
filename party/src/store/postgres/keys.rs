//! Paillier keys, whom they are agreed with, their locks; sessions and charges.

use async_trait::async_trait;
use duet_protocol::{
    ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
    transcript::sha256,
};
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::{
    AdvisoryLock, PostgresStore, remove_record,
    rows::{remove_pending, remove_pending_of_key},
    within, write_record,
};
use crate::{
    at_rest::{RecordKind, RecordLabel, SealedRecord},
    store::{
        Charge, Culprit, Gate, KeyStore, Lock, LockOutcome, MAX_REVOCATIONS, OwnEnrolment, PaillierKeyRow,
        PaillierScope, PaillierState, RESTORED_AT, RequestFacts, Revoked, RevokedRequest, SUPERSEDED_FOR_MS,
        SessionStore, Standing, StoreError, UnblamedLock, WalletRow,
        columns::{
            bytes, culprit, integer, number, own_enrolment, paillier_row, paillier_state, request_facts,
            standing, state_number, unavailable, unblamed_lock, wallet_row,
        },
        health::UnwrittenLock,
    },
};

/// Locks a key in the transaction it is given, and destroys it.
pub(super) async fn write_lock(
    connection: &mut PgConnection,
    lock: &Lock,
) -> Result<LockOutcome, sqlx::Error> {
    let changed = sqlx::query(
        "UPDATE paillier_keys
         SET state = $1, locked_session = $2, locked_evidence = $3, locked_at_ms = $4,
           locked_card = CASE WHEN $6::BYTEA IS NULL AND scope LIKE 'responder/%'
                              THEN decode(substr(scope, 11, 64), 'hex') ELSE $6 END
         WHERE id = $5 AND state <> $1",
    )
    .bind(state_number(PaillierState::Locked))
    .bind(lock.session.as_bytes().as_slice())
    .bind(lock.evidence.as_slice())
    .bind(integer(lock.at_ms))
    .bind(lock.key.as_bytes().as_slice())
    .bind(lock.card.as_ref().map(|card| card.as_bytes().as_slice()))
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
    Ok(LockOutcome::Locked)
}

/// Removes a locked key, and what is pending under it.
pub(super) async fn destroy_key(
    connection: &mut PgConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    remove_pending_of_key(connection, key).await?;
    remove_record(connection, &RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes())).await
}

/// Counts the lock of a key for every wallet that was ever enrolled under it.
pub(super) async fn count_failure(
    connection: &mut PgConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    // In the order of their ids, so that two locks at once do not wait for each other.
    sqlx::query(
        "UPDATE wallets SET failures = failures + 1 WHERE id IN (
           SELECT id FROM wallets WHERE id IN (SELECT wallet FROM enrolled_under WHERE paillier_key = $1)
           ORDER BY id FOR UPDATE)",
    )
    .bind(key.as_bytes().as_slice())
    .execute(connection)
    .await
    .map(drop)
}

/// What this party thinks of a card, in the transaction it is given.
pub(super) async fn standing_of(
    connection: &mut PgConnection,
    card: CardFingerprint,
) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM paillier_keys WHERE locked_card = $1)
                  + EXISTS (SELECT 1 FROM suspects WHERE card = $1)::INT AS locks,
                (SELECT COUNT(*) FROM accepted_culprits WHERE card = $1) AS accepted",
    )
    .bind(card.as_bytes().as_slice())
    .fetch_one(connection)
    .await
    .map_err(unavailable("look for a card's locks"))?;
    standing(&row)
}

/// That a responder may have a wallet's share encrypted under a key, for good.
async fn note_enrolled_under(
    connection: &mut PgConnection,
    wallet: WalletId,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO enrolled_under (paillier_key, wallet) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(key.as_bytes().as_slice())
        .bind(wallet.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Stores a key unless it is known; whether it was not.
async fn insert_key(
    connection: &mut PgConnection,
    id: PaillierKeyId,
    scope: &PaillierScope,
    record: &SealedRecord,
    state: PaillierState,
    now_ms: u64,
) -> Result<bool, sqlx::Error> {
    // Never over an existing key: its state, a lock perhaps, must survive a repetition.
    let inserted = sqlx::query(
        "INSERT INTO paillier_keys (id, scope, state, created_at_ms) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(id.as_bytes().as_slice())
    .bind(scope.to_string())
    .bind(state_number(state))
    .bind(integer(now_ms))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if inserted == 1 {
        let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
        write_record(connection, &label, record).await?;
    }
    Ok(inserted == 1)
}

/// Deletes the keys that nothing uses any more, and says which.
async fn remove_superseded(
    connection: &mut PgConnection,
    now_ms: u64,
) -> Result<Vec<PaillierKeyId>, StoreError> {
    let failed = unavailable("remove superseded Paillier keys");
    const UNUSED: &str = "EXISTS (SELECT 1 FROM paillier_keys AS newer
            WHERE newer.scope = paillier_keys.scope AND newer.sequence > paillier_keys.sequence)
         AND NOT EXISTS (SELECT 1 FROM own_enrolments WHERE agreed = paillier_keys.id)
         AND NOT EXISTS (SELECT 1 FROM own_enrolments WHERE offered = paillier_keys.id)";
    // Nothing is written where nothing changes.
    let superseded = format!(
        "UPDATE paillier_keys SET superseded_at_ms = $1
         WHERE removed_at_ms IS NULL AND superseded_at_ms IS NULL AND {UNUSED}"
    );
    sqlx::query(sqlx::AssertSqlSafe(superseded))
        .bind(integer(now_ms))
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    let used_again = format!(
        "UPDATE paillier_keys SET superseded_at_ms = NULL
         WHERE removed_at_ms IS NULL AND superseded_at_ms IS NOT NULL AND NOT ({UNUSED})"
    );
    sqlx::query(sqlx::AssertSqlSafe(used_again)).execute(&mut *connection).await.map_err(&failed)?;
    let removable = sqlx::query(
        "SELECT id FROM paillier_keys
         WHERE removed_at_ms IS NULL AND superseded_at_ms <= $2 - $1
         AND NOT EXISTS (SELECT 1 FROM pending_verdicts WHERE paillier_key = paillier_keys.id)
         AND NOT EXISTS (
           SELECT 1 FROM sessions
           WHERE claimed_at_ms <= paillier_keys.superseded_at_ms + $1 AND expires_at_ms > $2)",
    )
    .bind(integer(SUPERSEDED_FOR_MS))
    .bind(integer(now_ms))
    .fetch_all(&mut *connection)
    .await
    .map_err(&failed)?
    .iter()
    .map(|row| bytes(row, "id").map(PaillierKeyId))
    .collect::<Result<Vec<_>, _>>()?;
    for id in &removable {
        let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
        remove_record(connection, &label).await.map_err(&failed)?;
        // The row stays, with its lock: the key cannot be brought back as a new one.
        sqlx::query("UPDATE paillier_keys SET removed_at_ms = $1 WHERE id = $2")
            .bind(integer(now_ms))
            .bind(id.as_bytes().as_slice())
            .execute(&mut *connection)
            .await
            .map_err(&failed)?;
    }
    Ok(removable)
}

/// Claims a session, unless it was claimed before.
fn claim(
    query: &mut QueryBuilder<Postgres>,
    session: SessionId,
    wallet: WalletId,
    expires_at_ms: u64,
    now_ms: u64,
) {
    query.push("INSERT INTO sessions (id, wallet, claimed_at_ms, expires_at_ms) VALUES (");
    query
        .separated(", ")
        .push_bind(session.as_bytes().to_vec())
        .push_bind(wallet.as_bytes().to_vec())
        .push_bind(integer(now_ms))
        .push_bind(integer(expires_at_ms));
    query.push(") ON CONFLICT (id) DO NOTHING");
}

/// Writes a charge, unless the session was charged before.
fn charge(query: &mut QueryBuilder<Postgres>, charge: &Charge) {
    query.push("INSERT INTO charges (session, wallet, digest, charged_at_ms) VALUES (");
    query
        .separated(", ")
        .push_bind(charge.session.as_bytes().to_vec())
        .push_bind(charge.wallet.as_bytes().to_vec())
        .push_bind(charge.digest.to_vec())
        .push_bind(integer(charge.charged_at_ms));
    query.push(") ON CONFLICT (session) DO NOTHING");
}

/// Notes an agreement and that the wallet has one.
async fn write_agreement(
    connection: &mut PgConnection,
    wallet: WalletId,
    responder: &PartyId,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    // A worker that was slow does not bring an older key back.
    sqlx::query(
        "INSERT INTO own_enrolments AS own (wallet, responder, agreed) VALUES ($1, $2, $3)
         ON CONFLICT (wallet, responder) DO UPDATE SET
           agreed = CASE WHEN (SELECT sequence FROM paillier_keys WHERE id = own.agreed)
                            > (SELECT sequence FROM paillier_keys WHERE id = excluded.agreed)
                         THEN own.agreed ELSE excluded.agreed END,
           offered = CASE WHEN own.offered = excluded.agreed THEN NULL ELSE own.offered END",
    )
    .bind(wallet.as_bytes().as_slice())
    .bind(responder.as_str())
    .bind(key.as_bytes().as_slice())
    .execute(&mut *connection)
    .await?;
    note_enrolled_under(connection, wallet, key).await?;
    mark_enrolled(connection, wallet).await
}

async fn mark_enrolled(connection: &mut PgConnection, wallet: WalletId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE wallets SET enrolled = 1 WHERE id = $1 AND enrolled = 0")
        .bind(wallet.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn put_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store a Paillier key";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            if insert_key(&mut transaction, id, scope, record, state, now_ms).await.map_err(&failed)? {
                self.append_noted(&mut transaction).await?;
            }
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn put_first_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<PaillierKeyRow, StoreError> {
        const OPERATION: &str = "store a first Paillier key";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let name = scope.to_string();
            AdvisoryLock::Scope.take(&mut transaction, &sha256(name.as_bytes())).await.map_err(&failed)?;
            let known = sqlx::query(
                "SELECT * FROM paillier_keys WHERE scope = $1 AND removed_at_ms IS NULL
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
            Ok(PaillierKeyRow { id, scope: name, state })
        })
        .await
    }

    async fn paillier_key(&self, id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError> {
        const OPERATION: &str = "read a Paillier key";
        within(OPERATION, async {
            sqlx::query("SELECT * FROM paillier_keys WHERE id = $1 AND removed_at_ms IS NULL")
                .bind(id.as_bytes().as_slice())
                .fetch_optional(&self.pool)
                .await
                .map_err(unavailable(OPERATION))?
                .as_ref()
                .map(paillier_row)
                .transpose()
        })
        .await
    }

    async fn paillier_keys(&self, scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError> {
        sqlx::query(
            "SELECT * FROM paillier_keys WHERE scope = $1 AND removed_at_ms IS NULL ORDER BY sequence DESC",
        )
        .bind(scope.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable("list Paillier keys"))?
        .iter()
        .map(paillier_row)
        .collect()
    }

    async fn all_paillier_keys(&self) -> Result<Vec<PaillierKeyRow>, StoreError> {
        sqlx::query("SELECT * FROM paillier_keys WHERE removed_at_ms IS NULL ORDER BY sequence DESC")
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable("list Paillier keys"))?
            .iter()
            .map(paillier_row)
            .collect()
    }

    async fn remove_superseded_keys(&self, now_ms: u64) -> Result<Vec<PaillierKeyId>, StoreError> {
        const OPERATION: &str = "remove superseded Paillier keys";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            if !AdvisoryLock::House.try_take(&mut transaction).await.map_err(&failed)? {
                // Another worker is at it.
                return Ok(Vec::new());
            }
            let removed = remove_superseded(&mut transaction, now_ms).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(removed)
        })
        .await
    }

    async fn offer_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note an offer";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            sqlx::query(
                "INSERT INTO own_enrolments (wallet, responder, offered) VALUES ($1, $2, $3)
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
        })
        .await
    }

    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note an agreement";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            write_agreement(&mut transaction, wallet, responder, key).await.map_err(&failed)?;
            self.append_noted(&mut transaction).await?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError> {
        let failed = unavailable("waive an enrolment");
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        mark_enrolled(&mut connection, wallet).await.map_err(&failed)
    }

    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError> {
        const OPERATION: &str = "read an agreement";
        within(OPERATION, async {
            sqlx::query("SELECT agreed, offered FROM own_enrolments WHERE wallet = $1 AND responder = $2")
                .bind(wallet.as_bytes().as_slice())
                .bind(responder.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(unavailable(OPERATION))?
                .map_or(Ok(OwnEnrolment::default()), |row| own_enrolment(&row))
        })
        .await
    }

    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError> {
        sqlx::query(
            "SELECT id FROM wallets WHERE commit_ack IS NOT NULL AND enrolled = 0 AND share_index = $1
             ORDER BY committed_at_ms LIMIT $2",
        )
        .bind(i64::from(u8::from(index)))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
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
        const OPERATION: &str = "release a verdict";
        self.health.require_ready()?;
        let failed = unavailable(OPERATION);
        let row = within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let row = sqlx::query(
                "UPDATE paillier_keys SET verdicts = verdicts + CASE WHEN state = $1 THEN 1 ELSE 0 END
                 WHERE id = $2 RETURNING state",
            )
            .bind(state_number(PaillierState::Ready))
            .bind(key.as_bytes().as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
            remove_pending(&mut transaction, session).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            Ok(row)
        })
        .await;
        let row = self.health.judge(row)?;
        // A lock may have failed to be written between the first look and the transaction.
        self.health.require_ready()?;
        match row.as_ref().map(paillier_state).transpose()? {
            Some(PaillierState::Ready) => Ok(Gate::Open),
            Some(state) => Ok(Gate::Closed(state)),
            None => Err(StoreError::Corrupt("a Paillier key vanished")),
        }
    }

    async fn standing(&self, card: CardFingerprint) -> Result<Standing, StoreError> {
        const OPERATION: &str = "look for a card's locks";
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            standing_of(&mut connection, card).await
        })
        .await
    }

    async fn culprits(&self) -> Result<Vec<Culprit>, StoreError> {
        sqlx::query(
            "SELECT blamed.card, COUNT(*) AS locks,
                    (SELECT COUNT(*) FROM accepted_culprits AS a WHERE a.card = blamed.card) AS accepted
             FROM (SELECT locked_card AS card FROM paillier_keys WHERE locked_card IS NOT NULL
                   UNION ALL SELECT DISTINCT card FROM suspects) AS blamed
             GROUP BY blamed.card ORDER BY blamed.card",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable("list culprits"))?
        .iter()
        .map(culprit)
        .collect()
    }

    async fn unblamed_locks(&self) -> Result<Vec<UnblamedLock>, StoreError> {
        const OPERATION: &str = "list locks that blame no card";
        within(OPERATION, async {
            sqlx::query(
                "SELECT id, scope, locked_evidence FROM paillier_keys
                 WHERE state = $1 AND locked_card IS NULL AND scope LIKE 'wallet/%'
                   AND NOT EXISTS (SELECT 1 FROM suspects WHERE paillier_key = id)
                 ORDER BY sequence",
            )
            .bind(state_number(PaillierState::Locked))
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?
            .iter()
            .map(unblamed_lock)
            .collect()
        })
        .await
    }

    async fn blame(&self, key: PaillierKeyId, cards: &[CardFingerprint]) -> Result<(), StoreError> {
        const OPERATION: &str = "blame a card for a lock";
        let statement = match cards {
            [_] => {
                "UPDATE paillier_keys SET locked_card = $2
                 WHERE id = $1 AND state = $3 AND locked_card IS NULL"
            }
            _ => {
                "INSERT INTO suspects (paillier_key, card)
                 SELECT id, $2 FROM paillier_keys WHERE id = $1 AND state = $3 AND locked_card IS NULL
                 ON CONFLICT DO NOTHING"
            }
        };
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
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
        })
        .await
    }

    async fn accept_culprit(&self, card: CardFingerprint, now_ms: u64) -> Result<Standing, StoreError> {
        const OPERATION: &str = "accept a culprit";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let standing = standing_of(&mut transaction, card).await?;
            // Never ahead of the first lock, and never after the second.
            if standing.locks != 1 || standing.is_accepted {
                return Ok(standing);
            }
            let new = sqlx::query(
                "INSERT INTO accepted_culprits (card, accepted_at_ms) VALUES ($1, $2)
                 ON CONFLICT (card) DO NOTHING",
            )
            .bind(card.as_bytes().as_slice())
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            if new.rows_affected() > 0 {
                self.append_noted(&mut transaction).await?;
            }
            // A lock that was written meanwhile counts: it is final.
            let standing = standing_of(&mut transaction, card).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(standing)
        })
        .await
    }

    async fn losses(&self, wallet: WalletId) -> Result<Vec<u64>, StoreError> {
        sqlx::query(
            "SELECT verdicts FROM paillier_keys JOIN enrolled_under ON paillier_key = id
             WHERE wallet = $1 AND state = $2 ORDER BY sequence",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(state_number(PaillierState::Locked))
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable("list a wallet's locks"))?
        .iter()
        .map(|row| number(row, "verdicts"))
        .collect()
    }

    async fn failed_wallets(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        sqlx::query(
            "SELECT * FROM wallets WHERE commit_ack IS NOT NULL AND failures > 0
             ORDER BY failures DESC, id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable("list wallets with failures"))?
        .iter()
        .map(wallet_row)
        .collect()
    }
}

#[async_trait]
impl SessionStore for PostgresStore {
    async fn claim_session(
        &self,
        session: SessionId,
        wallet: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "claim a session";
        let claim = |query: &mut QueryBuilder<Postgres>| claim(query, session, wallet, expires_at_ms, now_ms);
        self.health.judge(within(OPERATION, self.decide(OPERATION, claim)).await)
    }

    async fn charge(&self, charged: &Charge) -> Result<bool, StoreError> {
        const OPERATION: &str = "charge a signature";
        let charge = |query: &mut QueryBuilder<Postgres>| charge(query, charged);
        self.health.judge(within(OPERATION, self.decide(OPERATION, charge)).await)
    }

    async fn revoke_request(&self, revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError> {
        const OPERATION: &str = "keep a revocation";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            // A charge of the wallet comes before this or finds it.
            AdvisoryLock::Policy.take(&mut transaction, revoked.wallet.as_bytes()).await.map_err(&failed)?;
            sqlx::query("DELETE FROM revocations WHERE wallet = $1 AND expires_at_ms <= $2")
                .bind(revoked.wallet.as_bytes().as_slice())
                .bind(integer(now_ms))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM revocations WHERE wallet = $1")
                .bind(revoked.wallet.as_bytes().as_slice())
                .fetch_one(&mut *transaction)
                .await
                .map_err(&failed)?;
            if kept >= MAX_REVOCATIONS {
                return Ok(Revoked::Full);
            }
            let is_new = sqlx::query(
                "INSERT INTO revocations (wallet, request, revoked_by, expires_at_ms) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (wallet, request) DO NOTHING",
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
        })
        .await
    }

    async fn request_facts(&self, wallet: WalletId, request: [u8; 32]) -> Result<RequestFacts, StoreError> {
        const OPERATION: &str = "read what bears on a request";
        within(OPERATION, async {
            let row = sqlx::query(
                "SELECT CAST((SELECT COUNT(*) FROM revocations WHERE wallet = $1 AND request = $2) AS BIGINT)
                   AS is_revoked, (SELECT value FROM settings WHERE name = $3) AS restored_at",
            )
            .bind(wallet.as_bytes().as_slice())
            .bind(request.as_slice())
            .bind(RESTORED_AT)
            .fetch_one(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?;
            request_facts(&row)
        })
        .await
    }

    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError> {
        const OPERATION: &str = "count charges";
        let count: i64 = within(OPERATION, async {
            sqlx::query_scalar("SELECT COUNT(*) FROM charges WHERE wallet = $1 AND digest = $2")
                .bind(wallet.as_bytes().as_slice())
                .bind(digest.as_slice())
                .fetch_one(&self.pool)
                .await
                .map_err(unavailable(OPERATION))
        })
        .await?;
        u64::try_from(count).map_err(|_| StoreError::Corrupt("a negative count"))
    }
}

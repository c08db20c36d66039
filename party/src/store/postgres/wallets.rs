//! Wallets, pins, the enrolments of their initiators, unfinished key generations.

use std::collections::BTreeMap;

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PartyId, WalletId};
use sqlx::{PgConnection, Row as _};

use super::{AdvisoryLock, PostgresStore, remove_record, within, write_record};
use crate::{
    at_rest::{RecordKind, SealedRecord},
    store::{
        CommitOutcome, DealRow, EnrolmentRow, NewWallet, PinOutcome, PrepareOutcome, SESSIONS_KEPT_FOR_MS,
        StoreError, WalletRow, WalletStore,
        columns::{bytes, deal_row, enrolment_row, integer, unavailable, wallet_row},
        deal_label, enrolment_label,
        pending::ANSWERS_KEPT_FOR_MS,
    },
};

async fn write_enrolment(
    connection: &mut PgConnection,
    row: &EnrolmentRow,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO enrolments (wallet, initiator, paillier_key, epoch, added_at_ms)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (wallet, initiator, paillier_key)
         DO UPDATE SET sequence = excluded.sequence, epoch = excluded.epoch",
    )
    .bind(row.wallet.as_bytes().as_slice())
    .bind(i64::from(u8::from(row.initiator)))
    .bind(row.paillier_key.as_bytes().as_slice())
    .bind(i64::from(row.epoch.0))
    .bind(integer(now_ms))
    .execute(connection)
    .await
    .map(drop)
}

async fn read_wallet(connection: &mut PgConnection, id: WalletId) -> Result<Option<WalletRow>, StoreError> {
    sqlx::query("SELECT * FROM wallets WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(connection)
        .await
        .map_err(unavailable("read a wallet"))?
        .as_ref()
        .map(wallet_row)
        .transpose()
}

/// Stores a wallet that is not there, with its records and enrolments.
async fn insert_wallet(connection: &mut PgConnection, wallet: &NewWallet) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO wallets (id, epoch, share_index, tenant, public_key, package_hash, receipt, token, prepared_at_ms, expires_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(wallet.id.as_bytes().as_slice())
    .bind(i64::from(wallet.epoch.0))
    .bind(i64::from(u8::from(wallet.index)))
    .bind(wallet.tenant.as_str())
    .bind(wallet.public_key.as_slice())
    .bind(wallet.package_hash.as_slice())
    .bind(wallet.receipt.as_slice())
    .bind(wallet.admission.map(|admission| admission.token.to_vec()))
    .bind(integer(wallet.prepared_at_ms))
    .bind(integer(wallet.expires_at_ms))
    .execute(&mut *connection)
    .await?;
    for (label, record) in &wallet.records {
        write_record(connection, label, record).await?;
    }
    for enrolment in &wallet.enrolments {
        write_enrolment(connection, enrolment, wallet.prepared_at_ms).await?;
    }
    Ok(())
}

/// Prepares a wallet in the transaction it is given.
async fn prepare(connection: &mut PgConnection, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
    let failed = unavailable("prepare a wallet");
    // Always the wallet's lock before the key's, and that before the token's, so that no
    // transactions wait in a circle.
    AdvisoryLock::Wallet.take(connection, wallet.id.as_bytes()).await.map_err(&failed)?;
    if let Some(row) = read_wallet(connection, wallet.id).await? {
        return Ok(if row.package_hash == wallet.package_hash {
            PrepareOutcome::Already(row)
        } else {
            PrepareOutcome::Conflict
        });
    }
    AdvisoryLock::PublicKey.take(connection, &wallet.public_key).await.map_err(&failed)?;
    let is_taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM wallets WHERE public_key = $1)")
        .bind(wallet.public_key.as_slice())
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    if is_taken {
        return Ok(PrepareOutcome::SameKey);
    }
    if let Some(admission) = wallet.admission {
        AdvisoryLock::Token.take(connection, &admission.token).await.map_err(&failed)?;
        let used: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM wallets WHERE token = $1")
            .bind(admission.token.as_slice())
            .fetch_one(&mut *connection)
            .await
            .map_err(&failed)?;
        if used >= i64::from(admission.max_wallets) {
            return Ok(PrepareOutcome::QuotaExceeded);
        }
    }
    insert_wallet(connection, wallet).await.map_err(&failed)?;
    Ok(PrepareOutcome::Prepared)
}

async fn mark_committed(
    connection: &mut PgConnection,
    id: WalletId,
    commit_ack: &[u8],
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE wallets SET commit_ack = $1, committed_at_ms = $2, enrolled =
           (SELECT COUNT(*) FROM (SELECT 1 FROM own_enrolments WHERE wallet = $3 AND agreed IS NOT NULL LIMIT 1) AS any_of)
         WHERE id = $3",
    )
    .bind(commit_ack)
    .bind(integer(now_ms))
    .bind(id.as_bytes().as_slice())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM records WHERE wallet = $1 AND kind = $2")
        .bind(id.as_bytes().as_slice())
        .bind(RecordKind::Prepared as i64)
        .execute(connection)
        .await
        .map(drop)
}

/// Commits a wallet in the transaction it is given.
async fn commit(
    connection: &mut PgConnection,
    id: WalletId,
    commit_ack: &[u8],
    now_ms: u64,
) -> Result<CommitOutcome, StoreError> {
    let failed = unavailable("commit a wallet");
    let row = sqlx::query("SELECT * FROM wallets WHERE id = $1 FOR UPDATE")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut *connection)
        .await
        .map_err(&failed)?;
    match row.as_ref().map(wallet_row).transpose()? {
        None => return Ok(CommitOutcome::Unknown),
        Some(WalletRow { commit_ack: Some(ack), .. }) => return Ok(CommitOutcome::Already(ack)),
        Some(WalletRow { commit_ack: None, .. }) => {}
    }
    mark_committed(connection, id, commit_ack, now_ms).await.map_err(&failed)?;
    Ok(CommitOutcome::Committed)
}

/// Forgets what expired; how many wallets.
async fn expire(connection: &mut PgConnection, now_ms: u64) -> Result<u64, StoreError> {
    let failed = unavailable("expire prepared wallets");
    // A wallet that is being committed at this moment is not expired.
    let expired = sqlx::query(
        "SELECT id FROM wallets WHERE commit_ack IS NULL AND expires_at_ms <= $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(integer(now_ms))
    .fetch_all(&mut *connection)
    .await
    .map_err(&failed)?;
    for row in &expired {
        let id: [u8; 32] = bytes(row, "id")?;
        for statement in [
            "DELETE FROM records WHERE wallet = $1",
            "DELETE FROM enrolments WHERE wallet = $1",
            "DELETE FROM wallets WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id.as_slice()).execute(&mut *connection).await.map_err(&failed)?;
        }
    }
    // Expired manifests are refused before their session id is looked at.
    sqlx::query("DELETE FROM sessions WHERE expires_at_ms <= $1")
        .bind(integer(now_ms).saturating_sub(SESSIONS_KEPT_FOR_MS))
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    // Expired requests are refused before their answers are counted.
    sqlx::query("DELETE FROM answers WHERE expires_at_ms <= $1")
        .bind(integer(now_ms).saturating_sub(ANSWERS_KEPT_FOR_MS))
        .execute(connection)
        .await
        .map_err(&failed)?;
    Ok(expired.len() as u64)
}

/// Stores an enrolment and forgets all of its initiator but the newest two.
async fn replace_enrolment(
    connection: &mut PgConnection,
    row: &EnrolmentRow,
    record: &SealedRecord,
    now_ms: u64,
) -> Result<(), StoreError> {
    let failed = unavailable("store an enrolment");
    AdvisoryLock::Wallet.take(connection, row.wallet.as_bytes()).await.map_err(&failed)?;
    write_record(connection, &enrolment_label(row), record).await.map_err(&failed)?;
    write_enrolment(connection, row, now_ms).await.map_err(&failed)?;
    let superseded = sqlx::query(
        "SELECT * FROM enrolments WHERE wallet = $1 AND initiator = $2 ORDER BY sequence DESC OFFSET 2",
    )
    .bind(row.wallet.as_bytes().as_slice())
    .bind(i64::from(u8::from(row.initiator)))
    .fetch_all(&mut *connection)
    .await
    .map_err(&failed)?;
    for old in &superseded {
        let old = enrolment_row(old)?;
        remove_record(connection, &enrolment_label(&old)).await.map_err(&failed)?;
        sqlx::query("DELETE FROM enrolments WHERE wallet = $1 AND initiator = $2 AND paillier_key = $3")
            .bind(old.wallet.as_bytes().as_slice())
            .bind(i64::from(u8::from(old.initiator)))
            .bind(old.paillier_key.as_bytes().as_slice())
            .execute(&mut *connection)
            .await
            .map_err(&failed)?;
    }
    Ok(())
}

#[async_trait]
impl WalletStore for PostgresStore {
    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError> {
        const OPERATION: &str = "pin a card";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let pinned =
                sqlx::query("INSERT INTO pins (party, card) VALUES ($1, $2) ON CONFLICT (party) DO NOTHING")
                    .bind(party.as_str())
                    .bind(card.as_bytes().as_slice())
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?
                    .rows_affected();
            if pinned == 1 {
                self.append_noted(&mut transaction).await?;
                transaction.commit().await.map_err(&failed)?;
                return Ok(PinOutcome::Pinned);
            }
            // Pins are never removed.
            let row = sqlx::query("SELECT card FROM pins WHERE party = $1")
                .bind(party.as_str())
                .fetch_one(&mut *transaction)
                .await
                .map_err(&failed)?;
            let pinned = CardFingerprint(bytes(&row, "card")?);
            Ok(if pinned == card { PinOutcome::Same } else { PinOutcome::Different(pinned) })
        })
        .await
    }

    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError> {
        sqlx::query("SELECT card FROM pins WHERE party = $1")
            .bind(party.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable("read a pin"))?
            .map(|row| bytes(&row, "card").map(CardFingerprint))
            .transpose()
    }

    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError> {
        let failed = unavailable("list pins");
        sqlx::query("SELECT party, card FROM pins")
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?
            .iter()
            .map(|row| {
                let party: String = row.try_get("party").map_err(&failed)?;
                let party = party.parse().map_err(|_| StoreError::Corrupt("not a party's name"))?;
                Ok((party, CardFingerprint(bytes(row, "card")?)))
            })
            .collect()
    }

    async fn wallets_without_public_key(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        const OPERATION: &str = "list wallets";
        within(OPERATION, async {
            sqlx::query("SELECT * FROM wallets WHERE public_key IS NULL ORDER BY id LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable(OPERATION))?
                .iter()
                .map(wallet_row)
                .collect()
        })
        .await
    }

    async fn note_public_key(&self, id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError> {
        const OPERATION: &str = "note a public key";
        within(OPERATION, async {
            sqlx::query("UPDATE wallets SET public_key = $1 WHERE id = $2 AND public_key IS NULL")
                .bind(public_key.as_slice())
                .bind(id.as_bytes().as_slice())
                .execute(&self.pool)
                .await
                .map(drop)
                .map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
        const OPERATION: &str = "prepare a wallet";
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = prepare(&mut transaction, wallet).await?;
            if outcome == PrepareOutcome::Prepared {
                self.append_noted(&mut transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError> {
        const OPERATION: &str = "commit a wallet";
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = commit(&mut transaction, id, commit_ack, now_ms).await?;
            if outcome == CommitOutcome::Committed {
                self.append_noted(&mut transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError> {
        const OPERATION: &str = "read a wallet";
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            read_wallet(&mut connection, id).await
        })
        .await
    }

    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        sqlx::query("SELECT * FROM wallets WHERE commit_ack IS NOT NULL AND id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable("list wallets"))?
            .iter()
            .map(wallet_row)
            .collect()
    }

    async fn count_wallets(&self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM wallets WHERE commit_ack IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(unavailable("count wallets"))?;
        u64::try_from(count).map_err(|_| StoreError::Corrupt("a negative count"))
    }

    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError> {
        const OPERATION: &str = "expire prepared wallets";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            if !AdvisoryLock::House.try_take(&mut transaction).await.map_err(&failed)? {
                // Another worker is at it.
                return Ok(0);
            }
            let expired = expire(&mut transaction, now_ms).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(expired)
        })
        .await
    }

    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store an enrolment";
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            replace_enrolment(&mut transaction, row, record, now_ms).await?;
            self.append_noted(&mut transaction).await?;
            transaction.commit().await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError> {
        const OPERATION: &str = "list enrolments";
        within(OPERATION, async {
            sqlx::query("SELECT * FROM enrolments WHERE wallet = $1 ORDER BY sequence DESC")
                .bind(wallet.as_bytes().as_slice())
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable(OPERATION))?
                .iter()
                .map(enrolment_row)
                .collect()
        })
        .await
    }

    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError> {
        let failed = unavailable("store a key generation");
        let mut transaction = self.begin("store a key generation").await?;
        write_record(&mut transaction, &deal_label(wallet), record).await.map_err(&failed)?;
        sqlx::query(
            "INSERT INTO deals (wallet, created_at_ms) VALUES ($1, $2) ON CONFLICT (wallet) DO NOTHING",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(integer(now_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn deals(&self) -> Result<Vec<DealRow>, StoreError> {
        sqlx::query("SELECT wallet, restored FROM deals ORDER BY created_at_ms")
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable("list key generations"))?
            .iter()
            .map(deal_row)
            .collect()
    }

    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError> {
        let failed = unavailable("forget a key generation");
        let mut transaction = self.begin("forget a key generation").await?;
        remove_record(&mut transaction, &deal_label(wallet)).await.map_err(&failed)?;
        sqlx::query("DELETE FROM deals WHERE wallet = $1")
            .bind(wallet.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }
}

#[cfg(any(test, feature = "test-hooks"))]
impl PostgresStore {
    /// Stores committed wallets, each with its acknowledgement, all in one transaction: for
    /// measurements of a full store.
    ///
    /// # Errors
    /// When one is there already, or the database cannot be written.
    pub async fn load_committed(&self, wallets: &[(NewWallet, Vec<u8>)]) -> Result<(), StoreError> {
        let failed = unavailable("load wallets");
        let mut transaction = self.begin("load wallets").await?;
        for (wallet, commit_ack) in wallets {
            insert_wallet(&mut transaction, wallet).await.map_err(&failed)?;
            let (id, now_ms) = (wallet.id, wallet.prepared_at_ms);
            mark_committed(&mut transaction, id, commit_ack, now_ms).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }
}

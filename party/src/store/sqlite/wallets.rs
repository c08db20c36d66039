//! Wallets, pins, the enrolments of their initiators, unfinished key generations.

use std::collections::BTreeMap;

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PartyId, WalletId};
use sqlx::{Row as _, SqliteConnection};

use super::{SqliteStore, remove_record, write_record};
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
    connection: &mut SqliteConnection,
    row: &EnrolmentRow,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO enrolments (wallet, initiator, paillier_key, epoch, sequence, added_at_ms)
         VALUES (?1, ?2, ?3, ?4, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM enrolments WHERE wallet = ?1), ?5)
         ON CONFLICT (wallet, initiator, paillier_key)
         DO UPDATE SET sequence = excluded.sequence, epoch = excluded.epoch",
    )
    .bind(row.wallet.as_bytes().as_slice())
    .bind(u8::from(row.initiator))
    .bind(row.paillier_key.as_bytes().as_slice())
    .bind(row.epoch.0)
    .bind(integer(now_ms))
    .execute(connection)
    .await?;
    Ok(())
}

async fn read_wallet(
    connection: &mut SqliteConnection,
    id: WalletId,
) -> Result<Option<WalletRow>, StoreError> {
    sqlx::query("SELECT * FROM wallets WHERE id = ?")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(connection)
        .await
        .map_err(unavailable("read a wallet"))?
        .as_ref()
        .map(wallet_row)
        .transpose()
}

/// Stores a wallet that is not there, with its records and enrolments.
async fn insert_wallet(connection: &mut SqliteConnection, wallet: &NewWallet) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO wallets (id, epoch, share_index, tenant, public_key, package_hash, receipt, token, prepared_at_ms, expires_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(wallet.id.as_bytes().as_slice())
    .bind(wallet.epoch.0)
    .bind(u8::from(wallet.index))
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

async fn mark_committed(
    connection: &mut SqliteConnection,
    id: WalletId,
    commit_ack: &[u8],
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE wallets SET commit_ack = ?1, committed_at_ms = ?2, enrolled =
           EXISTS (SELECT 1 FROM own_enrolments WHERE wallet = ?3 AND agreed IS NOT NULL)
         WHERE id = ?3",
    )
    .bind(commit_ack)
    .bind(integer(now_ms))
    .bind(id.as_bytes().as_slice())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM records WHERE kind = ? AND wallet = ?")
        .bind(RecordKind::Prepared as u8)
        .bind(id.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

#[async_trait]
impl WalletStore for SqliteStore {
    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError> {
        let failed = unavailable("pin a card");
        let mut transaction = self.write("pin a card").await?;
        let pinned = sqlx::query("SELECT card FROM pins WHERE party = ?")
            .bind(party.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        if let Some(row) = pinned {
            let pinned = CardFingerprint(bytes(&row, "card")?);
            return Ok(if pinned == card { PinOutcome::Same } else { PinOutcome::Different(pinned) });
        }
        sqlx::query("INSERT INTO pins (party, card) VALUES (?, ?)")
            .bind(party.as_str())
            .bind(card.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(PinOutcome::Pinned)
    }

    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError> {
        sqlx::query("SELECT card FROM pins WHERE party = ?")
            .bind(party.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read a pin"))?
            .map(|row| bytes(&row, "card").map(CardFingerprint))
            .transpose()
    }

    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError> {
        let failed = unavailable("list pins");
        sqlx::query("SELECT party, card FROM pins")
            .fetch_all(&self.reader)
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
        sqlx::query("SELECT * FROM wallets WHERE public_key IS NULL ORDER BY id LIMIT ?")
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list wallets"))?
            .iter()
            .map(wallet_row)
            .collect()
    }

    async fn note_public_key(&self, id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError> {
        let failed = unavailable("note a public key");
        let mut transaction = self.write("note a public key").await?;
        sqlx::query("UPDATE wallets SET public_key = ? WHERE id = ? AND public_key IS NULL")
            .bind(public_key.as_slice())
            .bind(id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
        let failed = unavailable("prepare a wallet");
        let mut transaction = self.write("prepare a wallet").await?;
        if let Some(row) = read_wallet(&mut transaction, wallet.id).await? {
            return Ok(if row.package_hash == wallet.package_hash {
                PrepareOutcome::Already(row)
            } else {
                PrepareOutcome::Conflict
            });
        }
        let is_taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM wallets WHERE public_key = ?)")
            .bind(wallet.public_key.as_slice())
            .fetch_one(&mut *transaction)
            .await
            .map_err(&failed)?;
        if is_taken {
            return Ok(PrepareOutcome::SameKey);
        }
        if let Some(admission) = wallet.admission {
            let used: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM wallets WHERE token = ?")
                .bind(admission.token.as_slice())
                .fetch_one(&mut *transaction)
                .await
                .map_err(&failed)?;
            if used >= i64::from(admission.max_wallets) {
                return Ok(PrepareOutcome::QuotaExceeded);
            }
        }
        insert_wallet(&mut transaction, wallet).await.map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(PrepareOutcome::Prepared)
    }

    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError> {
        let failed = unavailable("commit a wallet");
        let mut transaction = self.write("commit a wallet").await?;
        match read_wallet(&mut transaction, id).await? {
            None => return Ok(CommitOutcome::Unknown),
            Some(WalletRow { commit_ack: Some(ack), .. }) => return Ok(CommitOutcome::Already(ack)),
            Some(WalletRow { commit_ack: None, .. }) => {}
        }
        mark_committed(&mut transaction, id, commit_ack, now_ms).await.map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(CommitOutcome::Committed)
    }

    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError> {
        let mut connection = self.reader.acquire().await.map_err(unavailable("read a wallet"))?;
        read_wallet(&mut connection, id).await
    }

    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        sqlx::query("SELECT * FROM wallets WHERE commit_ack IS NOT NULL AND id > ? ORDER BY id LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list wallets"))?
            .iter()
            .map(wallet_row)
            .collect()
    }

    async fn count_wallets(&self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM wallets WHERE commit_ack IS NOT NULL")
            .fetch_one(&self.reader)
            .await
            .map_err(unavailable("count wallets"))?;
        u64::try_from(count).map_err(|_| StoreError::Corrupt("a negative count"))
    }

    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError> {
        let failed = unavailable("expire prepared wallets");
        let mut transaction = self.write("expire prepared wallets").await?;
        let expired = sqlx::query("SELECT id FROM wallets WHERE commit_ack IS NULL AND expires_at_ms <= ?")
            .bind(integer(now_ms))
            .fetch_all(&mut *transaction)
            .await
            .map_err(&failed)?;
        for row in &expired {
            let id: [u8; 32] = bytes(row, "id")?;
            // The kinds that a preparation stores: the records are in order of their kinds first.
            for kind in [RecordKind::Share, RecordKind::Enrolment, RecordKind::Prepared] {
                sqlx::query("DELETE FROM records WHERE kind = ? AND wallet = ?")
                    .bind(kind as u8)
                    .bind(id.as_slice())
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?;
            }
            for statement in ["DELETE FROM enrolments WHERE wallet = ?", "DELETE FROM wallets WHERE id = ?"] {
                sqlx::query(statement)
                    .bind(id.as_slice())
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?;
            }
        }
        // Expired manifests are refused before their session id is looked at.
        sqlx::query("DELETE FROM sessions WHERE expires_at_ms <= ?")
            .bind(integer(now_ms).saturating_sub(SESSIONS_KEPT_FOR_MS))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        // Expired requests are refused before their answers are counted.
        sqlx::query("DELETE FROM answers WHERE expires_at_ms <= ?")
            .bind(integer(now_ms).saturating_sub(ANSWERS_KEPT_FOR_MS))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(expired.len() as u64)
    }

    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let failed = unavailable("store an enrolment");
        let mut transaction = self.write("store an enrolment").await?;
        write_record(&mut transaction, &enrolment_label(row), record).await.map_err(&failed)?;
        write_enrolment(&mut transaction, row, now_ms).await.map_err(&failed)?;
        let superseded = sqlx::query(
            "SELECT * FROM enrolments WHERE wallet = ? AND initiator = ?
             ORDER BY sequence DESC LIMIT -1 OFFSET 2",
        )
        .bind(row.wallet.as_bytes().as_slice())
        .bind(u8::from(row.initiator))
        .fetch_all(&mut *transaction)
        .await
        .map_err(&failed)?;
        for old in &superseded {
            let old = enrolment_row(old)?;
            remove_record(&mut transaction, &enrolment_label(&old)).await.map_err(&failed)?;
            sqlx::query("DELETE FROM enrolments WHERE wallet = ? AND initiator = ? AND paillier_key = ?")
                .bind(old.wallet.as_bytes().as_slice())
                .bind(u8::from(old.initiator))
                .bind(old.paillier_key.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)
    }

    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError> {
        sqlx::query("SELECT * FROM enrolments WHERE wallet = ? ORDER BY sequence DESC")
            .bind(wallet.as_bytes().as_slice())
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list enrolments"))?
            .iter()
            .map(enrolment_row)
            .collect()
    }

    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError> {
        let failed = unavailable("store a key generation");
        let mut transaction = self.write("store a key generation").await?;
        write_record(&mut transaction, &deal_label(wallet), record).await.map_err(&failed)?;
        sqlx::query("INSERT OR IGNORE INTO deals (wallet, created_at_ms) VALUES (?, ?)")
            .bind(wallet.as_bytes().as_slice())
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn deals(&self) -> Result<Vec<DealRow>, StoreError> {
        sqlx::query("SELECT wallet, restored FROM deals ORDER BY created_at_ms")
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list key generations"))?
            .iter()
            .map(deal_row)
            .collect()
    }

    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError> {
        let failed = unavailable("forget a key generation");
        let mut transaction = self.write("forget a key generation").await?;
        remove_record(&mut transaction, &deal_label(wallet)).await.map_err(&failed)?;
        sqlx::query("DELETE FROM deals WHERE wallet = ?")
            .bind(wallet.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }
}

//! What shows that this store forgot a lock.

use std::collections::BTreeSet;

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, PartyId};
use duet_wire::audit::ChainId;

use super::{
    SqliteStore,
    keys::{count_failure, destroy_key},
    open::{mark_restored, raise_generation},
};
use crate::store::{
    HeadRow, PaillierState, StoreError, WitnessStore,
    columns::{blob, bytes, integer, number, state_number, unavailable},
    witness::named_as_locked,
};

/// The condition of the index `audit_locks`, word for word: otherwise SQLite does not use it.
const NAMES_LOCKS: &str =
    "instr(body, '\"kind\":\"key_locked\"') > 0 OR instr(body, '\"kind\":\"keys_found_locked\"') > 0";

#[async_trait]
impl WitnessStore for SqliteStore {
    async fn locked_by_audit(&self) -> Result<BTreeSet<PaillierKeyId>, StoreError> {
        let statement = format!("SELECT body FROM audit_records WHERE {NAMES_LOCKS}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("read audit records"))?;
        named_as_locked(&rows)
    }

    async fn lock_witnessed(
        &self,
        keys: &BTreeSet<PaillierKeyId>,
        now_ms: u64,
    ) -> Result<Vec<PaillierKeyId>, StoreError> {
        let failed = unavailable("repair a lock");
        let mut transaction = self.write("repair a lock").await?;
        let mut repaired = Vec::new();
        for key in keys {
            let uncounted: Option<bool> = sqlx::query_scalar(
                "SELECT locked_at_ms IS NULL FROM paillier_keys WHERE id = ? AND state <> ?",
            )
            .bind(key.as_bytes().as_slice())
            .bind(state_number(PaillierState::Locked))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
            let Some(is_uncounted) = uncounted else { continue };
            sqlx::query(
                "UPDATE paillier_keys SET state = ?1, locked_at_ms = COALESCE(locked_at_ms, ?2),
                   locked_card = CASE WHEN scope LIKE 'responder/%'
                                      THEN COALESCE(locked_card, unhex(substr(scope, 11, 64)))
                                      ELSE locked_card END
                 WHERE id = ?3",
            )
            .bind(state_number(PaillierState::Locked))
            .bind(integer(now_ms))
            .bind(key.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            destroy_key(&mut transaction, *key).await.map_err(&failed)?;
            if is_uncounted {
                count_failure(&mut transaction, *key).await.map_err(&failed)?;
            }
            repaired.push(*key);
        }
        if repaired.is_empty() {
            return Ok(repaired);
        }
        raise_generation(&mut transaction, 0).await.map_err(&failed)?;
        // A restored store locks before its next chain begins.
        self.append_noted_if_open(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        self.record_generation().await?;
        Ok(repaired)
    }

    async fn mark_restored(&self) -> Result<(), StoreError> {
        let failed = unavailable("mark it as restored");
        let mut transaction = self.write("mark it as restored").await?;
        mark_restored(&mut transaction).await.map_err(&failed)?;
        raise_generation(&mut transaction, 0).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        self.record_generation().await
    }

    async fn keep_head(&self, head: &HeadRow, max_chains: u32) -> Result<(), StoreError> {
        let failed = unavailable("keep a head");
        let mut transaction = self.write("keep a head").await?;
        sqlx::query(
            "INSERT INTO witness_heads (writer, chain, sequence, head, added)
             VALUES (?1, ?2, ?3, ?4, (SELECT COALESCE(MAX(added), 0) + 1 FROM witness_heads))
             ON CONFLICT (writer, chain) DO UPDATE SET sequence = excluded.sequence, head = excluded.head
             WHERE excluded.sequence > sequence",
        )
        .bind(head.writer.as_str())
        .bind(head.chain.as_bytes().as_slice())
        .bind(integer(head.sequence))
        .bind(head.head.as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        sqlx::query(
            "DELETE FROM witness_heads WHERE writer = ?1 AND added NOT IN
             (SELECT added FROM witness_heads WHERE writer = ?1 ORDER BY added DESC LIMIT ?2)",
        )
        .bind(head.writer.as_str())
        .bind(max_chains)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn heads(&self, writer: &PartyId) -> Result<Vec<HeadRow>, StoreError> {
        sqlx::query("SELECT chain, sequence, head FROM witness_heads WHERE writer = ? ORDER BY added")
            .bind(writer.as_str())
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("read heads"))?
            .iter()
            .map(|row| {
                Ok(HeadRow {
                    writer: writer.clone(),
                    chain: ChainId(bytes(row, "chain")?),
                    sequence: number(row, "sequence")?,
                    head: blob(row, "head")?,
                })
            })
            .collect()
    }
}

//! What shows that this store forgot a lock.

use std::collections::BTreeSet;

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, PartyId};
use duet_wire::audit::ChainId;

use super::{
    PostgresStore,
    keys::{count_failure, destroy_key},
    mark_restored, within,
};
use crate::store::{
    HeadRow, PaillierState, StoreError, WitnessStore,
    columns::{blob, bytes, integer, number, state_number, unavailable},
    witness::named_as_locked,
};

#[async_trait]
impl WitnessStore for PostgresStore {
    async fn locked_by_audit(&self) -> Result<BTreeSet<PaillierKeyId>, StoreError> {
        const OPERATION: &str = "read audit records";
        within(OPERATION, async {
            // The condition of the index `audit_locks`, word for word: otherwise PostgreSQL does
            // not use it.
            let rows = sqlx::query(
                "SELECT body FROM audit_records
                 WHERE strpos(body, '\"kind\":\"key_locked\"') > 0
                    OR strpos(body, '\"kind\":\"keys_found_locked\"') > 0",
            )
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?;
            named_as_locked(&rows)
        })
        .await
    }

    async fn lock_witnessed(
        &self,
        keys: &BTreeSet<PaillierKeyId>,
        now_ms: u64,
    ) -> Result<Vec<PaillierKeyId>, StoreError> {
        const OPERATION: &str = "repair a lock";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let mut repaired = Vec::new();
            for key in keys {
                let uncounted: Option<bool> = sqlx::query_scalar(
                    "SELECT locked_at_ms IS NULL FROM paillier_keys WHERE id = $1 AND state <> $2 FOR UPDATE",
                )
                .bind(key.as_bytes().as_slice())
                .bind(state_number(PaillierState::Locked))
                .fetch_optional(&mut *transaction)
                .await
                .map_err(&failed)?;
                let Some(is_uncounted) = uncounted else { continue };
                sqlx::query(
                    "UPDATE paillier_keys SET state = $1, locked_at_ms = COALESCE(locked_at_ms, $2),
                       locked_card = CASE WHEN scope LIKE 'responder/%'
                                          THEN COALESCE(locked_card, decode(substr(scope, 11, 64), 'hex'))
                                          ELSE locked_card END
                     WHERE id = $3",
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
            // A restored store locks before its next chain begins.
            self.append_noted_if_open(&mut transaction).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(repaired)
        })
        .await
    }

    async fn mark_restored(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "mark it as restored";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            mark_restored(&mut transaction).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn keep_head(&self, head: &HeadRow, max_chains: u32) -> Result<(), StoreError> {
        const OPERATION: &str = "keep a head";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            sqlx::query(
                "INSERT INTO witness_heads AS kept (writer, chain, sequence, head) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (writer, chain) DO UPDATE SET sequence = excluded.sequence, head = excluded.head
                 WHERE excluded.sequence > kept.sequence",
            )
            .bind(head.writer.as_str())
            .bind(head.chain.as_bytes().as_slice())
            .bind(integer(head.sequence))
            .bind(head.head.as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            sqlx::query(
                "DELETE FROM witness_heads WHERE writer = $1 AND added NOT IN
                 (SELECT added FROM witness_heads WHERE writer = $1 ORDER BY added DESC LIMIT $2)",
            )
            .bind(head.writer.as_str())
            .bind(i64::from(max_chains))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn heads(&self, writer: &PartyId) -> Result<Vec<HeadRow>, StoreError> {
        const OPERATION: &str = "read heads";
        within(OPERATION, async {
            sqlx::query("SELECT chain, sequence, head FROM witness_heads WHERE writer = $1 ORDER BY added")
                .bind(writer.as_str())
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable(OPERATION))?
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
        })
        .await
    }
}

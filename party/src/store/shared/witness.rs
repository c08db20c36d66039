//! What shows that a store forgot a lock.

use std::collections::BTreeSet;

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, PartyId};
use duet_wire::audit::{Body, Event};

use super::{
    keys::{count_failure, destroy_key},
    records::mark_restored,
};
use crate::store::{
    HeadRow, PaillierState, StoreError, WitnessStore,
    backend::Backend,
    columns::{Columns, HEAD, head_row, unavailable},
    connection::{Connection, values},
};

/// Locks a key that is there and does not show as locked; whether it is one.
async fn repair_lock<C: Connection>(
    connection: &mut C,
    key: PaillierKeyId,
    now_ms: u64,
) -> Result<bool, sqlx::Error> {
    let statement = ["SELECT locked_at_ms FROM paillier_keys WHERE id = $1 AND state <> $2", C::FOR_UPDATE];
    let Some(row) = connection.row(&statement, values![&key, PaillierState::Locked]).await? else {
        return Ok(false);
    };
    let statement = [
        "UPDATE paillier_keys SET state = $1, locked_at_ms = COALESCE(locked_at_ms, $2),
           locked_card = CASE WHEN scope LIKE 'responder/%' THEN COALESCE(locked_card, ",
        C::CARD_OF_SCOPE,
        ") ELSE locked_card END
         WHERE id = $3",
    ];
    connection.run(&statement, values![PaillierState::Locked, now_ms, &key]).await?;
    destroy_key(connection, key).await?;
    // Where the row shows when the key was locked, the failure was counted then.
    if row.number_at("locked_at_ms")?.is_none() {
        count_failure(connection, key).await?;
    }
    Ok(true)
}

#[async_trait]
impl<B: Backend> WitnessStore for B {
    async fn locked_by_audit(&self) -> Result<BTreeSet<PaillierKeyId>, StoreError> {
        let statement = ["SELECT body FROM audit_records WHERE ", B::Connection::NAMES_LOCKS];
        let named = self.list("read audit records", &statement, values![], named_as_locked).await?;
        Ok(named.into_iter().flatten().collect())
    }

    async fn lock_witnessed(
        &self,
        keys: &BTreeSet<PaillierKeyId>,
        now_ms: u64,
    ) -> Result<Vec<PaillierKeyId>, StoreError> {
        const OPERATION: &str = "repair a lock";
        let repaired = Self::within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let mut repaired = Vec::new();
            for key in keys {
                if repair_lock(&mut *transaction, *key, now_ms).await.map_err(&failed)? {
                    repaired.push(*key);
                }
            }
            if repaired.is_empty() {
                return Ok(repaired);
            }
            transaction.raise_generation().await.map_err(&failed)?;
            // A restored store locks before its next chain begins.
            self.attached().append_if_open(&mut *transaction).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(repaired)
        })
        .await?;
        if !repaired.is_empty() {
            self.record_generation().await?;
        }
        Ok(repaired)
    }

    async fn mark_restored(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "mark it as restored";
        Self::within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            mark_restored(&mut *transaction).await.map_err(&failed)?;
            transaction.raise_generation().await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await?;
        self.record_generation().await
    }

    async fn keep_head(&self, head: &HeadRow, max_chains: u32) -> Result<(), StoreError> {
        const OPERATION: &str = "keep a head";
        Self::within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let statement = [
                "INSERT INTO witness_heads AS kept (writer, chain, sequence, head, added)
                 VALUES ($1, $2, $3, $4, ",
                B::Connection::NEXT_HEAD,
                ")
                 ON CONFLICT (writer, chain) DO UPDATE SET sequence = excluded.sequence, head = excluded.head
                 WHERE excluded.sequence > kept.sequence",
            ];
            let values = values![&head.writer, &head.chain, head.sequence, head.head.as_slice()];
            transaction.run(&statement, values).await.map_err(&failed)?;
            transaction
                .run(
                    &["DELETE FROM witness_heads WHERE writer = $1 AND added NOT IN
                     (SELECT added FROM witness_heads WHERE writer = $1 ORDER BY added DESC LIMIT $2)"],
                    values![&head.writer, max_chains],
                )
                .await
                .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn heads(&self, writer: &PartyId) -> Result<Vec<HeadRow>, StoreError> {
        let statement = ["SELECT ", HEAD, " FROM witness_heads WHERE writer = $1 ORDER BY added"];
        self.list("read heads", &statement, values![writer], |row| head_row(row, writer)).await
    }
}

/// The keys that a record names as locked.
fn named_as_locked(row: &impl Columns) -> Result<Vec<PaillierKeyId>, StoreError> {
    let body = row.text_at("body").map_err(unavailable("read audit records"))?;
    let Ok(Body { event, .. }) = serde_json::from_str(&body) else {
        return Err(StoreError::Corrupt("an audit record of a lock that does not parse"));
    };
    Ok(match event {
        Event::KeyLocked { paillier_key, .. } => vec![paillier_key],
        Event::KeysFoundLocked { paillier_keys } => paillier_keys,
        _ => Vec::new(),
    })
}

//! Audit chains. What is appended goes into the transaction that is passed in; the write lock,
//! which that transaction holds, keeps the chain in order over all workers.

use std::sync::Arc;

use async_trait::async_trait;
use duet_wire::audit::{ChainId, Draft, Record};
use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::store::{
    AuditChain, AuditStore, ShareStore, StoreError,
    audit::{LOCKED_KEYS, body, found_locked, require_open},
    columns::{audit_chain, audit_record, integer, number, unavailable},
};

/// Records removed in one transaction: other writes wait for it.
const TRIM_BATCH: u32 = 1000;

const NEWEST: &str = "SELECT c.number, c.id, c.closed, c.shipped, r.sequence, r.at_ms, r.previous, r.body
     FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
     WHERE c.number = (SELECT MAX(number) FROM audit_chains)
     ORDER BY r.sequence DESC LIMIT 1";

async fn insert(
    connection: &mut SqliteConnection,
    chain: i64,
    record: &Record,
    at_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit_records (chain, sequence, at_ms, previous, body) VALUES (?, ?, ?, ?, ?)")
        .bind(chain)
        .bind(integer(record.sequence))
        .bind(integer(at_ms))
        .bind(record.previous.as_slice())
        .bind(body(record)?)
        .execute(connection)
        .await
        .map(drop)
        .map_err(unavailable("append to the audit log"))
}

/// Appends `entries` to the newest chain, if this store has any: a device's has not. `false`, and
/// nothing is appended, when it was closed and the next one has not begun.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    entries: impl IntoIterator<Item = Draft>,
) -> Result<bool, StoreError> {
    let newest = sqlx::query(NEWEST)
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable("append to the audit log"))?;
    let Some(row) = newest else { return Ok(true) };
    let AuditChain { mut head, closed, .. } = audit_chain(&row)?;
    if closed {
        return Ok(false);
    }
    let number: i64 = number(&row, "number")?;
    for draft in entries {
        let at_ms = draft.at_ms;
        let record = head.follow(draft);
        insert(connection, number, &record, at_ms).await?;
        head = record.position();
    }
    Ok(true)
}

/// Closes the chain that is written, because the store was restored.
pub(super) async fn close(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE audit_chains SET closed = 1").execute(connection).await.map(drop)
}

impl SqliteStore {
    /// Appends what [`AuditStore::noting`] was given, if anything.
    pub(super) async fn append_noted(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        require_open(self.append_noted_if_open(connection).await?)
    }

    /// The same for what has to go on in a restored store, whose chain is closed until its worker
    /// begins the next one: `false`, and nothing is appended, then.
    pub(super) async fn append_noted_if_open(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<bool, StoreError> {
        match &self.noted {
            Some(entry) => append(connection, [Draft::clone(entry)]).await,
            None => Ok(true),
        }
    }
}

#[async_trait]
impl AuditStore for SqliteStore {
    fn noting(&self, entry: Draft) -> Arc<dyn ShareStore> {
        Arc::new(Self { noted: Some(Arc::new(entry)), ..self.clone() })
    }

    async fn begin_audit(
        &self,
        id: ChainId,
        genesis: &Draft,
        after: Option<ChainId>,
    ) -> Result<(), StoreError> {
        let failed = unavailable("begin an audit chain");
        let mut transaction = self.write("begin an audit chain").await?;
        let newest = sqlx::query(NEWEST).fetch_optional(&mut *transaction).await.map_err(&failed)?;
        let newest = newest.as_ref().map(audit_chain).transpose()?;
        if newest.map(|chain| chain.head.chain) != after || newest.is_some_and(|chain| !chain.closed) {
            return Ok(());
        }
        let added = sqlx::query("INSERT INTO audit_chains (id) VALUES (?)")
            .bind(id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        let record = Record::first(id, genesis.clone());
        insert(&mut transaction, added.last_insert_rowid(), &record, genesis.at_ms).await?;
        if after.is_some() {
            let locked = sqlx::query(LOCKED_KEYS).fetch_all(&mut *transaction).await.map_err(&failed)?;
            append(&mut transaction, found_locked(&locked, genesis.at_ms)?).await?;
        }
        transaction.commit().await.map_err(&failed)
    }

    async fn append_audit(&self, entries: &[Draft]) -> Result<(), StoreError> {
        let mut transaction = self.write("append to the audit log").await?;
        require_open(append(&mut transaction, entries.iter().cloned()).await?)?;
        transaction.commit().await.map_err(unavailable("append to the audit log"))
    }

    async fn audit_chains(&self) -> Result<Vec<AuditChain>, StoreError> {
        sqlx::query(
            "SELECT c.id, c.closed, c.shipped, r.sequence, r.at_ms, r.previous, r.body
             FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
             AND r.sequence = (SELECT MAX(sequence) FROM audit_records WHERE chain = c.number)
             ORDER BY c.number",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list audit chains"))?
        .iter()
        .map(audit_chain)
        .collect()
    }

    async fn audit_records(&self, id: ChainId, after: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        sqlx::query(
            "SELECT sequence, previous, body FROM audit_records
             WHERE chain = (SELECT number FROM audit_chains WHERE id = ?) AND sequence > ?
             ORDER BY sequence LIMIT ?",
        )
        .bind(id.as_bytes().as_slice())
        .bind(integer(after))
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("read audit records"))?
        .iter()
        .map(|row| audit_record(row, id))
        .collect()
    }

    async fn audit_shipped(&self, id: ChainId, sequence: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE audit_chains SET shipped = ?1 WHERE id = ?2 AND shipped < ?1")
            .bind(integer(sequence))
            .bind(id.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(unavailable("note what was published"))
    }

    async fn trim_audit(&self, before_ms: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            // The oldest records are the first of their chain: no index by time is needed, which
            // every append would have to write.
            let batch = sqlx::query(
                r#"DELETE FROM audit_records WHERE (chain, sequence) IN (
                   SELECT r.chain, r.sequence FROM audit_records AS r JOIN audit_chains AS c ON c.number = r.chain
                   WHERE r.sequence <= c.shipped AND r.sequence <
                     (SELECT MAX(sequence) FROM audit_records WHERE chain = c.number)
                     AND instr(r.body, '"kind":"key_locked"') = 0
                     AND instr(r.body, '"kind":"keys_found_locked"') = 0
                   ORDER BY r.chain, r.sequence LIMIT ?1)
                 AND at_ms < ?2"#,
            )
            .bind(TRIM_BATCH)
            .bind(integer(before_ms))
            .execute(&self.writer)
            .await
            .map_err(unavailable("remove old audit records"))?
            .rows_affected();
            removed += batch;
            if batch < u64::from(TRIM_BATCH) {
                return Ok(removed);
            }
        }
    }
}

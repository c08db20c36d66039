//! Audit chains. What is appended goes into the transaction that is passed in, as the last thing
//! before it ends. The chain's row is locked until then, which keeps the chain in order over all
//! workers. A transaction that has this lock waits for no other.

use std::sync::Arc;

use async_trait::async_trait;
use duet_wire::audit::{ChainId, Draft, Record};
use sqlx::PgConnection;

use super::{AdvisoryLock, PostgresStore, within};
use crate::store::{
    AuditChain, AuditStore, ShareStore, StoreError,
    audit::{LOCKED_KEYS, body, found_locked, require_open},
    columns::{audit_chain, audit_record, integer, unavailable},
};

/// Records removed in one transaction.
const TRIM_BATCH: i64 = 1000;

/// The newest chain with its newest record, and its number. The chain's row is locked by a
/// statement of its own: the next one sees what was appended while it waited.
async fn take_newest(connection: &mut PgConnection) -> Result<Option<(i64, AuditChain)>, StoreError> {
    let failed = unavailable("append to the audit log");
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT number FROM audit_chains ORDER BY number DESC LIMIT 1 FOR UPDATE")
            .fetch_optional(&mut *connection)
            .await
            .map_err(&failed)?;
    let Some(number) = newest else { return Ok(None) };
    let row = sqlx::query(
        "SELECT c.id, c.closed, c.shipped, r.sequence, r.at_ms, r.previous, r.body
         FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
         WHERE c.number = $1 ORDER BY r.sequence DESC LIMIT 1",
    )
    .bind(number)
    .fetch_one(connection)
    .await
    .map_err(&failed)?;
    Ok(Some((number, audit_chain(&row)?)))
}

async fn insert(
    connection: &mut PgConnection,
    chain: i64,
    record: &Record,
    at_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_records (chain, sequence, at_ms, previous, body) VALUES ($1, $2, $3, $4, $5)",
    )
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
    connection: &mut PgConnection,
    entries: impl IntoIterator<Item = Draft>,
) -> Result<bool, StoreError> {
    let Some((number, AuditChain { mut head, closed, .. })) = take_newest(connection).await? else {
        return Ok(true);
    };
    if closed {
        return Ok(false);
    }
    for draft in entries {
        let at_ms = draft.at_ms;
        let record = head.follow(draft);
        insert(connection, number, &record, at_ms).await?;
        head = record.position();
    }
    Ok(true)
}

/// Closes the chain that is written, because the store was restored.
pub(super) async fn close(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE audit_chains SET closed = 1 WHERE closed = 0").execute(connection).await.map(drop)
}

/// Begins a chain in the transaction it is given.
async fn begin(
    connection: &mut PgConnection,
    id: ChainId,
    genesis: &Draft,
    after: Option<ChainId>,
) -> Result<(), StoreError> {
    let failed = unavailable("begin an audit chain");
    // There may be no row yet to wait at.
    AdvisoryLock::Chain.take(connection, &[]).await.map_err(&failed)?;
    let newest = take_newest(connection).await?.map(|(_, chain)| chain);
    if newest.map(|chain| chain.head.chain) != after || newest.is_some_and(|chain| !chain.closed) {
        return Ok(());
    }
    let number: i64 = sqlx::query_scalar("INSERT INTO audit_chains (id) VALUES ($1) RETURNING number")
        .bind(id.as_bytes().as_slice())
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    insert(connection, number, &Record::first(id, genesis.clone()), genesis.at_ms).await?;
    if after.is_some() {
        let locked = sqlx::query(LOCKED_KEYS).fetch_all(&mut *connection).await.map_err(&failed)?;
        append(connection, found_locked(&locked, genesis.at_ms)?).await?;
    }
    Ok(())
}

impl PostgresStore {
    /// Appends what [`AuditStore::noting`] was given, if anything.
    pub(super) async fn append_noted(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        require_open(self.append_noted_if_open(connection).await?)
    }

    /// The same for what has to go on in a restored store, whose chain is closed until its worker
    /// begins the next one: `false`, and nothing is appended, then.
    pub(super) async fn append_noted_if_open(
        &self,
        connection: &mut PgConnection,
    ) -> Result<bool, StoreError> {
        match &self.noted {
            Some(entry) => append(connection, [Draft::clone(entry)]).await,
            None => Ok(true),
        }
    }
}

#[async_trait]
impl AuditStore for PostgresStore {
    fn noting(&self, entry: Draft) -> Arc<dyn ShareStore> {
        Arc::new(Self { noted: Some(Arc::new(entry)), ..self.clone() })
    }

    async fn begin_audit(
        &self,
        id: ChainId,
        genesis: &Draft,
        after: Option<ChainId>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "begin an audit chain";
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            begin(&mut transaction, id, genesis, after).await?;
            transaction.commit().await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn append_audit(&self, entries: &[Draft]) -> Result<(), StoreError> {
        const OPERATION: &str = "append to the audit log";
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            require_open(append(&mut transaction, entries.iter().cloned()).await?)?;
            transaction.commit().await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn audit_chains(&self) -> Result<Vec<AuditChain>, StoreError> {
        const OPERATION: &str = "list audit chains";
        within(OPERATION, async {
            sqlx::query(
                "SELECT c.id, c.closed, c.shipped, r.sequence, r.at_ms, r.previous, r.body
                 FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
                 AND r.sequence = (SELECT MAX(sequence) FROM audit_records WHERE chain = c.number)
                 ORDER BY c.number",
            )
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?
            .iter()
            .map(audit_chain)
            .collect()
        })
        .await
    }

    async fn audit_records(&self, id: ChainId, after: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        const OPERATION: &str = "read audit records";
        within(OPERATION, async {
            sqlx::query(
                "SELECT sequence, previous, body FROM audit_records
                 WHERE chain = (SELECT number FROM audit_chains WHERE id = $1) AND sequence > $2
                 ORDER BY sequence LIMIT $3",
            )
            .bind(id.as_bytes().as_slice())
            .bind(integer(after))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?
            .iter()
            .map(|row| audit_record(row, id))
            .collect()
        })
        .await
    }

    async fn audit_shipped(&self, id: ChainId, sequence: u64) -> Result<(), StoreError> {
        const OPERATION: &str = "note what was published";
        within(OPERATION, async {
            sqlx::query("UPDATE audit_chains SET shipped = $1 WHERE id = $2 AND shipped < $1")
                .bind(integer(sequence))
                .bind(id.as_bytes().as_slice())
                .execute(&self.pool)
                .await
                .map(drop)
                .map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn trim_audit(&self, before_ms: u64) -> Result<u64, StoreError> {
        const OPERATION: &str = "remove old audit records";
        let mut removed = 0;
        loop {
            // The oldest records are the first of their chain: no index by time is needed, which
            // every append would have to write. A chain's newest one is never removed, whatever is
            // appended meanwhile.
            let batch = within(OPERATION, async {
                sqlx::query(
                    r#"DELETE FROM audit_records WHERE at_ms < $2 AND (chain, sequence) IN (
                       SELECT r.chain, r.sequence FROM audit_records AS r JOIN audit_chains AS c ON c.number = r.chain
                       WHERE r.sequence <= c.shipped AND r.sequence <
                         (SELECT MAX(sequence) FROM audit_records WHERE chain = c.number)
                         AND strpos(r.body, '"kind":"key_locked"') = 0
                         AND strpos(r.body, '"kind":"keys_found_locked"') = 0
                       ORDER BY r.chain, r.sequence LIMIT $1)"#,
                )
                .bind(TRIM_BATCH)
                .bind(integer(before_ms))
                .execute(&self.pool)
                .await
                .map_err(unavailable(OPERATION))
            })
            .await?
            .rows_affected();
            removed += batch;
            if batch < TRIM_BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}

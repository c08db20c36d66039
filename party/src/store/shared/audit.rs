//! Audit chains. What is appended goes into the transaction that is passed in, as the last thing
//! before it ends ([`Connection::newest_chain`]).

use std::sync::Arc;

use async_trait::async_trait;
use duet_wire::audit::{ChainId, Draft, Record};

use crate::store::{
    AuditChain, AuditStore, ShareStore, StoreError,
    audit::{append, found_locked, insert, require_open},
    backend::{Attached, Backend},
    columns::{AUDIT_CHAIN, AUDIT_RECORD, PAILLIER_KEY, audit_chain, audit_record, number, unavailable},
    connection::{Connection, NamedLock, values},
};

/// Records removed in one transaction: other writes may wait for it.
const TRIM_BATCH: u32 = 1000;

/// Closes the chain that is written, because the store was restored.
pub(super) async fn close(connection: &mut impl Connection) -> Result<(), sqlx::Error> {
    connection.run(&["UPDATE audit_chains SET closed = 1 WHERE closed = 0"], values![]).await.map(drop)
}

/// Begins a chain in the transaction it is given.
async fn begin(
    connection: &mut impl Connection,
    id: ChainId,
    genesis: &Draft,
    after: Option<ChainId>,
) -> Result<(), StoreError> {
    let failed = unavailable("begin an audit chain");
    // There may be no row yet to wait at.
    connection.take(NamedLock::Chain, &[]).await.map_err(&failed)?;
    let newest = connection.newest_chain().await?.map(|(_, chain)| chain);
    if newest.map(|chain| chain.head.chain) != after || newest.is_some_and(|chain| !chain.closed) {
        return Ok(());
    }
    let added = connection
        .row(&["INSERT INTO audit_chains (id) VALUES ($1) RETURNING number"], values![&id])
        .await
        .map_err(&failed)?
        .ok_or(StoreError::Corrupt("an audit chain that is not there"))?;
    let added: i64 = number(&added, "number")?;
    insert(connection, added, &Record::first(id, genesis.clone()), genesis.at_ms).await?;
    if after.is_some() {
        let statement = ["SELECT ", PAILLIER_KEY, " FROM paillier_keys WHERE state = 1 ORDER BY sequence"];
        let locked = connection.rows(&statement, values![]).await.map_err(&failed)?;
        append(connection, found_locked(&locked, genesis.at_ms)?.as_slice()).await?;
    }
    Ok(())
}

#[async_trait]
impl<B: Backend> AuditStore for B {
    fn noting(&self, entry: Draft) -> Arc<dyn ShareStore> {
        Arc::new(self.with(Attached { noted: Some(Arc::new(entry)), ..self.attached().clone() }))
    }

    async fn begin_audit(
        &self,
        id: ChainId,
        genesis: &Draft,
        after: Option<ChainId>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "begin an audit chain";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            begin(&mut *transaction, id, genesis, after).await?;
            transaction.commit().await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn append_audit(&self, entries: &[Draft]) -> Result<(), StoreError> {
        const OPERATION: &str = "append to the audit log";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            require_open(append(&mut *transaction, entries).await?)?;
            transaction.commit().await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn audit_chains(&self) -> Result<Vec<AuditChain>, StoreError> {
        let statement = [
            "SELECT ",
            AUDIT_CHAIN,
            " FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
             AND r.sequence = (SELECT MAX(sequence) FROM audit_records WHERE chain = c.number)
             ORDER BY c.number",
        ];
        self.list("list audit chains", &statement, values![], audit_chain).await
    }

    async fn audit_records(&self, id: ChainId, after: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        let statement = [
            "SELECT ",
            AUDIT_RECORD,
            " FROM audit_records
             WHERE chain = (SELECT number FROM audit_chains WHERE id = $1) AND sequence > $2
             ORDER BY sequence LIMIT $3",
        ];
        let values = values![&id, after, limit];
        self.list("read audit records", &statement, values, |row| audit_record(row, id)).await
    }

    async fn audit_shipped(&self, id: ChainId, sequence: u64) -> Result<(), StoreError> {
        let statement = ["UPDATE audit_chains SET shipped = $1 WHERE id = $2 AND shipped < $1"];
        self.execute("note what was published", &statement, values![sequence, &id]).await.map(drop)
    }

    async fn unship_audit(&self, from: Option<(ChainId, u64)>) -> Result<u64, StoreError> {
        const OPERATION: &str = "note what is to be published again";
        let (id, sequence) = from.unwrap_or((ChainId([0; 16]), 0));
        B::within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let is_after = "r.chain > COALESCE((SELECT number FROM audit_chains WHERE id = $1), -1)
                OR (r.chain = (SELECT number FROM audit_chains WHERE id = $1) AND r.sequence > $2)";
            let statement = ["SELECT COUNT(*) AS records FROM audit_records AS r WHERE ", is_after];
            let row = transaction.row(&statement, values![&id, sequence]).await.map_err(&failed)?;
            let row = row.ok_or(StoreError::Corrupt("a count without a row"))?;
            transaction
                .run(
                    &["UPDATE audit_chains SET shipped = CASE WHEN id = $1 THEN $2 ELSE 0 END
                       WHERE (id = $1 AND shipped > $2)
                       OR number > COALESCE((SELECT number FROM audit_chains WHERE id = $1), -1)"],
                    values![&id, sequence],
                )
                .await
                .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            number(&row, "records")
        })
        .await
    }

    async fn trim_audit(&self, before_ms: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            // The oldest records are the first of their chain: no index by time is needed, which
            // every append would have to write. A chain's newest one is never removed, whatever is
            // appended meanwhile.
            let statement = [
                "DELETE FROM audit_records WHERE at_ms < $2 AND (chain, sequence) IN (
                   SELECT r.chain, r.sequence FROM audit_records AS r JOIN audit_chains AS c ON c.number = r.chain
                   WHERE r.sequence <= c.shipped AND r.sequence <
                     (SELECT MAX(sequence) FROM audit_records WHERE chain = c.number)
                     AND NOT (",
                B::Connection::NAMES_LOCKS,
                ") ORDER BY r.chain, r.sequence LIMIT $1)",
            ];
            let values = values![TRIM_BATCH, before_ms];
            let batch = self.execute("remove old audit records", &statement, values).await?;
            removed += batch;
            if batch < u64::from(TRIM_BATCH) {
                return Ok(removed);
            }
        }
    }
}

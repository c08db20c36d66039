//! The words that only PostgreSQL reads, and advisory locks.

use sqlx::{AssertSqlSafe, PgConnection, Postgres, SqlSafeStr as _, SqlStr, postgres::PgRow};

use crate::store::{
    AuditChain, StoreError,
    columns::{AUDIT_CHAIN, audit_chain, number, unavailable},
    connection::{Connection, NamedLock, Statement, Value, bound, values},
};

impl Connection for PgConnection {
    type Row = PgRow;

    // Other transactions go on: what is read stays as it is only while its row is locked.
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    const FOR_UPDATE_IF_FREE: &'static str = " FOR UPDATE SKIP LOCKED";
    const FOR_SHARE: &'static str = " FOR SHARE";
    // The column's own sequence: two transactions that look for the largest number find the same.
    const NEXT_KEY: &'static str = "DEFAULT";
    const NEXT_ENROLMENT: &'static str = "DEFAULT";
    const NEXT_HEAD: &'static str = "DEFAULT";
    const CARD_OF_SCOPE: &'static str = "decode(substr(scope, 11, 64), 'hex')";
    const NAMES_LOCKS: &'static str =
        "strpos(body, '\"kind\":\"key_locked\"') > 0 OR strpos(body, '\"kind\":\"keys_found_locked\"') > 0";
    const COUNT_TABLES: &'static str =
        "SELECT COUNT(*) AS count FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1";

    async fn run(&mut self, statement: Statement<'_>, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        bound::<Postgres>(statement, values).execute(self).await.map(|done| done.rows_affected())
    }

    async fn row(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> Result<Option<PgRow>, sqlx::Error> {
        bound::<Postgres>(statement, values).fetch_optional(self).await
    }

    async fn rows(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        bound::<Postgres>(statement, values).fetch_all(self).await
    }

    async fn take(&mut self, lock: NamedLock, name: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
            .bind(lock as i32)
            .bind(number_of(name))
            .execute(self)
            .await
            .map(drop)
    }

    async fn try_take(&mut self, lock: NamedLock) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, 0)").bind(lock as i32).fetch_one(self).await
    }

    /// The chain's row is locked until the transaction ends, which keeps the chain in order over
    /// all workers; a transaction that has this lock waits for no other. A statement of its own
    /// takes it: the next one sees what was appended while it waited.
    async fn newest_chain(&mut self) -> Result<Option<(i64, AuditChain)>, StoreError> {
        let failed = unavailable("append to the audit log");
        let newest = self
            .row(&["SELECT number FROM audit_chains ORDER BY number DESC LIMIT 1 FOR UPDATE"], values![])
            .await
            .map_err(&failed)?;
        let Some(newest) = newest else { return Ok(None) };
        let newest: i64 = number(&newest, "number")?;
        let statement = [
            "SELECT ",
            AUDIT_CHAIN,
            " FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
             WHERE c.number = $1 ORDER BY r.sequence DESC LIMIT 1",
        ];
        let row = self.row(&statement, values![newest]).await.map_err(&failed)?;
        let row = row.ok_or(StoreError::Corrupt("an audit chain without a record"))?;
        Ok(Some((newest, audit_chain(&row)?)))
    }

    /// The store's place shows it (see [`super::home`]).
    async fn raise_generation(&mut self) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

/// Identifiers are random or hashes: any four bytes of one tell most apart.
pub(super) fn number_of(name: &[u8]) -> i32 {
    name.first_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

/// What begins a transaction that has the lock of `name`, for itself or with others that share it,
/// in one trip to the server.
pub(super) fn beginning(lock: NamedLock, name: &[u8], is_shared: bool) -> SqlStr {
    let (number, name, shared) = (lock as i32, number_of(name), if is_shared { "_shared" } else { "" });
    AssertSqlSafe(format!("BEGIN; SELECT pg_advisory_xact_lock{shared}({number}, {name})")).into_sql_str()
}

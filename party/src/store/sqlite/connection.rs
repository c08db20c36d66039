//! The words that only SQLite reads.

use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteRow};

use crate::store::{
    AuditChain, StoreError,
    columns::{audit_chain, number, unavailable},
    connection::{Connection, NamedLock, Statement, Value, bound},
    shared::records::{read_setting, write_setting},
};

impl Connection for SqliteConnection {
    type Row = SqliteRow;

    // Whatever a transaction reads stays as it is: it has the database's write lock.
    const FOR_UPDATE: &'static str = "";
    const FOR_UPDATE_IF_FREE: &'static str = "";
    const FOR_SHARE: &'static str = "";
    // For the same reason no two rows get one number.
    const NEXT_KEY: &'static str = "(SELECT COALESCE(MAX(sequence), 0) + 1 FROM paillier_keys)";
    const NEXT_ENROLMENT: &'static str =
        "(SELECT COALESCE(MAX(sequence), 0) + 1 FROM enrolments WHERE wallet = $1)";
    const NEXT_HEAD: &'static str = "(SELECT COALESCE(MAX(added), 0) + 1 FROM witness_heads)";
    const CARD_OF_SCOPE: &'static str = "unhex(substr(scope, 11, 64))";
    const NAMES_LOCKS: &'static str =
        "instr(body, '\"kind\":\"key_locked\"') > 0 OR instr(body, '\"kind\":\"keys_found_locked\"') > 0";
    const COUNT_TABLES: &'static str =
        "SELECT COUNT(*) AS count FROM sqlite_master WHERE type = 'table' AND name = $1";

    async fn run(&mut self, statement: Statement<'_>, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        bound::<Sqlite>(statement, values).execute(self).await.map(|done| done.rows_affected())
    }

    async fn row(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> Result<Option<SqliteRow>, sqlx::Error> {
        bound::<Sqlite>(statement, values).fetch_optional(self).await
    }

    async fn rows(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        bound::<Sqlite>(statement, values).fetch_all(self).await
    }

    /// The transaction has every lock, with the write lock.
    async fn take(&mut self, _lock: NamedLock, _name: &[u8]) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn try_take(&mut self, _lock: NamedLock) -> Result<bool, sqlx::Error> {
        Ok(true)
    }

    /// One statement: the write lock keeps the chain in order over all workers.
    async fn newest_chain(&mut self) -> Result<Option<(i64, AuditChain)>, StoreError> {
        let newest = self
            .row(
                &["SELECT c.number, c.id, c.closed, c.shipped, r.sequence, r.at_ms, r.previous, r.body
                 FROM audit_chains AS c JOIN audit_records AS r ON r.chain = c.number
                 WHERE c.number = (SELECT MAX(number) FROM audit_chains)
                 ORDER BY r.sequence DESC LIMIT 1"],
                &[],
            )
            .await
            .map_err(unavailable("append to the audit log"))?;
        newest.map(|row| Ok((number(&row, "number")?, audit_chain(&row)?))).transpose()
    }

    async fn raise_generation(&mut self) -> Result<(), sqlx::Error> {
        raise_generation_above(self, 0).await
    }
}

/// Raises the generation above what it is and above `floor` (see [`super::open`]).
pub(super) async fn raise_generation_above(
    connection: &mut SqliteConnection,
    floor: u64,
) -> Result<(), sqlx::Error> {
    let next = read_generation(connection).await?.max(floor).saturating_add(1);
    write_setting(connection, "generation", &next.to_be_bytes()).await
}

pub(super) async fn read_generation(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let value = read_setting(connection, "generation").await?;
    Ok(value.and_then(|value| <[u8; 8]>::try_from(value).ok()).map_or(0, u64::from_be_bytes))
}

//! Changing what opens the store.

use sqlx::{Connection as _, PgConnection, Row as _};

use super::{PostgresStore, write_record, write_setting};
use crate::{
    at_rest::RecordLabel,
    store::{
        KEY_DESCRIPTOR, KEY_ID, KEY_SUCCESSION, KeyChange, NewKey, StoreError,
        columns::{index_column, record_label, unavailable, wallet_column},
        rewrapped,
    },
};

const OPERATION: &str = "change its key";
/// Records in memory while they are wrapped anew.
const RECORDS_AT_A_TIME: u32 = 500;

impl PostgresStore {
    /// As [`RecordStore::change_key`](crate::store::RecordStore::change_key). A transaction that
    /// stores a record meanwhile waits for it, as long as the deadlines of a statement allow.
    /// Signing does not wait.
    pub(super) async fn replace_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        let failed = unavailable(OPERATION);
        // Wrapping a large store anew takes longer than a statement may.
        let mut connection = self.options.connect_for_long().await?;
        let mut transaction = connection.begin().await.map_err(&failed)?;
        let replaced = match &change.replaces {
            None => {
                sqlx::query(
                    "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                )
                .bind(KEY_DESCRIPTOR)
                .bind(&change.descriptor)
                .execute(&mut *transaction)
                .await
            }
            Some(current) => {
                sqlx::query("UPDATE settings SET value = $2 WHERE name = $1 AND value = $3")
                    .bind(KEY_DESCRIPTOR)
                    .bind(&change.descriptor)
                    .bind(current)
                    .execute(&mut *transaction)
                    .await
            }
        };
        if replaced.map_err(&failed)?.rows_affected() == 0 {
            return Err(StoreError::KeyChanged);
        }
        let count = match &change.key {
            Some(key) => rewrap_records(&mut transaction, key).await?,
            None => 0,
        };
        // Last, because every transaction that decides meanwhile waits for the chain.
        self.append_noted_if_open(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        connection.close().await.map_err(&failed)?;
        Ok(count)
    }
}

async fn rewrap_records(connection: &mut PgConnection, key: &NewKey) -> Result<u64, StoreError> {
    let failed = unavailable(OPERATION);
    // First of all: from here on no transaction adds a record under the old key. Those that were
    // about to have committed it.
    write_setting(connection, KEY_ID, &key.id.0).await.map_err(&failed)?;
    if let Some(succession) = &key.succession {
        write_setting(connection, KEY_SUCCESSION, succession).await.map_err(&failed)?;
    }
    sqlx::query(
        "DECLARE sealed_records NO SCROLL CURSOR FOR
         SELECT kind, wallet, share_index, epoch, item, sealed FROM records",
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    let fetch = format!("FETCH {RECORDS_AT_A_TIME} FROM sealed_records");
    let mut count = 0;
    loop {
        let rows = sqlx::query(sqlx::AssertSqlSafe(fetch.clone()))
            .persistent(false)
            .fetch_all(&mut *connection)
            .await
            .map_err(&failed)?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let label = record_label(row)?;
            let record = rewrapped(key, &label, row.try_get("sealed").map_err(&failed)?)?;
            count += update_record(connection, &label, record.as_bytes()).await.map_err(&failed)?;
        }
    }
    sqlx::query("CLOSE sealed_records").execute(&mut *connection).await.map_err(&failed)?;
    for (label, record) in &key.records {
        write_record(connection, label, record).await.map_err(&failed)?;
    }
    Ok(count)
}

/// Changes a record that is there: one that was removed meanwhile is not to come back.
async fn update_record(
    connection: &mut PgConnection,
    label: &RecordLabel,
    sealed: &[u8],
) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "UPDATE records SET sealed = $6
         WHERE wallet = $1 AND kind = $2 AND share_index = $3 AND epoch = $4 AND item = $5",
    )
    .bind(wallet_column(label))
    .bind(label.kind as i64)
    .bind(index_column(label))
    .bind(i64::from(label.epoch.0))
    .bind(label.item.as_slice())
    .bind(sealed)
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
}

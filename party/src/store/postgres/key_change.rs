//! Changing what opens the store.

use sqlx::{Connection as _, PgConnection, Row as _};

use super::PostgresStore;
use crate::{
    at_rest::RecordLabel,
    store::{
        KEY_DESCRIPTOR, KeyChange, NewKey, StoreError,
        columns::{index_column, record_label, unavailable, wallet_column},
        connection::{Connection as _, values},
        rewrapped,
        shared::records::{write_key_id, write_record},
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
                let statement =
                    ["INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"];
                transaction.run(&statement, values![KEY_DESCRIPTOR, change.descriptor.as_slice()]).await
            }
            Some(current) => {
                let statement = ["UPDATE settings SET value = $2 WHERE name = $1 AND value = $3"];
                let values = values![KEY_DESCRIPTOR, change.descriptor.as_slice(), current.as_slice()];
                transaction.run(&statement, values).await
            }
        };
        if replaced.map_err(&failed)? == 0 {
            return Err(StoreError::KeyChanged);
        }
        let count = match &change.key {
            Some(key) => rewrap_records(&mut transaction, key).await?,
            None => 0,
        };
        // Last, because every transaction that decides meanwhile waits for the chain.
        self.attached.append_if_open(&mut *transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        connection.close().await.map_err(&failed)?;
        Ok(count)
    }
}

async fn rewrap_records(connection: &mut PgConnection, key: &NewKey) -> Result<u64, StoreError> {
    let failed = unavailable(OPERATION);
    // First of all: from here on no transaction adds a record under the old key. Those that were
    // about to have committed it.
    write_key_id(connection, key).await.map_err(&failed)?;
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
    let index = index_column(label);
    connection
        .run(
            &["UPDATE records SET sealed = $6
             WHERE kind = $1 AND wallet = $2 AND share_index = $3 AND epoch = $4 AND item = $5"],
            values![
                label.kind as i64,
                wallet_column(label),
                index,
                label.epoch,
                label.item.as_slice(),
                sealed
            ],
        )
        .await
}

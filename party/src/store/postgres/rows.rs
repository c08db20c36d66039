//! Rows that several parts of the store read and write: records, settings, pending verdicts.

use duet_protocol::ids::{PaillierKeyId, SessionId};
use sqlx::PgConnection;

use crate::{
    at_rest::{RecordLabel, SealedRecord},
    store::{
        KEY_ID,
        columns::{index_column, other_key, wallet_column},
        pending_label,
    },
};

/// Stores a record, unless it is sealed under another key than the store's. Which one that is stays
/// so until the transaction ends.
pub(super) async fn write_record(
    connection: &mut PgConnection,
    label: &RecordLabel,
    record: &SealedRecord,
) -> Result<(), sqlx::Error> {
    let key = record.sealed_with();
    for _ in 0..2 {
        let stored = sqlx::query(
            "WITH current AS (SELECT value FROM settings WHERE name = $8 FOR SHARE)
             INSERT INTO records (kind, wallet, share_index, epoch, item, sealed) SELECT $1, $2, $3, $4, $5, $6
             WHERE $7::BYTEA IS NULL OR $7 = (SELECT value FROM current)
             ON CONFLICT (wallet, kind, share_index, epoch, item) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(label.kind as i64)
        .bind(wallet_column(label))
        .bind(index_column(label))
        .bind(i64::from(label.epoch.0))
        .bind(label.item.as_slice())
        .bind(record.as_bytes())
        .bind(key.as_ref().map(|key| key.0.as_slice()))
        .bind(KEY_ID)
        .execute(&mut *connection)
        .await?;
        if stored.rows_affected() > 0 {
            return Ok(());
        }
        // Either the store has another key, or it does not say yet which one it has.
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(KEY_ID)
            .bind(key.as_ref().map(|key| key.0.as_slice()))
            .execute(&mut *connection)
            .await?;
    }
    Err(other_key())
}

pub(super) async fn remove_record(
    connection: &mut PgConnection,
    label: &RecordLabel,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM records WHERE kind = $1 AND wallet = $2 AND share_index = $3 AND epoch = $4 AND item = $5",
    )
    .bind(label.kind as i64)
    .bind(wallet_column(label))
    .bind(index_column(label))
    .bind(i64::from(label.epoch.0))
    .bind(label.item.as_slice())
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn read_setting(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

pub(super) async fn write_setting(
    connection: &mut PgConnection,
    name: &str,
    value: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(connection)
    .await
    .map(drop)
}

/// Forgets what was pending of a session.
pub(super) async fn remove_pending(
    connection: &mut PgConnection,
    session: SessionId,
) -> Result<(), sqlx::Error> {
    remove_record(connection, &pending_label(session)).await?;
    sqlx::query("DELETE FROM pending_verdicts WHERE session = $1")
        .bind(session.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets everything that was pending under a key, which is locked by now.
pub(super) async fn remove_pending_of_key(
    connection: &mut PgConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    let sessions: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT session FROM pending_verdicts WHERE paillier_key = $1 ORDER BY session")
            .bind(key.as_bytes().as_slice())
            .fetch_all(&mut *connection)
            .await?;
    for session in sessions {
        if let Ok(session) = session.try_into() {
            remove_pending(connection, SessionId(session)).await?;
        }
    }
    Ok(())
}

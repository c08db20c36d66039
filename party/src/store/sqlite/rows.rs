//! Rows that several parts of the store read and write: records, settings, pending verdicts.

use duet_protocol::ids::{PaillierKeyId, SessionId};
use sqlx::{Row as _, SqliteConnection};

use crate::{
    at_rest::{RecordLabel, SealedRecord},
    store::{
        KEY_ID,
        columns::{index_column, other_key, wallet_column},
        pending_label,
    },
};

/// Stores a record, unless it is sealed under another key than the store's.
pub(super) async fn write_record(
    connection: &mut SqliteConnection,
    label: &RecordLabel,
    record: &SealedRecord,
) -> Result<(), sqlx::Error> {
    let key = record.sealed_with();
    for _ in 0..2 {
        let stored = sqlx::query(
            "INSERT INTO records (kind, wallet, share_index, epoch, item, sealed) SELECT ?1, ?2, ?3, ?4, ?5, ?6
             WHERE ?7 IS NULL OR ?7 = (SELECT value FROM settings WHERE name = ?8)
             ON CONFLICT (kind, wallet, share_index, epoch, item) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(label.kind as u8)
        .bind(wallet_column(label))
        .bind(index_column(label))
        .bind(label.epoch.0)
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
        sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(KEY_ID)
            .bind(key.as_ref().map(|key| key.0.as_slice()))
            .execute(&mut *connection)
            .await?;
    }
    Err(other_key())
}

pub(super) async fn remove_record(
    connection: &mut SqliteConnection,
    label: &RecordLabel,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM records WHERE kind = ? AND wallet = ? AND share_index = ? AND epoch = ? AND item = ?",
    )
    .bind(label.kind as u8)
    .bind(wallet_column(label))
    .bind(index_column(label))
    .bind(label.epoch.0)
    .bind(label.item.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn read_setting(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query("SELECT value FROM settings WHERE name = ?")
        .bind(name)
        .fetch_optional(connection)
        .await?
        .map(|row| row.try_get(0))
        .transpose()
}

pub(super) async fn write_setting(
    connection: &mut SqliteConnection,
    name: &str,
    value: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets what was pending of a session.
pub(super) async fn remove_pending(
    connection: &mut SqliteConnection,
    session: SessionId,
) -> Result<(), sqlx::Error> {
    remove_record(connection, &pending_label(session)).await?;
    sqlx::query("DELETE FROM pending_verdicts WHERE session = ?")
        .bind(session.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets everything that was pending under a key, which is locked by now.
pub(super) async fn remove_pending_of_key(
    connection: &mut SqliteConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    let sessions = sqlx::query("SELECT session FROM pending_verdicts WHERE paillier_key = ?")
        .bind(key.as_bytes().as_slice())
        .fetch_all(&mut *connection)
        .await?;
    for row in &sessions {
        let session: Vec<u8> = row.try_get(0)?;
        if let Ok(session) = session.try_into() {
            remove_pending(connection, SessionId(session)).await?;
        }
    }
    Ok(())
}

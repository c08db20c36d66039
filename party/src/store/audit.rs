//! The party's audit chains: appended to in the transactions that store what is recorded.

use duet_wire::audit::{Draft, Event, Record};

use super::{
    AuditChain, StoreError,
    columns::{Columns, paillier_row, unavailable},
    connection::{Connection, values},
};

/// A record's body as a column holds it.
fn body(record: &Record) -> Result<&str, StoreError> {
    str::from_utf8(&record.body).map_err(|_| StoreError::Corrupt("an audit record that is no text"))
}

/// What follows the first record of a chain that began after another; `rows` are those of the
/// keys that are locked.
pub(super) fn found_locked(rows: &[impl Columns], at_ms: u64) -> Result<Option<Draft>, StoreError> {
    let rows = rows.iter().map(paillier_row).collect::<Result<Vec<_>, _>>()?;
    let paillier_keys: Vec<_> = rows.into_iter().map(|row| row.id).collect();
    Ok((!paillier_keys.is_empty()).then(|| Draft::new(at_ms, Event::KeysFoundLocked { paillier_keys })))
}

/// A decision is not made without its record: whether there was a chain to append to.
pub(super) fn require_open(appended: bool) -> Result<(), StoreError> {
    if appended {
        return Ok(());
    }
    Err(StoreError::NotReady("the audit log was closed, and has not begun again".to_owned()))
}

pub(super) async fn insert(
    connection: &mut impl Connection,
    chain: i64,
    record: &Record,
    at_ms: u64,
) -> Result<(), StoreError> {
    connection
        .run(
            &["INSERT INTO audit_records (chain, sequence, at_ms, previous, body) VALUES ($1, $2, $3, $4, $5)"],
            values![chain, record.sequence, at_ms, &record.previous, body(record)?],
        )
        .await
        .map(drop)
        .map_err(unavailable("append to the audit log"))
}

/// Appends `entries` to the newest chain, if this store has any: a device's has not. `false`, and
/// nothing is appended, when it was closed and the next one has not begun.
pub(super) async fn append(connection: &mut impl Connection, entries: &[Draft]) -> Result<bool, StoreError> {
    let Some((number, AuditChain { mut head, closed, .. })) = connection.newest_chain().await? else {
        return Ok(true);
    };
    if closed {
        return Ok(false);
    }
    for draft in entries {
        let record = head.follow(draft.clone());
        insert(connection, number, &record, draft.at_ms).await?;
        head = record.position();
    }
    Ok(true)
}

//! The party's audit chains: appended to in the transactions that store what is recorded.

use duet_wire::audit::{Draft, Event, Record};

use super::{
    StoreError,
    columns::{Columns, paillier_row},
};

/// A record's body as a column holds it.
pub(super) fn body(record: &Record) -> Result<&str, StoreError> {
    str::from_utf8(&record.body).map_err(|_| StoreError::Corrupt("an audit record that is no text"))
}

/// The keys that are locked, oldest first.
pub(super) const LOCKED_KEYS: &str = "SELECT * FROM paillier_keys WHERE state = 1 ORDER BY sequence";

/// What follows the first record of a chain that began after another, with the rows of
/// [`LOCKED_KEYS`].
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

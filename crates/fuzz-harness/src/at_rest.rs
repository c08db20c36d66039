//! Data at rest: sealed records, and the document from which a browser derives its key again.

use std::sync::OnceLock;

use duet_at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord, protection::Protection};

fn key() -> &'static KeyEncryptionKey {
    static KEY: OnceLock<KeyEncryptionKey> = OnceLock::new();
    KEY.get_or_init(|| KeyEncryptionKey::from_bytes([7; 32].into()))
}

/// Any bytes as a record: it must not open, because they were not sealed under this key. Any bytes
/// as the document from which a key is derived: if it parses, its own encoding must parse too.
pub fn run(bytes: &[u8]) {
    let label = RecordLabel::of_party(RecordKind::Check, b"fuzz");
    let opened = SealedRecord::from_bytes(bytes.to_vec()).open(key(), &label);
    assert!(opened.is_err(), "a record opened that was not sealed under the key");
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(protection) = Protection::from_json(text)
    {
        let written = protection.to_json();
        assert!(written.is_ok_and(|written| Protection::from_json(&written).is_ok()));
    }
}

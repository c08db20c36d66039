//! What rests on disks and comes back from them: sealed records, and what a key is found again
//! with.

use std::sync::OnceLock;

use duet_at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord, protection::Protection};

fn key() -> &'static KeyEncryptionKey {
    static KEY: OnceLock<KeyEncryptionKey> = OnceLock::new();
    KEY.get_or_init(|| KeyEncryptionKey::from_bytes([7; 32].into()))
}

/// Any bytes as a record: it does not open, because nobody but this key seals. And as the document
/// with which a key is found again.
pub fn run(bytes: &[u8]) {
    let label = RecordLabel::of_party(RecordKind::Check, b"fuzz");
    let opened = SealedRecord::from_bytes(bytes.to_vec()).open(key(), &label);
    assert!(opened.is_err(), "nobody but the key's owner seals");
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(protection) = Protection::from_json(text)
    {
        let written = protection.to_json();
        assert!(written.is_ok_and(|written| Protection::from_json(&written).is_ok()));
    }
}

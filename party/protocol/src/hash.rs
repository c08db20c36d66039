//! The hash of everything that is not a proof: SHA-256 over `udigest`'s unambiguous encoding.
//!
//! Every hashed struct carries its own tag, so that no two kinds of statement can share a hash, and
//! every field its name and length, so that no two statements of one kind can either.

use sha2::{Digest as _, Sha256};
use udigest::{Buffer, Digestable, encoding::EncodeValue};

/// `udigest` is built on an older generation of the digest traits than `sha2`.
struct Sha256Buffer(Sha256);

impl Buffer for Sha256Buffer {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// The hash of a tagged value.
pub(crate) fn hash(value: &impl Digestable) -> [u8; 32] {
    let mut buffer = Sha256Buffer(Sha256::new());
    value.unambiguously_encode(EncodeValue::new(&mut buffer));
    buffer.0.finalize().into()
}

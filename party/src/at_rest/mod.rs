//! How records rest on a disk: sealed, each under a data key of its own.
//!
//! A record's plaintext is encrypted with XChaCha20-Poly1305 under a fresh 32-byte data key; the
//! data key is encrypted, with the same construction, under the store's
//! [`KeyEncryptionKey`], which comes from a file or, through argon2id (RFC 9106), from a
//! passphrase. Both encryptions have the record's [`RecordLabel`] as associated data, so that a
//! record which was moved to another wallet, index, epoch, kind or item does not open.
//!
//! What this does not cover: a reader of the process's memory, and the store's plain columns
//! (identifiers, states, times), which are not secret but can be read on a stolen disk.

mod key;
mod record;

pub use key::{Argon2Cost, KeyDescriptor, KeyEncryptionKey, KeyError, KeySource};
pub use record::{OpenError, RecordKind, RecordLabel, SealedRecord};

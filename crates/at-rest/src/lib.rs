//! How shares rest: sealed, each record under a data key of its own, and in backup files.
//!
//! A record's plaintext is encrypted with XChaCha20-Poly1305 under a fresh 32-byte data key; the
//! data key is encrypted, with the same construction, under the store's [`KeyEncryptionKey`]. A
//! party's store has a random one, itself encrypted under a key from elsewhere – a file, a
//! passphrase through argon2id (RFC 9106), a key service –; in a browser it comes from a passphrase
//! or from the secret output of a passkey. Both encryptions have the record's [`RecordLabel`] as
//! associated data, so that a record which was moved to another wallet, index, epoch, kind or item
//! does not open.
//!
//! | module | what |
//! |---|---|
//! | [`key_file`] | 32 bytes in a file, or handed over by systemd |
//! | [`protection`] | how a browser finds a key again, and knows that it is the right one |
//! | [`device`] | what a browser stores of a wallet: share, keys, Paillier keys, who agreed on which |
//! | [`backup`] | one share as a file that a passphrase opens |
//! | [`age`] | that file's encryption: the age format, passphrases only |
//!
//! What this does not cover: a reader of the process's memory, and a store's plain columns
//! (identifiers, states, times), which are not secret but can be read on a stolen disk.

pub mod age;
pub mod backup;
pub mod device;
mod key;
pub mod key_file;
pub mod protection;
mod record;

pub use key::{Argon2Cost, KeyEncryptionKey, KeyError, KeyId, SALT_SIZE_BYTES};
pub use record::{OpenError, RecordKind, RecordLabel, SealedRecord};

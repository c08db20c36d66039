//! Sealed records of a share store, and backup files.
//!
//! [`SealedRecord`] and [`KeyEncryptionKey`] are the central types. A record takes this path:
//!
//! 1. [`SealedRecord::seal`] encrypts the plaintext with XChaCha20-Poly1305 under a fresh 32-byte
//!    data key.
//! 2. The same cipher encrypts the data key under the store's [`KeyEncryptionKey`].
//! 3. The [`RecordLabel`] is associated data of both. So a record does not open if it was moved to
//!    another wallet, index, epoch, kind or item.
//! 4. [`SealedRecord::open`] reverses both steps. [`SealedRecord::rewrap`] changes only the
//!    encryption of the data key.
//!
//! A party's store has a random key. It is stored encrypted under another key: from a file, from a
//! passphrase (argon2id, RFC 9106) or in a key service. In a browser, the key comes from a
//! passphrase or from the secret output of a passkey.
//!
//! | module | what |
//! |---|---|
//! | [`key_file`] | 32 bytes in a file, or in a credential of systemd |
//! | [`protection`] | how a browser derives its key again, and checks that it is the right one |
//! | [`device`] | a browser's record of a wallet: share, keys, Paillier keys, responders'
//! agreements |
//! | [`backup`] | a file with one share, which a passphrase opens |
//! | [`age`] | the encryption of that file: the age format, with passphrases only |
//!
//! # Security
//! A reader of the process's memory is not covered. Neither are a store's plain columns
//! (identifiers, states, times): they are not secret, but a thief of the disk can read them.

pub mod age;
pub mod backup;
pub mod device;
mod key;
pub mod key_file;
mod key_wrap;
pub mod protection;
mod record;

pub use key::{Argon2Cost, KeyEncryptionKey, KeyError, KeyId, SALT_SIZE_BYTES};
pub use record::{OpenError, RecordKind, RecordLabel, SealedRecord};

//! Encryption of a store's key: by a key file, a passphrase, or a key service.
//!
//! A store's records are sealed under the store's own key. It is random and never leaves the store
//! in the clear. Beside the records lies a [`WrappedKey`]: that key, encrypted by a
//! [`KeyEncryption`].
//!
//! A process has the key decrypted once, when it opens the store, and never while it signs. So
//! signing neither waits for a key service nor stops with it. The price: a key service that is told
//! to refuse stops a party from starting, but not from continuing.

mod encryption;
mod error;
mod local;
pub mod vault_transit;
mod wrapped_key;

pub use self::{
    encryption::KeyEncryption,
    error::{KeyEncryptionError, VaultTransitError},
    local::{KeyFile, Passphrase},
    vault_transit::{VaultTransit, VaultTransitOptions},
    wrapped_key::{Source, WrappedKey},
};

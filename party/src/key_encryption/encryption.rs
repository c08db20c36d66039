//! What encrypts a store's key.

use std::fmt;

use async_trait::async_trait;

use super::{KeyEncryptionError, Source, WrappedKey};
use crate::at_rest::KeyEncryptionKey;

/// The purpose that a wrapped key is bound to.
pub(super) const PURPOSE: &[u8] = b"store";

/// A source that encrypts a store's key and decrypts it again: a key encryption key, or a service
/// that holds one.
#[async_trait]
pub trait KeyEncryption: fmt::Debug + Send + Sync + 'static {
    /// The kind of this source.
    fn source(&self) -> Source;

    /// Encrypts a store's key. Creates a key file that does not exist yet.
    ///
    /// # Errors
    /// When the source is not available.
    async fn wrap(&self, key: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError>;

    /// Decrypts a store's key.
    ///
    /// # Errors
    /// When the source is not available, or when another source encrypted the key.
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError>;

    /// Encrypts a store's key again: under the newest version of a service's key, or with a new
    /// salt.
    ///
    /// # Errors
    /// As [`Self::wrap`] and [`Self::unwrap`].
    async fn rewrap(&self, wrapped: &WrappedKey) -> Result<WrappedKey, KeyEncryptionError> {
        let key = self.unwrap(wrapped).await?;
        self.wrap(&key).await
    }
}

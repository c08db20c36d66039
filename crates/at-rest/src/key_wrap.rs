//! Key encryption keys, encrypted under one another.

use zeroize::Zeroizing;

use crate::{
    KeyEncryptionKey, KeyError, OpenError, RecordKind, RecordLabel, SealedRecord, key::KEY_SIZE_BYTES,
};

impl KeyEncryptionKey {
    /// Encrypts another key under this one, bound to `purpose`. The result is a sealed record of
    /// kind [`RecordKind::Key`].
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn wrap(&self, key: &Self, purpose: &[u8]) -> Result<SealedRecord, KeyError> {
        SealedRecord::seal(self, &RecordLabel::of_party(RecordKind::Key, purpose), key.0.as_slice())
    }

    /// Decrypts a key that [`Self::wrap`] encrypted under this one for the same purpose.
    ///
    /// # Errors
    /// When the key or purpose is another one, or when a byte was changed.
    pub fn unwrap(&self, wrapped: &SealedRecord, purpose: &[u8]) -> Result<Self, OpenError> {
        let opened = wrapped.open(self, &RecordLabel::of_party(RecordKind::Key, purpose))?;
        let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
        if opened.len() != KEY_SIZE_BYTES {
            return Err(OpenError::Format);
        }
        key.copy_from_slice(&opened);
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_wrapped_key_opens_under_its_key_and_for_its_purpose_only() {
        let inner = KeyEncryptionKey::generate().unwrap();
        let wrapped = key(1).wrap(&inner, b"store").unwrap();
        assert_eq!(*key(1).unwrap(&wrapped, b"store").unwrap().0, *inner.0);
        assert_eq!(key(2).unwrap(&wrapped, b"store").unwrap_err(), OpenError::Refused);
        assert_eq!(key(1).unwrap(&wrapped, b"other").unwrap_err(), OpenError::Refused);
        let label = RecordLabel::of_party(RecordKind::Key, b"store");
        let short = SealedRecord::seal(&key(1), &label, &[1; 31]).unwrap();
        assert_eq!(key(1).unwrap(&short, b"store").unwrap_err(), OpenError::Format);
    }
}

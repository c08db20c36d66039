//! An initiator's Paillier key with its name and owner.
//!
//! A device has one per wallet. A service has one per responder card and tenant, never one for
//! several responders or tenants: a malicious responder would use throwaway wallets under the same
//! modulus as an oracle against the others.

use core::fmt;

use zeroize::Zeroizing;

use crate::{
    arithmetic::{Arithmetic, PrimeProgress},
    ids::{PaillierKeyId, PartyId},
    natural::Natural,
    paillier::{DecryptionKey, InvalidDecryptionKey, ModulusSize},
};

/// A decryption key, its id, and its owner. The primes are wiped on drop; the constants that the
/// arithmetic prepared from them (Montgomery forms, GMP limbs) are not; see [`crate::natural`].
pub struct PaillierKey {
    id: PaillierKeyId,
    owner: PartyId,
    decryption: DecryptionKey,
}

impl PaillierKey {
    /// Names `decryption` as `owner`'s.
    #[must_use]
    pub fn new(owner: PartyId, decryption: DecryptionKey) -> Self {
        Self { id: decryption.encryption_key().id(&owner), owner, decryption }
    }

    /// Draws a key. It takes a few hundred milliseconds natively, seconds in a browser.
    pub fn generate(
        owner: PartyId,
        size: ModulusSize,
        arithmetic: &'static dyn Arithmetic,
        entropy: &mut dyn crate::hedge::Entropy,
        progress: &mut dyn FnMut(PrimeProgress),
    ) -> Self {
        Self::new(owner, DecryptionKey::generate(size, arithmetic, entropy, progress))
    }

    /// A key of two primes of `size` from a search elsewhere, in several threads at once. This
    /// checks everything, primality included.
    ///
    /// # Errors
    /// Unless they are two different Blum primes whose product has exactly the length of `size`.
    pub fn from_primes(
        owner: PartyId,
        size: ModulusSize,
        p: &Natural,
        q: &Natural,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDecryptionKey> {
        if !arithmetic.is_prime(p) || !arithmetic.is_prime(q) {
            return Err(InvalidDecryptionKey::Primes);
        }
        let key = DecryptionKey::from_primes(p, q, arithmetic)?;
        if key.encryption_key().size() == size {
            Ok(Self::new(owner, key))
        } else {
            Err(InvalidDecryptionKey::Primes)
        }
    }

    /// The id under which it is enrolled, charged and locked.
    #[must_use]
    pub const fn id(&self) -> PaillierKeyId {
        self.id
    }

    /// The initiator.
    #[must_use]
    pub const fn owner(&self) -> &PartyId {
        &self.owner
    }

    /// The key itself.
    #[must_use]
    pub const fn decryption(&self) -> &DecryptionKey {
        &self.decryption
    }

    /// The record to seal and store: the two primes.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        self.decryption.to_secret_bytes()
    }

    /// Parses the bytes of [`Self::to_secret_bytes`] of the same owner.
    ///
    /// # Errors
    /// When the bytes are not such a record.
    pub fn from_secret_bytes(
        owner: PartyId,
        bytes: &[u8],
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDecryptionKey> {
        DecryptionKey::from_secret_bytes(bytes, arithmetic).map(|key| Self::new(owner, key))
    }
}

impl fmt::Debug for PaillierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaillierKey({} of {}, redacted)", self.id, self.owner)
    }
}

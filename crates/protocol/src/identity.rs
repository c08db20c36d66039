//! Long-term keys of parties and requesters: Ed25519 to sign, X25519 for Noise and HPKE.

use core::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand_core::Rng as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use udigest::Digestable;
use x25519_dalek::{PublicKey as X25519PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    hedge::{self, Entropy, Purpose},
    transcript,
};

/// Separates statements of this protocol from all other messages that the same key signs.
const STATEMENT_TAG: &[u8] = b"duet/v1/statement\n";

/// A statement that a party signs: a struct with every field hashed, under a tag of its own.
pub(crate) trait Statement: Digestable {
    /// The tag of this kind of statement.
    const TAG: &'static str;
}

/// Why bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not a point of the curve, or one of small order under which anything can be signed.
    #[error("not a usable Ed25519 key (64 hexadecimal digits)")]
    Ed25519,
    /// A point of small order: every exchange with it gives the same secret.
    #[error("not a usable X25519 key (64 hexadecimal digits)")]
    X25519,
    /// A secret record of the wrong length.
    #[error("not a record of party keys")]
    Record,
}

/// A signature does not verify under the expected key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Ed25519 signature does not verify")]
pub struct BadSignature;

/// A parsed Ed25519 verification key, never of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdentityKey(VerifyingKey);

impl IdentityKey {
    /// Parses the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// When they are not a point, or one of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(InvalidKey::Ed25519),
        }
    }

    /// The key's 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Verifies a signature over `message` as it is, strictly (no malleability, no small orders).
    ///
    /// # Errors
    /// When it does not verify.
    pub fn verify(&self, message: &[u8], signature: &IdentitySignature) -> Result<(), BadSignature> {
        self.0.verify_strict(message, &Signature::from_bytes(&signature.0)).map_err(|_| BadSignature)
    }

    /// Verifies a signature that [`PartyKeys::sign_statement`] made.
    pub(crate) fn verify_statement(
        &self,
        statement: &impl Statement,
        signature: &IdentitySignature,
    ) -> Result<(), BadSignature> {
        self.verify(&statement_bytes(statement), signature)
    }
}

fn statement_bytes<S: Statement>(statement: &S) -> Vec<u8> {
    [STATEMENT_TAG, &transcript::hash(S::TAG, statement)].concat()
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({self})")
    }
}

impl FromStr for IdentityKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidKey::Ed25519)?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for IdentityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.as_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for IdentityKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Self::from_bytes(&<[u8; 32]>::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

impl Digestable for IdentityKey {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        encoder.encode_leaf_value(self.as_bytes());
    }
}

/// An Ed25519 signature as it travels: 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Digestable)]
pub struct IdentitySignature(#[udigest(as_bytes)] pub [u8; 64]);

impl fmt::Debug for IdentitySignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentitySignature({})", hex::encode(self.0))
    }
}

impl Serialize for IdentitySignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for IdentitySignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::bytes::deserialize(deserializer).map(Self)
    }
}

/// A parsed X25519 public key, never of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NoiseKey(X25519PublicKey);

impl NoiseKey {
    /// Parses the 32 bytes of RFC 7748.
    ///
    /// # Errors
    /// When the point has small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        let key = X25519PublicKey::from(bytes);
        // Any clamped scalar is a multiple of the cofactor, so this one finds every small order.
        let probe = StaticSecret::from([1; 32]).diffie_hellman(&key);
        if probe.was_contributory() { Ok(Self(key)) } else { Err(InvalidKey::X25519) }
    }

    /// The key's 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoiseKey({})", hex::encode(self.as_bytes()))
    }
}

impl Serialize for NoiseKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NoiseKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_bytes(<[u8; 32]>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Digestable for NoiseKey {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        encoder.encode_leaf_value(self.as_bytes());
    }
}

/// A party's secret keys: Ed25519 for statements that must be provable later, X25519 for Noise and
/// HPKE. Wiped on drop.
pub struct PartyKeys {
    signing: SigningKey,
    noise: StaticSecret,
}

impl PartyKeys {
    /// Draws both keys.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut rng = hedge::generator(entropy, &[], Purpose::Keys, &"party");
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        let signing = SigningKey::from_bytes(&seed);
        rng.fill_bytes(seed.as_mut());
        Self { signing, noise: StaticSecret::from(*seed) }
    }

    /// The key by which others know this party.
    #[must_use]
    pub fn identity(&self) -> IdentityKey {
        IdentityKey(self.signing.verifying_key())
    }

    /// The X25519 key that others encrypt to.
    #[must_use]
    pub fn noise_key(&self) -> NoiseKey {
        NoiseKey(X25519PublicKey::from(&self.noise))
    }

    /// Signs `message` as it is. The caller separates its messages by a prefix of their own; the
    /// prefix `duet/v1/statement\n` belongs to this crate.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> IdentitySignature {
        IdentitySignature(self.signing.sign(message).to_bytes())
    }

    pub(crate) fn sign_statement(&self, statement: &impl Statement) -> IdentitySignature {
        self.sign(&statement_bytes(statement))
    }

    pub(crate) fn noise_secret(&self) -> &StaticSecret {
        &self.noise
    }

    /// Both secrets, 64 bytes, for a sealed record.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        bytes.extend_from_slice(self.signing.as_bytes());
        bytes.extend_from_slice(self.noise.as_bytes());
        bytes
    }

    /// Parses the bytes of [`Self::to_secret_bytes`].
    ///
    /// # Errors
    /// When there are not exactly 64 bytes.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        if bytes.len() != 64 {
            return Err(InvalidKey::Record);
        }
        let (signing, noise) = bytes.split_at(32);
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(signing);
        let signing = SigningKey::from_bytes(&seed);
        seed.copy_from_slice(noise);
        Ok(Self { signing, noise: StaticSecret::from(*seed) })
    }
}

impl fmt::Debug for PartyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartyKeys({}, secrets redacted)", self.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    #[test]
    fn keys_of_small_order_are_refused() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert_eq!(IdentityKey::from_bytes(&identity_point), Err(InvalidKey::Ed25519));
        assert_eq!(NoiseKey::from_bytes([0; 32]), Err(InvalidKey::X25519));
        assert_eq!(NoiseKey::from_bytes(identity_point), Err(InvalidKey::X25519));
    }

    #[test]
    fn secrets_round_trip_and_are_not_printed() {
        let keys = PartyKeys::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let bytes = keys.to_secret_bytes();
        let again = PartyKeys::from_secret_bytes(&bytes).unwrap();
        assert_eq!((keys.identity(), keys.noise_key()), (again.identity(), again.noise_key()));
        assert!(!format!("{keys:?}").contains(&hex::encode(&bytes[..32])));
        assert!(PartyKeys::from_secret_bytes(&bytes[1..]).is_err());
    }

    #[test]
    fn a_statement_is_not_a_signature_over_its_bare_hash() {
        #[derive(Digestable)]
        struct Said(u8);
        impl Statement for Said {
            const TAG: &'static str = "test";
        }
        let keys = PartyKeys::generate(&mut ChaCha20Rng::seed_from_u64(2));
        let signature = keys.sign_statement(&Said(1));
        assert_eq!(keys.identity().verify_statement(&Said(1), &signature), Ok(()));
        assert_eq!(keys.identity().verify_statement(&Said(2), &signature), Err(BadSignature));
        assert_eq!(
            keys.identity().verify(&transcript::hash("test", &Said(1)), &signature),
            Err(BadSignature)
        );
    }
}

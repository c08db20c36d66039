//! Public keys, Ethereum addresses and non-hardened BIP-32 children.
//!
//! A child's private key is the wallet's plus a tweak `δ`. Anyone who knows the public key and the
//! chain code can compute `δ`. So a child needs no shares of its own: the responder adds `δ`.

use core::{fmt, str::FromStr};

use k256::{
    ProjectivePoint, Scalar,
    elliptic_curve::{PrimeField as _, sec1::ToSec1Point as _},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha3::{Digest as _, Keccak256};

/// The longest derivation path, in steps.
pub const MAX_PATH_DEPTH: usize = 10;

/// The largest index of a step, 2^31 − 1. BIP-32 calls those above it hardened: such children need
/// the private key.
pub const MAX_INDEX: u32 = 0x7fff_ffff;

/// Why bytes or text are not a public key, or a child cannot be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicKey {
    /// Not a compressed point of secp256k1 other than the identity.
    #[error("not a compressed secp256k1 point (66 hexadecimal digits)")]
    Point,
    /// BIP-32: the index has no child (probability below 2^-127); use the next index.
    #[error("this derivation path has no key, use another index")]
    NoChild,
}

/// A public key: a point of secp256k1 that is not the identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(k256::PublicKey);

impl PublicKey {
    /// Parses 33 bytes of compressed SEC1.
    ///
    /// # Errors
    /// When they are not a point of the curve, or not compressed.
    pub fn from_bytes(bytes: &[u8; 33]) -> Result<Self, InvalidPublicKey> {
        k256::PublicKey::from_sec1_bytes(bytes).map(Self).map_err(|_| InvalidPublicKey::Point)
    }

    /// The key with this point, unless it is the identity.
    pub(crate) fn from_projective(point: &ProjectivePoint) -> Result<Self, InvalidPublicKey> {
        k256::PublicKey::from_affine(point.to_affine()).map(Self).map_err(|_| InvalidPublicKey::Point)
    }

    /// Compressed SEC1, 33 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        let encoded = self.0.to_sec1_point(true);
        bytes.copy_from_slice(encoded.as_bytes());
        bytes
    }

    /// Uncompressed SEC1, 65 bytes.
    #[must_use]
    pub fn to_uncompressed_bytes(&self) -> [u8; 65] {
        let mut bytes = [0; 65];
        let encoded = self.0.to_sec1_point(false);
        bytes.copy_from_slice(encoded.as_bytes());
        bytes
    }

    pub(crate) fn to_projective(self) -> ProjectivePoint {
        self.0.to_projective()
    }

    pub(crate) fn verifying_key(&self) -> k256::ecdsa::VerifyingKey {
        k256::ecdsa::VerifyingKey::from(&self.0)
    }

    /// The Ethereum address: the last 20 bytes of the Keccak-256 of the uncompressed point.
    #[must_use]
    pub fn address(&self) -> [u8; 20] {
        let uncompressed = self.to_uncompressed_bytes();
        let (_, coordinates) = uncompressed.split_at(1);
        let mut address = [0; 20];
        for (byte, hashed) in address.iter_mut().zip(Keccak256::digest(coordinates).iter().skip(12)) {
            *byte = *hashed;
        }
        address
    }

    /// The child at `path`, with the tweak `δ` between its private key and this one's, by BIP-32's
    /// public parent to public child derivation.
    ///
    /// # Errors
    /// [`InvalidPublicKey::NoChild`] with negligible probability.
    pub fn child(
        &self,
        chain_code: &ChainCode,
        path: &DerivationPath,
    ) -> Result<(Self, Tweak), InvalidPublicKey> {
        let mut key = *self;
        let mut chain_code = chain_code.0;
        let mut tweak = Scalar::ZERO;
        for index in path.indices() {
            let (step, next_chain_code) = bip32::PublicKey::derive_tweak(
                &key,
                &chain_code,
                bip32::ChildNumber::new(*index, false).map_err(|_| InvalidPublicKey::NoChild)?,
            )
            .map_err(|_| InvalidPublicKey::NoChild)?;
            tweak += tweak_scalar(step)?;
            key = bip32::PublicKey::derive_child(&key, step).map_err(|_| InvalidPublicKey::NoChild)?;
            chain_code = next_chain_code;
        }
        Ok((key, Tweak(tweak)))
    }
}

fn tweak_scalar(bytes: [u8; 32]) -> Result<Scalar, InvalidPublicKey> {
    Option::from(Scalar::from_repr(bytes.into())).ok_or(InvalidPublicKey::NoChild)
}

impl bip32::PublicKey for PublicKey {
    fn from_bytes(bytes: bip32::PublicKeyBytes) -> bip32::Result<Self> {
        Self::from_bytes(&bytes).map_err(|_| bip32::Error::Crypto)
    }

    fn to_bytes(&self) -> bip32::PublicKeyBytes {
        Self::to_bytes(self)
    }

    fn derive_child(&self, other: bip32::PrivateKeyBytes) -> bip32::Result<Self> {
        let tweak = tweak_scalar(other).map_err(|_| bip32::Error::Crypto)?;
        Self::from_projective(&(self.to_projective() + ProjectivePoint::GENERATOR * tweak))
            .map_err(|_| bip32::Error::Crypto)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;
    fn from_str(text: &str) -> Result<Self, InvalidPublicKey> {
        let mut bytes = [0; 33];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidPublicKey::Point)?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            crate::bytes::serialize(&self.to_bytes(), serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Self::from_bytes(&crate::bytes::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

impl udigest::Digestable for PublicKey {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        encoder.encode_leaf_value(self.to_bytes());
    }
}

/// BIP-32's chain code of a wallet's root key, 32 bytes. Not secret, but its knowledge links the
/// children of a wallet.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct ChainCode(#[udigest(as_bytes)] pub [u8; 32]);

impl fmt::Debug for ChainCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainCode({})", hex::encode(self.0))
    }
}

/// The difference of a child's private key and the wallet's: a scalar mod `q`, 0 for the root.
/// Public.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tweak(pub(crate) Scalar);

impl Tweak {
    /// Big-endian, 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_repr().into()
    }
}

/// Why text is not a derivation path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Not `m`, or `m/` and numbers separated by slashes.
    #[error("expected a path such as m or m/0/5")]
    Syntax,
    /// Hardened children need the whole private key, which no party has.
    #[error(
        "hardened steps (0' or 0h, and indices above {MAX_INDEX}) cannot be derived for a shared key; use m/0/0 and on"
    )]
    Hardened,
    /// A step above 2^32 − 1. Those from 2^31 on are [`Self::Hardened`].
    #[error("an index of a path is at most {MAX_INDEX}")]
    Index,
    /// More than [`MAX_PATH_DEPTH`] steps.
    #[error("a path has at most {MAX_PATH_DEPTH} steps")]
    TooDeep,
}

/// A path of non-hardened BIP-32 steps from a wallet's root: `m`, `m/0`, `m/0/5`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, udigest::Digestable)]
pub struct DerivationPath(Vec<u32>);

impl DerivationPath {
    /// The wallet's own key, `m`.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The path with these steps.
    ///
    /// # Errors
    /// When a step is hardened (2^31 or more) or there are more than [`MAX_PATH_DEPTH`].
    pub fn new(indices: Vec<u32>) -> Result<Self, InvalidPath> {
        if indices.len() > MAX_PATH_DEPTH {
            Err(InvalidPath::TooDeep)
        } else if indices.iter().any(|index| *index > MAX_INDEX) {
            Err(InvalidPath::Hardened)
        } else {
            Ok(Self(indices))
        }
    }

    /// The steps, from the root.
    #[must_use]
    pub fn indices(&self) -> &[u32] {
        &self.0
    }

    /// Whether this is the wallet's own key.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for DerivationPath {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let mut parts = text.split('/');
        if parts.next() != Some("m") {
            return Err(InvalidPath::Syntax);
        }
        let mut indices = Vec::new();
        for part in parts {
            if indices.len() == MAX_PATH_DEPTH {
                return Err(InvalidPath::TooDeep);
            }
            if part.ends_with(['\'', 'h', 'H']) {
                return Err(InvalidPath::Hardened);
            }
            // One spelling per path: no signs, no leading zeros.
            let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !is_number || (part.len() > 1 && part.starts_with('0')) {
                return Err(InvalidPath::Syntax);
            }
            indices.push(part.parse().map_err(|_| InvalidPath::Index)?);
        }
        Self::new(indices)
    }
}

impl fmt::Display for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|index| write!(f, "/{index}"))
    }
}

impl fmt::Debug for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DerivationPath({self})")
    }
}

impl Serialize for DerivationPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for DerivationPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Self::new(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> PublicKey {
        text.parse().unwrap()
    }

    fn chain_code(text: &str) -> ChainCode {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).unwrap();
        ChainCode(bytes)
    }

    #[test]
    fn bip32_test_vector_2_chain_m_0() {
        // BIP-32, test vector 2: the extended public keys of "m" and "m/0", decoded.
        let root = key("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7");
        let code = chain_code("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689");
        let (child, tweak) = root.child(&code, &"m/0".parse().unwrap()).unwrap();
        assert_eq!(child, key("02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea"));
        let by_tweak = root.to_projective() + ProjectivePoint::GENERATOR * tweak.0;
        assert_eq!(PublicKey::from_projective(&by_tweak), Ok(child));
    }

    #[test]
    fn bip32_test_vector_1_steps_below_the_hardened_one() {
        // BIP-32, test vector 1: "m/0'/1" is the non-hardened child 1 of "m/0'".
        let parent = key("035a784662a4a20a65bf6aab9ae98a6c068a81c52e4b032c0fb5400c706cfccc56");
        let code = chain_code("47fdacbd0f1097043b78c63c20c34ef4ed9a111d980047ad16282c7ae6236141");
        let (child, _) = parent.child(&code, &"m/1".parse().unwrap()).unwrap();
        assert_eq!(child, key("03501e454bf00751f24b1b489aa925215d66af2234e3891c3b21a52bedb3cd711c"));
    }

    #[test]
    fn the_root_is_its_own_child_with_tweak_zero() {
        let root = key("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7");
        let (child, tweak) = root.child(&ChainCode([7; 32]), &DerivationPath::root()).unwrap();
        assert_eq!((child, tweak), (root, Tweak(Scalar::ZERO)));
    }

    #[test]
    fn a_path_adds_up_the_tweaks_of_its_steps() {
        let root = key("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7");
        let (child, tweak) = root.child(&ChainCode([7; 32]), &"m/3/14/15".parse().unwrap()).unwrap();
        let by_tweak = root.to_projective() + ProjectivePoint::GENERATOR * tweak.0;
        assert_eq!(PublicKey::from_projective(&by_tweak), Ok(child));
    }

    #[test]
    fn the_address_of_the_private_key_one() {
        let generator = PublicKey::from_projective(&ProjectivePoint::GENERATOR).unwrap();
        assert_eq!(hex::encode(generator.address()), "7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for bad in [
            "00".repeat(33),
            format!("02{}", "ff".repeat(32)),
            format!("05{}", "11".repeat(32)),
            format!("02{}", "00".repeat(32)),
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(InvalidPublicKey::Point), "{bad}");
        }
    }

    #[test]
    fn paths_have_one_spelling() {
        for good in ["m", "m/0", "m/0/5", "m/2147483647"] {
            assert_eq!(good.parse::<DerivationPath>().unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("", InvalidPath::Syntax),
            ("m/", InvalidPath::Syntax),
            ("/0", InvalidPath::Syntax),
            ("m/01", InvalidPath::Syntax),
            ("m/+1", InvalidPath::Syntax),
            ("m/-1", InvalidPath::Syntax),
            ("m/4294967296", InvalidPath::Index),
            ("m/0'", InvalidPath::Hardened),
            ("m/2147483648", InvalidPath::Hardened),
            ("m/0/0/0/0/0/0/0/0/0/0/0", InvalidPath::TooDeep),
        ] {
            assert_eq!(bad.parse::<DerivationPath>(), Err(why), "{bad}");
        }
    }
}

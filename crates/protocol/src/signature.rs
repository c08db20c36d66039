//! ECDSA signatures in Ethereum's form: low `s`, with the parity that recovers the key.

use core::fmt;

use k256::{
    Scalar,
    ecdsa::{RecoveryId, Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _},
    elliptic_curve::{PrimeField as _, scalar::IsHigh as _},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::public_key::PublicKey;

/// Why bytes are not a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// `r` is 0, or at least the order of the curve.
    #[error("r is not between 1 and the order of the curve")]
    R,
    /// `s` is 0, or at least the order of the curve.
    #[error("s is not between 1 and the order of the curve")]
    S,
    /// `s` is above half the order: EIP-2 accepts only the lower of the two.
    #[error("s is above half the order of the curve")]
    HighS,
    /// The last byte is not a parity.
    #[error("the last byte, v, is none of 27, 28, 0 and 1")]
    Parity,
    /// The text is not 130 hexadecimal digits.
    #[error("expected 130 hexadecimal digits, optionally after 0x")]
    Hex,
}

/// What Ethereum's `v` adds to the parity.
const ETHEREUM_V: u8 = 27;

/// A signature with low `s` (EIP-2) and the parity of `R`'s y coordinate, which together recover
/// the public key. `R.x` is below the curve's order. One signature in 2^127 would not have such an
/// `R.x`; this crate never makes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecoverableSignature {
    r: [u8; 32],
    s: [u8; 32],
    y_parity: bool,
}

impl RecoverableSignature {
    /// `r`, big-endian, leading zeros kept.
    #[must_use]
    pub const fn r(&self) -> &[u8; 32] {
        &self.r
    }

    /// `s`, big-endian, leading zeros kept, at most half the order.
    #[must_use]
    pub const fn s(&self) -> &[u8; 32] {
        &self.s
    }

    /// Whether `R`'s y coordinate is odd: Ethereum's `yParity`.
    #[must_use]
    pub const fn y_parity(&self) -> bool {
        self.y_parity
    }

    /// Parses the parts.
    ///
    /// # Errors
    /// When `r` or `s` is 0 or not below the curve's order, or `s` is the higher of the two.
    pub fn new(r: [u8; 32], s: [u8; 32], y_parity: bool) -> Result<Self, InvalidSignature> {
        let scalar = |bytes: [u8; 32]| {
            Option::<Scalar>::from(Scalar::from_repr(bytes.into()))
                .filter(|scalar| !bool::from(scalar.is_zero()))
        };
        scalar(r).ok_or(InvalidSignature::R)?;
        if bool::from(scalar(s).ok_or(InvalidSignature::S)?.is_high()) {
            return Err(InvalidSignature::HighS);
        }
        Ok(Self { r, s, y_parity })
    }

    /// Accepts either `s` and returns the low one, with the parity flipped to match: `(r, q - s)`
    /// belongs to `-R`. `None` when `r` or `s` is 0.
    pub(crate) fn normalized(r: &Scalar, s: &Scalar, y_parity: bool) -> Option<Self> {
        let high = bool::from(s.is_high());
        let low = if high { -s } else { *s };
        Self::new(r.to_repr().into(), low.to_repr().into(), y_parity ^ high).ok()
    }

    /// `r`, `s` and the parity (0 or 1): the 65 bytes that parties send each other. For Ethereum's
    /// tools use [`Self::to_ethereum_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 65] {
        let mut bytes = [0; 65];
        let (r, rest) = bytes.split_at_mut(32);
        let (s, parity) = rest.split_at_mut(32);
        r.copy_from_slice(&self.r);
        s.copy_from_slice(&self.s);
        parity.fill(u8::from(self.y_parity));
        bytes
    }

    /// `r`, `s` and `v` (27 or 28): the 65 bytes that `ecrecover` and Ethereum's libraries accept.
    #[must_use]
    pub fn to_ethereum_bytes(&self) -> [u8; 65] {
        let mut bytes = self.to_bytes();
        let [.., v] = &mut bytes;
        *v += ETHEREUM_V;
        bytes
    }

    /// Parses 65 bytes whose last is `v` as Ethereum's tools write it (27, 28), or the parity (0,
    /// 1).
    ///
    /// # Errors
    /// When a part is out of range, see [`InvalidSignature`].
    pub fn from_ethereum_bytes(bytes: &[u8; 65]) -> Result<Self, InvalidSignature> {
        let mut plain = *bytes;
        if let [.., v @ (27 | 28)] = &mut plain {
            *v -= ETHEREUM_V;
        }
        Self::from_bytes(&plain)
    }

    /// Parses 65 bytes as [`Self::to_bytes`] writes them.
    ///
    /// # Errors
    /// When a part is out of range, see [`InvalidSignature`].
    pub fn from_bytes(bytes: &[u8; 65]) -> Result<Self, InvalidSignature> {
        let [signature @ .., parity] = bytes;
        let y_parity = match parity {
            0 => false,
            1 => true,
            _ => return Err(InvalidSignature::Parity),
        };
        let (mut r, mut s) = ([0; 32], [0; 32]);
        let (first, second) = signature.split_at(32);
        r.copy_from_slice(first);
        s.copy_from_slice(second);
        Self::new(r, s, y_parity)
    }
}

/// Ethereum's form: see [`RecoverableSignature::to_ethereum_bytes`].
impl fmt::Display for RecoverableSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.to_ethereum_bytes()))
    }
}

impl fmt::Debug for RecoverableSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoverableSignature({self})")
    }
}

impl core::str::FromStr for RecoverableSignature {
    type Err = InvalidSignature;
    fn from_str(text: &str) -> Result<Self, InvalidSignature> {
        let mut bytes = [0; 65];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
            .map_err(|_| InvalidSignature::Hex)?;
        Self::from_ethereum_bytes(&bytes)
    }
}

impl Serialize for RecoverableSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            crate::bytes::serialize(&self.to_bytes(), serializer)
        }
    }
}

impl<'de> Deserialize<'de> for RecoverableSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Self::from_bytes(&crate::bytes::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

/// Why a signature is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It does not sign this digest under this key.
    #[error("the signature does not verify under this key")]
    Signature,
    /// It verifies, but the parity recovers another key.
    #[error("the signature's parity recovers another key")]
    Parity,
}

/// Verifies with the library's verifier, and checks that the parity recovers exactly this key.
///
/// # Errors
/// When either check fails.
pub fn verify(
    key: &PublicKey,
    digest: &[u8; 32],
    signature: &RecoverableSignature,
) -> Result<(), VerifyError> {
    let plain = Signature::from_scalars(signature.r, signature.s).map_err(|_| VerifyError::Signature)?;
    let key = key.verifying_key();
    key.verify_prehash(digest, &plain).map_err(|_| VerifyError::Signature)?;
    let recovery = RecoveryId::new(signature.y_parity, false);
    match VerifyingKey::recover_from_prehash(digest, &plain, recovery) {
        Ok(recovered) if recovered == key => Ok(()),
        _ => Err(VerifyError::Parity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::SigningKey;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
    use rand_core::Rng as _;

    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    const HALF_ORDER: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";

    fn word(text: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn ten_thousand_recoveries() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for _ in 0..10_000 {
            let (mut secret, mut digest) = ([0; 32], [0; 32]);
            rng.fill_bytes(&mut secret);
            rng.fill_bytes(&mut digest);
            let signing = SigningKey::from_bytes(&secret.into()).unwrap();
            let (plain, id) = signing.sign_prehash_recoverable(&digest);
            let signature = RecoverableSignature::normalized(&plain.r(), &plain.s(), id.is_y_odd()).unwrap();
            let flipped = RecoverableSignature::normalized(&plain.r(), &-*plain.s(), !id.is_y_odd()).unwrap();
            assert_eq!(signature, flipped, "the two s give one signature");
            let key = PublicKey::from_projective(&signing.verifying_key().as_affine().into()).unwrap();
            verify(&key, &digest, &signature).unwrap();
            assert_eq!(RecoverableSignature::from_bytes(&signature.to_bytes()), Ok(signature));
        }
    }

    #[test]
    fn out_of_range_parts_are_refused() {
        let (one, zero, order) = (word(&format!("{:064x}", 1)), [0; 32], word(ORDER));
        let half = word(HALF_ORDER);
        let mut above = half;
        above[31] += 1;
        assert_eq!(RecoverableSignature::new(zero, one, false), Err(InvalidSignature::R));
        assert_eq!(RecoverableSignature::new(order, one, false), Err(InvalidSignature::R));
        assert_eq!(RecoverableSignature::new(one, zero, false), Err(InvalidSignature::S));
        assert_eq!(RecoverableSignature::new(one, order, false), Err(InvalidSignature::S));
        assert_eq!(RecoverableSignature::new(one, above, false), Err(InvalidSignature::HighS));
        assert!(RecoverableSignature::new(one, half, false).is_ok());
        let mut bytes = RecoverableSignature::new(one, one, true).unwrap().to_bytes();
        bytes[64] = 27;
        assert_eq!(RecoverableSignature::from_bytes(&bytes), Err(InvalidSignature::Parity));
    }

    #[test]
    fn text_ends_with_v_and_is_read_with_v_or_parity() {
        let one = word(&format!("{:064x}", 1));
        for (odd, v, parity) in [(false, "1b", "00"), (true, "1c", "01")] {
            let signature = RecoverableSignature::new(one, one, odd).unwrap();
            let text = signature.to_string();
            assert_eq!(text.get(130..), Some(v));
            assert_eq!(serde_json::to_value(signature).unwrap(), text);
            let plain = format!("{}{parity}", text.get(..130).unwrap());
            for given in [&text, &plain] {
                assert_eq!(given.parse(), Ok(signature));
                let document = serde_json::Value::String(given.clone());
                assert_eq!(serde_json::from_value::<RecoverableSignature>(document).unwrap(), signature);
            }
            assert_eq!(RecoverableSignature::from_ethereum_bytes(&signature.to_bytes()), Ok(signature));
            assert_eq!(signature.to_ethereum_bytes()[64], 27 + u8::from(odd));
        }
        for v in ["02", "1a", "1d", "25"] {
            let text = format!(
                "{}{v}",
                RecoverableSignature::new(one, one, false).unwrap().to_string().get(..130).unwrap()
            );
            assert_eq!(text.parse::<RecoverableSignature>(), Err(InvalidSignature::Parity));
        }
    }

    #[test]
    fn the_wrong_parity_key_or_digest_is_named() {
        let signing = SigningKey::from_bytes(&[5; 32].into()).unwrap();
        let (plain, id) = signing.sign_prehash_recoverable(&[9; 32]);
        let key = PublicKey::from_projective(&signing.verifying_key().as_affine().into()).unwrap();
        let right = RecoverableSignature::normalized(&plain.r(), &plain.s(), id.is_y_odd()).unwrap();
        let wrong = RecoverableSignature { y_parity: !right.y_parity, ..right };
        assert_eq!(verify(&key, &[9; 32], &wrong), Err(VerifyError::Parity));
        assert_eq!(verify(&key, &[8; 32], &right), Err(VerifyError::Signature));
    }
}

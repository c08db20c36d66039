//! secp256k1: parsed points, which are never the identity, and scalars.
//!
//! k256 does all the arithmetic, in constant time where scalars are secret.

use core::fmt;

use k256::{
    AffinePoint, FieldBytes, ProjectivePoint,
    elliptic_curve::{Group as _, PrimeField as _, group::GroupEncoding as _, point::AffineCoordinates as _},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::{Zeroize, Zeroizing};

pub use k256::Scalar;

use crate::natural::Natural;

/// The size of a point in SEC1's compressed form, in bytes.
pub const POINT_SIZE_BYTES: usize = 33;

/// The size of a scalar, big-endian, in bytes.
pub const SCALAR_SIZE_BYTES: usize = 32;

/// The order `q` of the group, big-endian (SEC 2, section 2.4.1).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba,
    0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// The order `q` of the group.
#[must_use]
pub fn order() -> Natural {
    Natural::from_be_bytes(&ORDER)
}

/// Why bytes are not a point or a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCurveValue {
    /// Not the compressed encoding of a point on the curve other than the identity.
    #[error("not a compressed point of secp256k1 other than the identity")]
    Point,
    /// Not below the order of the group.
    #[error("not a scalar below the order of secp256k1")]
    Scalar,
    /// The scalar is zero, which is not allowed here.
    #[error("the scalar is zero")]
    Zero,
}

/// A point of secp256k1 other than the identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Point(AffinePoint);

impl Point {
    /// The generator `G`.
    #[must_use]
    pub fn generator() -> Self {
        Self(AffinePoint::GENERATOR)
    }

    /// Takes a point of the library; `None` for the identity.
    #[must_use]
    pub fn from_projective(point: ProjectivePoint) -> Option<Self> {
        (!bool::from(point.is_identity())).then(|| Self(point.to_affine()))
    }

    /// The point for the library's arithmetic.
    #[must_use]
    pub fn to_projective(self) -> ProjectivePoint {
        self.0.into()
    }

    /// The point in affine form.
    #[must_use]
    pub fn as_affine(&self) -> &AffinePoint {
        &self.0
    }

    /// Parses the compressed form.
    ///
    /// # Errors
    /// Unless `bytes` are the compressed encoding of a point on the curve other than the identity.
    pub fn from_bytes(bytes: &[u8; POINT_SIZE_BYTES]) -> Result<Self, InvalidCurveValue> {
        let parsed =
            AffinePoint::from_bytes(&(*bytes).into()).into_option().ok_or(InvalidCurveValue::Point)?;
        Self::from_projective(parsed.into()).ok_or(InvalidCurveValue::Point)
    }

    /// The compressed form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; POINT_SIZE_BYTES] {
        self.0.to_bytes().into()
    }

    /// The affine x coordinate, big-endian, not reduced by the group's order.
    #[must_use]
    pub fn x(&self) -> [u8; 32] {
        self.0.x().into()
    }

    /// Whether the affine y coordinate is odd.
    #[must_use]
    pub fn is_y_odd(&self) -> bool {
        bool::from(self.0.y_is_odd())
    }

    /// `self + other`; `None` when that is the identity.
    #[must_use]
    pub fn add(&self, other: &Self) -> Option<Self> {
        Self::from_projective(self.to_projective() + other.to_projective())
    }

    /// `scalar · self`; `None` when `scalar` is zero.
    #[must_use]
    pub fn mul(&self, scalar: &Scalar) -> Option<Self> {
        Self::from_projective(self.to_projective() * scalar)
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Point({})", hex::encode(self.to_bytes()))
    }
}

impl udigest::Digestable for Point {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        encoder.encode_leaf_value(self.to_bytes());
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_array(&self.to_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_bytes(&deserialize_array(deserializer)?).map_err(de::Error::custom)
    }
}

/// A scalar that is secret and not zero: a share, a nonce. Wiped when dropped.
///
/// The scalar stays in one place in memory while its owner moves from task to task. A moved value
/// would leave a copy behind that is never wiped.
#[derive(Clone)]
pub struct SecretScalar(Box<Scalar>);

impl SecretScalar {
    /// A uniform scalar other than zero.
    #[must_use]
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        loop {
            if let Ok(scalar) = Self::new(Scalar::generate_biased_from_rng(rng)) {
                return scalar;
            }
        }
    }

    /// Takes a scalar of the library.
    ///
    /// # Errors
    /// When it is zero.
    pub fn new(scalar: Scalar) -> Result<Self, InvalidCurveValue> {
        if bool::from(scalar.is_zero()) { Err(InvalidCurveValue::Zero) } else { Ok(Self(Box::new(scalar))) }
    }

    /// Parses 32 big-endian bytes.
    ///
    /// # Errors
    /// When the number is zero or not below the order.
    pub fn from_bytes(bytes: &[u8; SCALAR_SIZE_BYTES]) -> Result<Self, InvalidCurveValue> {
        Self::new(scalar_from_bytes(bytes)?)
    }

    /// 32 big-endian bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SCALAR_SIZE_BYTES]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The scalar for the library's arithmetic. The copy is not wiped.
    #[must_use]
    pub fn as_scalar(&self) -> &Scalar {
        &self.0
    }

    /// `self · G`.
    #[must_use]
    pub fn public(&self) -> Point {
        // Not the identity: the scalar is neither zero nor a multiple of the order.
        Point((ProjectivePoint::GENERATOR * *self.0).to_affine())
    }

    /// The scalar as an integer below the order.
    #[must_use]
    pub fn to_natural(&self) -> Natural {
        scalar_to_natural(&self.0)
    }
}

impl Drop for SecretScalar {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl zeroize::ZeroizeOnDrop for SecretScalar {}

impl fmt::Debug for SecretScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretScalar(..)")
    }
}

/// Parses 32 big-endian bytes as a scalar, zero included.
///
/// # Errors
/// When the number is not below the order.
pub fn scalar_from_bytes(bytes: &[u8; SCALAR_SIZE_BYTES]) -> Result<Scalar, InvalidCurveValue> {
    Scalar::from_repr(FieldBytes::from(*bytes)).into_option().ok_or(InvalidCurveValue::Scalar)
}

/// The scalar as an integer below the order.
#[must_use]
pub fn scalar_to_natural(scalar: &Scalar) -> Natural {
    let bytes: Zeroizing<[u8; SCALAR_SIZE_BYTES]> = Zeroizing::new(scalar.to_bytes().into());
    Natural::from_be_bytes(&*bytes)
}

/// `number mod q`. The time depends on the number's length only.
#[must_use]
pub fn reduce(number: &Natural) -> Scalar {
    let two_to_64 = Scalar::from(1_u64 << 32).square();
    let bytes = number.to_be_bytes();
    bytes.rchunks(8).rev().fold(Scalar::ZERO, |value, chunk| {
        let limb = chunk.iter().fold(0_u64, |limb, byte| (limb << 8) | u64::from(*byte));
        value * two_to_64 + Scalar::from(limb)
    })
}

/// A scalar on the wire: 32 big-endian bytes below the order. For
/// `#[serde(with = "curve::wire_scalar")]`.
pub mod wire_scalar {
    use super::{Scalar, deserialize_array, scalar_from_bytes, serialize_array};
    use serde::{Deserializer, Serializer, de::Error as _};

    /// Writes 32 big-endian bytes.
    ///
    /// # Errors
    /// The serialiser's own.
    pub fn serialize<S: Serializer>(scalar: &Scalar, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_array::<S, 32>(&scalar.to_bytes().into(), serializer)
    }

    /// Reads 32 big-endian bytes.
    ///
    /// # Errors
    /// When the number is not below the order.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        scalar_from_bytes(&deserialize_array(deserializer)?).map_err(D::Error::custom)
    }
}

/// Fixed-size bytes without a length; hexadecimal in readable formats.
fn serialize_array<S: Serializer, const SIZE: usize>(
    bytes: &[u8; SIZE],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeTuple as _;
    if serializer.is_human_readable() {
        return serializer.serialize_str(&hex::encode(bytes));
    }
    let mut tuple = serializer.serialize_tuple(SIZE)?;
    for byte in bytes {
        tuple.serialize_element(byte)?;
    }
    tuple.end()
}

fn deserialize_array<'de, D: Deserializer<'de>, const SIZE: usize>(
    deserializer: D,
) -> Result<[u8; SIZE], D::Error> {
    struct Visitor<const SIZE: usize>;
    impl<'de, const SIZE: usize> de::Visitor<'de> for Visitor<SIZE> {
        type Value = [u8; SIZE];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{SIZE} bytes")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<[u8; SIZE], A::Error> {
            let mut bytes = [0; SIZE];
            for byte in &mut bytes {
                *byte = elements.next_element()?.ok_or_else(|| de::Error::custom("too few bytes"))?;
            }
            Ok(bytes)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; SIZE], E> {
            let mut bytes = [0; SIZE];
            hex::decode_to_slice(text, &mut bytes).map_err(E::custom)?;
            Ok(bytes)
        }
    }
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Visitor)
    } else {
        deserializer.deserialize_tuple(SIZE, Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    #[test]
    fn the_identity_and_points_off_the_curve_are_refused() {
        assert_eq!(Point::from_bytes(&[0; 33]), Err(InvalidCurveValue::Point));
        let mut bytes = Point::generator().to_bytes();
        bytes[0] = 4;
        assert_eq!(Point::from_bytes(&bytes), Err(InvalidCurveValue::Point));
        // x = 5 is on no point of secp256k1.
        let mut off = [0; 33];
        (off[0], off[32]) = (2, 5);
        assert_eq!(Point::from_bytes(&off), Err(InvalidCurveValue::Point));
        // x = p is not reduced.
        let mut large = [0xff; 33];
        large[0] = 2;
        large[28..].copy_from_slice(&[0xfe, 0xff, 0xff, 0xfc, 0x2f]);
        assert_eq!(Point::from_bytes(&large), Err(InvalidCurveValue::Point));
        assert_eq!(Point::from_projective(ProjectivePoint::IDENTITY), None);
        let negative = Point::from_projective(-ProjectivePoint::GENERATOR).unwrap();
        assert_eq!(Point::generator().add(&negative), None);
        assert_eq!(Point::generator().mul(&Scalar::ZERO), None);
    }

    #[test]
    fn scalars_from_the_order_on_are_refused() {
        assert_eq!(scalar_from_bytes(&ORDER), Err(InvalidCurveValue::Scalar));
        assert_eq!(SecretScalar::from_bytes(&[0; 32]).unwrap_err(), InvalidCurveValue::Zero);
        let largest = order().minus_one().to_be_bytes();
        assert!(SecretScalar::from_bytes(largest.as_slice().try_into().unwrap()).is_ok());
    }

    #[test]
    fn reduction_agrees_with_division() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for bits in [0, 1, 63, 64, 65, 255, 256, 257, 898, 2048] {
            let number = Natural::random_bits(&mut rng, bits);
            assert_eq!(scalar_to_natural(&reduce(&number)), number.rem(&order()).unwrap(), "{bits}");
        }
        assert_eq!(reduce(&order()), Scalar::ZERO);
    }

    #[test]
    fn points_and_scalars_have_fixed_sizes_on_the_wire() {
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(Point::generator(), config).unwrap();
        assert_eq!(bytes, Point::generator().to_bytes());
        let (point, _): (Point, _) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(point, Point::generator());
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
    }
}

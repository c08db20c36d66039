//! Natural numbers and signed integers of any size, as values that may be secret.
//!
//! [`crate::arithmetic`] has modular arithmetic, primes and Paillier. This module has the parts
//! that both of its implementations share: representation, encoding, sampling and plain integer
//! arithmetic.
//!
//! # What is hidden and what is not
//! A [`Natural`] is wiped when it is dropped and prints only its length. Sums, products and
//! quotients run in time that depends on the number of 64-bit limbs of the operands only, and that
//! number follows the value: the length of a secret, to the limb, is not hidden. Comparison for
//! equality is constant-time for operands of one length; [`Natural::random_below`] leaks how often
//! it had to draw again, which is independent of the result. Temporaries inside the big-number
//! libraries are not wiped.

use core::{
    cmp::Ordering,
    fmt,
    ops::{Add, Mul, Neg},
};

use crypto_bigint::{BoxedUint, Limb, NonZero, RandomBits, RandomMod, Resize};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::{Zeroize, Zeroizing};

/// The longest encoding of a number that is accepted from outside, in bytes. The largest number of
/// the protocol, `v` of the factor proof for 3072-bit moduli, has 865.
pub const MAX_NATURAL_SIZE_BYTES: usize = 1024;

/// A non-negative integer. The [module](self) says which properties of a secret number stay hidden.
#[derive(Clone)]
pub struct Natural(BoxedUint);

/// Why bytes are not the expected number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNatural {
    /// The first byte is zero: every number has one encoding only.
    #[error("a number is encoded without leading zero bytes")]
    LeadingZero,
    /// Longer than [`MAX_NATURAL_SIZE_BYTES`].
    #[error("a number of {0} bytes, at most {MAX_NATURAL_SIZE_BYTES} allowed")]
    TooLong(usize),
}

impl Natural {
    /// Zero.
    #[must_use]
    pub fn zero() -> Self {
        Self(BoxedUint::zero())
    }

    /// One.
    #[must_use]
    pub fn one() -> Self {
        Self(BoxedUint::one())
    }

    /// `2^exponent`.
    #[must_use]
    pub fn power_of_two(exponent: u32) -> Self {
        Self::one().shl(exponent)
    }

    /// Converts a number of the library, in the fewest limbs that hold it.
    #[must_use]
    pub(crate) fn from_boxed(mut value: BoxedUint) -> Self {
        let bits = value.bits().max(1);
        if value.bits_precision() >= bits + Limb::BITS {
            let trimmed = (&value).resize_unchecked(bits);
            value.zeroize();
            return Self(trimmed);
        }
        Self(value)
    }

    /// The library's number in exactly `precision_bits`, rounded up to limbs. Higher bits are cut
    /// off.
    pub(crate) fn to_boxed(&self, precision_bits: u32) -> BoxedUint {
        (&self.0).resize_unchecked(precision_bits)
    }

    pub(crate) fn as_boxed(&self) -> &BoxedUint {
        &self.0
    }

    /// Reads big-endian bytes; leading zero bytes are allowed.
    #[must_use]
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        Self::from_boxed(BoxedUint::from_be_slice_vartime(bytes))
    }

    /// Reads the one encoding of a number: big-endian, without leading zero bytes, bounded.
    ///
    /// # Errors
    /// On a leading zero byte and on more than [`MAX_NATURAL_SIZE_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidNatural> {
        if bytes.len() > MAX_NATURAL_SIZE_BYTES {
            return Err(InvalidNatural::TooLong(bytes.len()));
        }
        if bytes.first() == Some(&0) {
            return Err(InvalidNatural::LeadingZero);
        }
        Ok(Self::from_be_bytes(bytes))
    }

    /// Big-endian bytes without leading zeros; none for zero.
    #[must_use]
    pub fn to_be_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut all = self.0.to_be_bytes().into_vec();
        let leading = all.iter().take_while(|b| **b == 0).count();
        let bytes = Zeroizing::new(all.split_off(leading));
        all.zeroize();
        bytes
    }

    /// Big-endian bytes with leading zeros, `size_bytes` of them; `None` when the number needs
    /// more.
    #[must_use]
    pub fn to_be_bytes_padded(&self, size_bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = self.to_be_bytes();
        let padding = size_bytes.checked_sub(bytes.len())?;
        let mut padded = Zeroizing::new(vec![0; size_bytes]);
        padded.get_mut(padding..)?.copy_from_slice(&bytes);
        Some(padded)
    }

    /// A uniform number below `2^bits`.
    #[must_use]
    pub fn random_bits(rng: &mut dyn CryptoRng, bits: u32) -> Self {
        Self::from_boxed(BoxedUint::random_bits(rng, bits))
    }

    /// A uniform number below `bound`; zero when `bound` is zero.
    #[must_use]
    pub fn random_below(rng: &mut dyn CryptoRng, bound: &Self) -> Self {
        match bound.0.as_nz_vartime() {
            Some(bound) => Self::from_boxed(BoxedUint::random_mod_vartime(rng, bound)),
            None => Self::zero(),
        }
    }

    /// How many bits the number has; 0 for zero.
    #[must_use]
    pub fn bit_length(&self) -> u32 {
        self.0.bits()
    }

    /// Whether bit `index`, counted from the least significant, is set.
    #[must_use]
    pub fn bit(&self, index: u32) -> bool {
        self.0.bit(index).to_bool()
    }

    /// The number's lowest 64 bits.
    #[must_use]
    pub fn low_u64(&self) -> u64 {
        let bytes = self.to_be_bytes();
        bytes.iter().rev().take(8).rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
    }

    /// Whether the number is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.is_zero().to_bool()
    }

    /// Whether the number is one.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.0.is_one().to_bool()
    }

    /// Whether the number is odd.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.bit(0)
    }

    /// `self − other`, or `None` when that is negative.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        let (difference, underflow) = self.0.underflowing_sub(&other.0);
        (!underflow.to_bool()).then(|| Self::from_boxed(difference))
    }

    /// `self − 1`; zero for zero.
    #[must_use]
    pub fn minus_one(&self) -> Self {
        self.checked_sub(&Self::one()).unwrap_or_else(Self::zero)
    }

    /// `self²`.
    #[must_use]
    pub fn square(&self) -> Self {
        self * self
    }

    /// Quotient and remainder; `None` when `divisor` is zero. Constant-time for operands of one
    /// length.
    #[must_use]
    pub fn div_rem(&self, divisor: &Self) -> Option<(Self, Self)> {
        let divisor = divisor.0.as_nz_vartime()?;
        let (quotient, remainder) = self.0.div_rem(divisor);
        Some((Self::from_boxed(quotient), Self::from_boxed(remainder)))
    }

    /// The remainder; `None` when `divisor` is zero. Constant-time for operands of one length.
    #[must_use]
    pub fn rem(&self, divisor: &Self) -> Option<Self> {
        let divisor: &NonZero<BoxedUint> = divisor.0.as_nz_vartime()?;
        Some(Self::from_boxed(self.0.rem(divisor)))
    }

    /// `self · 2^bits`.
    #[must_use]
    pub fn shl(&self, bits: u32) -> Self {
        let wide = (&self.0).resize_unchecked(self.0.bits_precision() + bits);
        Self::from_boxed(wide.shl(bits))
    }

    /// `⌊self / 2^bits⌋`.
    #[must_use]
    pub fn shr(&self, bits: u32) -> Self {
        if bits >= self.0.bits_precision() {
            return Self::zero();
        }
        Self::from_boxed(self.0.shr(bits))
    }

    /// `⌊√self⌋`.
    #[must_use]
    pub fn square_root(&self) -> Self {
        Self::from_boxed(self.0.floor_sqrt())
    }
}

impl Drop for Natural {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl zeroize::ZeroizeOnDrop for Natural {}

impl From<u64> for Natural {
    fn from(value: u64) -> Self {
        Self(BoxedUint::from(value))
    }
}

impl Add for &Natural {
    type Output = Natural;
    fn add(self, other: Self) -> Natural {
        Natural::from_boxed(self.0.concatenating_add(&other.0))
    }
}

impl Mul for &Natural {
    type Output = Natural;
    fn mul(self, other: Self) -> Natural {
        use crypto_bigint::ConcatenatingMul as _;
        Natural::from_boxed(self.0.concatenating_mul(&other.0))
    }
}

impl PartialEq for Natural {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Natural {}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Debug for Natural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Natural({} bits)", self.bit_length())
    }
}

impl udigest::Digestable for Natural {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        encoder.encode_leaf_value(self.to_be_bytes().as_slice());
    }
}

impl Serialize for Natural {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.to_be_bytes();
        if serializer.is_human_readable() {
            serializer.serialize_str(&Zeroizing::new(hex::encode(&*bytes)))
        } else {
            serializer.serialize_bytes(&bytes)
        }
    }
}

impl<'de> Deserialize<'de> for Natural {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Natural;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_NATURAL_SIZE_BYTES} big-endian bytes without leading zeros")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Natural, E> {
                Natural::parse(bytes).map_err(E::custom)
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Natural, E> {
                self.visit_bytes(&Zeroizing::new(bytes))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Natural, E> {
                if text.len() > 2 * MAX_NATURAL_SIZE_BYTES {
                    return Err(E::custom(InvalidNatural::TooLong(text.len() / 2)));
                }
                self.visit_bytes(&Zeroizing::new(hex::decode(text).map_err(E::custom)?))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

/// A signed integer: sign and magnitude, zero never negative.
#[derive(Clone, PartialEq, Eq)]
pub struct Integer {
    is_negative: bool,
    magnitude: Natural,
}

impl Integer {
    /// `magnitude`, or `−magnitude`.
    #[must_use]
    pub fn new(is_negative: bool, magnitude: Natural) -> Self {
        Self { is_negative: is_negative && !magnitude.is_zero(), magnitude }
    }

    /// A uniform integer with `|x| ≤ bound`.
    #[must_use]
    pub fn random_symmetric(rng: &mut dyn CryptoRng, bound: &Natural) -> Self {
        let width = &bound.shl(1) + &Natural::one();
        let shifted = Natural::random_below(rng, &width);
        &Self::from(shifted) + &-&Self::from(bound.clone())
    }

    /// Whether the integer is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.is_negative
    }

    /// The absolute value.
    #[must_use]
    pub fn magnitude(&self) -> &Natural {
        &self.magnitude
    }

    /// The representative in `0..modulus`; `None` when `modulus` is zero.
    #[must_use]
    pub fn rem_euclid(&self, modulus: &Natural) -> Option<Natural> {
        let remainder = self.magnitude.rem(modulus)?;
        if self.is_negative && !remainder.is_zero() {
            modulus.checked_sub(&remainder)
        } else {
            Some(remainder)
        }
    }
}

impl From<Natural> for Integer {
    fn from(magnitude: Natural) -> Self {
        Self { is_negative: false, magnitude }
    }
}

impl Neg for &Integer {
    type Output = Integer;
    fn neg(self) -> Integer {
        Integer::new(!self.is_negative, self.magnitude.clone())
    }
}

impl Add for &Integer {
    type Output = Integer;
    fn add(self, other: Self) -> Integer {
        if self.is_negative == other.is_negative {
            return Integer::new(self.is_negative, &self.magnitude + &other.magnitude);
        }
        match self.magnitude.checked_sub(&other.magnitude) {
            Some(difference) => Integer::new(self.is_negative, difference),
            None => Integer::new(
                other.is_negative,
                other.magnitude.checked_sub(&self.magnitude).unwrap_or_else(Natural::zero),
            ),
        }
    }
}

impl Mul for &Integer {
    type Output = Integer;
    fn mul(self, other: Self) -> Integer {
        Integer::new(self.is_negative != other.is_negative, &self.magnitude * &other.magnitude)
    }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Integer({} bits)", self.magnitude.bit_length())
    }
}

impl udigest::Digestable for Integer {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        (self.is_negative, &self.magnitude).unambiguously_encode(encoder);
    }
}

impl Serialize for Integer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.is_negative, &self.magnitude).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (is_negative, magnitude) = <(bool, Natural)>::deserialize(deserializer)?;
        if is_negative && magnitude.is_zero() {
            return Err(de::Error::custom("zero has no sign"));
        }
        Ok(Self { is_negative, magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn natural(value: u128) -> Natural {
        Natural::from_be_bytes(&value.to_be_bytes())
    }

    fn integer(value: i64) -> Integer {
        Integer::new(value < 0, Natural::from(value.unsigned_abs()))
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_the_machine(a: u64, b: u64, shift in 0u32..64) {
            let (wide_a, wide_b) = (u128::from(a), u128::from(b));
            let (x, y) = (Natural::from(a), Natural::from(b));
            prop_assert_eq!(&x + &y, natural(wide_a + wide_b));
            prop_assert_eq!(&x * &y, natural(wide_a * wide_b));
            prop_assert_eq!(x.checked_sub(&y), a.checked_sub(b).map(Natural::from));
            prop_assert_eq!(x.div_rem(&y), a.checked_div(b).map(|q| (q.into(), (a % b).into())));
            prop_assert_eq!(x.shl(shift), natural(wide_a << shift));
            prop_assert_eq!(x.shr(shift), Natural::from(a >> shift));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.low_u64(), a);
            prop_assert_eq!(x.bit_length(), 64 - a.leading_zeros());
        }

        #[test]
        fn signed_arithmetic_agrees_with_the_machine(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
            prop_assert_eq!(&integer(a) + &integer(b), integer(a + b));
            prop_assert_eq!(&integer(a) * &integer(b), integer(a * b));
            prop_assert_eq!(
                integer(a).rem_euclid(&Natural::from(97)),
                Some(Natural::from(a.rem_euclid(97).unsigned_abs()))
            );
        }

        #[test]
        fn values_of_different_lengths_compare(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let number = Natural::from_be_bytes(&bytes);
            let larger = &number + &Natural::power_of_two(700);
            prop_assert!(number < larger && number != larger);
            prop_assert_eq!(larger.checked_sub(&Natural::power_of_two(700)), Some(number.clone()));
            prop_assert_eq!(number.checked_sub(&larger), None);
            prop_assert_eq!(Natural::parse(&number.to_be_bytes()), Ok(number));
        }
    }

    #[test]
    fn the_encoding_is_unique_and_bounded() {
        assert_eq!(Natural::parse(&[0, 1]), Err(InvalidNatural::LeadingZero));
        assert_eq!(Natural::parse(&[]), Ok(Natural::zero()));
        assert_eq!(Natural::parse(&[1; 1025]), Err(InvalidNatural::TooLong(1025)));
        assert_eq!(serde_json::to_string(&Natural::from(258)).unwrap(), "\"0102\"");
        assert!(serde_json::from_str::<Integer>("[true,\"\"]").is_err());
        let config = bincode::config::standard();
        let wire = bincode::serde::encode_to_vec(Natural::from(258), config).unwrap();
        assert_eq!(wire, [2, 1, 2]);
        assert!(bincode::serde::decode_from_slice::<Natural, _>(&[2, 0, 2], config).is_err());
    }

    #[test]
    fn debug_output_shows_no_value() {
        assert_eq!(format!("{:?}", Natural::from(258)), "Natural(9 bits)");
        assert_eq!(format!("{:?}", integer(-5)), "Integer(3 bits)");
    }
}

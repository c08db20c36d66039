//! What an arithmetic computes.

use core::fmt;
use std::sync::Arc;

use rand_core::CryptoRng;

use crate::natural::{Integer, Natural};

/// One implementation of the arithmetic.
pub trait Arithmetic: Send + Sync + fmt::Debug {
    /// `gmp` or `constant-time`.
    fn name(&self) -> &'static str;

    /// Whether exponentiation, multiplication and reduction take a time that is independent of the
    /// values, lengths aside. Where it is false, callers blind secret exponents and secret bases.
    /// Prime generation, inversion, greatest common divisors and primality tests make no such claim
    /// in either implementation.
    fn is_constant_time(&self) -> bool;

    /// Prepares repeated arithmetic modulo `value`; `None` unless it is odd and at least 3.
    fn modulus(&self, value: &Natural) -> Option<Arc<dyn Modulus>>;

    /// Prepares the public Paillier operations under `n`; `None` unless it is odd and at least 3.
    fn paillier(&self, n: &Natural) -> Option<Arc<dyn PaillierOperations>>;

    /// Whether `candidate` is prime, with an error below 2⁻¹⁰⁰ for random candidates
    /// (Baillie–PSW, and Miller–Rabin rounds on top of it).
    fn is_prime(&self, candidate: &Natural) -> bool;

    /// The greatest common divisor. Variable-time.
    fn gcd(&self, a: &Natural, b: &Natural) -> Natural;

    /// A random prime of exactly `bits` bits whose two highest bits are set, so that the product of
    /// two has exactly `2·bits`. It calls `progress` for every candidate that survives the sieve.
    fn random_prime(
        &self,
        kind: PrimeKind,
        bits: u32,
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(PrimeProgress),
    ) -> Natural;
}

/// Arithmetic modulo one odd number. Arguments need not be reduced; results are.
pub trait Modulus: Send + Sync + fmt::Debug {
    /// The modulus.
    fn value(&self) -> &Natural;

    /// `a mod m`.
    fn reduce(&self, a: &Natural) -> Natural;

    /// `a·b mod m`.
    fn mul(&self, a: &Natural, b: &Natural) -> Natural;

    /// `base^exponent mod m`.
    fn pow(&self, base: &Natural, exponent: &Natural) -> Natural;

    /// `a⁻¹ mod m`; `None` when `gcd(a, m) ≠ 1`. Variable-time with GMP.
    fn invert(&self, a: &Natural) -> Option<Natural>;

    /// Precomputes windows of `base` for exponents of up to `max_exponent_bits` bits. For public
    /// exponents only: the table look-ups follow the exponent.
    fn fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase>;

    /// Precomputes powers of `base` for secret exponents of up to `max_exponent_bits` bits, with
    /// constant-time look-ups. With them a power costs a quarter of as many multiplications as the
    /// exponent has bits.
    fn secret_fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase>;

    /// Two powers of one base, sharing the squarings where that pays.
    fn pow_pair(&self, base: &Natural, first: &Natural, second: &Natural) -> (Natural, Natural) {
        (self.pow(base, first), self.pow(base, second))
    }

    /// Whether `gcd(a, m) = 1`. For public values.
    fn is_unit(&self, a: &Natural) -> bool {
        self.invert(a).is_some()
    }

    /// `base^exponent mod m` for any integer exponent; `None` when the exponent is negative and
    /// `base` has no inverse.
    fn pow_signed(&self, base: &Natural, exponent: &Integer) -> Option<Natural> {
        let power = self.pow(base, exponent.magnitude());
        if exponent.is_negative() { self.invert(&power) } else { Some(power) }
    }

    /// `∏ baseᵢ^exponentᵢ mod m` for public bases and secret or public exponents; `None` when a
    /// base that is raised to a negative power has no inverse.
    fn multi_pow(&self, terms: &[(&Natural, &Integer)]) -> Option<Natural> {
        terms.iter().try_fold(Natural::one(), |product, (base, exponent)| {
            Some(self.mul(&product, &self.pow_signed(base, exponent)?))
        })
    }

    /// `a + b mod m`.
    fn add(&self, a: &Natural, b: &Natural) -> Natural {
        self.reduce(&(a + b))
    }

    /// `a − b mod m`.
    fn sub(&self, a: &Natural, b: &Natural) -> Natural {
        let (a, b) = (self.reduce(a), self.reduce(b));
        let raised = &a + self.value();
        self.reduce(&raised.checked_sub(&b).unwrap_or_else(Natural::zero))
    }
}

/// Windows of one base, for many powers of it.
pub trait FixedBase: Send + Sync + fmt::Debug {
    /// `base^exponent mod m`; `None` when the exponent has more bits than were prepared for.
    fn pow(&self, exponent: &Natural) -> Option<Natural>;
}

/// How many bits choose from a group: 0 for the number one, and each of [`GROUP_SIZE`] others.
pub const CHOICE_BITS: u32 = 4;

/// The numbers of a group beside the number one.
pub const GROUP_SIZE: usize = (1 << CHOICE_BITS) - 1;

/// Groups of numbers, for many products of one number of each.
pub trait Choices: Send + Sync + fmt::Debug {
    /// The product, modulo `N²`, of the number that each group's [`CHOICE_BITS`] bits of `bits`
    /// choose, the first group by the lowest bits of the first byte. The time is independent of
    /// `bits`. Missing bits count as 0.
    fn product(&self, bits: &[u8]) -> Natural;
}

/// [`CHOICE_BITS`] bits per group, 0 for groups beyond the end of `bits`.
pub(super) fn choices(bits: &[u8]) -> impl Iterator<Item = u8> {
    const { assert!(CHOICE_BITS == 4, "a byte chooses from two groups") };
    bits.iter().flat_map(|byte| [byte & 0xf, byte >> CHOICE_BITS]).chain(core::iter::repeat(0))
}

/// The public operations of Paillier's cryptosystem under one modulus `N`.
pub trait PaillierOperations: Send + Sync + fmt::Debug {
    /// `nonce^N mod N²`.
    fn randomizer(&self, nonce: &Natural) -> Natural;

    /// `(1 + plaintext·N) · nonce^N mod N²`.
    fn encrypt(&self, plaintext: &Natural, nonce: &Natural) -> Natural;

    /// `ciphertext^exponent · (1 + plaintext·N) · randomizer mod N²`.
    fn affine(
        &self,
        ciphertext: &Natural,
        exponent: &Natural,
        plaintext: &Natural,
        randomizer: &Natural,
    ) -> Natural;

    /// Prepares products modulo `N²` of one number of each group, by secret choices. `None` when
    /// one of the numbers shares a factor with `N`.
    fn choices(&self, groups: &[[Natural; GROUP_SIZE]]) -> Option<Box<dyn Choices>>;
}

/// Which primes to search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrimeKind {
    /// `p ≡ 3 (mod 4)`, as the modulus proof needs.
    Blum,
    /// `p = 2p′ + 1` with `p′` prime, as ring-Pedersen parameters need. Safe primes are Blum
    /// primes.
    Safe,
}

/// The progress of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrimeProgress {
    /// Candidates tested so far. For 1024 bits a Blum prime takes about 60 and a safe prime about
    /// 1,700; the number is geometrically distributed, so the remaining number is unknown.
    pub candidates: u32,
}

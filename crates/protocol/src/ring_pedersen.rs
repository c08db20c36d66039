//! Ring-Pedersen parameters `(Ñ, s, t)`, which a verifier of range proofs owns.
//!
//! `Ñ` is a product of two safe primes that the verifier made and erased, `t` a square, `s ∈ ⟨t⟩`
//! (Canetti et al., ePrint 2021/060, section 2.3.1). A commitment `s^a·t^b mod Ñ` binds the prover
//! because it cannot factor `Ñ`. It hides `a` because `s ∈ ⟨t⟩`, which the owner shows with
//! [`crate::proofs::parameters`]. A prover verifies that proof before it proves anything against
//! `Ñ`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    arithmetic::{Arithmetic, Modulus, PrimeKind, PrimeProgress},
    hedge::{self, Entropy, Purpose},
    natural::{Integer, Natural},
    paillier::ModulusSize,
    transcript,
};

/// The three numbers on the wire, unchecked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct RawParameters {
    /// `Ñ`.
    pub modulus: Natural,
    /// `s`.
    pub s: Natural,
    /// `t`.
    pub t: Natural,
}

/// Why numbers are not ring-Pedersen parameters on sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParameters {
    /// `Ñ` has neither exactly 2048 nor exactly 3072 bits.
    #[error("an auxiliary modulus of {0} bits, expected exactly 2048 or 3072")]
    Length(u32),
    /// `Ñ` is even.
    #[error("the auxiliary modulus is even")]
    Even,
    /// `s` or `t` is not between 1 and `Ñ`.
    #[error("s or t is not between 1 and the auxiliary modulus")]
    Range,
    /// `s` or `t` shares a factor with `Ñ`.
    #[error("s or t shares a factor with the auxiliary modulus")]
    NotInvertible,
}

/// Checked ring-Pedersen parameters, with precomputed values.
#[derive(Clone)]
pub struct Parameters {
    modulus: Arc<dyn Modulus>,
    s: Natural,
    t: Natural,
}

impl Parameters {
    /// Checks length, parity, ranges and invertibility. Only the parameter proof shows `s ∈ ⟨t⟩`.
    ///
    /// # Errors
    /// See [`InvalidParameters`].
    pub fn parse(
        raw: &RawParameters,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidParameters> {
        if ModulusSize::of(&raw.modulus).is_none() {
            return Err(InvalidParameters::Length(raw.modulus.bit_length()));
        }
        let modulus = arithmetic.modulus(&raw.modulus).ok_or(InvalidParameters::Even)?;
        for value in [&raw.s, &raw.t] {
            if value <= &Natural::one() || value >= modulus.value() {
                return Err(InvalidParameters::Range);
            }
            if !modulus.is_unit(value) {
                return Err(InvalidParameters::NotInvertible);
            }
        }
        Ok(Self { modulus, s: raw.s.clone(), t: raw.t.clone() })
    }

    /// Makes parameters of `size` from two random safe primes. `progress` is called for every
    /// candidate; a 1024-bit safe prime takes about 1,700 of them, one to two seconds with GMP.
    #[must_use]
    pub fn generate(
        size: ModulusSize,
        arithmetic: &'static dyn Arithmetic,
        entropy: &mut dyn Entropy,
        progress: &mut dyn FnMut(PrimeProgress),
    ) -> (Self, Trapdoor) {
        let mut generator = hedge::generator(entropy, &[], Purpose::Primes, &size);
        loop {
            let p = arithmetic.random_prime(PrimeKind::Safe, size.bits() / 2, &mut generator, progress);
            let q = arithmetic.random_prime(PrimeKind::Safe, size.bits() / 2, &mut generator, progress);
            if let Some(made) = Self::from_safe_primes(&p, &q, arithmetic, entropy) {
                return made;
            }
        }
    }

    /// Makes parameters from two safe primes: `t = r²` for a uniform unit `r`, `s = t^λ` for a
    /// uniform `λ < φ(Ñ)`. `None` when the primes are equal or their product has no allowed length.
    #[must_use]
    pub fn from_safe_primes(
        p: &Natural,
        q: &Natural,
        arithmetic: &'static dyn Arithmetic,
        entropy: &mut dyn Entropy,
    ) -> Option<(Self, Trapdoor)> {
        if p == q {
            return None;
        }
        let product = p * q;
        let modulus = arithmetic.modulus(&product)?;
        let phi = &p.minus_one() * &q.minus_one();
        let mut rng = hedge::generator(entropy, &phi.to_be_bytes(), Purpose::Trapdoor, &product);
        loop {
            let r = Natural::random_below(&mut rng, &product);
            let t = modulus.mul(&r, &r);
            let lambda = Natural::random_below(&mut rng, &phi);
            let s = modulus.pow(&t, &lambda);
            let raw = RawParameters { modulus: product.clone(), s, t };
            match Self::parse(&raw, arithmetic) {
                Ok(parameters) => return Some((parameters, Trapdoor { lambda, phi })),
                Err(InvalidParameters::Range | InvalidParameters::NotInvertible) => {}
                Err(InvalidParameters::Length(_) | InvalidParameters::Even) => return None,
            }
        }
    }

    /// `Ñ`.
    #[must_use]
    pub fn modulus(&self) -> &Natural {
        self.modulus.value()
    }

    /// Arithmetic modulo `Ñ`.
    #[must_use]
    pub fn modulus_arithmetic(&self) -> &Arc<dyn Modulus> {
        &self.modulus
    }

    /// `s`.
    #[must_use]
    pub fn s(&self) -> &Natural {
        &self.s
    }

    /// `t`.
    #[must_use]
    pub fn t(&self) -> &Natural {
        &self.t
    }

    /// The three numbers for the wire.
    #[must_use]
    pub fn to_raw(&self) -> RawParameters {
        RawParameters { modulus: self.modulus().clone(), s: self.s.clone(), t: self.t.clone() }
    }

    /// The hash of the three numbers, under which the verdict on their proof is cached.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        transcript::hash("ring-pedersen", self)
    }

    /// `s^a · t^b mod Ñ`.
    pub(crate) fn commit(&self, a: &Integer, b: &Integer) -> Natural {
        // s and t are units, so every power exists.
        self.modulus.multi_pow(&[(&self.s, a), (&self.t, b)]).unwrap_or_else(Natural::zero)
    }
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        self.modulus() == other.modulus() && self.s == other.s && self.t == other.t
    }
}

impl Eq for Parameters {}

impl core::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Parameters({} bits)", self.modulus().bit_length())
    }
}

impl udigest::Digestable for Parameters {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        self.to_raw().unambiguously_encode(encoder);
    }
}

/// The secret that proves `s ∈ ⟨t⟩`: `λ` and `φ(Ñ)`. It would also open every commitment
/// differently. It is needed once, for the proof; dropping it wipes it.
pub struct Trapdoor {
    pub(crate) lambda: Natural,
    pub(crate) phi: Natural,
}

impl core::fmt::Debug for Trapdoor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Trapdoor(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arithmetic::default_arithmetic, test_fixtures};
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    #[test]
    fn parameters_out_of_range_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (parameters, _) = test_fixtures::ring_pedersen(0, default_arithmetic(), &mut rng);
        let raw = parameters.to_raw();
        let parse = |raw| Parameters::parse(&raw, default_arithmetic()).err();
        assert_eq!(parse(raw.clone()), None);
        let [p, ..] = test_fixtures::safe_primes_1024();
        let zero = Natural::zero();
        for s in [zero, Natural::one(), raw.modulus.clone(), &raw.modulus + &Natural::one()] {
            assert_eq!(parse(RawParameters { s: s.clone(), ..raw.clone() }), Some(InvalidParameters::Range));
            assert_eq!(parse(RawParameters { t: s, ..raw.clone() }), Some(InvalidParameters::Range));
        }
        assert_eq!(
            parse(RawParameters { s: p.clone(), ..raw.clone() }),
            Some(InvalidParameters::NotInvertible)
        );
        assert_eq!(
            parse(RawParameters { t: p.clone(), ..raw.clone() }),
            Some(InvalidParameters::NotInvertible)
        );
        assert_eq!(parse(RawParameters { modulus: p, ..raw.clone() }), Some(InvalidParameters::Length(1024)));
        let even = &raw.modulus + &Natural::one();
        assert_eq!(parse(RawParameters { modulus: even, ..raw }), Some(InvalidParameters::Even));
    }
}

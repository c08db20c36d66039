//! Πmod: `N` is a product of two primes and `gcd(N, φ(N)) = 1` (ePrint 2021/060, figure 16), for
//! primes that are 3 modulo 4, in 128 iterations.
//!
//! It is not enough alone: it says nothing about the size of the primes, which [`super::factor`]
//! covers. It is needed as well: a proof of `N`-th roots alone would accept a smooth `N`.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use udigest::Digestable;

use super::{ITERATIONS, Rounds, is_reduced};
use crate::{
    arithmetic::{Arithmetic, Modulus, jacobi_symbol},
    hedge::{self, Entropy, Purpose},
    natural::Natural,
    paillier::{DecryptionKey, EncryptionKey},
    transcript::{Challenge, ProofContext},
};

const NAME: &str = "paillier-blum-modulus";

/// The largest encoding of a proof, for a 3072-bit `N`, in bytes.
pub const MAX_SIZE_BYTES: usize = 387 + ITERATIONS as usize * (2 * 387 + 2);

/// A proof that `N` is a product of two Blum primes with `gcd(N, φ(N)) = 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub struct ModulusProof {
    /// A number with Jacobi symbol −1.
    pub(super) w: Natural,
    pub(super) rounds: Rounds<Round>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub(super) struct Round {
    /// A fourth root of `(−1)^a · w^b · y`.
    pub(super) x: Natural,
    pub(super) a: bool,
    pub(super) b: bool,
    /// An `N`-th root of `y`.
    pub(super) z: Natural,
}

/// Which check of a modulus proof failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModulusProofError {
    /// `N` is itself a prime.
    #[error("the modulus is prime")]
    Prime,
    /// `w` is not below `N`, or its Jacobi symbol is not −1.
    #[error("w of the modulus proof does not have Jacobi symbol -1")]
    Symbol,
    /// A root is zero or not below `N`.
    #[error("round {0} of the modulus proof is out of range")]
    Range(u32),
    /// `z^N ≠ y`.
    #[error("round {0} of the modulus proof is no N-th root")]
    NthRoot(u32),
    /// `x⁴ ≠ (−1)^a · w^b · y`.
    #[error("round {0} of the modulus proof is no fourth root")]
    FourthRoot(u32),
}

/// The key's modulus cannot be proved: its factors are not two Blum primes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key's factors are not two different Blum primes")]
pub struct UnprovableModulus;

#[derive(Digestable)]
struct Statement<'a> {
    modulus: &'a Natural,
    iterations: u32,
}

pub(super) fn challenge(n: &Natural, context: &ProofContext, w: &Natural) -> Challenge {
    Challenge::new(NAME, context, &Statement { modulus: n, iterations: ITERATIONS }, w)
}

/// One prime of the modulus, with the exponents of its roots.
struct PrimeRoots<'a> {
    modulus: &'a Arc<dyn Modulus>,
    /// `((p + 1)/4)² mod (p − 1)`.
    fourth_root: Natural,
    /// `N⁻¹ mod (p − 1)`.
    nth_root: Natural,
    is_blinded: bool,
}

/// The roots of a base modulo one prime.
struct Roots {
    /// `r` with `r⁴ = χ(y)·y`.
    fourth: Natural,
    /// Whether the Legendre symbol `χ(y)` is 1.
    is_residue: bool,
    /// `z` with `z^N = y`.
    nth: Natural,
}

impl<'a> PrimeRoots<'a> {
    fn new(modulus: &'a Arc<dyn Modulus>, n: &Natural, arithmetic: &dyn Arithmetic) -> Option<Self> {
        let prime = modulus.value();
        let order = prime.minus_one();
        let quarter = (prime + &Natural::one()).shr(2);
        // p − 1 = 2p′ with p′ odd, because p ≡ 3 (mod 4); the inverse of the odd N is odd.
        let half_order = order.shr(1);
        let inverse = arithmetic.modulus(&half_order)?.invert(n)?;
        let nth_root = if inverse.is_odd() { inverse } else { &inverse + &half_order };
        Some(Self {
            modulus,
            fourth_root: quarter.square().rem(&order)?,
            nth_root,
            is_blinded: !arithmetic.is_constant_time(),
        })
    }

    /// `exponent`, plus a 64-bit multiple of the group's order where exponentiation is not
    /// constant-time.
    fn blind(&self, exponent: &Natural, rng: &mut dyn CryptoRng) -> Natural {
        if !self.is_blinded {
            return exponent.clone();
        }
        exponent + &(&Natural::from(rng.next_u64()) * &self.modulus.value().minus_one())
    }

    /// With `e = ((p+1)/4)²`, `y^(4e) = (y^((p+1)/2))^((p+1)/2) = (χ(y)·y)^((p+1)/2) = χ(y)·y`,
    /// because `(p+1)/2` is even: one exponentiation tells both the root and the symbol.
    fn roots(&self, y: &Natural, rng: &mut dyn CryptoRng) -> Roots {
        let y = self.modulus.reduce(y);
        let (fourth, nth) =
            self.modulus.pow_pair(&y, &self.blind(&self.fourth_root, rng), &self.blind(&self.nth_root, rng));
        let square = self.modulus.mul(&fourth, &fourth);
        let is_residue = self.modulus.mul(&square, &square) == y;
        Roots { fourth, is_residue, nth }
    }
}

impl ModulusProof {
    /// Proves that the key's modulus is a product of two Blum primes.
    ///
    /// # Errors
    /// When it is not.
    pub fn prove(
        key: &DecryptionKey,
        context: &ProofContext,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, UnprovableModulus> {
        let n = key.encryption_key().modulus();
        let mut rng = hedge::generator(entropy, &key.to_secret_bytes(), Purpose::Modulus, &(context, n));
        let arithmetic = key.encryption_key().arithmetic();
        let (p, q) = key.primes();
        let p = PrimeRoots::new(p, n, arithmetic).ok_or(UnprovableModulus)?;
        let q = PrimeRoots::new(q, n, arithmetic).ok_or(UnprovableModulus)?;
        let w = loop {
            let candidate = Natural::random_below(&mut rng, n);
            if jacobi_symbol(&candidate, n) == Some(-1) {
                break candidate;
            }
        };
        let (w_p, w_q) = (p.roots(&w, &mut rng), q.roots(&w, &mut rng));
        let challenge = challenge(n, context, &w);
        let rounds = Rounds::try_from_fn(|index| {
            let y = challenge.below(index, n);
            let (mut y_p, mut y_q) = (p.roots(&y, &mut rng), q.roots(&y, &mut rng));
            let b = y_p.is_residue != y_q.is_residue;
            if b {
                y_p.fourth = p.modulus.mul(&y_p.fourth, &w_p.fourth);
                y_q.fourth = q.modulus.mul(&y_q.fourth, &w_q.fourth);
                y_p.is_residue = y_p.is_residue == w_p.is_residue;
                y_q.is_residue = y_q.is_residue == w_q.is_residue;
            }
            if y_p.is_residue != y_q.is_residue {
                return Err(UnprovableModulus);
            }
            Ok(Round {
                x: key.recombine(&y_p.fourth, &y_q.fourth),
                a: !y_p.is_residue,
                b,
                z: key.recombine(&y_p.nth, &y_q.nth),
            })
        })?;
        Ok(Self { w, rounds })
    }

    /// Verifies the proof for `key`, whose length and parity were checked when it was parsed.
    ///
    /// # Errors
    /// Names the check that failed.
    pub fn verify(&self, key: &EncryptionKey, context: &ProofContext) -> Result<(), ModulusProofError> {
        let n = key.modulus();
        let modulus = key.modulus_arithmetic();
        if key.arithmetic().is_prime(n) {
            return Err(ModulusProofError::Prime);
        }
        if !is_reduced(&self.w, &**modulus) || jacobi_symbol(&self.w, n) != Some(-1) {
            return Err(ModulusProofError::Symbol);
        }
        let challenge = challenge(n, context, &self.w);
        for (index, round) in self.rounds.iter() {
            if !is_reduced(&round.x, &**modulus) || !is_reduced(&round.z, &**modulus) {
                return Err(ModulusProofError::Range(index));
            }
            let y = challenge.below(index, n);
            let square = modulus.mul(&round.x, &round.x);
            let fourth_power = modulus.mul(&square, &square);
            let with_w = if round.b { modulus.mul(&y, &self.w) } else { y.clone() };
            let expected = if round.a { modulus.sub(&Natural::zero(), &with_w) } else { with_w };
            if fourth_power != expected {
                return Err(ModulusProofError::FourthRoot(index));
            }
            if modulus.pow(&round.z, n) != y {
                return Err(ModulusProofError::NthRoot(index));
            }
        }
        Ok(())
    }
}

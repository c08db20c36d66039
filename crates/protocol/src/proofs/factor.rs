//! Πfac: neither prime of `N` is small (ePrint 2021/060, figure 28), with `ℓ = 256`, `ε = 512` and
//! the verifier's `Ñ`.
//!
//! The accepted range bounds the factors: two accepting answers to different challenges give
//! integers `p′·q′ = N` with `|p′|, |q′| ≤ 2·2^(ℓ+ε)·√N`. So both are at least `√N / 2^769`: 2²⁵⁴
//! for 2048 bits, more for 3072. [`super::modulus`] shows that there are only two primes; together
//! the proofs exclude every small factor.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use udigest::Digestable;

use super::is_reduced_unit;
use crate::{
    hedge::{self, Entropy, Purpose},
    natural::{Integer, Natural},
    paillier::{DecryptionKey, EncryptionKey},
    ring_pedersen::Parameters,
    transcript::{Challenge, ProofContext},
};

const NAME: &str = "no-small-factor";

/// `ℓ`: the challenge's length, and the hiding of the commitments' exponents.
const L_BITS: u32 = 256;

/// `ε`: the slack of the accepted range.
const EPSILON_BITS: u32 = 512;

/// The largest encoding of a proof, for 3072-bit `N` and `Ñ`, in bytes.
pub const MAX_SIZE_BYTES: usize = 5 * 387 + 804 + 2 * 292 + 2 * 485 + 869;

/// A proof that both primes of `N` are large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub struct FactorProof {
    pub(super) commitment: Commitment,
    pub(super) z1: Integer,
    pub(super) z2: Integer,
    pub(super) w1: Integer,
    pub(super) w2: Integer,
    pub(super) v: Integer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub(super) struct Commitment {
    pub(super) p: Natural,
    pub(super) q: Natural,
    pub(super) a: Natural,
    pub(super) b: Natural,
    pub(super) t: Natural,
    pub(super) sigma: Integer,
}

/// Which check of a factor proof failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactorProofError {
    /// A commitment is not a unit modulo `Ñ`, or `σ` is out of range.
    #[error("a commitment of the factor proof is out of range")]
    CommitmentRange,
    /// `z1` or `z2` exceeds `2^(ℓ+ε)·√N`: a factor may be small.
    #[error("an answer of the factor proof exceeds its bound")]
    Bound,
    /// `w1`, `w2` or `v` is longer than an honest prover's ever is.
    #[error("a response of the factor proof is out of range")]
    ResponseRange,
    /// `s^z1·t^w1 ≠ A·P^e`.
    #[error("the factor proof's equation for p does not hold")]
    FirstFactor,
    /// `s^z2·t^w2 ≠ B·Q^e`.
    #[error("the factor proof's equation for q does not hold")]
    SecondFactor,
    /// `Q^z1·t^v ≠ T·(s^N·t^σ)^e`.
    #[error("the factor proof's equation for the product does not hold")]
    Product,
}

#[derive(Digestable)]
struct Statement<'a> {
    modulus: &'a Natural,
    parameters: &'a Parameters,
    l_bits: u32,
    epsilon_bits: u32,
}

fn challenge(
    key: &EncryptionKey,
    parameters: &Parameters,
    context: &ProofContext,
    commitment: &Commitment,
) -> Integer {
    let statement =
        Statement { modulus: key.modulus(), parameters, l_bits: L_BITS, epsilon_bits: EPSILON_BITS };
    Challenge::new(NAME, context, &statement, commitment).natural(L_BITS).into()
}

/// The ranges of the figure, for one `N` and one `Ñ`.
struct Ranges {
    /// `2^(ℓ+ε)·√N`: `α`, `β`, `z1`, `z2`.
    factor: Natural,
    /// `2^ℓ·Ñ`: `μ`, `ν`.
    hiding: Natural,
    /// `2^(ℓ+ε)·Ñ`: `x`, `y`.
    hiding_mask: Natural,
    /// `2^ℓ·N·Ñ`: `σ`.
    product: Natural,
    /// `2^(ℓ+ε)·N·Ñ`: `r`.
    product_mask: Natural,
}

impl Ranges {
    fn new(key: &EncryptionKey, parameters: &Parameters) -> Self {
        let product = key.modulus() * parameters.modulus();
        Self {
            factor: key.modulus().square_root().shl(L_BITS + EPSILON_BITS),
            hiding: parameters.modulus().shl(L_BITS),
            hiding_mask: parameters.modulus().shl(L_BITS + EPSILON_BITS),
            product_mask: product.shl(L_BITS + EPSILON_BITS),
            product: product.shl(L_BITS),
        }
    }
}

impl FactorProof {
    /// Proves, against the verifier's `parameters`, that neither prime of the key is small. Verify
    /// the parameters' own proof first: crafted parameters could reveal the primes.
    #[must_use]
    pub fn prove(
        key: &DecryptionKey,
        parameters: &Parameters,
        context: &ProofContext,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let mut rng =
            hedge::generator(entropy, &key.to_secret_bytes(), Purpose::Factor, &(context, parameters));
        let (p, q) = key.primes();
        let key = key.encryption_key();
        let ranges = Ranges::new(key, parameters);
        loop {
            let proof = Self::attempt(key, [p.value(), q.value()], parameters, context, &mut rng);
            // Missed with probability about 2^-256.
            if proof.check_ranges(&ranges).is_ok() {
                return proof;
            }
        }
    }

    /// One run of the prover, which an unlikely draw can put out of range.
    pub(super) fn attempt(
        key: &EncryptionKey,
        primes: [&Natural; 2],
        parameters: &Parameters,
        context: &ProofContext,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let [p, q] = primes.map(|prime| Integer::from(prime.clone()));
        let modulus = parameters.modulus_arithmetic();
        let ranges = Ranges::new(key, parameters);
        let alpha = Integer::random_symmetric(rng, &ranges.factor);
        let beta = Integer::random_symmetric(rng, &ranges.factor);
        let mu = Integer::random_symmetric(rng, &ranges.hiding);
        let nu = Integer::random_symmetric(rng, &ranges.hiding);
        let sigma = Integer::random_symmetric(rng, &ranges.product);
        let r = Integer::random_symmetric(rng, &ranges.product_mask);
        let x = Integer::random_symmetric(rng, &ranges.hiding_mask);
        let y = Integer::random_symmetric(rng, &ranges.hiding_mask);
        let committed_q = parameters.commit(&q, &nu);
        // Q is a unit, so every power of it exists.
        let t =
            modulus.multi_pow(&[(&committed_q, &alpha), (parameters.t(), &r)]).unwrap_or_else(Natural::zero);
        let commitment = Commitment {
            p: parameters.commit(&p, &mu),
            q: committed_q,
            a: parameters.commit(&alpha, &x),
            b: parameters.commit(&beta, &y),
            t,
            sigma,
        };
        let e = challenge(key, parameters, context, &commitment);
        let answer = |mask: &Integer, secret: &Integer| mask + &(&e * secret);
        // σ̂ = σ − ν·p
        let sigma_hat = &commitment.sigma + &-&(&nu * &p);
        Self {
            z1: answer(&alpha, &p),
            z2: answer(&beta, &q),
            w1: answer(&x, &mu),
            w2: answer(&y, &nu),
            v: answer(&r, &sigma_hat),
            commitment,
        }
    }

    fn check_ranges(&self, ranges: &Ranges) -> Result<(), FactorProofError> {
        if self.commitment.sigma.magnitude() > &ranges.product {
            return Err(FactorProofError::CommitmentRange);
        }
        if self.z1.magnitude() > &ranges.factor || self.z2.magnitude() > &ranges.factor {
            return Err(FactorProofError::Bound);
        }
        let is_long = |value: &Integer, range: &Natural| value.magnitude() > &range.shl(1);
        if is_long(&self.w1, &ranges.hiding_mask)
            || is_long(&self.w2, &ranges.hiding_mask)
            || is_long(&self.v, &ranges.product_mask)
        {
            return Err(FactorProofError::ResponseRange);
        }
        Ok(())
    }

    /// Verifies the proof for `key` against the verifier's own `parameters`.
    ///
    /// # Errors
    /// Names the check that failed.
    pub fn verify(
        &self,
        key: &EncryptionKey,
        parameters: &Parameters,
        context: &ProofContext,
    ) -> Result<(), FactorProofError> {
        let Commitment { p, q, a, b, t, sigma } = &self.commitment;
        self.check_ranges(&Ranges::new(key, parameters))?;
        let modulus = parameters.modulus_arithmetic();
        if ![p, q, a, b, t].into_iter().all(|value| is_reduced_unit(value, &**modulus)) {
            return Err(FactorProofError::CommitmentRange);
        }
        let e = challenge(key, parameters, context, &self.commitment);
        let times_power =
            |mask: &Natural, base: &Natural| modulus.mul(mask, &modulus.pow(base, e.magnitude()));
        if parameters.commit(&self.z1, &self.w1) != times_power(a, p) {
            return Err(FactorProofError::FirstFactor);
        }
        if parameters.commit(&self.z2, &self.w2) != times_power(b, q) {
            return Err(FactorProofError::SecondFactor);
        }
        let product = parameters.commit(&key.modulus().clone().into(), sigma);
        let left = modulus.multi_pow(&[(q, &self.z1), (parameters.t(), &self.v)]);
        if left != Some(times_power(t, &product)) {
            return Err(FactorProofError::Product);
        }
        Ok(())
    }
}

//! Πlog*: a Paillier ciphertext encrypts the discrete logarithm of a point of secp256k1, and that
//! number is small (ePrint 2021/060, figure 25), with `ℓ = 256`, `ε = 256`, a 128-bit challenge and
//! the verifier's `Ñ`.
//!
//! The accepted range bounds the plaintext: two accepting answers to different challenges give `x̂`
//! as a quotient of differences of `z1`s, so `|x̂| ≤ 2·2⁵¹² = 2⁵¹³`. The mask of a signature hides
//! that much ([`crate::paillier::MASK_BITS`]). An honest `z1 = α + e·x` exceeds `2⁵¹²` with
//! probability 2⁻¹²⁸; then the prover starts over.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use udigest::Digestable;

use super::is_reduced_unit;
use crate::{
    curve::{self, Point, SecretScalar},
    hedge::{self, Entropy, Purpose},
    natural::{Integer, Natural},
    paillier::{Ciphertext, EncryptionKey, EncryptionNonce},
    ring_pedersen::Parameters,
    transcript::{Challenge, ProofContext},
};

const NAME: &str = "ciphertext-of-logarithm";

/// `ℓ`: the length of the encrypted number.
const L_BITS: u32 = 256;

/// `ε`: the slack of the accepted range.
const EPSILON_BITS: u32 = 256;

/// The challenge's length.
const CHALLENGE_BITS: u32 = 128;

/// The encrypted number's magnitude is at most two to this power, even for a dishonest prover.
pub const PLAINTEXT_BOUND_BITS: u32 = L_BITS + EPSILON_BITS + 1;

/// The largest encoding of a proof, for 3072-bit `N` and `Ñ`, in bytes.
pub const MAX_SIZE_BYTES: usize = 2 * 387 + 771 + 33 + 69 + 387 + 453;

/// The statement: `ciphertext` under `key` encrypts the discrete logarithm of `point`. The verifier
/// is the owner of `parameters`.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// The prover's public key.
    pub key: &'a EncryptionKey,
    /// `c = Enc(x)`.
    pub ciphertext: &'a Ciphertext,
    /// `X = x·G`.
    pub point: &'a Point,
    /// The verifier's parameters.
    pub parameters: &'a Parameters,
}

#[derive(Digestable)]
struct FullStatement<'a> {
    modulus: &'a Natural,
    ciphertext: &'a Ciphertext,
    point: &'a Point,
    parameters: &'a Parameters,
    l_bits: u32,
    epsilon_bits: u32,
    challenge_bits: u32,
}

/// A proof that a ciphertext encrypts the discrete logarithm of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub struct LogStarProof {
    pub(super) commitment: Commitment,
    pub(super) z1: Integer,
    pub(super) z2: Natural,
    pub(super) z3: Integer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub(super) struct Commitment {
    pub(super) s: Natural,
    pub(super) a: Natural,
    pub(super) y: Point,
    pub(super) d: Natural,
}

/// Which check of a logarithm proof failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogStarProofError {
    /// A commitment is not a unit of its group.
    #[error("a commitment of the logarithm proof is out of range")]
    CommitmentRange,
    /// `|z1| > 2⁵¹²`: the encrypted number may be too large.
    #[error("the answer of the logarithm proof exceeds its bound")]
    Bound,
    /// `z2` is not a unit modulo `N`, or `z3` is longer than an honest prover's ever is.
    #[error("a response of the logarithm proof is out of range")]
    ResponseRange,
    /// `(1 + N)^z1·z2^N ≠ A·c^e`.
    #[error("the logarithm proof's equation for the ciphertext does not hold")]
    Ciphertext,
    /// `z1·G ≠ Y + e·X`.
    #[error("the logarithm proof's equation for the point does not hold")]
    Point,
    /// `s^z1·t^z3 ≠ D·S^e`.
    #[error("the logarithm proof's equation for the range does not hold")]
    Commitment,
}

/// The witness is not one for the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext or the point is not the secret's")]
pub struct NotAWitness;

impl Statement<'_> {
    fn challenge(&self, context: &ProofContext, commitment: &Commitment) -> Natural {
        let full = FullStatement {
            modulus: self.key.modulus(),
            ciphertext: self.ciphertext,
            point: self.point,
            parameters: self.parameters,
            l_bits: L_BITS,
            epsilon_bits: EPSILON_BITS,
            challenge_bits: CHALLENGE_BITS,
        };
        Challenge::new(NAME, context, &full, commitment).natural(CHALLENGE_BITS)
    }

    /// `(1 + N)^plaintext · nonce^N mod N²`, for any integer.
    fn encrypt(&self, plaintext: &Integer, nonce: &Natural) -> Natural {
        let reduced = plaintext.rem_euclid(self.key.modulus()).unwrap_or_else(Natural::zero);
        self.key.raw_encrypt(&reduced, nonce)
    }
}

/// `integer mod q` times the generator; `None` for the identity.
fn generator_times(integer: &Integer) -> Option<Point> {
    let scalar = curve::reduce(integer.magnitude());
    Point::generator().mul(&if integer.is_negative() { -scalar } else { scalar })
}

impl LogStarProof {
    /// Proves that `statement.ciphertext = Enc(secret; nonce)` and `statement.point = secret·G`.
    /// Verify the parameters' own proof first: crafted parameters could reveal the secret.
    ///
    /// # Errors
    /// When the point is not the secret's or the nonce is not the ciphertext's. The verifier checks
    /// that the ciphertext encrypts the secret.
    pub fn prove(
        statement: &Statement<'_>,
        secret: &SecretScalar,
        nonce: &EncryptionNonce,
        context: &ProofContext,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, NotAWitness> {
        if *statement.point != secret.public() || !nonce.belongs_to(statement.ciphertext) {
            return Err(NotAWitness);
        }
        let mut rng = hedge::generator(
            entropy,
            &*secret.to_bytes(),
            Purpose::LogStar,
            &(context, statement.ciphertext),
        );
        let secret = Integer::from(secret.to_natural());
        loop {
            let proof = Self::attempt(statement, &secret, nonce, context, &mut rng);
            // Missed with probability 2^-128.
            if proof.is_within_bound() {
                return Ok(proof);
            }
        }
    }

    /// One run of the prover, which an unlikely draw can put out of range.
    pub(crate) fn attempt(
        statement: &Statement<'_>,
        secret: &Integer,
        nonce: &EncryptionNonce,
        context: &ProofContext,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let Statement { key, parameters, .. } = *statement;
        let modulus = key.modulus_arithmetic();
        let mu = Integer::random_symmetric(rng, &parameters.modulus().shl(L_BITS));
        let gamma = Integer::random_symmetric(rng, &parameters.modulus().shl(L_BITS + EPSILON_BITS));
        let r = key.random_unit(rng);
        let (alpha, y) = loop {
            let alpha = Integer::random_symmetric(rng, &Natural::power_of_two(L_BITS + EPSILON_BITS));
            if let Some(y) = generator_times(&alpha) {
                break (alpha, y);
            }
        };
        let commitment = Commitment {
            s: parameters.commit(secret, &mu),
            a: statement.encrypt(&alpha, &r),
            y,
            d: parameters.commit(&alpha, &gamma),
        };
        let e = statement.challenge(context, &commitment);
        let z2 = modulus.mul(&r, &modulus.pow(nonce.as_natural(), &e));
        let e = Integer::from(e);
        Self { z1: &alpha + &(&e * secret), z2, z3: &gamma + &(&e * &mu), commitment }
    }

    /// `z1` and the challenge that it answers, as a curious verifier sees them ([`crate::door`]).
    pub(crate) fn response(&self, statement: &Statement<'_>, context: &ProofContext) -> (Integer, Natural) {
        (self.z1.clone(), statement.challenge(context, &self.commitment))
    }

    fn is_within_bound(&self) -> bool {
        self.z1.magnitude() <= &Natural::power_of_two(L_BITS + EPSILON_BITS)
    }

    /// `(1 + N)^z1·z2^N = A·c^e`
    fn opens_ciphertext(&self, statement: &Statement<'_>, context: &ProofContext) -> bool {
        let squared = statement.key.squared_arithmetic();
        let e = statement.challenge(context, &self.commitment);
        let power = squared.pow(statement.ciphertext.as_natural(), &e);
        statement.encrypt(&self.z1, &self.z2) == squared.mul(&self.commitment.a, &power)
    }

    /// Verifies the proof for the verifier's own `statement`.
    ///
    /// # Errors
    /// Names the check that failed.
    pub fn verify(&self, statement: &Statement<'_>, context: &ProofContext) -> Result<(), LogStarProofError> {
        let Statement { key, point, parameters, .. } = *statement;
        let Commitment { s, a, y, d } = &self.commitment;
        if !self.is_within_bound() {
            return Err(LogStarProofError::Bound);
        }
        let longest_z3 = parameters.modulus().shl(L_BITS + EPSILON_BITS + 1);
        if self.z3.magnitude() > &longest_z3 || !is_reduced_unit(&self.z2, &**key.modulus_arithmetic()) {
            return Err(LogStarProofError::ResponseRange);
        }
        let (auxiliary, squared) = (parameters.modulus_arithmetic(), key.squared_arithmetic());
        if !is_reduced_unit(s, &**auxiliary)
            || !is_reduced_unit(d, &**auxiliary)
            || !is_reduced_unit(a, &**squared)
        {
            return Err(LogStarProofError::CommitmentRange);
        }
        let e = statement.challenge(context, &self.commitment);
        let committed = y.to_projective() + point.to_projective() * curve::reduce(&e);
        if generator_times(&self.z1) != Point::from_projective(committed) {
            return Err(LogStarProofError::Point);
        }
        if parameters.commit(&self.z1, &self.z3) != auxiliary.mul(d, &auxiliary.pow(s, &e)) {
            return Err(LogStarProofError::Commitment);
        }
        if !self.opens_ciphertext(statement, context) {
            return Err(LogStarProofError::Ciphertext);
        }
        Ok(())
    }
}

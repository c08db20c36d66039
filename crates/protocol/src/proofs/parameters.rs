//! Πprm: `s ∈ ⟨t⟩` modulo `Ñ` (ePrint 2021/060, figure 17), with 128 binary challenges.
//!
//! The proof holds the challenge instead of the commitments: the verifier recomputes the
//! commitments from challenge and responses and hashes them, which is the same check with half the
//! bytes.
//!
//! Verification raises `t` to 128 powers with fixed-base windows. A random linear combination would
//! be faster, but is not sound against a cheating maker of `Ñ`, who may choose a group with small
//! subgroups.

use serde::{Deserialize, Serialize};
use udigest::Digestable;

use super::{ITERATIONS, Rounds};
use crate::{
    hedge::{self, Entropy, Purpose},
    natural::Natural,
    ring_pedersen::{Parameters, Trapdoor},
    transcript::{Challenge, ProofContext},
};

const NAME: &str = "ring-pedersen-parameters";

/// The bytes of a challenge.
const CHALLENGE_SIZE_BYTES: usize = ITERATIONS as usize / 8;

/// The largest encoding of a proof, for a 3072-bit `Ñ`, in bytes.
pub const MAX_SIZE_BYTES: usize = CHALLENGE_SIZE_BYTES + ITERATIONS as usize * (384 + 3);

/// A proof that `s ∈ ⟨t⟩`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub struct ParametersProof {
    #[udigest(as_bytes)]
    pub(super) challenge: [u8; CHALLENGE_SIZE_BYTES],
    pub(super) responses: Rounds<Natural>,
}

/// Which check of a parameter proof failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParametersProofError {
    /// A response is not below `Ñ`.
    #[error("a response of the parameter proof is out of range")]
    ResponseRange,
    /// The challenge is not the hash of the recomputed commitments.
    #[error("the parameter proof does not hold")]
    Equation,
}

#[derive(Digestable)]
struct Statement<'a> {
    parameters: &'a Parameters,
    iterations: u32,
}

pub(super) fn challenge(
    parameters: &Parameters,
    context: &ProofContext,
    commitments: &[Natural],
) -> [u8; CHALLENGE_SIZE_BYTES] {
    let statement = Statement { parameters, iterations: ITERATIONS };
    let drawn = Challenge::new(NAME, context, &statement, &commitments).natural(ITERATIONS);
    let mut bytes = [0; CHALLENGE_SIZE_BYTES];
    if let Some(padded) = drawn.to_be_bytes_padded(CHALLENGE_SIZE_BYTES) {
        bytes.copy_from_slice(&padded);
    }
    bytes
}

fn challenge_bit(challenge: &[u8; CHALLENGE_SIZE_BYTES], index: u32) -> bool {
    challenge.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

impl ParametersProof {
    /// Proves that `parameters` were made with `trapdoor`.
    #[must_use]
    pub fn prove(
        parameters: &Parameters,
        trapdoor: &Trapdoor,
        context: &ProofContext,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let mut rng = hedge::generator(
            entropy,
            &trapdoor.lambda.to_be_bytes(),
            Purpose::Parameters,
            &(context, parameters),
        );
        let modulus = parameters.modulus_arithmetic();
        let nonces: Vec<_> =
            (0..ITERATIONS).map(|_| Natural::random_below(&mut rng, &trapdoor.phi)).collect();
        let commitments: Vec<_> = nonces.iter().map(|nonce| modulus.pow(parameters.t(), nonce)).collect();
        let challenge = challenge(parameters, context, &commitments);
        let responses = (0..ITERATIONS).zip(&nonces).map(|(index, nonce)| {
            let response =
                if challenge_bit(&challenge, index) { nonce + &trapdoor.lambda } else { nonce.clone() };
            // φ is not zero.
            response.rem(&trapdoor.phi).unwrap_or(response)
        });
        Self { responses: Rounds(responses.collect()), challenge }
    }

    /// Verifies the proof for `parameters`.
    ///
    /// # Errors
    /// Names the check that failed.
    pub fn verify(
        &self,
        parameters: &Parameters,
        context: &ProofContext,
    ) -> Result<(), ParametersProofError> {
        let modulus = parameters.modulus_arithmetic();
        if self.responses.iter().any(|(_, response)| response >= modulus.value()) {
            return Err(ParametersProofError::ResponseRange);
        }
        let powers_of_t = modulus.fixed_base(parameters.t(), modulus.value().bit_length());
        let s_inverse = modulus.invert(parameters.s()).ok_or(ParametersProofError::Equation)?;
        let commitments = self
            .responses
            .iter()
            .map(|(index, response)| {
                // A_i = t^(z_i) · s^(−e_i)
                let power = powers_of_t.pow(response)?;
                Some(if challenge_bit(&self.challenge, index) {
                    modulus.mul(&power, &s_inverse)
                } else {
                    power
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(ParametersProofError::ResponseRange)?;
        if challenge(parameters, context, &commitments) == self.challenge {
            Ok(())
        } else {
            Err(ParametersProofError::Equation)
        }
    }
}

//! Schnorr's proof of knowledge of a discrete logarithm over secp256k1.

use rand_core::Rng as _;
use serde::{Deserialize, Serialize};
use udigest::Digestable;
use zeroize::Zeroizing;

use crate::{
    curve::{self, Point, Scalar, SecretScalar, wire_scalar},
    hedge::{self, Entropy, Purpose},
    natural::Natural,
    transcript::{Challenge, ProofContext},
};

const NAME: &str = "schnorr";

/// The size of a proof on the wire, in bytes.
pub const SIZE_BYTES: usize = 65;

/// A proof of knowledge of `x` with `X = x·G`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Digestable)]
pub struct SchnorrProof {
    commitment: Point,
    #[serde(with = "wire_scalar")]
    #[udigest(as_bytes = scalar_bytes)]
    response: Scalar,
}

fn scalar_bytes(scalar: &Scalar) -> [u8; 32] {
    scalar.to_bytes().into()
}

/// The proof's equation does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof of knowledge of the discrete logarithm does not hold")]
pub struct SchnorrProofError;

impl SchnorrProof {
    /// Proves knowledge of `secret` for `secret·G`.
    #[must_use]
    pub fn prove(secret: &SecretScalar, context: &ProofContext, entropy: &mut dyn Entropy) -> Self {
        let public = secret.public();
        let mut generator =
            hedge::generator(entropy, &*secret.to_bytes(), Purpose::Schnorr, &(context, &public));
        loop {
            let mut wide = Zeroizing::new([0; 64]);
            generator.fill_bytes(wide.as_mut());
            let Ok(nonce) = SecretScalar::new(curve::reduce(&Natural::from_be_bytes(wide.as_ref()))) else {
                continue;
            };
            let commitment = nonce.public();
            let e = Challenge::new(NAME, context, &public, &commitment).scalar();
            return Self { commitment, response: *nonce.as_scalar() + e * secret.as_scalar() };
        }
    }

    /// Verifies the proof for `public`.
    ///
    /// # Errors
    /// When `z·G ≠ A + e·X`.
    pub fn verify(&self, public: &Point, context: &ProofContext) -> Result<(), SchnorrProofError> {
        let e = Challenge::new(NAME, context, public, &self.commitment).scalar();
        let left = Point::generator().to_projective() * self.response;
        let right = self.commitment.to_projective() + public.to_projective() * e;
        if left == right { Ok(()) } else { Err(SchnorrProofError) }
    }
}

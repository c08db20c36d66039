//! Signing nonces, each drawn from a hedged generator of its own ([`crate::hedge`]).

use core::fmt;

use k256::{Scalar, WideBytes, elliptic_curve::ops::Reduce as _};
use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::{
    curve::{Point, SecretScalar},
    hedge::Generator,
    transcript,
};

/// A signing nonce: made for one session, used once, wiped on drop. Neither `Clone` nor
/// serialisable.
pub(crate) struct Nonce {
    secret: SecretScalar,
    /// `k·G`.
    public: Point,
}

impl Nonce {
    /// Draws a nonce: a wide reduction, whose bias is below 2^-256.
    pub(crate) fn draw(mut generator: Generator) -> Self {
        loop {
            let mut wide = Zeroizing::new([0; 64]);
            generator.fill_bytes(wide.as_mut());
            let scalar = Zeroizing::new(Scalar::reduce(&WideBytes::from(*wide)));
            if let Ok(secret) = SecretScalar::new(*scalar) {
                return Self::new(secret);
            }
        }
    }

    fn new(secret: SecretScalar) -> Self {
        let public = secret.public();
        Self { secret, public }
    }

    /// A nonce of the caller's choice ([`crate::door`]).
    pub(crate) fn chosen(secret: SecretScalar) -> Self {
        Self::new(secret)
    }

    /// `k·G`.
    pub(crate) const fn public(&self) -> Point {
        self.public
    }

    /// The hash of `k·G`. It shows that no nonce was used twice, and nothing else.
    pub(crate) fn public_hash(&self) -> [u8; 32] {
        transcript::hash("public-nonce", &self.public)
    }

    pub(crate) fn secret(&self) -> &SecretScalar {
        &self.secret
    }

    /// `k⁻¹ mod q`; a nonce is never zero.
    pub(crate) fn inverse(&self) -> Zeroizing<Scalar> {
        Zeroizing::new(self.secret.as_scalar().invert().unwrap_or(Scalar::ZERO))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::{Purpose, generator};
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    fn draw(seed: u64, share: u64, purpose: Purpose, session: u8) -> [u8; 33] {
        let share = SecretScalar::new(Scalar::from(share)).unwrap().to_bytes();
        let mut entropy = ChaCha20Rng::seed_from_u64(seed);
        Nonce::draw(generator(&mut entropy, &*share, purpose, &[session; 32])).public().to_bytes()
    }

    #[test]
    fn every_input_changes_the_nonce() {
        let base = draw(1, 1, Purpose::InitiatorNonce, 1);
        assert_eq!(base, draw(1, 1, Purpose::InitiatorNonce, 1), "the rest is deterministic");
        assert_ne!(base, draw(2, 1, Purpose::InitiatorNonce, 1), "generator");
        assert_ne!(base, draw(1, 2, Purpose::InitiatorNonce, 1), "share");
        assert_ne!(base, draw(1, 1, Purpose::ResponderNonce, 1), "role");
        assert_ne!(base, draw(1, 1, Purpose::InitiatorNonce, 2), "session, with a repeating generator");
    }
}

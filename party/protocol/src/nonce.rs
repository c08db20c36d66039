//! Signing nonces, hedged: neither a weak generator nor a cloned machine alone repeats one.

use core::fmt;

use hkdf::Hkdf;
use k256::{Scalar, WideBytes, elliptic_curve::ops::Reduce as _};
use rand_core::CryptoRng;
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::{
    curve::{Point, SecretScalar},
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
    /// Draws a nonce from the generator, the share and the session together (HKDF-SHA-512, then a
    /// wide reduction whose bias is below 2^-256).
    ///
    /// With a good generator it is uniform whatever the rest; when the generator repeats itself
    /// (a restored snapshot), the session id still differs, and whoever guesses the generator still
    /// lacks the share.
    pub(crate) fn derive(
        rng: &mut dyn CryptoRng,
        share: &SecretScalar,
        role: &'static str,
        session: &[u8; 32],
    ) -> Self {
        let mut random = Zeroizing::new([0; 64]);
        loop {
            rng.fill_bytes(random.as_mut());
            let hkdf = Hkdf::<Sha512>::new(Some(random.as_ref()), share.to_bytes().as_ref());
            let mut wide = Zeroizing::new([0; 64]);
            let info = [b"duet/v1/nonce", role.as_bytes(), session.as_slice()];
            // 64 bytes is one block; the library refuses only above 255.
            if hkdf.expand_multi_info(&info, wide.as_mut()).is_err() {
                continue;
            }
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

    /// A nonce of the caller's choice, for reproducing published signatures.
    #[cfg(any(test, feature = "test-hooks"))]
    pub(crate) fn chosen(secret: SecretScalar) -> Self {
        Self::new(secret)
    }

    /// `k·G`.
    pub(crate) const fn public(&self) -> Point {
        self.public
    }

    /// The hash of `k·G`: shows that no nonce was used twice, and nothing else.
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
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    fn derive(seed: u64, share: u64, role: &'static str, session: u8) -> [u8; 33] {
        let share = SecretScalar::new(Scalar::from(share)).unwrap();
        Nonce::derive(&mut ChaCha20Rng::seed_from_u64(seed), &share, role, &[session; 32]).public().to_bytes()
    }

    #[test]
    fn every_input_changes_the_nonce() {
        let base = derive(1, 1, "initiator", 1);
        assert_eq!(base, derive(1, 1, "initiator", 1), "the rest is deterministic");
        assert_ne!(base, derive(2, 1, "initiator", 1), "generator");
        assert_ne!(base, derive(1, 2, "initiator", 1), "share");
        assert_ne!(base, derive(1, 1, "responder", 1), "role");
        assert_ne!(base, derive(1, 1, "initiator", 2), "session, with a repeating generator");
    }
}

//! The one way around the protocol's rules, for tests that play its enemies.
//!
//! A cheating party does what this crate's types let no caller do. It chooses its nonce, signs a
//! ciphertext of its own making, or looks at the whole plaintext of an answer. The adversary crate
//! (`crates/adversary`) plays such parties, and [`Door`] has everything that it needs for that.
//!
//! The product never calls it. Clippy refuses the name `Door` outside the adversary crate
//! (`clippy.toml`), and an end-to-end test searches the program for these functions
//! (`tests/tests/shipped.rs`).
//!
//! The functions are always compiled, so that the product and its tests share one build of this
//! crate. None of them is inlined: a program that calls one has its symbol. The linker leaves them
//! out of a program that calls none.

#![expect(clippy::disallowed_types, reason = "the door is defined here")]

use rand_core::CryptoRng;

use crate::{
    curve::{Point, Scalar, SecretScalar},
    dealing::Drawn,
    enrolment::{EnrolmentOffer, OfferError, OfferSetup, OfferVerifier, UnsignedOffer, VerifiedEnrolment},
    hedge::Entropy,
    initiator::{self, AuthenticAnswer, AwaitingCipher, AwaitingResponse, InitiatorSetup},
    keygen::{DealError, DealerSetup, Dealt, DeviceWallet, PendingWallet},
    natural::{Integer, Natural},
    nonce::Nonce,
    paillier::{DecryptionKey, EncryptionKey},
    paillier_key::PaillierKey,
    randomizer::OneTimeRandomizer,
    responder::{self, AwaitingOpening, ReadyToRespond, ResponderSetup},
    session::{CipherEvidence, SessionError},
    share::Polynomial,
};

/// What only a cheating party does. See the module's documentation.
///
/// # Security
/// Each function breaks a rule that keeps a key secret. Call none of them outside tests.
#[derive(Debug, Clone, Copy)]
pub struct Door;

impl Door {
    /// Deals a wallet of a given private key, with an existing Paillier key. The caller has a
    /// published signature to reproduce, or cannot wait for primes.
    ///
    /// # Errors
    /// As [`crate::keygen::deal`].
    #[inline(never)]
    pub fn deal(
        setup: &DealerSetup,
        private_key: Option<SecretScalar>,
        paillier: Option<DecryptionKey>,
        entropy: &mut dyn Entropy,
    ) -> Result<Dealt, DealError> {
        let polynomial = match private_key {
            Some(private_key) => Polynomial::through(private_key, entropy),
            None => Polynomial::random(entropy),
        };
        let paillier = paillier.map(|key| PaillierKey::new(setup.device.clone(), key));
        Drawn::of_polynomial(setup, &polynomial, paillier, &mut (), entropy)?.deal(&mut (), entropy)
    }

    /// The device's part of a wallet before any party has committed.
    #[must_use]
    #[inline(never)]
    pub const fn device(pending: &PendingWallet) -> &DeviceWallet {
        &pending.device
    }

    /// Starts a session with a nonce of the caller's choice. A nonce used twice gives away the key.
    ///
    /// # Errors
    /// As [`crate::initiator::Initiator::start`].
    #[inline(never)]
    pub fn start(
        setup: InitiatorSetup,
        nonce: SecretScalar,
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingResponse, Vec<u8>), SessionError> {
        initiator::start_with(setup, Some(Nonce::chosen(nonce)), entropy)
    }

    /// Accepts a session with a nonce of the caller's choice. A nonce used twice gives away the
    /// key.
    ///
    /// # Errors
    /// As [`crate::responder::Responder::accept`].
    #[inline(never)]
    pub fn accept(
        setup: ResponderSetup,
        message1: &[u8],
        nonce: SecretScalar,
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingOpening, Vec<u8>), SessionError> {
        responder::accept_with(setup, message1, Some(Nonce::chosen(nonce)), entropy)
    }

    /// `R1`, which no two sessions share.
    #[must_use]
    #[inline(never)]
    pub const fn initiator_nonce(state: &AwaitingResponse) -> Point {
        state.nonce_point()
    }

    /// `R2`, which no two answers share.
    #[must_use]
    #[inline(never)]
    pub const fn responder_nonce(state: &ReadyToRespond) -> Point {
        state.nonce_point()
    }

    /// `r` of the joint nonce `k1·k2·G`. It shows an initiator that repeats `k1` whether `k2`
    /// repeats.
    #[must_use]
    #[inline(never)]
    pub const fn signature_r(state: &AwaitingCipher) -> Scalar {
        state.signature_r()
    }

    /// `c3`, and its plaintext as an integer: a curious initiator sees more than the residue mod
    /// `q`.
    #[must_use]
    #[inline(never)]
    pub fn decrypt(answer: &AuthenticAnswer, entropy: &mut dyn Entropy) -> (Natural, Natural) {
        answer.look_into(entropy)
    }

    /// The encrypted share that a responder answers with.
    #[must_use]
    #[inline(never)]
    pub fn enrolment(state: &ReadyToRespond) -> &VerifiedEnrolment {
        state.enrolment()
    }

    /// `v` and `u` of a responder's answer: the signature is `k1⁻¹·(v·x_i + u)`.
    ///
    /// # Errors
    /// [`SessionError::ApiMisuse`] when the session's setup contradicts itself.
    #[inline(never)]
    pub fn terms(state: &ReadyToRespond) -> Result<(Scalar, Scalar), SessionError> {
        let terms = state.terms()?;
        Ok((*terms.multiplier, *terms.plaintext))
    }

    /// Signs and sends any number as the answer: authentic, but as wrong as the caller chooses.
    ///
    /// # Errors
    /// Never for numbers below `2^6144`.
    #[inline(never)]
    pub fn respond(
        state: ReadyToRespond,
        ciphertext: &Natural,
    ) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
        state.respond_with(ciphertext)
    }

    /// Any number as a randomizer.
    #[inline(never)]
    pub fn randomizer(key: &EncryptionKey, value: Natural) -> OneTimeRandomizer {
        OneTimeRandomizer::chosen(key, value)
    }

    /// An offer whose ciphertext and range proof draw from `rng` as it is, without a hedge.
    ///
    /// # Errors
    /// As [`EnrolmentOffer::make`].
    #[inline(never)]
    pub fn offer(
        setup: &OfferSetup<'_>,
        rng: &mut dyn CryptoRng,
        entropy: &mut dyn Entropy,
    ) -> Result<EnrolmentOffer, OfferError> {
        Ok(UnsignedOffer::make(setup, entropy)?.drawn_again(setup, rng)?.sign(setup.keys, None))
    }

    /// `z1` of an offer's Πlog* and the challenge that it answers, as a curious responder sees
    /// them.
    #[must_use]
    #[inline(never)]
    pub fn range_response(
        offer: &EnrolmentOffer,
        verifier: &OfferVerifier<'_>,
    ) -> Option<(Integer, Natural)> {
        offer.range_response(verifier)
    }
}

//! A responder that chooses its nonce, or what it answers.

use duet_protocol::{
    curve::{Point, SecretScalar},
    door::Door,
    hedge::Entropy,
    natural::Natural,
    paillier::masked_plaintext,
    responder::{AwaitingOpening, ReadyToRespond, ResponderSetup},
    session::{ApiMisuse, CipherEvidence, SessionError},
};
use rand_core::CryptoRng;

/// Accepts a session with a nonce of the caller's choice.
///
/// # Errors
/// As [`duet_protocol::responder::Responder::accept`].
pub fn accept_with_nonce(
    setup: ResponderSetup,
    message1: &[u8],
    nonce: SecretScalar,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitingOpening, Vec<u8>), SessionError> {
    Door::accept(setup, message1, nonce, entropy)
}

/// `R2`, which no two answers share.
#[must_use]
pub fn nonce_point(state: &ReadyToRespond) -> Point {
    Door::responder_nonce(state)
}

/// Signs and sends any number as the answer: authentic, but as wrong as the caller chooses.
///
/// # Errors
/// Never for numbers below `2^6144`.
pub fn respond_with(
    state: ReadyToRespond,
    ciphertext: &Natural,
) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
    Door::respond(state, ciphertext)
}

/// An honest answer but for its random numbers: mask and `r̃` come from these generators as they
/// are, without a hedge. It is the answer of a cloned worker that trusts its generator.
///
/// # Errors
/// [`SessionError::ApiMisuse`] as [`ReadyToRespond::respond`].
pub fn respond_without_hedge(
    state: ReadyToRespond,
    mask: &mut dyn CryptoRng,
    randomizer: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
    let (multiplier, plaintext) = Door::terms(&state)?;
    let enrolment = Door::enrolment(&state);
    let key = enrolment.encryption_key();
    let masked = masked_plaintext(&plaintext, mask);
    let answer = key
        .affine(enrolment.ciphertext(), &multiplier, &masked, key.make_randomizer(randomizer))
        .map_err(|_| ApiMisuse::Internal("answering without a hedge"))?;
    Door::respond(state, answer.as_natural())
}

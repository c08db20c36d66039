//! An initiator that chooses its nonce and looks at more than the signature.

use duet_protocol::{
    curve::{Point, Scalar, SecretScalar},
    door::Door,
    hedge::Entropy,
    initiator::{AwaitingCipher, AwaitingResponse, InitiatorSetup},
    session::SessionError,
};

use crate::cloned_worker::SeenAnswer;

/// Starts a session with a nonce of the caller's choice, for an initiator that uses one twice or
/// reproduces a published signature.
///
/// # Errors
/// As [`duet_protocol::initiator::Initiator::start`].
pub fn start_with_nonce(
    setup: InitiatorSetup,
    nonce: SecretScalar,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitingResponse, Vec<u8>), SessionError> {
    Door::start(setup, nonce, entropy)
}

/// `R1`, which no two sessions share.
#[must_use]
pub fn nonce_point(state: &AwaitingResponse) -> Point {
    Door::initiator_nonce(state)
}

/// `r` of the joint nonce `k1·k2·G`. It shows an initiator that repeats `k1` whether `k2` repeats.
#[must_use]
pub fn signature_r(state: &AwaitingCipher) -> Scalar {
    Door::signature_r(state)
}

/// The answer as a curious initiator decrypts it: the integer, not only its residue mod `q`.
/// `digest` is what the session signs under the wallet's own key.
///
/// # Errors
/// As [`AwaitingCipher::authenticate`].
pub fn look_into(
    state: AwaitingCipher,
    message4: &[u8],
    digest: [u8; 32],
    entropy: &mut dyn Entropy,
) -> Result<SeenAnswer, SessionError> {
    let r = Door::signature_r(&state);
    let (ciphertext, plaintext) = Door::decrypt(&state.authenticate(message4)?, entropy);
    Ok(SeenAnswer { ciphertext, plaintext, r, digest })
}

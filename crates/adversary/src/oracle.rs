//! The abort oracle of CVE-2023-33242 (ePrint 2023/1234). It gives authentic answers whose
//! signature verifies if and only if a guess at a share is right.

use duet_protocol::{
    curve::{Scalar, order, reduce, scalar_to_natural},
    door::Door,
    natural::Natural,
    paillier::{Ciphertext, EncryptionKey, masked_plaintext},
    responder::ReadyToRespond,
    session::{ApiMisuse, CipherEvidence, SessionError},
};
use rand_core::CryptoRng;

const INTERNAL: ApiMisuse = ApiMisuse::Internal("playing the attacker");

/// `Enc((x − guess)·2^-bits mod N)`: the small number `y` exactly when `x = 2^bits·y + guess`.
fn quotient(
    key: &EncryptionKey,
    ciphertext: &Ciphertext,
    bits: u32,
    guess: &Natural,
) -> Result<Natural, ApiMisuse> {
    let inverse = key.modulus_arithmetic().invert(&Natural::power_of_two(bits)).ok_or(INTERNAL)?;
    let minus_guess = key.modulus().checked_sub(guess).ok_or(INTERNAL)?;
    let squared = key.squared_arithmetic();
    let generator_power = squared.reduce(&(&Natural::one() + &(&minus_guess * key.modulus())));
    let difference = squared.mul(ciphertext.as_natural(), &generator_power);
    Ok(squared.pow(&difference, &inverse))
}

/// An answer whose signature verifies if and only if the initiator's share is `guess` modulo
/// `2^bits`. It multiplies by `2^-bits mod N` instead of dividing, and compensates for the
/// division mod `q` in the nonce's factor of the rest.
///
/// # Errors
/// [`SessionError::ApiMisuse`] as [`ReadyToRespond::respond`].
pub fn respond_as_abort_oracle(
    state: ReadyToRespond,
    bits: u32,
    guess: &Natural,
    rng: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
    let (multiplier, plaintext) = Door::terms(&state)?;
    let enrolment = Door::enrolment(&state);
    let key = enrolment.encryption_key();
    // v·x + u = (v·2^bits)·y + (v·guess + u) mod q.
    let shifted = multiplier * reduce(&Natural::power_of_two(bits));
    let constant = multiplier * reduce(guess) + plaintext;
    let quotient = quotient(key, enrolment.ciphertext(), bits, guess)?;
    // An even multiplier would compensate for a wrong last bit; q is odd.
    let mut exponent = scalar_to_natural(&shifted);
    if !exponent.is_odd() {
        exponent = &exponent + &order();
    }
    let scaled = key.squared_arithmetic().pow(&quotient, &exponent);
    let answer = disguised(key, &scaled, &constant, rng)?;
    Door::respond(state, &answer)
}

/// The session's own, honest answer, plus the plaintext of the ciphertext `nothing`: a multiple of
/// `q`.
fn respond_and_add(
    state: ReadyToRespond,
    nothing: impl FnOnce(&EncryptionKey) -> Result<Natural, ApiMisuse>,
    rng: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
    let (multiplier, plaintext) = Door::terms(&state)?;
    let enrolment = Door::enrolment(&state);
    let key = enrolment.encryption_key();
    let squared = key.squared_arithmetic();
    let own = squared.pow(enrolment.ciphertext().as_natural(), &scalar_to_natural(&multiplier));
    let answer = disguised(key, &squared.mul(&own, &nothing(key)?), &plaintext, rng)?;
    Door::respond(state, &answer)
}

/// An oracle against the share of *another* wallet under the same Paillier key, whose
/// encryption `victim` is. To this session's own, honest answer it adds `q·y`, which is 0 mod
/// `q` unless the guess is wrong and the sum wraps mod `N`. This is why a Paillier key serves
/// one responder and one tenant, and why the lock belongs to the key.
///
/// # Errors
/// [`SessionError::ApiMisuse`] as [`ReadyToRespond::respond`].
pub fn respond_as_oracle_on_another_wallet(
    state: ReadyToRespond,
    victim: &Ciphertext,
    bits: u32,
    guess: &Natural,
    rng: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
    let nothing = |key: &EncryptionKey| {
        Ok(key.squared_arithmetic().pow(&quotient(key, victim, bits, guess)?, &order()))
    };
    respond_and_add(state, nothing, rng)
}

/// An answer whose signature verifies if and only if the share that `victim` encrypts is below
/// `threshold`. To the honest answer it adds `q·⌊N/(q·threshold)⌋·x`, which is 0 mod `q` unless
/// the sum wraps mod `N`. The share may be this wallet's or another one's under the same
/// Paillier key. `threshold` is not zero.
///
/// # Errors
/// [`SessionError::ApiMisuse`] as [`ReadyToRespond::respond`], or when the threshold is zero.
pub fn respond_as_threshold(
    state: ReadyToRespond,
    victim: &Ciphertext,
    threshold: &Natural,
    rng: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
    let nothing = |key: &EncryptionKey| {
        let (times, _) = key.modulus().div_rem(&(&order() * threshold)).ok_or(INTERNAL)?;
        Ok(key.squared_arithmetic().pow(victim.as_natural(), &(&order() * &times)))
    };
    respond_and_add(state, nothing, rng)
}

/// `ciphertext·Enc(constant + ρ·q)`: masked and randomised as an honest answer is.
fn disguised(
    key: &EncryptionKey,
    ciphertext: &Natural,
    constant: &Scalar,
    rng: &mut dyn CryptoRng,
) -> Result<Natural, ApiMisuse> {
    let squared = key.squared_arithmetic();
    let mask = masked_plaintext(constant, rng);
    let masked = squared.reduce(&(&Natural::one() + &(&mask * key.modulus())));
    let (randomizer, _) = key.encrypt(&Natural::zero(), rng).map_err(|_| INTERNAL)?;
    Ok(squared.mul(&squared.mul(ciphertext, &masked), randomizer.as_natural()))
}

//! Dealing a wallet of chosen keys.

use duet_protocol::{
    curve::SecretScalar,
    door::Door,
    hedge::Entropy,
    keygen::{DealError, DealerSetup, Dealt, DeviceWallet, PendingWallet},
    natural::Natural,
    paillier::{DecryptionKey, EncryptionKey},
    randomizer::OneTimeRandomizer,
};

/// Deals a wallet of a given private key, with an existing Paillier key. Without a private key it
/// draws one. Without a Paillier key it searches for primes, which takes seconds.
///
/// # Errors
/// As [`duet_protocol::keygen::deal`].
pub fn deal_chosen(
    setup: &DealerSetup,
    private_key: Option<SecretScalar>,
    paillier: Option<DecryptionKey>,
    entropy: &mut dyn Entropy,
) -> Result<Dealt, DealError> {
    Door::deal(setup, private_key, paillier, entropy)
}

/// The device's part of a wallet before any party has committed.
#[must_use]
pub fn device(pending: &PendingWallet) -> &DeviceWallet {
    Door::device(pending)
}

/// Any number as a randomizer.
pub fn chosen_randomizer(key: &EncryptionKey, value: Natural) -> OneTimeRandomizer {
    Door::randomizer(key, value)
}

//! Key generation by a dealer, the owner's device. The backend parties only verify, store, and sign
//! for the stored packages.
//!
//! [`deal`] draws everything and seals it. [`crate::dealing`] does so in steps, for callers with
//! several threads. The result, a [`PendingWallet`], has the device's own share, and the others'
//! only as sealed packages. Store it durably **before** sending the first package. After any crash,
//! send the same pending wallet again; the result is the same. [`PendingWallet::finish`] shows the
//! address only when all parties have acknowledged the commit.

mod device;
mod setup;

pub use self::{
    device::{Dealt, Delivery, DeviceWallet, InvalidDeviceRecord, PaperRefusal, PendingWallet},
    setup::{Backend, DealError, DealerSetup, KeygenObserver, KeygenStep, ThirdHolder},
};
#[cfg(any(test, feature = "test-hooks"))]
use crate::paillier_key::PaillierKey;
use crate::{dealing::Drawn, hedge::Entropy};

/// Deals a wallet: shares, Paillier key, proofs, sealed packages. This wipes `x`, the polynomial
/// and the others' shares before it returns.
///
/// # Errors
/// When the setup contradicts itself.
pub fn deal(
    setup: &DealerSetup,
    progress: &mut dyn KeygenObserver,
    entropy: &mut dyn Entropy,
) -> Result<Dealt, DealError> {
    Drawn::draw(setup, None, progress, entropy)?.deal(progress, entropy)
}

/// Deals a wallet of a given private key, with an existing Paillier key. For reproducing published
/// signatures, and for tests that cannot wait for primes.
///
/// # Errors
/// As [`deal`].
#[cfg(any(test, feature = "test-hooks"))]
pub fn deal_chosen(
    setup: &DealerSetup,
    private_key: Option<crate::curve::SecretScalar>,
    paillier: Option<crate::paillier::DecryptionKey>,
    entropy: &mut dyn Entropy,
) -> Result<Dealt, DealError> {
    let polynomial = match private_key {
        Some(private_key) => crate::share::Polynomial::through(private_key, entropy),
        None => crate::share::Polynomial::random(entropy),
    };
    let paillier = paillier.map(|key| PaillierKey::new(setup.device.clone(), key));
    Drawn::of_polynomial(setup, &polynomial, paillier, &mut (), entropy)?.deal(&mut (), entropy)
}

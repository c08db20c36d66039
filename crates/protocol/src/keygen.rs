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

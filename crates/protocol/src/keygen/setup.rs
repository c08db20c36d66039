//! What a deal needs, and why there is none.

use crate::{
    admission::AdmissionToken,
    arithmetic::Arithmetic,
    card::VerifiedCard,
    enrolment::OfferError,
    ids::{PartyId, ShareIndex, TenantId},
    package::SealError,
    paillier::ModulusSize,
    share::{InvalidWallet, Requester},
};

/// The steps of a key generation, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeygenStep {
    /// The polynomial, the public key and the device's card.
    Shares,
    /// The two primes of the Paillier key, the longest step.
    PaillierKey,
    /// The proofs for one receiver.
    Proofs(ShareIndex),
    /// Sealing one package.
    Sealing(ShareIndex),
}

/// Receives the progress of a key generation.
pub trait KeygenObserver {
    /// A step begins.
    fn step(&mut self, step: KeygenStep);
    /// Another candidate for a prime of the Paillier key was tried; about 120 in all for 2048 bits.
    fn candidate(&mut self) {}
}

/// Ignores the progress.
impl KeygenObserver for () {
    fn step(&mut self, _: KeygenStep) {}
}

/// A party that gets a share.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its card, pinned, its parameters verified.
    pub card: VerifiedCard,
    /// Its admission token for the tenant.
    pub token: AdmissionToken,
}

/// The holder of share 3.
#[derive(Debug, Clone)]
pub enum ThirdHolder {
    /// Another organisation's party.
    Partner(Backend),
    /// The owner's backup file: no card, no proofs; [`Dealt::backup`](super::Dealt::backup) has the
    /// share.
    Backup,
}

/// A device's inputs for dealing a wallet.
#[derive(Debug, Clone)]
pub struct DealerSetup {
    /// The wallet's tenant.
    pub tenant: TenantId,
    /// The device's party name.
    pub device: PartyId,
    /// The holder of share 2.
    pub service: Backend,
    /// The holder of share 3.
    pub third: ThirdHolder,
    /// The requesters of signatures; the owner's request key first.
    pub requesters: Vec<Requester>,
    /// The length of the device's Paillier modulus.
    pub modulus: ModulusSize,
    /// The first generation of the device's enrolments: milliseconds since 1970.
    pub generation: u64,
    /// The arithmetic to compute with.
    pub arithmetic: &'static dyn Arithmetic,
}

/// Why no wallet was dealt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DealError {
    /// The holders or requesters contradict themselves.
    #[error(transparent)]
    Wallet(#[from] InvalidWallet),
    /// An enrolment could not be made.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The proofs for this receiver from another thread are missing, or are for another key.
    #[error("there are no proofs for {0} about this wallet's Paillier key")]
    Proofs(PartyId),
    /// A package could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

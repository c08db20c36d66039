//! The proofs about a modulus, as a task for another thread of the same owner. They are by far the
//! longest part of a key generation, and each receiver needs its own.
//!
//! A [`ProofTask`] travels as bytes to a thread that shares no memory with the dealer, such as a
//! Web Worker. The result, [`MadeProofs`], is not secret. The task holds the primes of the Paillier
//! key and nothing of a share. The prover thread learns no more than the thread that searched the
//! primes.

use core::fmt;

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    arithmetic::Arithmetic,
    card::{Card, CardRefusal, ParametersCheck, VerifiedCard},
    codec::{self, EncodeError, Message},
    enrolment::{EnrolmentOffer, ModulusProofs, OfferError},
    hedge::Entropy,
    ids::{CardFingerprint, PaillierKeyId},
    paillier::InvalidDecryptionKey,
    paillier_key::PaillierKey,
};

/// The inputs of a proof to one verifier that a Paillier key's modulus is sound. Wiped on drop.
///
/// # Security
/// Its bytes reveal the Paillier key. Send them to the owner's own threads only, and wipe them
/// there ([`codec::encode_secret`] makes bytes that wipe themselves). Accept none from another
/// party: a task states that the verifier's parameters have been verified.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
pub struct ProofTask {
    primes: Vec<u8>,
    #[zeroize(skip)]
    prover: Card,
    #[zeroize(skip)]
    verifier: Card,
}

impl Message for ProofTask {
    const KIND: u8 = 0x15;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = Card::MAX_SIZE_BYTES + 1024;
}

impl fmt::Debug for ProofTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofTask({} to {}, redacted)", self.prover.party(), self.verifier.party())
    }
}

/// Why a task failed. None of these happens with the bytes of a task that this crate made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The numbers inside are not the primes of a key.
    #[error(transparent)]
    Paillier(#[from] InvalidDecryptionKey),
    /// The verifier's card has no usable parameters.
    #[error(transparent)]
    Card(#[from] CardRefusal),
    /// The modulus has no proof.
    #[error(transparent)]
    Offer(#[from] OfferError),
}

impl ProofTask {
    /// The task of proving `paillier`'s modulus to `verifier`.
    #[must_use]
    pub fn new(paillier: &PaillierKey, prover: &Card, verifier: &VerifiedCard) -> Self {
        Self {
            primes: paillier.to_secret_bytes().to_vec(),
            prover: prover.clone(),
            verifier: Card::clone(verifier.card()),
        }
    }

    /// The bytes to hand to another thread.
    ///
    /// # Errors
    /// Only the codec's limits, which no task exceeds.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        codec::encode_secret(self)
    }

    /// Makes the proofs. It takes more than a second in a browser.
    ///
    /// # Errors
    /// When the task was not made by [`Self::new`] from a generated key.
    pub fn prove(
        self,
        arithmetic: &'static dyn Arithmetic,
        entropy: &mut dyn Entropy,
    ) -> Result<MadeProofs, TaskError> {
        let paillier = PaillierKey::from_secret_bytes(self.prover.party().clone(), &self.primes, arithmetic)?;
        let fingerprint = self.verifier.fingerprint();
        let verdict = ParametersCheck::of_trusted_verification(fingerprint);
        let card = Arc::new(self.verifier.clone());
        let verifier = VerifiedCard::with_check(card, &fingerprint, &verdict, arithmetic)?;
        Ok(MadeProofs::make(&paillier, &self.prover, &verifier, entropy)?)
    }
}

/// Proofs about one modulus for one verifier, with the names of both. An offer accepts only proofs
/// that were made for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MadeProofs {
    paillier_key: PaillierKeyId,
    prover: CardFingerprint,
    verifier: CardFingerprint,
    proofs: ModulusProofs,
}

impl Message for MadeProofs {
    const KIND: u8 = 0x16;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = EnrolmentOffer::MAX_SIZE_BYTES;
}

impl MadeProofs {
    /// Proves to `verifier` that `paillier`'s modulus is the product of two large primes.
    ///
    /// # Errors
    /// When it is not. That is possible only for a key that was not generated.
    pub fn make(
        paillier: &PaillierKey,
        prover: &Card,
        verifier: &VerifiedCard,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, OfferError> {
        Ok(Self {
            paillier_key: paillier.id(),
            prover: prover.fingerprint(),
            verifier: verifier.card().fingerprint(),
            proofs: ModulusProofs::prove(paillier, prover, verifier, entropy)?,
        })
    }

    /// Whether the proofs were made for this key, prover and verifier.
    #[must_use]
    pub fn is_for(&self, paillier: &PaillierKey, prover: &Card, verifier: &Card) -> bool {
        self.paillier_key == paillier.id()
            && self.prover == prover.fingerprint()
            && self.verifier == verifier.fingerprint()
    }

    /// The proofs, to put into the offer.
    #[must_use]
    pub fn into_proofs(self) -> ModulusProofs {
        self.proofs
    }
}

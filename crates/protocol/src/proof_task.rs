//! The proofs about a modulus as a task for another thread of the same owner: by far the longest
//! part of a key generation, and one for each receiver.
//!
//! A [`ProofTask`] is bytes on the way to a thread that shares no memory with the one that deals,
//! such as a Web Worker; what comes back is [`MadeProofs`], which are no secret. The task holds the
//! primes of the Paillier key and nothing of a share: who makes the proofs learns what somebody who
//! searched the primes knows already.

use core::fmt;

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    arithmetic::Arithmetic,
    card::{Card, CardRefusal, ParametersVerdict, VerifiedCard},
    codec::{self, EncodeError, Message},
    enrolment::{EnrolmentOffer, ModulusProofs, OfferError},
    hedge::Entropy,
    ids::{CardFingerprint, PaillierKeyId},
    paillier::InvalidDecryptionKey,
    paillier_key::PaillierKey,
};

/// What it takes to prove to one verifier that a Paillier key's modulus is sound. Wiped on drop.
///
/// # Security
/// Whoever has its bytes has the Paillier key: they go to the owner's own threads only, and are
/// wiped there ([`codec::encode_secret`] makes bytes that wipe themselves). Take one from nobody
/// else either: it says that the verifier's parameters have been verified.
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

/// Why a task was not done. None of it happens to the bytes of a task that this crate made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The primes inside are none.
    #[error(transparent)]
    Paillier(#[from] InvalidDecryptionKey),
    /// The verifier's card has no usable parameters.
    #[error(transparent)]
    Card(#[from] CardRefusal),
    /// The modulus cannot be proved.
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
    /// Never for a task that was made; the codec's limits.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        codec::encode_secret(self)
    }

    /// Makes the proofs; takes more than a second in a browser.
    ///
    /// # Errors
    /// When the task is not one that [`Self::new`] made of a key that was generated.
    pub fn prove(
        self,
        arithmetic: &'static dyn Arithmetic,
        entropy: &mut dyn Entropy,
    ) -> Result<MadeProofs, TaskError> {
        let paillier = PaillierKey::from_secret_bytes(self.prover.party().clone(), &self.primes, arithmetic)?;
        let fingerprint = self.verifier.fingerprint();
        let verdict = ParametersVerdict::of_trusted_verification(fingerprint);
        let card = Arc::new(self.verifier.clone());
        let verifier = VerifiedCard::with_verdict(card, &fingerprint, &verdict, arithmetic)?;
        Ok(MadeProofs::make(&paillier, &self.prover, &verifier, entropy)?)
    }
}

/// Proofs about one modulus for one verifier, with the names of both: an offer takes those that
/// were made for it, and no others.
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
    /// When it is not, which only a key that was not generated can be.
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

    /// Whether they were made for this key, prover and verifier.
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

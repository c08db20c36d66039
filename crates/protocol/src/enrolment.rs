//! Enrolments `E(i→j)`, which let holder `j` respond to holder `i`.
//!
//! An offer has the initiator's Paillier modulus `N`, the initiator's share encrypted under it, and
//! the proofs, made against the responder's own ring-Pedersen parameters. One mechanism serves key
//! generation, the first contact of two parties, rotation, unlocking and restoring. A verifier
//! verifies the proofs about `N` alone (Πmod, Πfac) once and caches the result as a
//! [`ModulusCheck`]. It verifies Πlog* for every wallet.

use core::fmt;
use std::sync::{Arc, OnceLock};

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::{
    arithmetic::Arithmetic,
    card::{Card, VerifiedCard},
    codec::{self, DecodeError, EncodeError, Message},
    curve::Scalar,
    hedge::{self, Entropy, Purpose},
    identity::{IdentitySignature, PartyKeys, Statement},
    ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, ShareIndex, WalletId},
    natural::{Integer, Natural},
    paillier::{
        Ciphertext, EncryptError, EncryptionKey, InvalidCiphertext, InvalidModulus, PreparedCiphertext,
    },
    paillier_key::PaillierKey,
    proofs::{
        factor::{FactorProof, FactorProofError},
        log_star::{self, LogStarProof, LogStarProofError},
        modulus::{ModulusProof, ModulusProofError},
    },
    randomizer::OneTimeRandomizer,
    share::{KeyShare, WalletPublic},
    transcript::{self, Binding, ProofContext},
};

/// Πmod and Πfac for one modulus and one verifier; they serve every wallet of that pair.
#[derive(Debug, Clone, Serialize, Deserialize, udigest::Digestable)]
pub struct ModulusProofs {
    modulus: ModulusProof,
    factor: FactorProof,
}

/// The statement to which the proofs about a modulus are bound.
#[derive(udigest::Digestable)]
struct ModulusBinding {
    prover: CardFingerprint,
    verifier: CardFingerprint,
    paillier_key: PaillierKeyId,
}

fn modulus_context(prover: &Card, verifier: &Card, paillier_key: PaillierKeyId) -> ProofContext {
    let binding =
        ModulusBinding { prover: prover.fingerprint(), verifier: verifier.fingerprint(), paillier_key };
    ProofContext {
        prover: prover.party().clone(),
        verifier: Some(verifier.party().clone()),
        wallet: None,
        epoch: Epoch(0),
        paillier_key: Some(paillier_key),
        binding: Binding::Enrolment(transcript::hash("modulus-enrolment", &binding)),
    }
}

impl ModulusProofs {
    /// Proves to `verifier` that `paillier`'s modulus is the product of two large primes.
    ///
    /// # Errors
    /// When it is not. That is possible only for a key that was not generated.
    pub fn prove(
        paillier: &PaillierKey,
        prover: &Card,
        verifier: &VerifiedCard,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, OfferError> {
        let context = modulus_context(prover, verifier.card(), paillier.id());
        let key = paillier.decryption();
        Ok(Self {
            modulus: ModulusProof::prove(key, &context, entropy).map_err(|_| OfferError::Modulus)?,
            factor: FactorProof::prove(key, verifier.parameters(), &context, entropy),
        })
    }
}

/// Records that one verifier has verified the proofs about one modulus. A stored check saves
/// verifying them for the next wallet. It is as trustworthy as its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModulusCheck {
    /// The hash of `N`.
    modulus: [u8; 32],
    verifier: CardFingerprint,
}

impl ModulusCheck {
    /// The key to store it under: the hash of `N`.
    #[must_use]
    pub const fn modulus_fingerprint(&self) -> &[u8; 32] {
        &self.modulus
    }
}

/// The statement to which every enrolment of a wallet is bound.
#[derive(udigest::Digestable)]
struct EnrolmentBinding {
    wallet: WalletId,
    epoch: Epoch,
    initiator_index: ShareIndex,
    responder_index: ShareIndex,
    initiator: CardFingerprint,
    responder: CardFingerprint,
    paillier_key: PaillierKeyId,
    generation: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, udigest::Digestable)]
struct Offer {
    wallet: WalletId,
    epoch: Epoch,
    initiator_index: ShareIndex,
    responder_index: ShareIndex,
    generation: u64,
    modulus: Natural,
    modulus_proofs: Option<ModulusProofs>,
    ciphertext: Natural,
    range_proof: LogStarProof,
}

impl Statement for Offer {
    const TAG: &'static str = "enrolment-offer";
}

impl Offer {
    /// The context of Πlog*.
    fn context(&self, initiator: &Card, responder: &Card, paillier_key: PaillierKeyId) -> ProofContext {
        let binding = EnrolmentBinding {
            wallet: self.wallet,
            epoch: self.epoch,
            initiator_index: self.initiator_index,
            responder_index: self.responder_index,
            initiator: initiator.fingerprint(),
            responder: responder.fingerprint(),
            paillier_key,
            generation: self.generation,
        };
        wallet_context(&binding, initiator, responder)
    }
}

fn wallet_context(binding: &EnrolmentBinding, initiator: &Card, responder: &Card) -> ProofContext {
    ProofContext {
        prover: initiator.party().clone(),
        verifier: Some(responder.party().clone()),
        wallet: Some(binding.wallet),
        epoch: binding.epoch,
        paillier_key: Some(binding.paillier_key),
        binding: Binding::Enrolment(transcript::hash("wallet-enrolment", binding)),
    }
}

/// An initiator's offer to one responder for one wallet, signed by the initiator's card.
#[derive(Clone, Serialize, Deserialize, udigest::Digestable)]
pub struct EnrolmentOffer {
    offer: Offer,
    signature: IdentitySignature,
}

impl Message for EnrolmentOffer {
    const KIND: u8 = 0x0a;
    const VERSION: u8 = 1;
    // Πmod has 128 pairs of numbers below N; the rest is a few kilobytes.
    const MAX_SIZE_BYTES: usize = 160 * 1024;
}

impl fmt::Debug for EnrolmentOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Offer { wallet, initiator_index, responder_index, generation, .. } = &self.offer;
        write!(f, "EnrolmentOffer({wallet}, {initiator_index} to {responder_index}, {generation})")
    }
}

/// An initiator's inputs for an enrolment with a responder.
#[derive(Debug, Clone, Copy)]
pub struct OfferSetup<'a> {
    /// The initiator's share.
    pub share: &'a KeyShare,
    /// The Paillier key, used for no other responder (a device's: for this wallet only).
    pub paillier: &'a PaillierKey,
    /// The initiator's secret keys.
    pub keys: &'a PartyKeys,
    /// The initiator's card.
    pub card: &'a Card,
    /// The responder's card, its parameters verified.
    pub responder: &'a VerifiedCard,
    /// The responder's share.
    pub responder_index: ShareIndex,
    /// Grows with every offer of this initiator for this wallet, such as milliseconds since 1970.
    /// A responder refuses an offer that is not newer than its enrolment.
    pub generation: u64,
}

/// Why no offer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The initiator is the lower index of a pair.
    #[error("the initiator is the lower share index of the pair")]
    Roles,
    /// The cards do not belong to the holders of the two shares, or the keys not to the card.
    #[error("the card is not that of the holder of this share")]
    Card,
    /// The Paillier key belongs to another party.
    #[error("the Paillier key is not the initiator's")]
    PaillierKey,
    /// The key's primes do not allow the modulus proof; generate another key.
    #[error("the Paillier modulus cannot be proved, make another key")]
    Modulus,
    /// The library refused a share as a plaintext. Cannot happen.
    #[error("the share cannot be encrypted")]
    Encryption,
}

/// An offer without the proofs about the modulus and without the signature over everything. It can
/// be made while other threads make those proofs.
#[derive(Debug)]
pub(crate) struct UnsignedOffer(Offer);

impl UnsignedOffer {
    /// Encrypts the share and proves that the ciphertext holds it (ePrint 2021/060, figure 25).
    pub(crate) fn make(setup: &OfferSetup<'_>, entropy: &mut dyn Entropy) -> Result<Self, OfferError> {
        let OfferSetup { share, paillier, keys, card, responder, responder_index, generation } = *setup;
        let wallet = share.wallet();
        if share.index() >= responder_index {
            return Err(OfferError::Roles);
        }
        if wallet.holder(share.index()).party() != Some(card.party())
            || wallet.holder(responder_index).party() != Some(responder.card().party())
            || keys.identity() != *card.identity()
        {
            return Err(OfferError::Card);
        }
        if paillier.owner() != card.party() {
            return Err(OfferError::PaillierKey);
        }
        let key = paillier.decryption().encryption_key();
        let binding = EnrolmentBinding {
            wallet: wallet.id(),
            epoch: wallet.epoch(),
            initiator_index: share.index(),
            responder_index,
            initiator: card.fingerprint(),
            responder: responder.card().fingerprint(),
            paillier_key: paillier.id(),
            generation,
        };
        let secret = share.secret().to_bytes();
        let mut generator = hedge::generator(entropy, &*secret, Purpose::EncryptedShare, &binding);
        let (ciphertext, nonce) =
            key.encrypt(&share.secret().to_natural(), &mut generator).map_err(|_| OfferError::Encryption)?;
        let range_proof = LogStarProof::prove(
            &log_star::Statement {
                key,
                ciphertext: &ciphertext,
                point: wallet.public_share(share.index()),
                parameters: responder.parameters(),
            },
            share.secret(),
            &nonce,
            &wallet_context(&binding, card, responder.card()),
            entropy,
        )
        .map_err(|_| OfferError::Encryption)?;
        Ok(Self(Offer {
            wallet: wallet.id(),
            epoch: wallet.epoch(),
            initiator_index: share.index(),
            responder_index,
            generation,
            modulus: key.modulus().clone(),
            modulus_proofs: None,
            ciphertext: ciphertext.as_natural().clone(),
            range_proof,
        }))
    }

    /// The same offer with a ciphertext and a range proof that draw from `rng` as it is, without a
    /// hedge ([`crate::door`]).
    pub(crate) fn drawn_again(
        mut self,
        setup: &OfferSetup<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, OfferError> {
        let OfferSetup { share, paillier, card, responder, .. } = *setup;
        let key = paillier.decryption().encryption_key();
        let secret = share.secret().to_natural();
        let (ciphertext, nonce) = key.encrypt(&secret, rng).map_err(|_| OfferError::Encryption)?;
        let statement = log_star::Statement {
            key,
            ciphertext: &ciphertext,
            point: share.wallet().public_share(share.index()),
            parameters: responder.parameters(),
        };
        let context = self.0.context(card, responder.card(), paillier.id());
        self.0.range_proof = LogStarProof::attempt(&statement, &Integer::from(secret), &nonce, &context, rng);
        self.0.ciphertext = ciphertext.as_natural().clone();
        Ok(self)
    }

    /// Signs the whole offer with the keys of its setup.
    pub(crate) fn sign(mut self, keys: &PartyKeys, modulus_proofs: Option<ModulusProofs>) -> EnrolmentOffer {
        self.0.modulus_proofs = modulus_proofs;
        let signature = keys.sign_statement(&self.0);
        EnrolmentOffer { offer: self.0, signature }
    }
}

impl EnrolmentOffer {
    /// Encrypts the share, proves that the ciphertext holds it, and signs. Omit `modulus_proofs`
    /// when the responder has verified them before.
    ///
    /// # Errors
    /// When the setup contradicts itself.
    pub fn make(
        setup: &OfferSetup<'_>,
        modulus_proofs: Option<ModulusProofs>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, OfferError> {
        Ok(UnsignedOffer::make(setup, entropy)?.sign(setup.keys, modulus_proofs))
    }

    /// The wallet it is for.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.offer.wallet
    }

    /// The holder whose share is offered.
    #[must_use]
    pub const fn initiator_index(&self) -> ShareIndex {
        self.offer.initiator_index
    }

    /// The responder it is for.
    #[must_use]
    pub const fn responder_index(&self) -> ShareIndex {
        self.offer.responder_index
    }

    /// The hash of `N`, to look up a stored [`ModulusCheck`].
    #[must_use]
    pub fn modulus_fingerprint(&self) -> [u8; 32] {
        transcript::hash("paillier-modulus", &self.offer.modulus)
    }

    /// `z1` of Πlog* and the challenge that it answers, as a curious responder sees them
    /// ([`crate::door`]).
    pub(crate) fn range_response(&self, verifier: &OfferVerifier<'_>) -> Option<(Integer, Natural)> {
        let own = verifier.card.own_parameters(verifier.arithmetic).ok()?;
        let key = EncryptionKey::parse(&self.offer.modulus, verifier.arithmetic).ok()?;
        let ciphertext = Ciphertext::parse(&self.offer.ciphertext, &key).ok()?;
        let statement = log_star::Statement {
            key: &key,
            ciphertext: &ciphertext,
            point: verifier.wallet.public_share(self.offer.initiator_index),
            parameters: &own,
        };
        let paillier_key = key.id(verifier.initiator.party());
        let context = self.offer.context(verifier.initiator, verifier.card, paillier_key);
        Some(self.offer.range_proof.response(&statement, &context))
    }

    /// The hash of the whole offer, for receipts.
    pub(crate) fn content_hash(&self) -> [u8; 32] {
        transcript::hash("enrolment", self)
    }
}

/// Why a responder refuses an offer. Every check has its own variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentRefusal {
    /// Not for the responder's wallet.
    #[error("the offer is for another wallet")]
    Wallet,
    /// Not for the epoch of the responder's share.
    #[error("the offer is for epoch {offered}, the share is of epoch {held}")]
    Epoch {
        /// The offer's epoch.
        offered: Epoch,
        /// The share's epoch.
        held: Epoch,
    },
    /// Not from a lower share to this one.
    #[error("the offer is for other shares of the wallet")]
    Roles,
    /// The initiator's card does not belong to the holder.
    #[error("the initiator's card is not that of the holder of the share")]
    Card,
    /// Not signed by the initiator's card.
    #[error("the offer is not signed by the initiator's card")]
    Signature,
    /// Not newer than the responder's enrolment.
    #[error("the offer is not newer than the enrolment there is")]
    Stale,
    /// The modulus has no allowed length, or is even.
    #[error(transparent)]
    Modulus(#[from] InvalidModulus),
    /// The responder has no check of the modulus, and the offer brings no proofs.
    #[error("the offer has no proofs about a modulus that is not known yet")]
    ModulusUnknown,
    /// Πmod does not hold.
    #[error(transparent)]
    ModulusProof(#[from] ModulusProofError),
    /// Πfac does not hold.
    #[error(transparent)]
    FactorProof(#[from] FactorProofError),
    /// The number is not a ciphertext under the modulus.
    #[error(transparent)]
    Ciphertext(#[from] InvalidCiphertext),
    /// Πlog* does not hold: the ciphertext is not of the committed share, or out of range.
    #[error(transparent)]
    RangeProof(#[from] LogStarProofError),
    /// The responder has no parameters to verify against.
    #[error("the responder's own card has no ring-Pedersen parameters")]
    NoParameters,
}

impl EnrolmentRefusal {
    /// A stable name of the check that failed.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Wallet => "enrolment-wallet",
            Self::Epoch { .. } => "enrolment-epoch",
            Self::Roles => "enrolment-roles",
            Self::Card => "enrolment-card",
            Self::Signature => "enrolment-signature",
            Self::Stale => "enrolment-stale",
            Self::Modulus(_) => "paillier-modulus",
            Self::ModulusUnknown => "paillier-modulus-unknown",
            Self::ModulusProof(_) => "modulus-proof",
            Self::FactorProof(_) => "factor-proof",
            Self::Ciphertext(_) => "encrypted-share",
            Self::RangeProof(_) => "encrypted-share-proof",
            Self::NoParameters => "own-parameters",
        }
    }
}

/// A responder's inputs for verifying an offer, all from its own data.
#[derive(Debug, Clone, Copy)]
pub struct OfferVerifier<'a> {
    /// The wallet, from the responder's own store.
    pub wallet: &'a WalletPublic,
    /// The responder's share.
    pub index: ShareIndex,
    /// The responder's own card, with its parameters.
    pub card: &'a Card,
    /// The initiator's card, pinned.
    pub initiator: &'a Card,
    /// An earlier check of the modulus, see [`EnrolmentOffer::modulus_fingerprint`].
    pub modulus: Option<ModulusCheck>,
    /// The generation of the responder's current enrolment, if any.
    pub newest_generation: Option<u64>,
    /// The arithmetic to compute with.
    pub arithmetic: &'static dyn Arithmetic,
}

impl OfferVerifier<'_> {
    /// Checks everything in the offer, cheap checks first.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(
        &self,
        signed: &EnrolmentOffer,
    ) -> Result<(VerifiedEnrolment, ModulusCheck), EnrolmentRefusal> {
        let EnrolmentOffer { offer, signature } = signed;
        let own = self.card.own_parameters(self.arithmetic).map_err(|_| EnrolmentRefusal::NoParameters)?;
        if offer.wallet != self.wallet.id() {
            return Err(EnrolmentRefusal::Wallet);
        }
        if offer.epoch != self.wallet.epoch() {
            return Err(EnrolmentRefusal::Epoch { offered: offer.epoch, held: self.wallet.epoch() });
        }
        if offer.responder_index != self.index || offer.initiator_index >= self.index {
            return Err(EnrolmentRefusal::Roles);
        }
        if self.wallet.holder(offer.initiator_index).party() != Some(self.initiator.party()) {
            return Err(EnrolmentRefusal::Card);
        }
        self.initiator
            .identity()
            .verify_statement(offer, signature)
            .map_err(|_| EnrolmentRefusal::Signature)?;
        if self.newest_generation.is_some_and(|newest| offer.generation <= newest) {
            return Err(EnrolmentRefusal::Stale);
        }

        let key = EncryptionKey::parse(&offer.modulus, self.arithmetic)?;
        let paillier_key = key.id(self.initiator.party());
        let check = ModulusCheck { modulus: key.fingerprint(), verifier: self.card.fingerprint() };
        if self.modulus != Some(check) {
            let proofs = offer.modulus_proofs.as_ref().ok_or(EnrolmentRefusal::ModulusUnknown)?;
            let context = modulus_context(self.initiator, self.card, paillier_key);
            proofs.modulus.verify(&key, &context)?;
            proofs.factor.verify(&key, &own, &context)?;
        }
        let ciphertext = Ciphertext::parse(&offer.ciphertext, &key)?;
        let statement = log_star::Statement {
            key: &key,
            ciphertext: &ciphertext,
            point: self.wallet.public_share(offer.initiator_index),
            parameters: &own,
        };
        offer.range_proof.verify(&statement, &offer.context(self.initiator, self.card, paillier_key))?;
        let enrolment = VerifiedEnrolment {
            wallet: offer.wallet,
            epoch: offer.epoch,
            initiator_index: offer.initiator_index,
            responder_index: offer.responder_index,
            initiator: self.initiator.party().clone(),
            generation: offer.generation,
            paillier_key,
            key,
            ciphertext,
            prepared: Arc::default(),
        };
        Ok((enrolment, check))
    }
}

/// A verified `E(i→j)`, which the responder stores and uses for its answers.
#[derive(Debug, Clone)]
pub struct VerifiedEnrolment {
    wallet: WalletId,
    epoch: Epoch,
    initiator_index: ShareIndex,
    responder_index: ShareIndex,
    initiator: PartyId,
    generation: u64,
    paillier_key: PaillierKeyId,
    key: EncryptionKey,
    ciphertext: Ciphertext,
    prepared: Arc<OnceLock<PreparedCiphertext>>,
}

#[derive(Serialize, Deserialize)]
struct EnrolmentRecord {
    wallet: WalletId,
    epoch: Epoch,
    initiator_index: ShareIndex,
    responder_index: ShareIndex,
    initiator: PartyId,
    generation: u64,
    modulus: Natural,
    ciphertext: Natural,
}

impl Message for EnrolmentRecord {
    const KIND: u8 = 0x0b;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048;
}

/// Why bytes are not a stored enrolment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnrolmentRecord {
    /// They do not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The number is not a modulus.
    #[error(transparent)]
    Modulus(#[from] InvalidModulus),
    /// The number is not a ciphertext.
    #[error(transparent)]
    Ciphertext(#[from] InvalidCiphertext),
}

impl VerifiedEnrolment {
    /// The wallet.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.wallet
    }

    /// The epoch of its shares.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The holder whose share is encrypted.
    #[must_use]
    pub const fn initiator_index(&self) -> ShareIndex {
        self.initiator_index
    }

    /// The responder that holds the enrolment.
    #[must_use]
    pub const fn responder_index(&self) -> ShareIndex {
        self.responder_index
    }

    /// The initiator's name.
    #[must_use]
    pub const fn initiator(&self) -> &PartyId {
        &self.initiator
    }

    /// The offer's number. A newer offer has a larger one.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The initiator's Paillier key.
    #[must_use]
    pub const fn paillier_key(&self) -> PaillierKeyId {
        self.paillier_key
    }

    /// `N_i`, with which to precompute randomizers.
    #[must_use]
    pub const fn encryption_key(&self) -> &EncryptionKey {
        &self.key
    }

    /// `c_i`, the initiator's encrypted share.
    #[must_use]
    pub const fn ciphertext(&self) -> &Ciphertext {
        &self.ciphertext
    }

    /// Makes further answers cheaper, for an enrolment with many answers. It takes half a megabyte
    /// for 2048 bits, and the work of three answers.
    pub fn prepare(&self) {
        self.prepared.get_or_init(|| self.key.prepare(&self.ciphertext));
    }

    /// Whether [`prepare`](Self::prepare) was called.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.prepared.get().is_some()
    }

    /// The same enrolment with another epoch and ciphertext.
    pub(crate) fn with(&self, epoch: Epoch, ciphertext: Ciphertext) -> Self {
        Self { epoch, ciphertext, prepared: Arc::default(), ..self.clone() }
    }

    /// `c_i^v · (1 + plaintext·N) · r̃^N mod N²`, see [`EncryptionKey::affine`].
    pub(crate) fn affine(
        &self,
        multiplier: &Scalar,
        plaintext: &Natural,
        randomizer: OneTimeRandomizer,
    ) -> Result<Ciphertext, EncryptError> {
        match self.prepared.get() {
            Some(prepared) => self.key.affine_with(prepared, multiplier, plaintext, randomizer),
            None => self.key.affine(&self.ciphertext, multiplier, plaintext, randomizer),
        }
    }

    /// The record to seal and store.
    ///
    /// # Errors
    /// Only the codec's limits, which no verified enrolment exceeds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        codec::encode(&EnrolmentRecord {
            wallet: self.wallet,
            epoch: self.epoch,
            initiator_index: self.initiator_index,
            responder_index: self.responder_index,
            initiator: self.initiator.clone(),
            generation: self.generation,
            modulus: self.key.modulus().clone(),
            ciphertext: self.ciphertext.as_natural().clone(),
        })
    }

    /// Parses the bytes of [`Self::to_bytes`] without the proofs. Use it only for bytes from the
    /// party's own, authenticated store.
    ///
    /// # Errors
    /// When the bytes are not such a record.
    pub fn from_trusted_bytes(
        bytes: &[u8],
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidEnrolmentRecord> {
        let record: EnrolmentRecord = codec::decode(bytes)?;
        let key = EncryptionKey::parse(&record.modulus, arithmetic)?;
        let ciphertext = Ciphertext::parse(&record.ciphertext, &key)?;
        Ok(Self {
            wallet: record.wallet,
            epoch: record.epoch,
            initiator_index: record.initiator_index,
            responder_index: record.responder_index,
            paillier_key: key.id(&record.initiator),
            initiator: record.initiator,
            generation: record.generation,
            key,
            ciphertext,
            prepared: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests;

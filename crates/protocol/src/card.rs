//! Cards: a party's public keys and parameters, self-signed, which others pin by fingerprint.
//!
//! A backend party makes its card once, at set-up; a device has one per wallet. A verifier of
//! proofs (service, partner) has ring-Pedersen parameters on its card, with the proof Πprm that
//! they are well-formed. No prover proves anything against them before it has verified Πprm.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    arithmetic::Arithmetic,
    codec::Message,
    hedge::Entropy,
    identity::{IdentityKey, IdentitySignature, NoiseKey, PartyKeys, Statement},
    ids::{CardFingerprint, Epoch, PartyId},
    proofs::parameters::ParametersProof,
    ring_pedersen::{InvalidParameters, Parameters, RawParameters, Trapdoor},
    transcript::{self, Binding, ProofContext},
};

/// A verifier's ring-Pedersen parameters `(Ñ, s, t)` and the proof that `s` is a power of `t`.
#[derive(Debug, Clone, Serialize, Deserialize, udigest::Digestable)]
pub struct VerifierParameters {
    parameters: RawParameters,
    proof: ParametersProof,
}

#[derive(Debug, Clone, Serialize, Deserialize, udigest::Digestable)]
struct Body {
    party: PartyId,
    identity: IdentityKey,
    noise_key: NoiseKey,
    verifier: Option<VerifierParameters>,
}

impl Statement for Body {
    const TAG: &'static str = "card";
}

/// The part of a card that Πprm is bound to.
#[derive(udigest::Digestable)]
struct Names<'a> {
    party: &'a PartyId,
    identity: &'a IdentityKey,
    noise_key: &'a NoiseKey,
}

fn context(party: &PartyId, identity: &IdentityKey, noise_key: &NoiseKey) -> ProofContext {
    ProofContext {
        prover: party.clone(),
        verifier: None,
        wallet: None,
        epoch: Epoch(0),
        paillier_key: None,
        binding: Binding::Card(transcript::hash("card-names", &Names { party, identity, noise_key })),
    }
}

/// The card as it travels.
#[derive(Clone, Serialize, Deserialize, udigest::Digestable)]
struct Signed {
    body: Body,
    signature: IdentitySignature,
}

/// A card whose own signature has been checked. The pinned fingerprint decides whether it is the
/// right card ([`PinnedCard`]), and [`VerifiedCard`] whether its parameters are sound.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Signed", into = "Signed")]
pub struct Card {
    signed: Signed,
    fingerprint: CardFingerprint,
}

/// The card does not carry its own key's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the card is not signed by the key on it")]
pub struct UnsignedCard;

impl TryFrom<Signed> for Card {
    type Error = UnsignedCard;

    fn try_from(signed: Signed) -> Result<Self, UnsignedCard> {
        signed.body.identity.verify_statement(&signed.body, &signed.signature).map_err(|_| UnsignedCard)?;
        Ok(Self::seal(signed))
    }
}

impl From<Card> for Signed {
    fn from(card: Card) -> Self {
        card.signed
    }
}

impl Message for Card {
    const KIND: u8 = 0x09;
    const VERSION: u8 = 1;
    // Πprm has 128 pairs of numbers below Ñ, of 256 bytes (384 with 3072 bits) each.
    const MAX_SIZE_BYTES: usize = 128 * 1024;
}

impl Card {
    fn seal(signed: Signed) -> Self {
        let fingerprint = CardFingerprint(transcript::hash("card-fingerprint", &signed));
        Self { signed, fingerprint }
    }

    /// The card of a party that verifies no proofs: a device.
    #[must_use]
    pub fn new(party: PartyId, keys: &PartyKeys) -> Self {
        Self::sign(party, keys, None)
    }

    /// The card of a party that verifies proofs, with Πprm proved (ePrint 2021/060, figure 17).
    /// Drop `trapdoor` afterwards.
    #[must_use]
    pub fn new_verifier(
        party: PartyId,
        keys: &PartyKeys,
        parameters: &Parameters,
        trapdoor: &Trapdoor,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let context = context(&party, &keys.identity(), &keys.noise_key());
        let proof = ParametersProof::prove(parameters, trapdoor, &context, entropy);
        let verifier = VerifierParameters { parameters: parameters.to_raw(), proof };
        Self::sign(party, keys, Some(verifier))
    }

    fn sign(party: PartyId, keys: &PartyKeys, verifier: Option<VerifierParameters>) -> Self {
        let body = Body { party, identity: keys.identity(), noise_key: keys.noise_key(), verifier };
        let signature = keys.sign_statement(&body);
        Self::seal(Signed { body, signature })
    }

    /// The card's party.
    #[must_use]
    pub const fn party(&self) -> &PartyId {
        &self.signed.body.party
    }

    /// The key that signs for the party.
    #[must_use]
    pub const fn identity(&self) -> &IdentityKey {
        &self.signed.body.identity
    }

    /// The key to open channels and to seal to.
    #[must_use]
    pub const fn noise_key(&self) -> &NoiseKey {
        &self.signed.body.noise_key
    }

    /// The card's ring-Pedersen parameters, for the party that made them and need not verify its
    /// own proof. Every other party gets them from a [`VerifiedCard`].
    ///
    /// # Errors
    /// When the card has none, like a device's, or they are out of range.
    pub fn own_parameters(&self, arithmetic: &'static dyn Arithmetic) -> Result<Parameters, CardRefusal> {
        let verifier = self.signed.body.verifier.as_ref().ok_or(CardRefusal::NoParameters)?;
        Ok(Parameters::parse(&verifier.parameters, arithmetic)?)
    }

    /// Whether the card has ring-Pedersen parameters, as every verifier's has.
    #[must_use]
    pub const fn has_parameters(&self) -> bool {
        self.signed.body.verifier.is_some()
    }

    /// The hash of the whole card, signature included. Others pin it.
    #[must_use]
    pub const fn fingerprint(&self) -> CardFingerprint {
        self.fingerprint
    }
}

impl PartialEq for Card {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Card {}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({}, {})", self.party(), self.fingerprint)
    }
}

/// Why a card is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CardRefusal {
    /// Another card than the pinned one.
    #[error("the card's fingerprint is {found}, pinned is {pinned}")]
    Fingerprint {
        /// The fingerprint of the card that came.
        found: CardFingerprint,
        /// The fingerprint that was pinned.
        pinned: CardFingerprint,
    },
    /// A party that has to verify proofs needs parameters for it.
    #[error("the card has no ring-Pedersen parameters")]
    NoParameters,
    /// The numbers are not parameters on sight.
    #[error(transparent)]
    InvalidParameters(#[from] InvalidParameters),
    /// Πprm does not hold.
    #[error("the card's ring-Pedersen parameters are not proved")]
    Parameters,
}

/// Records that the parameters of the card with this fingerprint were verified. A stored check
/// saves the second verification. It is as trustworthy as its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParametersCheck(CardFingerprint);

impl ParametersCheck {
    /// The check of the card with this fingerprint, which another thread or process of the
    /// caller's own reached. A caller that makes one without a verification gives away the Paillier
    /// key.
    #[must_use]
    pub const fn of_trusted_verification(fingerprint: CardFingerprint) -> Self {
        Self(fingerprint)
    }

    /// The card it is about.
    #[must_use]
    pub const fn fingerprint(&self) -> CardFingerprint {
        self.0
    }
}

/// A pinned card whose ring-Pedersen parameters are proved, so a prover may prove against them.
#[derive(Debug, Clone)]
pub struct VerifiedCard {
    card: Arc<Card>,
    parameters: Parameters,
}

impl VerifiedCard {
    /// Checks the fingerprint, then Πprm (about a second in a browser).
    ///
    /// # Errors
    /// What is wrong with the card.
    pub fn verify(
        card: Arc<Card>,
        pinned: &CardFingerprint,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, CardRefusal> {
        let verifier = Self::pinned(&card, pinned)?;
        let body = &card.signed.body;
        let context = context(&body.party, &body.identity, &body.noise_key);
        let parameters = Parameters::parse(&verifier.parameters, arithmetic)?;
        verifier.proof.verify(&parameters, &context).map_err(|_| CardRefusal::Parameters)?;
        Ok(Self { parameters, card })
    }

    /// Accepts an earlier check of this very card instead of Πprm.
    ///
    /// # Errors
    /// When the card is not the pinned one, or the check is of another card.
    pub fn with_check(
        card: Arc<Card>,
        pinned: &CardFingerprint,
        check: &ParametersCheck,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, CardRefusal> {
        let parameters = Parameters::parse(&Self::pinned(&card, pinned)?.parameters, arithmetic)?;
        if check.0 != card.fingerprint {
            return Err(CardRefusal::Parameters);
        }
        Ok(Self { card, parameters })
    }

    fn pinned<'a>(card: &'a Card, pinned: &CardFingerprint) -> Result<&'a VerifierParameters, CardRefusal> {
        if card.fingerprint != *pinned {
            return Err(CardRefusal::Fingerprint { found: card.fingerprint, pinned: *pinned });
        }
        card.signed.body.verifier.as_ref().ok_or(CardRefusal::NoParameters)
    }

    /// The check to store.
    #[must_use]
    pub fn check(&self) -> ParametersCheck {
        ParametersCheck(self.card.fingerprint)
    }

    /// The card.
    #[must_use]
    pub const fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// The verified parameters.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

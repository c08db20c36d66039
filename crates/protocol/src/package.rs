//! Share packages, which a dealer seals to each holder, and all checks of the holder before it
//! keeps any part.
//!
//! The checks take nothing from the package that the receiver has itself: its own index, card,
//! pinned peers, clock and quota. Each failed check has a variant of its own in [`PackageRefusal`],
//! and a stable name.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    admission::{AdmissionRefusal, AdmissionToken},
    arithmetic::Arithmetic,
    bytes,
    card::Card,
    codec::{self, DecodeError, EncodeError, Message},
    curve::{InvalidCurveValue, POINT_SIZE_BYTES, Point, SecretScalar},
    enrolment::{
        EnrolmentOffer, EnrolmentRefusal, InvalidEnrolmentRecord, ModulusCheck, OfferVerifier,
        VerifiedEnrolment,
    },
    hedge::Entropy,
    holding::Holding,
    identity::PartyKeys,
    ids::{CardFingerprint, Epoch, PartyId, ShareIndex, TenantId, WalletId},
    public_key::{ChainCode, PublicKey},
    seal::{self, SealBroken, Sealed},
    share::{Holder, InvalidShareRecord, InvalidWallet, KeyShare, Requester, WalletPublic, WalletRecord},
};

/// The context to which an envelope's seal is bound.
#[derive(udigest::Digestable)]
struct SealContext {
    kind: &'static str,
    wallet: WalletId,
    epoch: Epoch,
    index: ShareIndex,
    sender: CardFingerprint,
    receiver: CardFingerprint,
}

/// A sealed package on the wire. Its carriers learn the wallet's id and the device's card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    wallet: WalletId,
    epoch: Epoch,
    index: ShareIndex,
    /// The device's card of this wallet, which no receiver can know before.
    sender: Card,
    sealed: Sealed,
}

impl Message for Envelope {
    const KIND: u8 = 0x0c;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = PackageContents::MAX_SIZE_BYTES + 2048;
}

impl Envelope {
    /// The package's wallet.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.wallet
    }

    /// The share that is inside.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.index
    }

    /// The dealing device's card.
    #[must_use]
    pub const fn sender(&self) -> &Card {
        &self.sender
    }

    pub(crate) fn seal(
        contents: &PackageContents,
        index: ShareIndex,
        keys: &PartyKeys,
        sender: &Card,
        receiver: &Card,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, SealError> {
        let context = SealContext {
            kind: "share-package",
            wallet: contents.wallet,
            epoch: contents.epoch,
            index,
            sender: sender.fingerprint(),
            receiver: receiver.fingerprint(),
        };
        let plaintext = codec::encode_secret(contents)?;
        let sealed = seal::seal(keys, receiver.noise_key(), &context, &plaintext, entropy)?;
        Ok(Self { wallet: contents.wallet, epoch: contents.epoch, index, sender: sender.clone(), sealed })
    }

    fn open(&self, keys: &PartyKeys, receiver: &Card) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        let context = SealContext {
            kind: "share-package",
            wallet: self.wallet,
            epoch: self.epoch,
            index: self.index,
            sender: self.sender.fingerprint(),
            receiver: receiver.fingerprint(),
        };
        seal::open(keys, self.sender.noise_key(), &context, &self.sealed)
    }
}

/// Why a package could not be sealed. Neither variant happens with a receiver's checked card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The package is too large.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The receiver's key cannot be sealed to.
    #[error("cannot seal to the receiver's key")]
    Seal,
}

impl From<SealBroken> for SealError {
    fn from(_: SealBroken) -> Self {
        Self::Seal
    }
}

/// A point as received, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawPoint(pub(crate) [u8; POINT_SIZE_BYTES]);

impl Serialize for RawPoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for RawPoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bytes::deserialize(deserializer).map(Self)
    }
}

/// The inside of a package. Numbers are raw here, so that each refusal can name its number.
#[derive(Clone, Serialize, Deserialize, ZeroizeOnDrop)]
pub(crate) struct PackageContents {
    #[zeroize(skip)]
    pub(crate) wallet: WalletId,
    #[zeroize(skip)]
    pub(crate) epoch: Epoch,
    /// The receiver's index.
    #[zeroize(skip)]
    pub(crate) index: u8,
    pub(crate) share: [u8; 32],
    /// Feldman's commitments, exactly two: `Q` and `A1`.
    #[zeroize(skip)]
    pub(crate) commitments: Vec<RawPoint>,
    #[zeroize(skip)]
    pub(crate) chain_code: ChainCode,
    #[zeroize(skip)]
    pub(crate) nonce: [u8; 32],
    #[zeroize(skip)]
    pub(crate) tenant: TenantId,
    /// The evaluation points of the holders below.
    #[zeroize(skip)]
    pub(crate) indices: Vec<u8>,
    #[zeroize(skip)]
    pub(crate) holders: Vec<Holder>,
    #[zeroize(skip)]
    pub(crate) requesters: Vec<Requester>,
    #[zeroize(skip)]
    pub(crate) token: AdmissionToken,
    #[zeroize(skip)]
    pub(crate) enrolment: EnrolmentOffer,
}

impl Message for PackageContents {
    const KIND: u8 = 0x0d;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = EnrolmentOffer::MAX_SIZE_BYTES + 4096;
}

/// Why a holder refuses a package. Every check has its own variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageRefusal {
    /// The envelope does not parse.
    #[error("the envelope is malformed: {0}")]
    Envelope(DecodeError),
    /// The envelope is for another share than the receiver holds.
    #[error("the package is for share {found}, this party holds share {expected}")]
    Receiver {
        /// The envelope's index.
        found: ShareIndex,
        /// The receiver's index.
        expected: ShareIndex,
    },
    /// The seal does not open.
    #[error(transparent)]
    Seal(#[from] SealBroken),
    /// The inside does not parse.
    #[error("the package is malformed: {0}")]
    Contents(DecodeError),
    /// Inside and outside name different wallets.
    #[error("the package is of another wallet than its envelope")]
    EnvelopeWallet,
    /// Inside and outside name different epochs, or an epoch that is not the first.
    #[error("the package is of epoch {0}, a new wallet has epoch 0")]
    Epoch(Epoch),
    /// The index inside is not the receiver's.
    #[error("the package holds share {0}, not the receiver's")]
    Index(u8),
    /// Not exactly two commitments.
    #[error("{0} Feldman commitments, expected exactly 2")]
    CommitmentCount(usize),
    /// `Q` is not a point, or is the identity.
    #[error("the public key: {0}")]
    PublicKey(InvalidCurveValue),
    /// `A1` is not a point, or is the identity.
    #[error("the commitment: {0}")]
    Commitment(InvalidCurveValue),
    /// `x_j` is zero or not below the order.
    #[error("the share: {0}")]
    ShareRange(InvalidCurveValue),
    /// Not the indices 1, 2 and 3 (which are non-zero and distinct mod `q`).
    #[error("the share indices are not 1, 2 and 3")]
    Indices,
    /// Not three holders.
    #[error("{0} holders, expected 3")]
    HolderCount(usize),
    /// The package names another card for the receiver than its own.
    #[error("the package names another card for this party")]
    OwnCard,
    /// The device's card is not the sender's.
    #[error("the package names another card for the device than the one that sealed it")]
    DeviceCard,
    /// Another party's card is not the pinned one, or none is pinned.
    #[error("the package names a card for {0} that is not pinned here")]
    PeerCard(PartyId),
    /// The public record contradicts itself.
    #[error(transparent)]
    Wallet(#[from] InvalidWallet),
    /// `x_j·G` does not match the commitments.
    #[error("the share does not match the Feldman commitments")]
    ShareMismatch,
    /// The token does not admit the wallet.
    #[error(transparent)]
    Admission(#[from] AdmissionRefusal),
    /// The device's enrolment does not verify.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentRefusal),
}

impl PackageRefusal {
    /// A stable name of the check that failed.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Envelope(_) => "envelope",
            Self::Receiver { .. } => "receiver",
            Self::Seal(_) => "seal",
            Self::Contents(_) => "contents",
            Self::EnvelopeWallet => "envelope-wallet",
            Self::Epoch(_) => "epoch",
            Self::Index(_) => "index",
            Self::CommitmentCount(_) => "commitment-count",
            Self::PublicKey(_) => "public-key",
            Self::Commitment(_) => "commitment",
            Self::ShareRange(_) => "share-range",
            Self::Indices => "indices",
            Self::HolderCount(_) => "holder-count",
            Self::OwnCard => "own-card",
            Self::DeviceCard => "device-card",
            Self::PeerCard(_) => "peer-card",
            Self::Wallet(InvalidWallet::Id) => "wallet-id",
            Self::Wallet(InvalidWallet::Holders) => "holders",
            Self::Wallet(InvalidWallet::Requesters) => "requesters",
            Self::Wallet(InvalidWallet::PublicShare) => "public-share",
            Self::Wallet(InvalidWallet::History(_)) => "history",
            Self::ShareMismatch => "feldman",
            Self::Admission(AdmissionRefusal::Signature) => "token-signature",
            Self::Admission(AdmissionRefusal::Party) => "token-party",
            Self::Admission(AdmissionRefusal::Tenant) => "token-tenant",
            Self::Admission(AdmissionRefusal::Expired { .. }) => "token-expiry",
            Self::Admission(AdmissionRefusal::Quota { .. }) => "token-quota",
            Self::Enrolment(refusal) => refusal.check(),
        }
    }
}

/// The receiver: all its data that the checks compare a package with.
#[derive(Debug, Clone, Copy)]
pub struct Receiver<'a> {
    /// The share this party holds of every wallet: 2 for a service, 3 for a partner.
    pub index: ShareIndex,
    /// The party's secret keys.
    pub keys: &'a PartyKeys,
    /// The party's own card, with its parameters.
    pub card: &'a Card,
    /// The cards of the other backend parties, by name.
    pub pinned: &'a BTreeMap<PartyId, CardFingerprint>,
    /// The arithmetic to compute with.
    pub arithmetic: &'static dyn Arithmetic,
}

impl Receiver<'_> {
    /// Opens an envelope and reads its contents. This is cheap, and verifies nothing yet.
    ///
    /// # Errors
    /// When the envelope is for another share, cannot be opened, or does not parse.
    pub fn open(&self, envelope: &[u8]) -> Result<OpenedPackage, PackageRefusal> {
        let envelope: Envelope = codec::decode(envelope).map_err(PackageRefusal::Envelope)?;
        if envelope.index != self.index {
            return Err(PackageRefusal::Receiver { found: envelope.index, expected: self.index });
        }
        let plaintext = envelope.open(self.keys, self.card)?;
        let contents: PackageContents = codec::decode(&plaintext).map_err(PackageRefusal::Contents)?;
        if contents.wallet != envelope.wallet {
            return Err(PackageRefusal::EnvelopeWallet);
        }
        if contents.epoch != Epoch(0) || envelope.epoch != contents.epoch {
            return Err(PackageRefusal::Epoch(contents.epoch));
        }
        Ok(OpenedPackage { contents, device_card: Arc::new(envelope.sender) })
    }
}

/// An opened package, to look up the wallet and the token's use before the slow checks.
pub struct OpenedPackage {
    contents: PackageContents,
    device_card: Arc<Card>,
}

impl core::fmt::Debug for OpenedPackage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OpenedPackage({}, contents redacted)", self.contents.wallet)
    }
}

impl OpenedPackage {
    /// The wallet. If it is stored already, answer with the stored receipt when the device's card
    /// is the same, and refuse otherwise.
    #[must_use]
    pub fn wallet(&self) -> WalletId {
        self.contents.wallet
    }

    /// The token's name, to count the wallets that use it (without this one).
    #[must_use]
    pub fn token(&self) -> [u8; 16] {
        *self.contents.token.id()
    }

    /// The number of wallets that the token claims to admit.
    #[must_use]
    pub const fn admitted_wallets(&self) -> u32 {
        self.contents.token.max_wallets()
    }

    /// The device's card.
    #[must_use]
    pub const fn device_card(&self) -> &Arc<Card> {
        &self.device_card
    }

    /// Checks everything, cheap checks first (in all, a few hundred milliseconds). `wallets_held`
    /// counts the other wallets under the same token.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(
        self,
        receiver: &Receiver<'_>,
        now_unix_s: u64,
        wallets_held: u32,
    ) -> Result<PreparedShare, PackageRefusal> {
        let contents = &self.contents;
        if contents.index != u8::from(receiver.index) {
            return Err(PackageRefusal::Index(contents.index));
        }
        let (public_key, commitment) = commitments(&contents.commitments)?;
        let secret = SecretScalar::from_bytes(&contents.share).map_err(PackageRefusal::ShareRange)?;
        if contents.indices != ShareIndex::ALL.map(u8::from) {
            return Err(PackageRefusal::Indices);
        }
        let holders: [Holder; 3] = contents
            .holders
            .clone()
            .try_into()
            .map_err(|holders: Vec<_>| PackageRefusal::HolderCount(holders.len()))?;
        self.check_cards(receiver, &holders)?;
        let wallet = WalletPublic::try_from(WalletRecord {
            id: contents.wallet,
            epoch: contents.epoch,
            public_key,
            commitment,
            chain_code: contents.chain_code,
            nonce: contents.nonce,
            tenant: contents.tenant.clone(),
            holders,
            requesters: contents.requesters.clone(),
        })?;
        let share =
            KeyShare::new(wallet, receiver.index, secret).map_err(|_| PackageRefusal::ShareMismatch)?;
        contents.token.admit(
            receiver.card.party(),
            receiver.card.identity(),
            &contents.tenant,
            now_unix_s,
            wallets_held,
        )?;
        let verifier = OfferVerifier {
            wallet: share.wallet(),
            index: receiver.index,
            card: receiver.card,
            initiator: &self.device_card,
            modulus: None,
            newest_generation: None,
            arithmetic: receiver.arithmetic,
        };
        let (enrolment, modulus) = verifier.verify(&contents.enrolment)?;
        let holding = Holding {
            wallet: share.wallet().record_hash(),
            index: receiver.index,
            device_card: self.device_card.fingerprint(),
            token: *contents.token.id(),
            enrolment: contents.enrolment.content_hash(),
        };
        let token = *contents.token.id();
        Ok(PreparedShare { share, enrolment, modulus, device_card: self.device_card, token, holding })
    }

    fn check_cards(&self, receiver: &Receiver<'_>, holders: &[Holder; 3]) -> Result<(), PackageRefusal> {
        for (index, holder) in ShareIndex::ALL.into_iter().zip(holders) {
            let Holder::Party { party, card } = holder else { continue };
            if index == receiver.index {
                if *card != receiver.card.fingerprint() || party != receiver.card.party() {
                    return Err(PackageRefusal::OwnCard);
                }
            } else if index == ShareIndex::Device {
                if *card != self.device_card.fingerprint() || party != self.device_card.party() {
                    return Err(PackageRefusal::DeviceCard);
                }
            } else if receiver.pinned.get(party) != Some(card) {
                return Err(PackageRefusal::PeerCard(party.clone()));
            }
        }
        // A receiver is never a backup.
        let own = holders.get(usize::from(u8::from(receiver.index)).saturating_sub(1));
        if own.and_then(Holder::card).is_none() { Err(PackageRefusal::OwnCard) } else { Ok(()) }
    }
}

fn commitments(raw: &[RawPoint]) -> Result<(PublicKey, Point), PackageRefusal> {
    let [public_key, commitment] = raw else {
        return Err(PackageRefusal::CommitmentCount(raw.len()));
    };
    let public_key = Point::from_bytes(&public_key.0).map_err(PackageRefusal::PublicKey)?;
    let public_key = PublicKey::from_projective(&public_key.to_projective())
        .map_err(|_| PackageRefusal::PublicKey(InvalidCurveValue::Point))?;
    let commitment = Point::from_bytes(&commitment.0).map_err(PackageRefusal::Commitment)?;
    Ok((public_key, commitment))
}

/// A verified package: store it as prepared, then answer with [`Self::receipt`].
#[derive(Debug)]
pub struct PreparedShare {
    share: KeyShare,
    enrolment: VerifiedEnrolment,
    modulus: ModulusCheck,
    device_card: Arc<Card>,
    token: [u8; 16],
    holding: Holding,
}

/// A prepared share at rest.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct PreparedRecord {
    share: Vec<u8>,
    #[zeroize(skip)]
    enrolment: Vec<u8>,
    #[zeroize(skip)]
    modulus: ModulusCheck,
    #[zeroize(skip)]
    device_card: Card,
    #[zeroize(skip)]
    token: [u8; 16],
    #[zeroize(skip)]
    holding: Holding,
}

impl Message for PreparedRecord {
    const KIND: u8 = 0x0e;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 8192;
}

/// Why bytes are not a prepared share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreparedRecord {
    /// They do not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The share inside.
    #[error(transparent)]
    Share(#[from] InvalidShareRecord),
    /// The enrolment inside.
    #[error(transparent)]
    Enrolment(#[from] InvalidEnrolmentRecord),
}

impl PreparedShare {
    /// The share, with the wallet's public record.
    #[must_use]
    pub const fn share(&self) -> &KeyShare {
        &self.share
    }

    /// The enrolment that lets this holder respond to the device.
    #[must_use]
    pub const fn enrolment(&self) -> &VerifiedEnrolment {
        &self.enrolment
    }

    /// The check of the device's modulus, verified here.
    #[must_use]
    pub const fn modulus(&self) -> ModulusCheck {
        self.modulus
    }

    /// The device's card of this wallet.
    #[must_use]
    pub const fn device_card(&self) -> &Arc<Card> {
        &self.device_card
    }

    /// The token that admitted the wallet.
    #[must_use]
    pub const fn token(&self) -> &[u8; 16] {
        &self.token
    }

    pub(crate) const fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Takes it apart, so that the caller can store each part in its place.
    #[must_use]
    pub fn into_parts(self) -> (KeyShare, VerifiedEnrolment, Arc<Card>) {
        (self.share, self.enrolment, self.device_card)
    }

    /// The record to seal and store.
    ///
    /// # Errors
    /// Only the codec's limits, which no verified package exceeds.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        codec::encode_secret(&PreparedRecord {
            share: self.share.to_secret_bytes()?.to_vec(),
            enrolment: self.enrolment.to_bytes()?,
            modulus: self.modulus,
            device_card: Card::clone(&self.device_card),
            token: self.token,
            holding: self.holding.clone(),
        })
    }

    /// Parses the bytes of [`Self::to_secret_bytes`].
    ///
    /// # Errors
    /// When the bytes are not such a record.
    pub fn from_secret_bytes(
        bytes: &[u8],
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidPreparedRecord> {
        let record: PreparedRecord = codec::decode(bytes)?;
        Ok(Self {
            share: KeyShare::from_secret_bytes(&record.share)?,
            enrolment: VerifiedEnrolment::from_trusted_bytes(&record.enrolment, arithmetic)?,
            modulus: record.modulus,
            device_card: Arc::new(record.device_card.clone()),
            token: record.token,
            holding: record.holding.clone(),
        })
    }
}

#[cfg(test)]
mod tests;

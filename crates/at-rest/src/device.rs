//! The record that an owner's device without a database keeps of a wallet. It holds the share, the
//! device's keys, the owner's request key, the Paillier keys, and which responder agreed on which.
//!
//! A wallet restored from a backup has no Paillier key, so it cannot initiate before it makes a new
//! one. The old key may have been locked after a bad signature, which a backup cannot know.

use core::fmt;
use std::sync::Arc;

use duet_protocol::{
    arithmetic::Arithmetic,
    card::{Card, VerifiedCard},
    codec::{self, DecodeError, EncodeError, Message},
    enrolment::{EnrolmentOffer, OfferError, OfferSetup},
    hedge::{self, Entropy},
    identity::{InvalidKey, PartyKeys},
    ids::{Epoch, PaillierKeyId, PartyId, ShareIndex, WalletId},
    keygen::{self, InvalidDeviceRecord},
    paillier::InvalidDecryptionKey,
    paillier_key::PaillierKey,
    proof_task::{MadeProofs, ProofTask},
    share::{InvalidShareRecord, KeyShare, WalletPublic},
};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{KeyEncryptionKey, KeyError, OpenError, RecordKind, RecordLabel, SealedRecord};

/// The Ed25519 key with which a wallet's owner signs requests. It is wiped on drop and never
/// printed. Clones share the same key.
#[derive(Clone)]
pub struct OwnerKey(Arc<SigningKey>);

impl OwnerKey {
    /// Draws a random key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self::from_secret_bytes(&hedge::new_key(entropy, "owner"))
    }

    /// The key with this seed.
    #[must_use]
    pub fn from_secret_bytes(seed: &[u8; 32]) -> Self {
        Self(Arc::new(SigningKey::from_bytes(seed)))
    }

    /// The seed, for a sealed record.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The key, to sign with.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerKey({}, secret redacted)", hex::encode(self.public()))
    }
}

/// Why bytes are not a stored wallet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// The bytes do not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The share in the record is invalid.
    #[error(transparent)]
    Share(#[from] InvalidShareRecord),
    /// A Paillier key in the record is invalid.
    #[error(transparent)]
    Paillier(#[from] InvalidDecryptionKey),
    /// The keys in the record are invalid.
    #[error(transparent)]
    Keys(#[from] InvalidKey),
    /// The pending wallet in the record is invalid.
    #[error(transparent)]
    Pending(#[from] InvalidDeviceRecord),
    /// The parts of the record do not belong together.
    #[error("the record's parts do not belong together")]
    Contradiction,
}

/// Why a sealed wallet does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenWalletError {
    /// The key or the wallet is another one, or the bytes were changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The plaintext is no stored wallet.
    #[error(transparent)]
    Record(#[from] InvalidRecord),
}

/// Why sealing failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The record cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The operating system provided no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A device's identity in one wallet: its share, its keys and card for that wallet, and the owner's
/// request key. A backup holds exactly this.
#[derive(Debug, Clone)]
pub struct DeviceIdentity {
    share: Arc<KeyShare>,
    keys: Arc<PartyKeys>,
    card: Arc<Card>,
    owner: OwnerKey,
}

impl DeviceIdentity {
    /// Combines the parts.
    ///
    /// # Errors
    /// When the share is not the device's, or when card and keys are not those of the share's
    /// holder. When the owner's key is not the one in the wallet's record.
    pub fn new(
        share: Arc<KeyShare>,
        keys: Arc<PartyKeys>,
        card: Arc<Card>,
        owner: OwnerKey,
    ) -> Result<Self, InvalidRecord> {
        let wallet = share.wallet();
        let holder = wallet.holder(ShareIndex::Device);
        let is_one = share.index() == ShareIndex::Device
            && holder.party() == Some(card.party())
            && holder.card() == Some(&card.fingerprint())
            && keys.identity() == *card.identity()
            && wallet.owner().is_some_and(|key| *key.as_bytes() == owner.public());
        if is_one { Ok(Self { share, keys, card, owner }) } else { Err(InvalidRecord::Contradiction) }
    }

    /// Share 1.
    #[must_use]
    pub const fn share(&self) -> &Arc<KeyShare> {
        &self.share
    }

    /// The device's secret keys for this wallet.
    #[must_use]
    pub const fn keys(&self) -> &Arc<PartyKeys> {
        &self.keys
    }

    /// The device's card for this wallet.
    #[must_use]
    pub const fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// The owner's request key.
    #[must_use]
    pub const fn owner(&self) -> &OwnerKey {
        &self.owner
    }

    pub(crate) fn to_record(&self) -> Result<IdentityRecord, EncodeError> {
        Ok(IdentityRecord {
            share: self.share.to_secret_bytes()?.to_vec(),
            keys: self.keys.to_secret_bytes().to_vec(),
            card: Card::clone(&self.card),
            owner: *self.owner.to_secret_bytes(),
        })
    }
}

/// The encoded form of a [`DeviceIdentity`].
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
pub(crate) struct IdentityRecord {
    share: Vec<u8>,
    keys: Vec<u8>,
    #[zeroize(skip)]
    card: Card,
    owner: [u8; 32],
}

impl TryFrom<&IdentityRecord> for DeviceIdentity {
    type Error = InvalidRecord;

    fn try_from(record: &IdentityRecord) -> Result<Self, InvalidRecord> {
        Self::new(
            Arc::new(KeyShare::from_secret_bytes(&record.share)?),
            Arc::new(PartyKeys::from_secret_bytes(&record.keys)?),
            Arc::new(record.card.clone()),
            OwnerKey::from_secret_bytes(&record.owner),
        )
    }
}

/// A wallet as its device stores it.
#[derive(Debug, Clone)]
pub struct StoredWallet {
    identity: DeviceIdentity,
    /// The newest key is last. Older keys remain for responders that have not agreed on the newest
    /// yet.
    paillier: Vec<Arc<PaillierKey>>,
    agreed: Vec<(PartyId, PaillierKeyId)>,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct WalletRecord {
    identity: IdentityRecord,
    paillier: Vec<Vec<u8>>,
    #[zeroize(skip)]
    agreed: Vec<(PartyId, PaillierKeyId)>,
}

impl Message for WalletRecord {
    const KIND: u8 = 0x80;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 8192;
}

/// Why a rotation step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// There is no Paillier key to offer.
    #[error("there is no Paillier key yet; make one first")]
    NoKey,
    /// The Paillier key was made for another party.
    #[error("the Paillier key is not this device's")]
    ForeignKey,
    /// The party holds no share that responds to the device.
    #[error("{0} holds no share of this wallet that answers the device")]
    Stranger(PartyId),
    /// The proofs are for another key or another party.
    #[error("the proofs are not those of this device's newest key for {0}")]
    Proofs(PartyId),
    /// The offer could not be made.
    #[error(transparent)]
    Offer(#[from] OfferError),
}

impl StoredWallet {
    /// A newly dealt wallet. Both responders have accepted its first Paillier key.
    ///
    /// # Errors
    /// When `owner` is not the wallet's owner.
    pub fn new(dealt: &keygen::DeviceWallet, owner: OwnerKey) -> Result<Self, InvalidRecord> {
        let (share, keys, card) =
            (Arc::clone(dealt.share()), Arc::clone(dealt.keys()), Arc::clone(dealt.card()));
        let identity = DeviceIdentity::new(share, keys, card, owner)?;
        let paillier = Arc::clone(dealt.paillier());
        let agreed = responders(identity.share.wallet()).map(|(_, party)| (party, paillier.id())).collect();
        Ok(Self { identity, paillier: vec![paillier], agreed })
    }

    /// A wallet restored from a backup. It can sign after [`Self::begin_rotation`] added a Paillier
    /// key and a responder agreed on it.
    #[must_use]
    pub const fn restored(identity: DeviceIdentity) -> Self {
        Self { identity, paillier: Vec::new(), agreed: Vec::new() }
    }

    /// The device's identity in this wallet.
    #[must_use]
    pub const fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// The wallet's public record.
    #[must_use]
    pub fn wallet(&self) -> &WalletPublic {
        self.identity.share.wallet()
    }

    /// The newest Paillier key. `None` directly after a restore.
    #[must_use]
    pub fn newest_key(&self) -> Option<&Arc<PaillierKey>> {
        self.paillier.last()
    }

    /// Every Paillier key, oldest first.
    #[must_use]
    pub fn keys(&self) -> &[Arc<PaillierKey>] {
        &self.paillier
    }

    /// The Paillier key `id` that a session with `responder` names, if it is permitted. Permitted
    /// are the key that the responder agreed on, and the newest key: the responder may have
    /// accepted it while its answer was lost.
    #[must_use]
    pub fn key_for(&self, responder: &PartyId, id: PaillierKeyId) -> Option<&Arc<PaillierKey>> {
        let is_agreed = self.agreed.iter().any(|(party, key)| party == responder && *key == id);
        let is_newest = self.newest_key().is_some_and(|key| key.id() == id);
        if is_agreed || is_newest { self.paillier.iter().find(|key| key.id() == id) } else { None }
    }

    /// The responders that have not agreed on the newest Paillier key. Each needs an enrolment.
    /// After a restore these are all responders.
    pub fn unenrolled(&self) -> impl Iterator<Item = (ShareIndex, PartyId)> + '_ {
        let newest = self.newest_key().map(|key| key.id());
        responders(self.wallet()).filter(move |(_, responder)| {
            !self.agreed.iter().any(|(party, key)| party == responder && Some(*key) == newest)
        })
    }

    /// Adds a new Paillier key, to be offered to all responders. Store the record before the first
    /// offer: a responder that accepted the key answers under no other. With the other responders
    /// the device goes on under the old key.
    ///
    /// # Errors
    /// When the key was made for another party.
    pub fn begin_rotation(&mut self, paillier: Arc<PaillierKey>) -> Result<(), RotationError> {
        if paillier.owner() != self.identity.card.party() {
            return Err(RotationError::ForeignKey);
        }
        self.paillier.push(paillier);
        self.prune();
        Ok(())
    }

    /// A task that makes the proofs for an offer of the newest Paillier key to the holder of
    /// `responder`'s card. It takes seconds in a browser, and may run in another thread.
    ///
    /// # Errors
    /// When there is no key, or when the card's owner does not respond to this device.
    pub fn proof_task(&self, responder: &VerifiedCard) -> Result<ProofTask, RotationError> {
        let paillier = self.newest_key().ok_or(RotationError::NoKey)?;
        self.index_of(responder)?;
        Ok(ProofTask::new(paillier, &self.identity.card, responder))
    }

    /// An offer of the newest Paillier key to the holder of `responder`'s card, with the `proofs`
    /// that [`Self::proof_task`] made for it. `generation` must grow with each offer; milliseconds
    /// since 1970 do.
    ///
    /// # Errors
    /// When there is no key, when the card's owner does not respond to this device, or when the
    /// proofs are for another offer.
    pub fn offer(
        &self,
        responder: &VerifiedCard,
        proofs: MadeProofs,
        generation: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<EnrolmentOffer, RotationError> {
        let DeviceIdentity { share, keys, card, .. } = &self.identity;
        let paillier = self.newest_key().ok_or(RotationError::NoKey)?;
        let responder_index = self.index_of(responder)?;
        if !proofs.is_for(paillier, card, responder.card()) {
            return Err(RotationError::Proofs(responder.card().party().clone()));
        }
        let setup = OfferSetup { share, paillier, keys, card, responder, responder_index, generation };
        Ok(EnrolmentOffer::make(&setup, Some(proofs.into_proofs()), entropy)?)
    }

    fn index_of(&self, responder: &VerifiedCard) -> Result<ShareIndex, RotationError> {
        let fingerprint = responder.card().fingerprint();
        responders(self.wallet())
            .map(|(index, _)| index)
            .find(|index| self.wallet().holder(*index).card() == Some(&fingerprint))
            .ok_or_else(|| RotationError::Stranger(responder.card().party().clone()))
    }

    /// Records that `responder` agreed on the key `id`, and drops keys that are no longer needed.
    /// The caller must store the record.
    ///
    /// # Errors
    /// When the party is no responder, or when there is no such key.
    pub fn agree(&mut self, responder: &PartyId, id: PaillierKeyId) -> Result<(), RotationError> {
        if !responders(self.wallet()).any(|(_, party)| party == *responder) {
            return Err(RotationError::Stranger(responder.clone()));
        }
        if !self.paillier.iter().any(|key| key.id() == id) {
            return Err(RotationError::NoKey);
        }
        self.agreed.retain(|(party, _)| party != responder);
        self.agreed.push((responder.clone(), id));
        self.prune();
        Ok(())
    }

    /// Drops a locked Paillier key. No responder is enrolled under it any more. The caller must
    /// store the record in the transaction that writes the lock.
    pub fn forget_key(&mut self, id: PaillierKeyId) {
        self.paillier.retain(|key| key.id() != id);
        self.agreed.retain(|(_, agreed)| *agreed != id);
    }

    /// Drops keys that are neither the newest nor agreed with any responder.
    fn prune(&mut self) {
        let newest = self.newest_key().map(|key| key.id());
        let agreed = &self.agreed;
        self.paillier.retain(|key| Some(key.id()) == newest || agreed.iter().any(|(_, id)| *id == key.id()));
    }

    /// The record, sealed for this wallet.
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn seal(&self, key: &KeyEncryptionKey) -> Result<SealedRecord, SealError> {
        let record = WalletRecord {
            identity: self.identity.to_record()?,
            paillier: self.paillier.iter().map(|key| key.to_secret_bytes().to_vec()).collect(),
            agreed: self.agreed.clone(),
        };
        let bytes = codec::encode_secret(&record)?;
        Ok(SealedRecord::seal(key, &label(RecordKind::Device, self.wallet().id()), &bytes)?)
    }

    /// Opens a record sealed for `wallet`.
    ///
    /// # Errors
    /// See [`OpenWalletError`].
    pub fn open(
        record: &SealedRecord,
        key: &KeyEncryptionKey,
        wallet: WalletId,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, OpenWalletError> {
        let bytes = record.open(key, &label(RecordKind::Device, wallet))?;
        let stored = Self::read(&bytes, arithmetic)?;
        if stored.wallet().id() == wallet { Ok(stored) } else { Err(InvalidRecord::Contradiction.into()) }
    }

    fn read(bytes: &[u8], arithmetic: &'static dyn Arithmetic) -> Result<Self, InvalidRecord> {
        let record: WalletRecord = codec::decode(bytes)?;
        let identity = DeviceIdentity::try_from(&record.identity)?;
        let owner = identity.card.party();
        let paillier = record
            .paillier
            .iter()
            .map(|bytes| PaillierKey::from_secret_bytes(owner.clone(), bytes, arithmetic).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self { identity, paillier, agreed: record.agreed.clone() })
    }
}

/// The holders that respond to a device. Backup files hold shares too, but they do not respond.
fn responders(wallet: &WalletPublic) -> impl Iterator<Item = (ShareIndex, PartyId)> + use<'_> {
    [ShareIndex::Service, ShareIndex::Partner]
        .into_iter()
        .filter_map(|index| Some((index, wallet.holder(index).party()?.clone())))
}

/// The label of a record. A device has one record of each kind for each wallet.
fn label(kind: RecordKind, wallet: WalletId) -> RecordLabel {
    RecordLabel::of_wallet(kind, wallet, ShareIndex::Device, Epoch(0), &[])
}

/// A newly dealt wallet that not all parties have committed yet, with its owner's key.
#[derive(Debug)]
pub struct StoredPending {
    pending: keygen::PendingWallet,
    owner: OwnerKey,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct PendingRecord {
    pending: Vec<u8>,
    owner: [u8; 32],
}

impl Message for PendingRecord {
    const KIND: u8 = 0x81;
    const VERSION: u8 = 1;
    // Two sealed packages with their proofs.
    const MAX_SIZE_BYTES: usize = 1024 * 1024;
}

impl StoredPending {
    /// Combines a pending wallet with its owner's key.
    #[must_use]
    pub const fn new(pending: keygen::PendingWallet, owner: OwnerKey) -> Self {
        Self { pending, owner }
    }

    /// The pending wallet.
    #[must_use]
    pub const fn pending(&self) -> &keygen::PendingWallet {
        &self.pending
    }

    /// The owner's key.
    #[must_use]
    pub const fn owner(&self) -> &OwnerKey {
        &self.owner
    }

    /// The pending wallet and the owner's key, by value.
    #[must_use]
    pub fn into_parts(self) -> (keygen::PendingWallet, OwnerKey) {
        (self.pending, self.owner)
    }

    /// The record, sealed for this wallet. Store it before anything is sent.
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn seal(&self, key: &KeyEncryptionKey) -> Result<SealedRecord, SealError> {
        let record = PendingRecord {
            pending: self.pending.to_secret_bytes()?.to_vec(),
            owner: *self.owner.to_secret_bytes(),
        };
        let bytes = codec::encode_secret(&record)?;
        Ok(SealedRecord::seal(key, &label(RecordKind::PendingDevice, self.pending.wallet()), &bytes)?)
    }

    /// Opens a record sealed for `wallet`.
    ///
    /// # Errors
    /// See [`OpenWalletError`].
    pub fn open(
        record: &SealedRecord,
        key: &KeyEncryptionKey,
        wallet: WalletId,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, OpenWalletError> {
        let bytes = record.open(key, &label(RecordKind::PendingDevice, wallet))?;
        let record: PendingRecord = codec::decode(&bytes).map_err(InvalidRecord::from)?;
        let pending = keygen::PendingWallet::from_secret_bytes(&record.pending, arithmetic)
            .map_err(InvalidRecord::from)?;
        if pending.wallet() == wallet {
            Ok(Self { pending, owner: OwnerKey::from_secret_bytes(&record.owner) })
        } else {
            Err(InvalidRecord::Contradiction.into())
        }
    }
}

//! What a dealing device keeps: the wallet, and until all holders have committed, the packages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    arithmetic::Arithmetic,
    card::Card,
    codec::{self, DecodeError, EncodeError, Message},
    holding::Holding,
    identity::{IdentityKey, InvalidKey, PartyKeys},
    ids::{PartyId, ShareIndex, WalletId},
    package::Envelope,
    paillier::InvalidDecryptionKey,
    paillier_key::PaillierKey,
    receipt::{CommitAck, Receipt, ReceiptBundle},
    share::{InvalidShareRecord, KeyShare, WalletPublic},
};

/// A dealt wallet.
#[derive(Debug)]
pub struct Dealt {
    /// The record to store, then to send.
    pub pending: PendingWallet,
    /// Share 3, when it goes to the owner's backup file.
    pub backup: Option<KeyShare>,
}

/// One package to deliver, and the expected contents of its receipt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    index: ShareIndex,
    party: PartyId,
    identity: IdentityKey,
    envelope: Vec<u8>,
    holding: Holding,
}

impl Delivery {
    pub(crate) fn new(index: ShareIndex, receiver: &Card, envelope: Vec<u8>, holding: Holding) -> Self {
        Self { index, party: receiver.party().clone(), identity: *receiver.identity(), envelope, holding }
    }

    /// The share inside.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.index
    }

    /// The party to send it to.
    #[must_use]
    pub const fn party(&self) -> &PartyId {
        &self.party
    }

    /// The sealed package, an encoded [`Envelope`].
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

/// A device's part of a wallet that signs: its share, its Paillier key, its keys and its card.
#[derive(Debug)]
pub struct DeviceWallet {
    pub(crate) share: Arc<KeyShare>,
    pub(crate) paillier: Arc<PaillierKey>,
    pub(crate) keys: Arc<PartyKeys>,
    pub(crate) card: Arc<Card>,
}

impl DeviceWallet {
    /// Share 1, with the wallet's public record.
    #[must_use]
    pub const fn share(&self) -> &Arc<KeyShare> {
        &self.share
    }

    /// The device's Paillier key.
    #[must_use]
    pub const fn paillier(&self) -> &Arc<PaillierKey> {
        &self.paillier
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

    /// This wallet under another Paillier key, after the responders have accepted its enrolments.
    #[must_use]
    pub fn with_paillier(self, paillier: Arc<PaillierKey>) -> Self {
        Self { paillier, ..self }
    }

    /// This wallet with the share of another epoch.
    #[must_use]
    pub fn with_share(self, share: Arc<KeyShare>) -> Self {
        Self { share, ..self }
    }

    fn to_record(&self) -> Result<DeviceRecord, EncodeError> {
        Ok(DeviceRecord {
            share: self.share.to_secret_bytes()?.to_vec(),
            paillier: self.paillier.to_secret_bytes().to_vec(),
            keys: self.keys.to_secret_bytes().to_vec(),
            card: Card::clone(&self.card),
        })
    }

    fn from_record(
        record: &DeviceRecord,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDeviceRecord> {
        let owner = record.card.party().clone();
        Ok(Self {
            share: Arc::new(KeyShare::from_secret_bytes(&record.share)?),
            paillier: Arc::new(PaillierKey::from_secret_bytes(owner, &record.paillier, arithmetic)?),
            keys: Arc::new(PartyKeys::from_secret_bytes(&record.keys)?),
            card: Arc::new(record.card.clone()),
        })
    }

    /// The record to seal and store.
    ///
    /// # Errors
    /// Only the codec's limits, which no dealt wallet exceeds.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        codec::encode_secret(&self.to_record()?)
    }

    /// Parses the bytes of [`Self::to_secret_bytes`].
    ///
    /// # Errors
    /// When the bytes are not such a record.
    pub fn from_secret_bytes(
        bytes: &[u8],
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDeviceRecord> {
        Self::from_record(&codec::decode(bytes)?, arithmetic)
    }
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct DeviceRecord {
    share: Vec<u8>,
    paillier: Vec<u8>,
    keys: Vec<u8>,
    #[zeroize(skip)]
    card: Card,
}

impl Message for DeviceRecord {
    const KIND: u8 = 0x12;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 8192;
}

#[derive(Serialize, Deserialize)]
struct PendingRecord {
    device: DeviceRecord,
    deliveries: Vec<Delivery>,
}

impl Message for PendingRecord {
    const KIND: u8 = 0x13;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = DeviceRecord::MAX_SIZE_BYTES + 2 * (Envelope::MAX_SIZE_BYTES + 1024);
}

/// Why bytes are not a device's record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeviceRecord {
    /// They do not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The share inside.
    #[error(transparent)]
    Share(#[from] InvalidShareRecord),
    /// The Paillier key inside.
    #[error(transparent)]
    Paillier(#[from] InvalidDecryptionKey),
    /// The party keys inside.
    #[error(transparent)]
    Keys(#[from] InvalidKey),
}

/// A dealt wallet that not all parties have committed yet. It does not show its address.
#[derive(Debug)]
pub struct PendingWallet {
    pub(crate) device: DeviceWallet,
    pub(crate) deliveries: Vec<Delivery>,
}

/// Why a receipt or an acknowledgement does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaperRefusal {
    /// It comes from a party that holds no share.
    #[error("{0} holds no share of this wallet")]
    Stranger(PartyId),
    /// The receipt is not for the package that was sent, or not signed by the party's card.
    #[error("the receipt of {0} does not hold for what was sent to it")]
    Receipt(PartyId),
    /// The acknowledgement is not for the bundle, or not signed by the party's card.
    #[error("the commit-ack of {0} does not hold for the bundle")]
    Acknowledgement(PartyId),
    /// Not every party has answered.
    #[error("nothing from {0} yet")]
    Missing(PartyId),
}

impl PaperRefusal {
    /// The party whose document is missing or not valid.
    #[must_use]
    pub const fn party(&self) -> &PartyId {
        match self {
            Self::Stranger(party)
            | Self::Receipt(party)
            | Self::Acknowledgement(party)
            | Self::Missing(party) => party,
        }
    }
}

impl PendingWallet {
    /// The wallet's name.
    #[must_use]
    pub fn wallet(&self) -> WalletId {
        self.device.share.wallet().id()
    }

    /// The wallet's public record. Do not show its address before the wallet is finished.
    #[must_use]
    pub fn public(&self) -> &WalletPublic {
        self.device.share.wallet()
    }

    /// The packages to send, each repeatedly until its receipt arrives.
    #[must_use]
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// Checks one receipt.
    ///
    /// # Errors
    /// When it is not for the package that was sent to that party.
    pub fn check_receipt(&self, receipt: &Receipt) -> Result<(), PaperRefusal> {
        let delivery = self
            .deliveries
            .iter()
            .find(|delivery| delivery.party == *receipt.party())
            .ok_or_else(|| PaperRefusal::Stranger(receipt.party().clone()))?;
        let wallet = self.device.share.wallet();
        if receipt.is_for(&delivery.party, &delivery.identity, wallet, &delivery.holding) {
            Ok(())
        } else {
            Err(PaperRefusal::Receipt(delivery.party.clone()))
        }
    }

    /// The order to commit, from the receipts of all parties.
    ///
    /// # Errors
    /// Names the party whose receipt is missing or not valid.
    pub fn bundle(&self, receipts: &[Receipt]) -> Result<ReceiptBundle, PaperRefusal> {
        let mut ordered = Vec::with_capacity(self.deliveries.len());
        for delivery in &self.deliveries {
            let receipt = receipts
                .iter()
                .find(|receipt| *receipt.party() == delivery.party)
                .ok_or_else(|| PaperRefusal::Missing(delivery.party.clone()))?;
            self.check_receipt(receipt)?;
            ordered.push(receipt.clone());
        }
        Ok(ReceiptBundle::sign(&self.device.keys, self.device.share.wallet(), ordered))
    }

    /// The wallet, with its address, after every party has acknowledged the commit.
    ///
    /// # Errors
    /// Names the party whose acknowledgement is missing or not valid, and returns the pending
    /// wallet.
    pub fn finish(
        self,
        bundle: &ReceiptBundle,
        acknowledgements: &[CommitAck],
    ) -> Result<DeviceWallet, (Self, PaperRefusal)> {
        let missing = self.deliveries.iter().find_map(|delivery| {
            let party = &delivery.party;
            match acknowledgements.iter().find(|ack| ack.party() == party) {
                None => Some(PaperRefusal::Missing(party.clone())),
                Some(ack) if ack.is_for(delivery.index, party, &delivery.identity, bundle) => None,
                Some(_) => Some(PaperRefusal::Acknowledgement(party.clone())),
            }
        });
        match missing {
            Some(refusal) => Err((self, refusal)),
            None => Ok(self.device),
        }
    }

    /// The record to seal and store before anything is sent.
    ///
    /// # Errors
    /// Only the codec's limits, which no dealt wallet exceeds.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        codec::encode_secret(&PendingRecord {
            device: self.device.to_record()?,
            deliveries: self.deliveries.clone(),
        })
    }

    /// Parses the bytes of [`Self::to_secret_bytes`].
    ///
    /// # Errors
    /// When the bytes are not such a record.
    pub fn from_secret_bytes(
        bytes: &[u8],
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDeviceRecord> {
        let record: PendingRecord = codec::decode(bytes)?;
        Ok(Self {
            device: DeviceWallet::from_record(&record.device, arithmetic)?,
            deliveries: record.deliveries,
        })
    }
}

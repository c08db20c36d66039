//! The history of a wallet after key generation: epoch records, signed by two holders each.
//!
//! The record of epoch 0 is [`WalletPublic`] itself; the wallet's id is the hash of it. Each later
//! [`EpochRecord`] names the hash of the one before. Two holders of the record before sign it
//! ([`SignedRecord`]), so a record without its history proves nothing, and a holder that knows one
//! record can follow to the next ([`WalletPublic::follow`]).
//!
//! A holder signs one record after each record, and stores which one before the signature leaves
//! ([`OneSuccessor`]). Two successors of one record that share a signer are a fork, which names its
//! maker ([`forkers`]).

use serde::{Deserialize, Serialize};

use crate::{
    card::Card,
    codec::Message,
    curve::Point,
    epoch::{EpochRecord, Exported, Fields, InvalidEpochRecord, Origin},
    identity::{IdentitySignature, PartyKeys, Statement},
    ids::{CardFingerprint, Epoch, ShareIndex},
    share::{InvalidWallet, WalletPublic},
};

#[derive(udigest::Digestable)]
struct RecordStatement {
    #[udigest(as_bytes)]
    record: [u8; 32],
    index: ShareIndex,
    card: CardFingerprint,
}

impl Statement for RecordStatement {
    const TAG: &'static str = "epoch-record";
}

/// One holder's signature on an epoch record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderSignature {
    index: ShareIndex,
    card: CardFingerprint,
    signature: IdentitySignature,
}

/// A token for a durable row: this holder signs `record` after `previous`, and no other record. The
/// row is unique on the wallet and `previous`.
///
/// # Security
/// Make it only after the row is durable. A holder that signs two successors of one record lets two
/// histories be believed, which is a fork with its name on it.
#[derive(Debug, PartialEq, Eq)]
pub struct OneSuccessor {
    record: [u8; 32],
}

impl OneSuccessor {
    /// The row for this record is durable.
    #[must_use]
    pub const fn stored_durably(record: [u8; 32]) -> Self {
        Self { record }
    }
}

/// The token is for another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored successor is another record")]
pub struct OtherSuccessor;

impl HolderSignature {
    /// The signature of the holder of share `index`.
    ///
    /// # Errors
    /// When `stored` is for another record.
    #[expect(clippy::needless_pass_by_value, reason = "the token is spent")]
    pub(crate) fn sign(
        record: &EpochRecord,
        index: ShareIndex,
        card: &Card,
        keys: &PartyKeys,
        stored: OneSuccessor,
    ) -> Result<Self, OtherSuccessor> {
        let record = record.hash();
        if stored.record != record {
            return Err(OtherSuccessor);
        }
        let card = card.fingerprint();
        let signature = keys.sign_statement(&RecordStatement { record, index, card });
        Ok(Self { index, card, signature })
    }

    /// The signer's share.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.index
    }

    /// Whether the holder of share `index` signed `record` with `card`.
    pub(crate) fn is_of(&self, record: &EpochRecord, index: ShareIndex, card: &Card) -> bool {
        let statement = RecordStatement { record: record.hash(), index, card: card.fingerprint() };
        self.index == index
            && self.card == card.fingerprint()
            && card.identity().verify_statement(&statement, &self.signature).is_ok()
    }
}

/// An epoch record with the signatures of two holders of the record before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    pub(crate) record: EpochRecord,
    signatures: [HolderSignature; 2],
}

impl Message for SignedRecord {
    const KIND: u8 = 0x1a;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = EpochRecord::MAX_SIZE_BYTES + 256;
}

/// Why a record does not follow on the one that a holder knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefusal {
    /// It names another record before it, or another wallet.
    #[error("the record does not follow on the one in force")]
    Previous,
    /// It is not of the next epoch.
    #[error("the record is of epoch {found}, the next one is {next}")]
    Epoch {
        /// The record's epoch.
        found: Epoch,
        /// The epoch after the one in force.
        next: Epoch,
    },
    /// It is of another key.
    #[error(transparent)]
    Wallet(#[from] InvalidWallet),
    /// It changes what two holders may not change.
    #[error("the record changes the {0}")]
    Change(&'static str),
    /// It is not signed by two holders, each once, with the cards in force.
    #[error("the record is not signed by two holders of the record before")]
    Signatures,
}

impl SignedRecord {
    /// Puts two signatures to a record, the lower index first.
    pub(crate) fn new(record: EpochRecord, one: HolderSignature, other: HolderSignature) -> Self {
        let signatures = if one.index < other.index { [one, other] } else { [other, one] };
        Self { record, signatures }
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &EpochRecord {
        &self.record
    }

    /// The shares of its two signers.
    #[must_use]
    pub const fn signers(&self) -> [ShareIndex; 2] {
        let [lower, higher] = &self.signatures;
        [lower.index, higher.index]
    }
}

/// The card in force of a holder, by the verifier's own store.
pub type SignerCard<'a> = (ShareIndex, &'a Card);

impl WalletPublic {
    /// The record that follows on the one in force when a refresh moves the slope's commitment to
    /// `commitment`. Everything else stays. The first record names `devices`, the cards in force of
    /// the owner's devices; later ones keep theirs. `locked_keys` is how many Paillier keys of the
    /// wallet were ever locked, by what the makers know; the count never falls.
    pub(crate) fn refreshed(
        &self,
        commitment: Point,
        devices: &[CardFingerprint],
        locked_keys: u32,
    ) -> Result<EpochRecord, InvalidEpochRecord> {
        let before = self.epoch_record().map(|record| record.0.clone());
        let before = before.unwrap_or_else(|| Fields {
            wallet: self.id(),
            epoch: self.epoch(),
            previous: [0; 32],
            public_key: *self.public_key(),
            commitment: *self.commitment(),
            chain_code: *self.chain_code(),
            tenant: self.tenant().clone(),
            holders: self.holders().clone(),
            devices: devices.to_vec(),
            requesters: self.requesters().to_vec(),
            recovery: None,
            operators_may_recover: false,
            export_allowed: false,
            origin: Origin::Dealt,
            exported: Exported::No,
            locked_keys: 0,
        });
        EpochRecord::try_from(Fields {
            epoch: Epoch(before.epoch.0.checked_add(1).ok_or(InvalidEpochRecord::Epoch)?),
            previous: self.record_hash(),
            commitment,
            locked_keys: locked_keys.max(before.locked_keys),
            ..before
        })
    }

    /// Follows from the record in force to `signed`, which two of its holders signed. `cards` has
    /// the cards in force of holders that the caller knows.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn follow(&self, signed: &SignedRecord, cards: &[SignerCard<'_>]) -> Result<Self, RecordRefusal> {
        let record = &signed.record;
        let next = Epoch(self.epoch().0.saturating_add(1));
        if record.wallet() != self.id() || *record.previous() != self.record_hash() {
            return Err(RecordRefusal::Previous);
        }
        if record.epoch() != next {
            return Err(RecordRefusal::Epoch { found: record.epoch(), next });
        }
        // In epoch 0 no record names the devices, so the two signers say which cards they have.
        let before = match self.epoch_record() {
            Some(before) => Ok(before.clone()),
            None => self.refreshed(*self.commitment(), record.devices(), 0),
        };
        let before = before.map_err(|_| RecordRefusal::Change("devices"))?;
        if let Some(change) = record.change_since(&before) {
            return Err(RecordRefusal::Change(change));
        }
        let [lower, higher] = &signed.signatures;
        let is_signed = |signature: &HolderSignature| {
            cards.iter().any(|(index, card)| {
                self.holder(*index).party() == Some(card.party()) && signature.is_of(record, *index, card)
            })
        };
        if lower.index >= higher.index || !is_signed(lower) || !is_signed(higher) {
            return Err(RecordRefusal::Signatures);
        }
        Ok(self.at(record.clone())?)
    }
}

/// The holders that signed two records after one: the makers of a fork. Empty if the two are one
/// record, or follow on different ones. The signatures must have been verified.
#[must_use]
pub fn forkers(one: &SignedRecord, other: &SignedRecord) -> Vec<ShareIndex> {
    if one.record == other.record
        || one.record.wallet() != other.record.wallet()
        || one.record.previous() != other.record.previous()
    {
        return Vec::new();
    }
    let others = other.signers();
    one.signers().into_iter().filter(|index| others.contains(index)).collect()
}

/// Which record of a fork stands: the one with the smaller hash.
#[must_use]
pub fn standing<'a>(one: &'a SignedRecord, other: &'a SignedRecord) -> &'a SignedRecord {
    if one.record.hash() <= other.record.hash() { one } else { other }
}

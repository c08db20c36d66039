//! Epoch records: the history of a wallet after key generation.
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
    identity::{IdentityKey, IdentitySignature, PartyKeys, Statement},
    ids::{CardFingerprint, Epoch, ShareIndex, TenantId, WalletId},
    public_key::{ChainCode, PublicKey},
    share::{self, Holder, InvalidWallet, Requester, WalletPublic, WalletRecord},
    transcript,
};

/// The most devices that hold share 1 of a wallet.
pub const MAX_DEVICES: usize = 4;

/// The longest delay of a recovery: 30 days, in seconds.
pub const MAX_RECOVERY_DELAY_S: u32 = 30 * 24 * 60 * 60;

/// How the wallet's key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A device dealt it.
    Dealt,
    /// It existed elsewhere before, where copies of it may remain.
    Imported,
    /// The three holders made it together.
    Dealerless,
}

/// Whether the key has left the shares. A record never takes such a mark back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
#[serde(rename_all = "kebab-case")]
pub enum Exported {
    /// It has not.
    No,
    /// Its owner exported it.
    Key,
    /// Two shares came together in a recovery by the file of the third share.
    Recovered,
}

/// The owner's way back without a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct RecoveryKey {
    /// The Ed25519 key that signs a request to recover.
    pub key: IdentityKey,
    /// How long such a request rests, in seconds, at most [`MAX_RECOVERY_DELAY_S`].
    pub delay_s: u32,
}

/// Why a record contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEpochRecord {
    /// Epoch 0 has the wallet's own record.
    #[error("an epoch record is of epoch 1 or later")]
    Epoch,
    /// Holders, requesters or a public share are not possible.
    #[error(transparent)]
    Wallet(#[from] InvalidWallet),
    /// No device, too many, or one of them twice.
    #[error("a wallet has 1 to {MAX_DEVICES} distinct devices")]
    Devices,
    /// The recovery's delay is too long.
    #[error("a recovery rests for {MAX_RECOVERY_DELAY_S} s at most")]
    Delay,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub(crate) struct Fields {
    pub(crate) wallet: WalletId,
    pub(crate) epoch: Epoch,
    #[udigest(as_bytes)]
    pub(crate) previous: [u8; 32],
    pub(crate) public_key: PublicKey,
    pub(crate) commitment: Point,
    pub(crate) chain_code: ChainCode,
    pub(crate) tenant: TenantId,
    pub(crate) holders: [Holder; 3],
    pub(crate) devices: Vec<CardFingerprint>,
    pub(crate) requesters: Vec<Requester>,
    pub(crate) recovery: Option<RecoveryKey>,
    pub(crate) operators_may_recover: bool,
    pub(crate) export_allowed: bool,
    pub(crate) origin: Origin,
    pub(crate) exported: Exported,
    pub(crate) locked_keys: u32,
}

/// What holds for a wallet in one epoch after the first. Checked when it is made or parsed; who
/// vouches for it is checked by [`WalletPublic::follow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct EpochRecord(Fields);

impl Message for EpochRecord {
    const KIND: u8 = 0x19;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048;
}

impl TryFrom<Fields> for EpochRecord {
    type Error = InvalidEpochRecord;

    fn try_from(fields: Fields) -> Result<Self, InvalidEpochRecord> {
        if fields.epoch == Epoch(0) {
            return Err(InvalidEpochRecord::Epoch);
        }
        share::check_holders(&fields.holders)?;
        share::check_requesters(&fields.requesters)?;
        share::public_shares(&fields.public_key, &fields.commitment)?;
        let mut distinct = fields.devices.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != fields.devices.len() || !(1..=MAX_DEVICES).contains(&distinct.len()) {
            return Err(InvalidEpochRecord::Devices);
        }
        if fields.recovery.as_ref().is_some_and(|recovery| recovery.delay_s > MAX_RECOVERY_DELAY_S) {
            return Err(InvalidEpochRecord::Delay);
        }
        Ok(Self(fields))
    }
}

impl From<EpochRecord> for Fields {
    fn from(record: EpochRecord) -> Self {
        record.0
    }
}

impl EpochRecord {
    /// The record that follows on `wallet`'s when a refresh moves the slope's commitment to
    /// `commitment`. Everything else stays. The first record names `devices`, the cards in force of
    /// the owner's devices; later ones keep theirs. `locked_keys` is how many Paillier keys of the
    /// wallet were ever locked, by what the makers know; the count never falls.
    pub(crate) fn refreshed(
        wallet: &WalletPublic,
        commitment: Point,
        devices: &[CardFingerprint],
        locked_keys: u32,
    ) -> Result<Self, InvalidEpochRecord> {
        let before = wallet.epoch_record().map(|record| record.0.clone());
        let before = before.unwrap_or_else(|| Fields {
            wallet: wallet.id(),
            epoch: wallet.epoch(),
            previous: [0; 32],
            public_key: *wallet.public_key(),
            commitment: *wallet.commitment(),
            chain_code: *wallet.chain_code(),
            tenant: wallet.tenant().clone(),
            holders: wallet.holders().clone(),
            devices: devices.to_vec(),
            requesters: wallet.requesters().to_vec(),
            recovery: None,
            operators_may_recover: false,
            export_allowed: false,
            origin: Origin::Dealt,
            exported: Exported::No,
            locked_keys: 0,
        });
        Self::try_from(Fields {
            epoch: Epoch(before.epoch.0.checked_add(1).ok_or(InvalidEpochRecord::Epoch)?),
            previous: wallet.record_hash(),
            commitment,
            locked_keys: locked_keys.max(before.locked_keys),
            ..before
        })
    }

    /// The wallet.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.0.wallet
    }

    /// The epoch that begins with the record.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// The hash of the record before.
    #[must_use]
    pub const fn previous(&self) -> &[u8; 32] {
        &self.0.previous
    }

    /// `Q`, which no epoch changes.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// `A1`, Feldman's commitment to the slope of this epoch's polynomial.
    #[must_use]
    pub const fn commitment(&self) -> &Point {
        &self.0.commitment
    }

    /// Who holds the shares 1, 2 and 3.
    #[must_use]
    pub const fn holders(&self) -> &[Holder; 3] {
        &self.0.holders
    }

    /// The cards of the owner's devices.
    #[must_use]
    pub fn devices(&self) -> &[CardFingerprint] {
        &self.0.devices
    }

    /// Who may ask for signatures; the owner is the first.
    #[must_use]
    pub fn requesters(&self) -> &[Requester] {
        &self.0.requesters
    }

    /// How many Paillier keys of the wallet were ever locked.
    #[must_use]
    pub const fn locked_keys(&self) -> u32 {
        self.0.locked_keys
    }

    /// The hash that the next record, the manifests and the sessions of this epoch name.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        transcript::hash("epoch-record", &self.0)
    }

    /// What holds for a wallet with this record in force.
    pub(crate) fn in_force(&self, nonce: [u8; 32]) -> WalletRecord {
        let fields = &self.0;
        WalletRecord {
            id: fields.wallet,
            epoch: fields.epoch,
            public_key: fields.public_key,
            commitment: fields.commitment,
            chain_code: fields.chain_code,
            nonce,
            tenant: fields.tenant.clone(),
            holders: fields.holders.clone(),
            requesters: fields.requesters.clone(),
        }
    }

    /// What changed since `before` that no two holders may change by themselves.
    fn change_since(&self, before: &Self) -> Option<&'static str> {
        let (new, old) = (&self.0, &before.0);
        [
            ("chain code", new.chain_code == old.chain_code),
            ("tenant", new.tenant == old.tenant),
            ("holders", new.holders == old.holders),
            ("devices", new.devices == old.devices),
            ("requesters", new.requesters == old.requesters),
            ("recovery", new.recovery == old.recovery),
            ("operators' recovery", new.operators_may_recover == old.operators_may_recover),
            ("export", new.export_allowed == old.export_allowed),
            ("origin", new.origin == old.origin),
            ("exported", new.exported == old.exported),
            ("number of locked keys", new.locked_keys >= old.locked_keys),
        ]
        .into_iter()
        .find_map(|(name, same)| (!same).then_some(name))
    }
}

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
            None => EpochRecord::refreshed(self, *self.commitment(), record.devices(), 0),
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

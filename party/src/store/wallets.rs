//! Wallets with what came with them.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, ShareIndex, WalletId};

use super::StoreError;
use crate::at_rest::{RecordKind, RecordLabel, SealedRecord};

/// A wallet's state in the store of one of its parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalletState {
    /// Verified and stored, not yet agreed by all holders. Expires.
    Prepared,
    /// Agreed by all holders. Never expires.
    Committed,
}

/// A wallet as it is first stored.
#[derive(Debug, Clone)]
pub struct NewWallet {
    /// Which wallet.
    pub id: WalletId,
    /// The share's epoch.
    pub epoch: Epoch,
    /// This party's index in it.
    pub index: ShareIndex,
    /// The tenant it belongs to.
    pub tenant: String,
    /// Its root public key, SEC1 compressed; no other wallet of this party may have it.
    pub public_key: [u8; 33],
    /// The hash of the package it came in: the same package again is the same wallet, another
    /// package for a known wallet is refused.
    pub package_hash: [u8; 32],
    /// This party's signed receipt, returned again when the package comes again.
    pub receipt: Vec<u8>,
    /// The admission token's id and how many wallets it admits.
    pub admission: Option<Admission>,
    /// When it was prepared, in Unix milliseconds.
    pub prepared_at_ms: u64,
    /// When it may be forgotten unless it is committed, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// The records to store with it.
    pub records: Vec<(RecordLabel, SealedRecord)>,
    /// The enrolments to note with it.
    pub enrolments: Vec<EnrolmentRow>,
}

/// An admission token's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The token's id.
    pub token: [u8; 16],
    /// How many wallets it admits.
    pub max_wallets: u32,
}

/// A wallet as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletRow {
    /// Which wallet.
    pub id: WalletId,
    /// The share's epoch.
    pub epoch: Epoch,
    /// This party's index in it.
    pub index: ShareIndex,
    /// The tenant it belongs to.
    pub tenant: String,
    /// Prepared or committed.
    pub state: WalletState,
    /// The hash of the package it came in.
    pub package_hash: [u8; 32],
    /// This party's signed receipt.
    pub receipt: Vec<u8>,
    /// This party's signed commit acknowledgement, once committed.
    pub commit_ack: Option<Vec<u8>>,
    /// How many of the Paillier keys that it was ever enrolled under are locked, for its life.
    pub failures: u32,
}

/// The outcome of an attempt to prepare a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareOutcome {
    /// It is stored.
    Prepared,
    /// The very same package was stored before.
    Already(WalletRow),
    /// Another package was stored for this wallet.
    Conflict,
    /// Another wallet of this party has the public key.
    SameKey,
    /// The admission token's quota is used up.
    QuotaExceeded,
}

/// The outcome of an attempt to commit a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is committed now.
    Committed,
    /// It was committed before; the acknowledgement of then.
    Already(Vec<u8>),
    /// There is no such wallet, or its preparation expired.
    Unknown,
}

/// An enrolment this party verified as a responder. Its record is of kind
/// [`RecordKind::Enrolment`](crate::at_rest::RecordKind::Enrolment) with the key's id as item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnrolmentRow {
    /// The wallet.
    pub wallet: WalletId,
    /// Who initiates.
    pub initiator: ShareIndex,
    /// Under which Paillier key.
    pub paillier_key: PaillierKeyId,
    /// For the shares of which epoch.
    pub epoch: Epoch,
}

/// A key generation that is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealRow {
    /// The wallet.
    pub wallet: WalletId,
    /// Whether the record came out of a backup: the wallet may have been finished, and its Paillier
    /// key locked, since the backup was made.
    pub restored: bool,
}

/// The outcome of an attempt to pin a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinOutcome {
    /// First contact: the card is pinned now.
    Pinned,
    /// The same card was pinned before.
    Same,
    /// Another card is pinned.
    Different(CardFingerprint),
}

/// Wallets with what came with them: pinned cards, enrolments of their initiators, unfinished key
/// generations.
#[async_trait]
pub trait WalletStore: fmt::Debug + Send + Sync + 'static {
    /// Pins a party's card, if none is pinned.
    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError>;
    /// The pinned card of a party.
    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError>;
    /// Every pin.
    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError>;
    /// Wallets, prepared or committed, whose public key is not noted, at most `limit`: they were
    /// stored by the version before that.
    async fn wallets_without_public_key(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError>;
    /// Notes the public key of a wallet that lacks it.
    async fn note_public_key(&self, id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError>;
    /// Stores a verified wallet as prepared.
    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError>;
    /// Commits a prepared wallet, and forgets the record of its preparation
    /// ([`RecordKind::Prepared`](crate::at_rest::RecordKind::Prepared)).
    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError>;
    /// A wallet, prepared or committed.
    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError>;
    /// Committed wallets in order of their ids, those after `after`, at most `limit`.
    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError>;
    /// How many wallets are committed.
    async fn count_wallets(&self) -> Result<u64, StoreError>;
    /// Forgets prepared wallets that expired; how many.
    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError>;
    /// Stores a verified enrolment of an initiator; the newest two of each initiator are kept, the
    /// old one so that sessions go on until a rotation is agreed everywhere.
    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<(), StoreError>;
    /// The enrolments held for a wallet, newest first.
    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError>;
    /// Stores or replaces a dealer's unfinished key generation.
    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError>;
    /// The wallets whose key generation is unfinished, oldest first.
    async fn deals(&self) -> Result<Vec<DealRow>, StoreError>;
    /// Forgets a dealer's record.
    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError>;
}

/// The label of a dealer's record.
pub(crate) fn deal_label(wallet: WalletId) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::Deal, wallet, ShareIndex::Device, Epoch(0), &[])
}

/// The label of an enrolment's record.
pub(crate) fn enrolment_label(row: &EnrolmentRow) -> RecordLabel {
    RecordLabel::of_wallet(
        RecordKind::Enrolment,
        row.wallet,
        row.initiator,
        row.epoch,
        row.paillier_key.as_bytes(),
    )
}

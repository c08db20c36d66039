//! Epoch records: what holds for a wallet in each epoch after the first. [`crate::history`] checks
//! who vouches for one.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Message,
    curve::Point,
    identity::IdentityKey,
    ids::{CardFingerprint, Epoch, TenantId, WalletId},
    public_key::{ChainCode, PublicKey},
    transcript,
    wallet::{self, Holder, InvalidWallet, Requester, WalletRecord},
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
/// vouches for it is checked by [`crate::share::WalletPublic::follow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct EpochRecord(pub(crate) Fields);

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
        wallet::check_holders(&fields.holders)?;
        wallet::check_requesters(&fields.requesters)?;
        wallet::public_shares(&fields.public_key, &fields.commitment)?;
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
    pub(crate) fn change_since(&self, before: &Self) -> Option<&'static str> {
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

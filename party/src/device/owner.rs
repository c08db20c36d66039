//! The owner's device, with an open store.

use std::sync::Arc;

use duet_bus::Bus;
use duet_protocol::{
    hedge,
    identity::{IdentityKey, PartyKeys},
    ids::{Epoch, PaillierKeyId, PartyId, ShareIndex, WalletId},
    paillier::ModulusSize,
    share::Requester,
};
use duet_wire::{Code, WalletInfo, signing::SigningKey};
use zeroize::Zeroizing;

use crate::{
    at_rest::{RecordKind, RecordLabel},
    compute::system_rng,
    context::Context,
    enrolment::Enroller,
    error::PartyError,
    identity::Identity,
    party::wallet_info,
    session::{Protocol, SessionLimits, finish_pending},
};

/// A device with an open store. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    pub(super) context: Context,
    pub(super) party: PartyId,
    owner: Arc<SigningKey>,
    pub(super) limits: SessionLimits,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("party", &self.party).finish_non_exhaustive()
    }
}

pub(super) fn owner_label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::OwnerKey, &[])
}

/// The label of the device's keys. Each wallet has its own keys, so that two wallets of one owner
/// cannot be linked.
pub(super) fn wallet_keys_label(wallet: WalletId) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::PartyKeys, wallet, ShareIndex::Device, Epoch(0), &[])
}

impl Device {
    /// Makes a device that speaks as `party` (by convention `device`). Draws the key with which its
    /// owner signs requests.
    ///
    /// # Errors
    /// When the store has a device already, or when it cannot be written.
    pub async fn set_up(context: Context, party: PartyId) -> Result<Self, PartyError> {
        if context.vault.read(&owner_label()).await?.is_some() {
            return Err(PartyError::refused(Code::Conflict, "the store belongs to a device already"));
        }
        let seed = context.compute.run(|| hedge::new_key(&mut system_rng(), "owner")).await?;
        context.store().put_setting(PARTY, party.as_str().as_bytes()).await?;
        context.vault.write(&owner_label(), seed.as_ref()).await?;
        let owner = Arc::new(SigningKey::from_bytes(&seed));
        // A new store holds no pending verdicts.
        context.note_finished_pending();
        Ok(Self { context, party, owner, limits: SessionLimits::default() })
    }

    /// Opens a device that was set up.
    ///
    /// # Errors
    /// When the store has no device.
    pub async fn open(context: Context) -> Result<Self, PartyError> {
        let stored = |reason: &str| PartyError::Stored { what: "device", reason: reason.to_owned() };
        let seed = context.vault.require(&owner_label(), "device").await?;
        let seed: Zeroizing<[u8; 32]> =
            Zeroizing::new(seed.as_slice().try_into().map_err(|_| stored("its key is not 32 bytes"))?);
        let party = context.store().setting(PARTY).await?.ok_or_else(|| stored("it has no name"))?;
        let party = String::from_utf8(party)
            .ok()
            .and_then(|party| party.parse().ok())
            .ok_or_else(|| stored("its name is none"))?;
        let owner = Arc::new(SigningKey::from_bytes(&seed));
        // A device runs for one command at a time. A later command clears away what a rotation
        // leaves.
        context.clear_superseded_keys().await;
        if let Err(error) = finish_pending::<Protocol>(&context, &party).await {
            tracing::error!(%error, "verdicts that were left behind are not judged yet; nothing is initiated");
        }
        Ok(Self { context, party, owner, limits: SessionLimits::default() })
    }

    /// This device, with other limits for sessions.
    #[must_use]
    pub fn with_limits(mut self, limits: SessionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The name under which the device speaks.
    #[must_use]
    pub const fn id(&self) -> &PartyId {
        &self.party
    }

    /// The device's context.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// The key with which the owner signs requests.
    #[must_use]
    pub fn owner_key(&self) -> &SigningKey {
        &self.owner
    }

    /// The owner as a requester, for all kinds of payload except bare digests.
    ///
    /// # Errors
    /// Never: the key is the device's own.
    pub fn owner(&self) -> Result<Requester, PartyError> {
        IdentityKey::from_bytes(self.owner.verifying_key().as_bytes())
            .map(Requester::new)
            .map_err(|error| PartyError::refused(Code::Internal, error.to_string()))
    }

    /// The finished wallets, in the order of their ids.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn wallets(&self) -> Result<Vec<WalletInfo>, PartyError> {
        let mut wallets = Vec::new();
        let mut after = None;
        loop {
            let rows = self.context.store().wallets(after, 64).await?;
            let Some(last) = rows.last() else { return Ok(wallets) };
            after = Some(last.id);
            for row in &rows {
                wallets.push(wallet_info(&self.context, row).await?);
            }
        }
    }

    /// One wallet.
    ///
    /// # Errors
    /// When the wallet is not on this device or not finished.
    pub async fn wallet(&self, wallet: WalletId) -> Result<WalletInfo, PartyError> {
        let row = self.context.committed(wallet).await?;
        wallet_info(&self.context, &row).await
    }

    /// Makes a new Paillier key for a wallet, and enrols it with both responders. This ends a lock,
    /// and is necessary after a restore. A responder uses the old key until it has accepted the new
    /// one. An interrupted rotation can be repeated.
    ///
    /// # Errors
    /// When a responder cannot be reached, or refuses.
    pub async fn rotate(&self, bus: &Bus, wallet: WalletId) -> Result<PaillierKeyId, PartyError> {
        let identity = self.identity(wallet).await?;
        let enroller = Enroller::new(self.context.clone(), bus.clone(), ModulusSize::Bits2048);
        enroller.rotate_wallet(&identity, wallet).await
    }

    /// The device's keys and card for one wallet.
    pub(super) async fn identity(&self, wallet: WalletId) -> Result<Identity, PartyError> {
        let row = self.context.committed(wallet).await?;
        let share = self.context.share(&row).await?;
        let secret = self.context.vault.require(&wallet_keys_label(wallet), "device keys").await?;
        let keys = PartyKeys::from_secret_bytes(&secret)
            .map_err(|error| PartyError::Stored { what: "device keys", reason: error.to_string() })?;
        let card =
            self.context.holder_card(&share, ShareIndex::Device).await?.ok_or_else(|| {
                PartyError::Stored { what: "device card", reason: "it is missing".to_owned() }
            })?;
        Ok(Identity { keys: Arc::new(keys), card })
    }
}

/// The setting with the name under which the device speaks.
pub(super) const PARTY: &str = "device-party";

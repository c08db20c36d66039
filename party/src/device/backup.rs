//! Backup files of the owner's wallets, the same as the page makes ([`Backup`]).
//!
//! A file holds the device's part in one wallet: its share, its keys and card, and the owner's
//! request key. A wallet that was restored from one has no Paillier key and signs nothing before
//! [`Device::rotate`].

use duet_protocol::ids::{ShareIndex, WalletId};
use duet_wire::{Code, WalletInfo};

use super::{
    Device,
    keygen::store_wallet,
    owner::{PARTY, owner_label},
};
use crate::{
    at_rest::{
        backup::Backup,
        device::{DeviceIdentity, OwnerKey},
    },
    context::Context,
    error::PartyError,
    store::{PinOutcome, WalletState},
};

/// The setting with the time when a backup file of `wallet` was last opened, in milliseconds since
/// 1970, as eight bytes in little-endian order.
fn opened_setting(wallet: WalletId) -> String {
    format!("backup-opened/{wallet}")
}

impl Device {
    /// The backup of the device's part in a wallet, made now.
    ///
    /// # Errors
    /// When the wallet is not on this device or not finished, or when the store cannot be read.
    pub async fn back_up(&self, wallet: WalletId) -> Result<Backup, PartyError> {
        let row = self.context.committed(wallet).await?;
        let identity = self.identity(wallet).await?;
        let part = DeviceIdentity::new(
            self.context.share(&row).await?,
            identity.keys,
            identity.card,
            OwnerKey::from_secret_bytes(self.owner_key().as_bytes()),
        );
        let part =
            part.map_err(|error| PartyError::Stored { what: "device's part", reason: error.to_string() })?;
        Ok(Backup::of_device(part, self.context.clock.now_ms()))
    }

    /// Notes that a backup file was opened, if it brings back a wallet of this device. Opening it
    /// has compared the share with the wallet's public commitments, and the keys with the card.
    ///
    /// # Errors
    /// When the file is of another wallet, or of one that this device knows otherwise.
    pub async fn note_opened_backup(&self, part: &DeviceIdentity) -> Result<WalletInfo, PartyError> {
        let wallet = part.share().wallet();
        let own = self.back_up(wallet.id()).await?;
        // Parsing the file has checked the share against the wallet, and the keys against the card.
        // So it is enough to compare what is public.
        if own.wallet() != wallet || part.owner().public() != self.owner_key().verifying_key().to_bytes() {
            return Err(PartyError::refused(
                Code::Conflict,
                "the file holds another record of this wallet than this device",
            ));
        }
        let now = self.context.clock.now_ms().to_le_bytes();
        self.context.store().put_setting(&opened_setting(wallet.id()), &now).await?;
        self.wallet(wallet.id()).await
    }

    /// When a backup file of `wallet` was last opened here, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn backup_opened_at_ms(&self, wallet: WalletId) -> Result<Option<u64>, PartyError> {
        let stored = self.context.store().setting(&opened_setting(wallet)).await?;
        Ok(stored.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes))
    }

    /// Puts a wallet back from its backup, into a new store or one of the same owner. An
    /// interrupted call can be repeated.
    ///
    /// The store counts as restored afterwards: none of its wallets initiates before
    /// [`Self::rotate`], because a lock may have been forgotten, and it signs no request that was
    /// issued before.
    ///
    /// # Errors
    /// When the store belongs to another owner or has the wallet already, or when it knows other
    /// cards than those of the wallet's parties.
    pub async fn restore(context: Context, part: &DeviceIdentity) -> Result<(Self, WalletInfo), PartyError> {
        let wallet = part.share().wallet();
        let id = wallet.id();
        adopt_owner(&context, part).await?;
        let store = context.store();
        let is_pending = store.deals().await?.iter().any(|deal| deal.wallet == id);
        let is_here = store.wallet(id).await?.is_some_and(|row| row.state == WalletState::Committed);
        if is_pending || is_here {
            return Err(PartyError::refused(Code::WalletExists, "this device has the wallet already"));
        }
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            let holder = wallet.holder(index);
            let (Some(party), Some(card)) = (holder.party(), holder.card()) else { continue };
            if let PinOutcome::Different(pinned) = store.pin_card(party, *card).await? {
                return Err(PartyError::refused(
                    Code::CardMismatch,
                    format!("the wallet's {party} has card {card}, this device has pinned {pinned}"),
                ));
            }
        }
        // First, so that at no time a restored wallet counts as one that was made here.
        store.mark_restored().await?;
        store_wallet(&context, part.share(), part.keys(), part.card()).await?;
        let device = Self::open(context).await?;
        let info = device.wallet(id).await?;
        Ok((device, info))
    }
}

/// Makes the store the device of the part's owner, unless it is already.
async fn adopt_owner(context: &Context, part: &DeviceIdentity) -> Result<(), PartyError> {
    let (store, seed, party) = (context.store(), part.owner().to_secret_bytes(), part.card().party());
    let (known_seed, known_party) = (context.vault.read(&owner_label()).await?, store.setting(PARTY).await?);
    if known_seed.is_some_and(|known| known.as_slice() != seed.as_slice())
        || known_party.is_some_and(|known| known != party.as_str().as_bytes())
    {
        return Err(PartyError::refused(Code::Conflict, "the store is the device of another owner"));
    }
    store.put_setting(PARTY, party.as_str().as_bytes()).await?;
    context.vault.write(&owner_label(), seed.as_ref()).await
}

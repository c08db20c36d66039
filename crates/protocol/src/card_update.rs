//! Replacing a device's card: the owner states that a wallet now has another device.
//!
//! A backend's card is pinned by its operator's peers. A device's card came with the share
//! packages. Only the wallet's owner, whose request key the backends hold as well, can replace it:
//! after a restore, or for a new browser. The new card signs no enrolment by itself. The new device
//! enrols its own Paillier key before it initiates anything.

use serde::{Deserialize, Serialize};

use crate::{
    card::Card,
    codec::Message,
    identity::IdentitySignature,
    ids::{CardFingerprint, ShareIndex, WalletId},
    share::WalletPublic,
    transcript,
};

/// The prefix of the bytes that the owner's request key signs, before the hash.
const TAG: &[u8] = b"duet/v1/device-card\n";

#[derive(udigest::Digestable)]
struct Statement {
    wallet: WalletId,
    card: CardFingerprint,
    generation: u64,
}

/// A device's new card for one wallet, signed by the wallet's owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceCardUpdate {
    wallet: WalletId,
    card: Card,
    generation: u64,
    signature: IdentitySignature,
}

impl Message for DeviceCardUpdate {
    const KIND: u8 = 0x14;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
}

/// Why a new card is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CardUpdateRefusal {
    /// For another wallet.
    #[error("the new card is for another wallet")]
    Wallet,
    /// Not of the party that holds the wallet's first share.
    #[error("the new card is not the device's")]
    Party,
    /// Not signed by the owner.
    #[error("the new card is not signed by the wallet's owner")]
    Signature,
    /// Not newer than the last update.
    #[error("the new card is not newer than the one there is")]
    Stale,
}

impl DeviceCardUpdate {
    /// The bytes that the owner's request key (Ed25519) signs. `generation` grows with every update
    /// of a wallet, for example milliseconds since 1970.
    #[must_use]
    pub fn message(wallet: WalletId, card: &Card, generation: u64) -> Vec<u8> {
        let statement = Statement { wallet, card: card.fingerprint(), generation };
        [TAG, &transcript::hash("device-card", &statement)].concat()
    }

    /// Puts the owner's signature over [`Self::message`] beside the card.
    #[must_use]
    pub const fn new(wallet: WalletId, card: Card, generation: u64, signature: IdentitySignature) -> Self {
        Self { wallet, card, generation, signature }
    }

    /// The number of the update. Store it with the card.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The card, if the owner of `wallet` signed it and it is newer than `newest_generation`, the
    /// generation of the last update, if any.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(
        self,
        wallet: &WalletPublic,
        newest_generation: Option<u64>,
    ) -> Result<Card, CardUpdateRefusal> {
        if self.wallet != wallet.id() {
            return Err(CardUpdateRefusal::Wallet);
        }
        if wallet.holder(ShareIndex::Device).party() != Some(self.card.party()) {
            return Err(CardUpdateRefusal::Party);
        }
        let message = Self::message(self.wallet, &self.card, self.generation);
        wallet
            .owner()
            .and_then(|owner| owner.verify(&message, &self.signature).ok())
            .ok_or(CardUpdateRefusal::Signature)?;
        if newest_generation.is_some_and(|newest| self.generation <= newest) {
            return Err(CardUpdateRefusal::Stale);
        }
        Ok(self.card)
    }
}

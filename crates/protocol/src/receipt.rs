//! The documents of a key generation: receipts, the dealer's bundle of them, and the commit-acks.
//!
//! Prepare, then commit, against partial delivery (ePrint 2020/1052). A holder stores its package
//! and signs a [`Receipt`]. The dealer sends all holders the [`ReceiptBundle`]. A holder that finds
//! its own receipt and all others in it commits durably and signs a [`CommitAck`]. Every step can
//! be repeated and gives the same document.

use serde::{Deserialize, Serialize};

use crate::{
    card::Card,
    codec::Message,
    holding::Holding,
    identity::{IdentityKey, IdentitySignature, PartyKeys, Statement},
    ids::{Epoch, PartyId, ShareIndex, WalletId},
    package::PreparedShare,
    share::{Holder, WalletPublic},
    transcript,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
struct ReceiptBody {
    wallet: WalletId,
    epoch: Epoch,
    index: ShareIndex,
    party: PartyId,
    /// The hash of the wallet's public record, the same for all holders.
    #[udigest(as_bytes)]
    wallet_hash: [u8; 32],
    /// The hash of the [`Holding`].
    #[udigest(as_bytes)]
    holding_hash: [u8; 32],
}

impl Statement for ReceiptBody {
    const TAG: &'static str = "receipt";
}

/// A holder's confirmation that it has verified and stored its package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct Receipt {
    body: ReceiptBody,
    signature: IdentitySignature,
}

impl Message for Receipt {
    const KIND: u8 = 0x0f;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

impl Receipt {
    pub(crate) fn sign(keys: &PartyKeys, party: PartyId, wallet: &WalletPublic, holding: &Holding) -> Self {
        let body = ReceiptBody {
            wallet: wallet.id(),
            epoch: wallet.epoch(),
            index: holding.index,
            party,
            wallet_hash: holding.wallet,
            holding_hash: transcript::hash("holding", holding),
        };
        let signature = keys.sign_statement(&body);
        Self { body, signature }
    }

    /// Which wallet.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.body.wallet
    }

    /// The share.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.body.index
    }

    /// The party that signed.
    #[must_use]
    pub const fn party(&self) -> &PartyId {
        &self.body.party
    }

    /// Whether `party` signed it with `identity` for exactly this holding of this wallet.
    pub(crate) fn is_for(
        &self,
        party: &PartyId,
        identity: &IdentityKey,
        wallet: &WalletPublic,
        holding: &Holding,
    ) -> bool {
        self.body.holding_hash == transcript::hash("holding", holding)
            && self.body.index == holding.index
            && self.body.wallet_hash == holding.wallet
            && self.is_of(party, identity, wallet)
    }

    /// Whether `party` signed it with `identity` for this wallet's record.
    fn is_of(&self, party: &PartyId, identity: &IdentityKey, wallet: &WalletPublic) -> bool {
        self.body.wallet == wallet.id()
            && self.body.epoch == wallet.epoch()
            && self.body.party == *party
            && self.body.wallet_hash == wallet.record_hash()
            && identity.verify_statement(&self.body, &self.signature).is_ok()
    }
}

impl PreparedShare {
    /// The signed receipt over the hash of the holding. Send it only after storing the share.
    #[must_use]
    pub fn receipt(&self, keys: &PartyKeys, card: &Card) -> Receipt {
        Receipt::sign(keys, card.party().clone(), self.share().wallet(), self.holding())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
struct BundleBody {
    wallet: WalletId,
    epoch: Epoch,
    receipts: Vec<Receipt>,
}

impl Statement for BundleBody {
    const TAG: &'static str = "receipt-bundle";
}

/// All receipts of a wallet, signed by the device: the order to commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct ReceiptBundle {
    body: BundleBody,
    signature: IdentitySignature,
}

impl Message for ReceiptBundle {
    const KIND: u8 = 0x10;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
}

/// Why a holder does not commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    /// For another wallet.
    #[error("the bundle is for another wallet")]
    Wallet,
    /// Not signed by the device that dealt the wallet.
    #[error("the bundle is not signed by the device that dealt the wallet")]
    Signature,
    /// Not exactly one receipt per party that holds a share.
    #[error("the bundle does not hold exactly one receipt of each party")]
    Receipts,
    /// The receiver's own receipt is not in it.
    #[error("the bundle does not hold this party's own receipt")]
    OwnReceipt,
    /// The other party's card is missing, so its receipt cannot be checked. Fetch the card and
    /// repeat.
    #[error("the card of {0} is needed to check its receipt")]
    UnknownCard(PartyId),
    /// The other party's receipt is not valid, or is for another record of the wallet.
    #[error("the receipt of {0} does not hold for this wallet")]
    PeerReceipt(PartyId),
}

impl ReceiptBundle {
    pub(crate) fn sign(keys: &PartyKeys, wallet: &WalletPublic, receipts: Vec<Receipt>) -> Self {
        let body = BundleBody { wallet: wallet.id(), epoch: wallet.epoch(), receipts };
        let signature = keys.sign_statement(&body);
        Self { body, signature }
    }

    /// The wallet to commit.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.body.wallet
    }

    /// The hash that commit-acks name.
    fn content_hash(&self) -> [u8; 32] {
        transcript::hash("bundle", self)
    }

    /// Checks that all holders have prepared the same wallet. `card` is the receiver's own, `peers`
    /// are the pinned cards of the other backend parties.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn verify(
        &self,
        prepared: &PreparedShare,
        card: &Card,
        peers: &[&Card],
    ) -> Result<CommitOrder, BundleRefusal> {
        let wallet = prepared.share().wallet();
        if self.body.wallet != wallet.id() || self.body.epoch != wallet.epoch() {
            return Err(BundleRefusal::Wallet);
        }
        prepared
            .device_card()
            .identity()
            .verify_statement(&self.body, &self.signature)
            .map_err(|_| BundleRefusal::Signature)?;
        let mut expected = Vec::new();
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            if let Holder::Party { party, card } = wallet.holder(index) {
                expected.push((index, party, card));
            }
        }
        if self.body.receipts.len() != expected.len() {
            return Err(BundleRefusal::Receipts);
        }
        for (receipt, (index, party, fingerprint)) in self.body.receipts.iter().zip(expected) {
            if receipt.index() != index {
                return Err(BundleRefusal::Receipts);
            }
            if index == prepared.share().index() {
                if !receipt.is_for(card.party(), card.identity(), wallet, prepared.holding()) {
                    return Err(BundleRefusal::OwnReceipt);
                }
            } else {
                let peer = peers
                    .iter()
                    .find(|peer| peer.fingerprint() == *fingerprint && peer.party() == party)
                    .ok_or_else(|| BundleRefusal::UnknownCard(party.clone()))?;
                if !receipt.is_of(party, peer.identity(), wallet) {
                    return Err(BundleRefusal::PeerReceipt(party.clone()));
                }
            }
        }
        Ok(CommitOrder {
            body: AckBody {
                wallet: wallet.id(),
                epoch: wallet.epoch(),
                index: prepared.share().index(),
                party: card.party().clone(),
                bundle_hash: self.content_hash(),
            },
        })
    }
}

/// A verified bundle. Commit the prepared share durably, then answer with [`Self::acknowledge`].
#[derive(Debug)]
#[must_use = "commit the share, then acknowledge"]
pub struct CommitOrder {
    body: AckBody,
}

impl CommitOrder {
    /// The wallet to commit.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.body.wallet
    }

    /// The commit-ack. Send it only after the commit is durable.
    #[must_use]
    pub fn acknowledge(self, keys: &PartyKeys) -> CommitAck {
        let signature = keys.sign_statement(&self.body);
        CommitAck { body: self.body, signature }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
struct AckBody {
    wallet: WalletId,
    epoch: Epoch,
    index: ShareIndex,
    party: PartyId,
    #[udigest(as_bytes)]
    bundle_hash: [u8; 32],
}

impl Statement for AckBody {
    const TAG: &'static str = "commit-ack";
}

/// A holder's confirmation that its share is committed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAck {
    body: AckBody,
    signature: IdentitySignature,
}

impl Message for CommitAck {
    const KIND: u8 = 0x11;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

impl CommitAck {
    /// The share.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.body.index
    }

    /// The party that signed.
    #[must_use]
    pub const fn party(&self) -> &PartyId {
        &self.body.party
    }

    /// Whether `party` signed it with `identity` for this bundle.
    pub(crate) fn is_for(
        &self,
        index: ShareIndex,
        party: &PartyId,
        identity: &IdentityKey,
        bundle: &ReceiptBundle,
    ) -> bool {
        self.body.wallet == bundle.body.wallet
            && self.body.epoch == bundle.body.epoch
            && self.body.index == index
            && self.body.party == *party
            && self.body.bundle_hash == bundle.content_hash()
            && identity.verify_statement(&self.body, &self.signature).is_ok()
    }
}

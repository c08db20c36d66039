//! What a party states about a wallet. All of it is public among the wallet's parties.

use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, ShareIndex, WalletId};
use serde::{Deserialize, Serialize};

use crate::{
    PayloadKindTag, TenantId,
    encoding::{address, hex_array},
};

/// A share's holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletParty {
    /// Its name.
    pub party: PartyId,
    /// The fingerprint of the card that the wallet is bound to.
    pub card: CardFingerprint,
    /// The card's Ed25519 key, which signs outcomes.
    #[serde(with = "hex_array")]
    pub signing_key: [u8; 32],
}

/// A requester that a wallet's parties accept, and for which kinds of payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequesterInfo {
    /// The requester's Ed25519 key.
    #[serde(with = "hex_array")]
    pub key: [u8; 32],
    /// The kinds of payload that it may request signatures over.
    pub kinds: Vec<PayloadKindTag>,
}

/// How far the creation of a wallet has come at the answering party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletStatus {
    /// Verified and stored. Not all other parties have confirmed it yet.
    Prepared,
    /// Ready to sign.
    Committed,
}

/// Whether a Paillier key can be used to initiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitiatorState {
    /// It can be used.
    Ready,
    /// A bad signature locked it, until a rotation.
    Locked,
    /// The share was restored from a backup, and needs a rotation first.
    NeedsRotation,
}

/// An initiator that the answering party can respond to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RespondsTo {
    /// The initiator's share.
    pub initiator: ShareIndex,
    /// The Paillier key it enrolled with.
    pub paillier_key: PaillierKeyId,
}

/// A Paillier key that the answering party can initiate with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initiates {
    /// The key.
    pub paillier_key: PaillierKeyId,
    /// The responders that hold an enrolment of it.
    pub responders: Vec<PartyId>,
    /// Whether it can be used.
    pub state: InitiatorState,
}

/// A wallet as one of its parties describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletInfo {
    /// The wallet.
    pub id: WalletId,
    /// The epoch of its shares.
    pub epoch: Epoch,
    /// The root public key, SEC1 compressed.
    #[serde(with = "hex_array")]
    pub public_key: [u8; 33],
    /// The BIP-32 chain code.
    #[serde(with = "hex_array")]
    pub chain_code: [u8; 32],
    /// The root key's Ethereum address.
    #[serde(with = "address")]
    pub address: [u8; 20],
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The holders of shares 1, 2 and 3. `None` where the share is a backup.
    pub parties: [Option<WalletParty>; 3],
    /// The requesters that may request signatures, with the owner's request key first.
    pub requesters: Vec<RequesterInfo>,
    /// The share of the answering party.
    pub index: ShareIndex,
    /// How far its creation has come.
    pub status: WalletStatus,
    /// The initiators that the party can respond to, the newest enrolment of each first.
    pub responds_to: Vec<RespondsTo>,
    /// The keys that the party can initiate with, and the responders of each.
    pub initiates: Vec<Initiates>,
}

impl WalletInfo {
    /// The holder of share `index`.
    #[must_use]
    pub fn party(&self, index: ShareIndex) -> Option<&WalletParty> {
        let [device, service, partner] = &self.parties;
        match index {
            ShareIndex::Device => device.as_ref(),
            ShareIndex::Service => service.as_ref(),
            ShareIndex::Partner => partner.as_ref(),
        }
    }
}

//! Questions that parties and the orchestrator ask a party: `duet.v1.card.<from>.<to>`.

use duet_protocol::{
    codec::{self, Message},
    ids::WalletId,
};
use serde::{Deserialize, Serialize};

use crate::{error::Refusal, wallet::WalletInfo};

/// How many wallets one answer lists at most.
pub const MAX_WALLETS_PER_PAGE: u16 = 64;

/// A question to a party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CardRequest {
    /// Its card.
    Card,
    /// Its wallets, in the order of their ids.
    Wallets {
        /// List only wallets after this one.
        after: Option<WalletId>,
        /// How many to list, at most [`MAX_WALLETS_PER_PAGE`].
        limit: u16,
    },
    /// One wallet.
    Wallet {
        /// The wallet.
        id: WalletId,
    },
    /// A request to accept an enrolment, so that the party can respond to the sender.
    Enrol {
        /// The encoded offer.
        offer: Vec<u8>,
    },
}

impl Message for CardRequest {
    const KIND: u8 = 0x46;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 512 * 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// A party's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CardReply {
    /// Its card.
    Card {
        /// The encoded card.
        card: Vec<u8>,
    },
    /// A page of its wallets.
    Wallets {
        /// The wallets, in the order of their ids.
        wallets: Vec<WalletInfo>,
        /// Whether there are more after the last.
        more: bool,
    },
    /// One wallet.
    Wallet {
        /// The wallet.
        wallet: Box<WalletInfo>,
    },
    /// The enrolment is verified and stored.
    Enrolled,
    /// The request is refused.
    Refused(Refusal),
}

impl Message for CardReply {
    const KIND: u8 = 0x47;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 512 * 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

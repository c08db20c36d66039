//! Key generation from a party's side: `duet.v1.share.<party>`. Every step can be repeated.

use duet_protocol::codec::{self, Message};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;

/// The dealer's request to a party.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareRequest {
    /// To verify a share package and store it as prepared.
    Prepare {
        /// The package, sealed to the party's card.
        package: Vec<u8>,
    },
    /// To make a prepared share usable, now that all parties have prepared theirs.
    Commit {
        /// The encoded bundle of all receipts.
        bundle: Vec<u8>,
    },
}

impl core::fmt::Debug for ShareRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Prepare { package } => write!(f, "Prepare({} sealed bytes)", package.len()),
            Self::Commit { bundle } => write!(f, "Commit({} bytes)", bundle.len()),
        }
    }
}

impl Message for ShareRequest {
    const KIND: u8 = 0x48;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 512 * 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// The party's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareReply {
    /// The answer to `Prepare`: the encoded, signed receipt.
    Receipt {
        /// The receipt.
        receipt: Vec<u8>,
    },
    /// The answer to `Commit`: the encoded, signed acknowledgement.
    CommitAck {
        /// The acknowledgement.
        acknowledgement: Vec<u8>,
    },
    /// The request is refused.
    Refused(Refusal),
}

impl Message for ShareReply {
    const KIND: u8 = 0x49;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 16 * 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

//! Offers of seats: `duet.v1.seats.<party>.<instance>`. Each worker publishes one when the number
//! of its free seats changes and once a second. Every orchestrator hears all of them.

use duet_protocol::codec::{self, Message};
use serde::{Deserialize, Serialize};

/// What a worker offers at one moment. It is a hint and no promise: the worker refuses with
/// `no-seat` when orchestrators take more seats than are free.
///
/// # Security
/// It carries no signature. The broker fixes the party in the subject. A party that lies in its
/// offers denies its own sessions only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Counts this worker's offers.
    pub number: u64,
    /// How many sessions it takes at once. 0 when it takes none any more.
    pub seats: u32,
    /// How many more sessions it takes now.
    pub free_seats: u32,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// The version of its build.
    pub version: String,
    /// The level of messages that it reads ([`codec::READER_LEVEL`]).
    pub reader_level: u8,
}

impl Message for Offer {
    const KIND: u8 = 0x4e;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 128 + codec::TAIL_SIZE_BYTES;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

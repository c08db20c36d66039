//! A question to one worker of a party: who it is, what its clock shows, and how much room it has.
//! It travels on `duet.v1.card.orchestrator.<party>`, like the questions
//! of [`card_request`](crate::card_request). The broker picks the worker that answers, so a tool
//! asks several times to meet them all.

use duet_protocol::codec::Message;
use serde::{Deserialize, Serialize};

/// The question. A worker of an earlier version refuses it as a malformed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello;

impl Message for Hello {
    const KIND: u8 = 0x78;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 16;
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// Its process, as orchestrators know it.
    pub instance: String,
    /// The version of its build.
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// How many sessions it takes at once.
    pub seats: u32,
    /// How many more sessions it takes now.
    pub free_seats: u32,
    /// Whether its share store can be written. A worker whose store is not ready leaves its queue
    /// groups, so few questions reach it.
    pub is_store_ready: bool,
    /// Whether it initiates sessions: it has compared its store with what others know of it.
    pub is_initiating: bool,
}

impl Message for HelloReply {
    const KIND: u8 = 0x79;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
}

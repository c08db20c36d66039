//! What is known of a run once it is over: what was asked for, what came of it, what was overheard,
//! and what the parties wrote down. [`crate::checker`] judges it; nothing here does.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::wire::Sighting;

/// A payload that was to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A personal message.
    Message(String),
    /// A bare digest.
    Digest([u8; 32]),
}

/// One idempotency key, and what was answered to whoever used it.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The key.
    pub key: String,
    /// The address of the wallet that was to sign.
    pub address: String,
    /// What was to be signed.
    pub payload: Asked,
    /// The job's id, as each answer that accepted it named it.
    pub accepted: Vec<String>,
    /// What was answered to the same key with another payload, by HTTP status, if that was tried.
    pub with_another_payload: Vec<u16>,
}

/// A row of a responder's table of charges: one signature ciphertext left for this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The party that charged.
    pub party: String,
    /// The session, hexadecimal.
    pub session: String,
    /// What was signed.
    pub digest: [u8; 32],
}

/// A Paillier key in a party's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaillierKey {
    /// The party that has it.
    pub party: String,
    /// The key, hexadecimal.
    pub id: String,
    /// Whether it is locked.
    pub is_locked: bool,
}

/// What may be used in one session only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OneTime {
    /// The initiator's nonce point.
    R1,
    /// The responder's.
    R2,
    /// The encrypted signature.
    C3,
}

/// A party's own note that it used a one-time value in a session, under a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The party.
    pub party: String,
    /// The session, hexadecimal.
    pub session: String,
    /// What.
    pub what: OneTime,
    /// The value's hash.
    pub hash: Vec<u8>,
}

/// What a process takes of the machine and of the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets.
    pub files: u64,
    /// Subscriptions at the broker.
    pub subscriptions: u64,
}

/// One run of a process, looked at twice while nothing was asked of it.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The process.
    pub process: String,
    /// When it had done its first work.
    pub before: Footprint,
    /// At the end.
    pub after: Footprint,
}

/// Streams, buckets and their consumers at the broker, by name.
pub type Streams = BTreeMap<String, u64>;

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The orchestrators' public key, hexadecimal.
    pub orchestrator_key: String,
    /// What was asked for.
    pub submissions: Vec<Submission>,
    /// The jobs as the orchestrators show them at the end, by id.
    pub jobs: BTreeMap<String, Value>,
    /// Every message in the stream of results, in order.
    pub results: Vec<Value>,
    /// Every message in the stream of dead letters.
    pub dead: Vec<Value>,
    /// What was overheard.
    pub wire: Vec<Sighting>,
    /// What the responders charged.
    pub charges: Vec<Charge>,
    /// The parties' Paillier keys.
    pub paillier_keys: Vec<PaillierKey>,
    /// What the parties noted of one-time values, if they do.
    pub used: Vec<Used>,
    /// What each surviving process takes.
    pub growth: Vec<Growth>,
    /// Streams and their consumers: before, and after.
    pub streams: [Streams; 2],
    /// What did not come back to work by itself, and processes that ended when nobody had killed
    /// them.
    pub unrecovered: Vec<String>,
}

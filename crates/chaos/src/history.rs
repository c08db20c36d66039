//! The evidence of a finished run: the requests, their answers, the overheard messages, and the
//! parties' records. [`crate::checker`] judges it.

use std::collections::BTreeMap;

use duet_wire::Code;
use serde_json::Value;

use crate::capture::Sighting;

/// A payload that was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A personal message.
    Message(String),
    /// A bare digest.
    Digest([u8; 32]),
}

/// One idempotency key, and the answers to its requests.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The key.
    pub key: String,
    /// The address of the wallet that was asked to sign.
    pub address: String,
    /// The requested payload.
    pub payload: Asked,
    /// The code with which every party refuses the request, if it deserves that. A party signs all
    /// other requests.
    pub earns: Option<Code>,
    /// The job's id, from each answer that accepted the request.
    pub accepted: Vec<String>,
    /// The HTTP status of each answer to another payload under this key, if a team tried that.
    pub with_another_payload: Vec<u16>,
}

/// A fault that was injected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// The fault, with its target.
    pub what: String,
    /// Whether it can break a session in which both parties take part. A wrong clock, a restart by
    /// the book or a receiver of webhooks cannot.
    pub breaks_sessions: bool,
    /// By how many seconds it shifts a process's clock.
    pub clock_s: u64,
    /// When it began, in milliseconds since 1970.
    pub from_ms: u64,
    /// When it ended.
    pub until_ms: u64,
}

/// A result that a receiver of webhooks took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The receiver.
    pub receiver: String,
    /// The job that the delivery names.
    pub job: String,
    /// The delivered document.
    pub body: Value,
}

/// A row in a responder's table of charges: one signature ciphertext left it for this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The responder.
    pub party: String,
    /// The session, in hexadecimal.
    pub session: String,
    /// The digest that was charged.
    pub digest: [u8; 32],
}

/// A Paillier key in a party's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaillierKey {
    /// The party that holds the key.
    pub party: String,
    /// The key, in hexadecimal.
    pub id: String,
    /// Whether it is locked.
    pub is_locked: bool,
}

/// The kinds of values that may be used in one session only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OneTime {
    /// The initiator's nonce point.
    R1,
    /// The responder's nonce point.
    R2,
    /// The encrypted signature.
    C3,
}

/// A party's record that it used a one-time value in a session. It contains the value's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The party.
    pub party: String,
    /// The session, in hexadecimal.
    pub session: String,
    /// The kind of value.
    pub what: OneTime,
    /// The value's hash.
    pub hash: Vec<u8>,
}

/// The resources that a process uses, on the machine and at the broker.
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

/// The growth of one run of a process, measured twice while it was idle.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The process.
    pub process: String,
    /// After its first work.
    pub before: Footprint,
    /// At the end.
    pub after: Footprint,
}

/// Streams, buckets and their consumers at the broker, by name.
pub type Streams = BTreeMap<String, u64>;

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The orchestrators' public key, in hexadecimal.
    pub orchestrator_key: String,
    /// All requests.
    pub submissions: Vec<Submission>,
    /// The jobs as the orchestrators show them at the end, by id.
    pub jobs: BTreeMap<String, Value>,
    /// Every message in the stream of results, in order: signed results, and ends without one.
    pub results: Vec<Value>,
    /// Every message in the stream of dead letters.
    pub dead: Vec<Value>,
    /// The injected faults.
    pub faults: Vec<Injected>,
    /// The receivers of webhooks. Each takes deliveries again by the end of the run.
    pub receivers: Vec<String>,
    /// The deliveries that a receiver took.
    pub deliveries: Vec<Delivery>,
    /// All overheard messages.
    pub captured: Vec<Sighting>,
    /// All charges of the responders.
    pub charges: Vec<Charge>,
    /// The parties' Paillier keys.
    pub paillier_keys: Vec<PaillierKey>,
    /// The one-time values that the parties recorded.
    pub used: Vec<Used>,
    /// The growth of each surviving process.
    pub growth: Vec<Growth>,
    /// The streams with their consumers, before and after the run.
    pub streams: [Streams; 2],
    /// What did not recover by itself, and processes that ended without having been killed.
    pub unrecovered: Vec<String>,
}

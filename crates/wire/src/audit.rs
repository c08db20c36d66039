//! The audit log: what was decided and who asked, in chains that show when something is missing.
//!
//! Each writer – a party, an orchestrator, a gateway – writes [`Record`]s of a chain of its own.
//! Each record names the hash of the one before it. So a record that is removed, altered or moved
//! does not match its successor. From time to time an [`Event::Checkpoint`] contains the writer's
//! signature over everything before it. A verifier that has pinned that key can trust everything up
//! to the last checkpoint, whichever way the records came.
//!
//! A record is transported and stored as one line of JSON. Its body is kept byte for byte, because
//! those bytes are hashed. It contains no secret: of nonces and answers it has only hashes, which
//! show that none was used twice.
//!
//! The chain alone cannot show that its end is missing: the records after the last checkpoint, or
//! everything after an earlier one. For that a verifier has to remember how far the chain went
//! before ([`verify::Verifier::remember`]).

mod event;
mod head;
mod refusals;
pub mod verify;

use core::{fmt, str::FromStr};

use duet_protocol::{ids::InvalidId, transcript};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::{
    event::{Asked, Body, Continues, Event, Exchange, Role},
    head::{Head, HeadReply, HeadRequest, MAX_HEADS_PER_WRITER, MAX_LOCKED_KEYS, SignedHead},
    refusals::{Refusals, Refused},
};
use crate::{
    encoding::{exact_text, hex_array},
    signing::{self, BadSignature, Identity, Purpose},
};

/// The largest record as a line of JSON, in bytes. A refusal's explanation is bounded to 512 bytes,
/// and the other parts of a body are bounded as well.
pub const MAX_RECORD_SIZE_BYTES: usize = 16 * 1024;

/// The previous hash that the first record of a chain names.
const NOTHING_BEFORE: [u8; 32] = [0; 32];

/// A chain's name: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, udigest::Digestable)]
pub struct ChainId(#[udigest(as_bytes)] pub [u8; 16]);

impl ChainId {
    /// The identifier's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainId({self})")
    }
}

impl FromStr for ChainId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Hex { expected: 32 })?;
        Ok(Self(bytes))
    }
}

impl Serialize for ChainId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex_array::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for ChainId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex_array::deserialize(deserializer).map(Self)
    }
}

/// A place in a chain, and the hash that fixes the chain up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The chain.
    pub chain: ChainId,
    /// The record's number, from 1.
    pub sequence: u64,
    /// The record's hash.
    #[serde(with = "hex_array")]
    #[udigest(as_bytes)]
    pub hash: [u8; 32],
}

impl Position {
    /// The next record, with `draft`.
    #[must_use]
    pub fn follow(&self, draft: Draft) -> Record {
        Record {
            chain: self.chain,
            sequence: self.sequence.saturating_add(1),
            previous: self.hash,
            body: draft.body,
        }
    }

    /// A checkpoint: `key`'s signature over everything up to here. It may stand anywhere later in
    /// the chain.
    #[must_use]
    pub fn sign(&self, key: &impl Identity) -> Event {
        let signature = signing::sign(Purpose::Audit, &self.statement(), key);
        Event::Checkpoint { sequence: self.sequence, hash: self.hash, signature }
    }

    /// Checks a checkpoint's signature.
    ///
    /// # Errors
    /// When it is not by `key` over this position.
    pub fn verify(&self, key: &[u8; 32], signature: &[u8; 64]) -> Result<(), BadSignature> {
        signing::verify(Purpose::Audit, &self.statement(), key, signature)
    }

    fn statement(&self) -> [u8; 32] {
        transcript::hash("audit-checkpoint", self)
    }
}

/// An event to record that has no place in a chain yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// When it was decided, in milliseconds since 1970 by the writer's clock.
    pub at_ms: u64,
    /// The JSON of a [`Body`].
    pub body: Vec<u8>,
}

impl Draft {
    /// A draft of `event`, decided at `at_ms` (milliseconds since 1970).
    #[must_use]
    pub fn new(at_ms: u64, event: Event) -> Self {
        let body = Body { at_ms, event };
        // Text, numbers, and maps with text keys always serialise.
        Self { at_ms, body: serde_json::to_vec(&body).unwrap_or_default() }
    }
}

/// One entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The chain.
    pub chain: ChainId,
    /// Its number, from 1.
    pub sequence: u64,
    /// The hash of the record before it; zeros for the first.
    #[serde(with = "hex_array")]
    pub previous: [u8; 32],
    /// The JSON of a [`Body`], byte for byte.
    #[serde(with = "exact_text")]
    pub body: Vec<u8>,
}

#[derive(udigest::Digestable)]
struct RecordInput<'a> {
    chain: ChainId,
    sequence: u64,
    #[udigest(as_bytes)]
    previous: &'a [u8; 32],
    #[udigest(as_bytes)]
    body: &'a [u8],
}

impl Record {
    /// The first record of a chain.
    #[must_use]
    pub fn first(chain: ChainId, draft: Draft) -> Self {
        Self { chain, sequence: 1, previous: NOTHING_BEFORE, body: draft.body }
    }

    /// Whether it claims to be the first of its chain.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.sequence == 1 && self.previous == NOTHING_BEFORE
    }

    /// Its place and hash.
    #[must_use]
    pub fn position(&self) -> Position {
        let Self { chain, sequence, previous, body } = self;
        let input = RecordInput { chain: *chain, sequence: *sequence, previous, body };
        Position {
            chain: self.chain,
            sequence: self.sequence,
            hash: transcript::hash("audit-record", &input),
        }
    }

    /// The record as a line, without the line break.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        // The body is JSON, and so UTF-8, which always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record from a line.
    ///
    /// # Errors
    /// With a sentence on what is wrong.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_RECORD_SIZE_BYTES {
            return Err(format!("{} bytes, at most {MAX_RECORD_SIZE_BYTES} are allowed", line.len()));
        }
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}

/// The records in a message of the audit stream, or in an exported file, as non-empty lines.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Packs the first of `records` into one message of the audit stream: as many as `max_size_bytes`
/// hold, at least one. Returns how many it packed. The records follow each other in one chain.
#[must_use]
pub fn message(records: &[Record], max_size_bytes: usize) -> (usize, Vec<u8>) {
    let (mut count, mut bytes) = (0, Vec::new());
    for record in records {
        let line = record.to_line();
        if count > 0 && bytes.len() + line.len() >= max_size_bytes {
            break;
        }
        bytes.extend_from_slice(&line);
        bytes.push(b'\n');
        count += 1;
    }
    (count, bytes)
}

/// The id of such a message. The stream keeps one copy of it when it is published again.
#[must_use]
pub fn message_id(records: &[Record]) -> Option<String> {
    let (first, last) = (records.first()?, records.last()?);
    Some(format!("{}.{}.{}", first.chain, first.sequence, last.sequence))
}

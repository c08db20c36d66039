//! The records of a chain.

use duet_protocol::transcript;
use serde::{Deserialize, Serialize};

use super::{Body, ChainId, Event, Position};
use crate::encoding::{exact_text, hex_array};

/// The largest record as a line of JSON, in bytes. A refusal's explanation is bounded to 512 bytes,
/// and the other parts of a body are bounded as well.
pub const MAX_RECORD_SIZE_BYTES: usize = 16 * 1024;

/// The previous hash that the first record of a chain names.
const NOTHING_BEFORE: [u8; 32] = [0; 32];

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
}

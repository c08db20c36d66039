//! Verifies audit records: no record is removed, moved, altered or brought in from elsewhere, the
//! right writer signed, and no nonce was used twice.
//!
//! The verifier takes records in the order of the stream or file. A record that appears a second
//! time is no fault: its writer may publish it again.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::SessionId;
use serde::{Deserialize, Serialize};

use super::{Body, ChainId, Event, Exchange, Position, Record};
use crate::encoding::hex_array;

/// How many findings are kept. More are counted.
pub const MAX_FINDINGS: usize = 1000;

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A line is not a record.
    Malformed,
    /// Records are missing between two others.
    Missing,
    /// A record does not follow from the one before it: one of the two was altered or inserted.
    Altered,
    /// A record stands after its place.
    Reordered,
    /// Two different records claim one place.
    Forked,
    /// A checkpoint does not match the chain at that place, or its signature is not by the chain's
    /// key.
    FalseCheckpoint,
    /// The chain is not by the key that is pinned for its writer, or its writer may not publish
    /// where it was found.
    ForeignWriter,
    /// A record that an earlier verification saw is missing or different.
    Rewritten,
    /// A nonce or an answer was used in two sessions, or a session was charged twice.
    Reused,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Altered => "altered",
            Self::Reordered => "reordered",
            Self::Forked => "forked",
            Self::FalseCheckpoint => "false checkpoint",
            Self::ForeignWriter => "foreign writer",
            Self::Rewritten => "rewritten",
            Self::Reused => "reused",
        })
    }
}

/// One fault, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub fault: Fault,
    /// In which chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// At which record of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// An explanation for a person.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.fault)?;
        if let Some(chain) = self.chain {
            write!(f, "chain {chain}")?;
            if let Some(sequence) = self.sequence {
                write!(f, ", record {sequence}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// The findings about one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainReport {
    /// Its writer. `None` when its beginning is missing and no pinned key signed a checkpoint of
    /// it.
    pub writer: Option<String>,
    /// The process, when the chain belongs to one process of the writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether its key is one that the caller pinned.
    pub pinned: bool,
    /// The first record that exists: 1, unless older ones have expired.
    pub first: u64,
    /// The last record that exists.
    pub last: Position,
    /// How many records exist.
    pub records: u64,
    /// The last record that a checkpoint covers; 0 when none does.
    pub signed_through: u64,
    /// The latest time that a record states, in milliseconds since 1970.
    pub newest_at_ms: u64,
    /// Whether its writer closed it in order. If a chain is neither closed nor still being written,
    /// its writer died or its end is missing.
    pub closed: bool,
    /// How many records have kinds that this version does not know.
    pub unknown: u64,
}

/// The result of verifying a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether there are no findings.
    pub valid: bool,
    /// Its chains.
    pub chains: Vec<ChainReport>,
    /// The findings, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub more_findings: u64,
}

impl Report {
    /// How far each chain went. The caller remembers it for the next verification.
    pub fn heads(&self) -> impl Iterator<Item = Position> {
        self.chains.iter().map(|chain| chain.last)
    }
}

/// A key that the operator pinned, and its writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedKey {
    /// A party's name, `orchestrator` or `gateway`.
    pub writer: String,
    /// Its Ed25519 key.
    #[serde(with = "hex_array")]
    pub key: [u8; 32],
}

struct Chain {
    writer: Option<String>,
    instance: Option<String>,
    key: Option<[u8; 32]>,
    pinned: bool,
    first: u64,
    /// The hashes of the records from `first`; `None` for one that is missing.
    hashes: Vec<Option<[u8; 32]>>,
    records: u64,
    signed_through: u64,
    newest_at_ms: u64,
    closed: bool,
    unknown: u64,
}

impl Chain {
    fn next(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.hashes.len()).unwrap_or(u64::MAX))
    }

    /// The hash at `sequence`. The outer `None` means before the beginning or after the end.
    fn at(&self, sequence: u64) -> Option<Option<[u8; 32]>> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.hashes.get(index).copied()
    }
}

/// Verifies the records of a log one after another.
#[derive(Default)]
pub struct Verifier {
    pins: Vec<PinnedKey>,
    beginnings_may_be_gone: bool,
    remembered: Vec<Position>,
    chains: BTreeMap<ChainId, Chain>,
    /// The session in which each nonce was used.
    nonces: BTreeMap<[u8; 32], SessionId>,
    /// The session in which each answer was made.
    answers: BTreeMap<[u8; 32], SessionId>,
    charged: BTreeSet<(ChainId, SessionId)>,
    findings: Vec<Finding>,
    more_findings: u64,
}

/// The largest gap that one record may open. A larger one is nonsense and not a gap: a verifier
/// must not have to keep account of a billion missing records.
const MAX_GAP: u64 = 1 << 20;

impl Verifier {
    /// A verifier that trusts `pins`. A chain of a writer with pinned keys must be by one of them.
    /// For other writers it trusts the key that the chain itself names.
    #[must_use]
    pub fn new(pins: Vec<PinnedKey>) -> Self {
        Self { pins, ..Self::default() }
    }

    /// Sets the last record that an earlier verification saw of a chain. It must still exist.
    pub fn remember(&mut self, head: Position) {
        self.remembered.push(head);
    }

    /// Lets chains begin anywhere, since old records expire. Without this, a chain that does not
    /// begin with its first record has a fault.
    pub fn allow_missing_beginnings(&mut self) {
        self.beginnings_may_be_gone = true;
    }

    fn find(&mut self, fault: Fault, at: Option<(ChainId, u64)>, message: impl Into<String>) {
        if self.findings.len() >= MAX_FINDINGS {
            self.more_findings += 1;
            return;
        }
        let (chain, sequence) = at.unzip();
        self.findings.push(Finding { fault, chain, sequence, message: message.into() });
    }

    /// Takes a line. `speaker` is the only one that may have published it, when it comes from the
    /// stream.
    pub fn line(&mut self, line: &[u8], speaker: Option<&str>) {
        match Record::from_line(line) {
            Ok(record) => self.record(&record, speaker),
            Err(problem) => {
                self.find(Fault::Malformed, None, format!("a line is no audit record: {problem}"));
            }
        }
    }

    /// Takes a record. See [`Self::line`].
    pub fn record(&mut self, record: &Record, speaker: Option<&str>) {
        let at = Some((record.chain, record.sequence));
        let position = record.position();
        let body: Result<Body, _> = serde_json::from_slice(&record.body);
        let Some(chain) = self.chains.get_mut(&record.chain) else {
            self.begin(record, position);
            self.content(record, body.ok(), speaker);
            return;
        };
        let next = chain.next();
        if record.sequence < next {
            self.earlier(record, position, speaker, body.ok());
            return;
        }
        if record.sequence - next > MAX_GAP {
            self.find(
                Fault::Malformed,
                at,
                format!("the number is far beyond the chain's end, {}", next - 1),
            );
            return;
        }
        if record.sequence > next {
            chain
                .hashes
                .resize(chain.hashes.len() + usize::try_from(record.sequence - next).unwrap_or(0), None);
            chain.hashes.push(Some(position.hash));
            chain.records += 1;
            let last = record.sequence - 1;
            let what = if next == last {
                format!("record {next} is")
            } else {
                format!("records {next} to {last} are")
            };
            self.find(Fault::Missing, at, format!("{what} not there"));
        } else {
            let follows = chain.at(next - 1).flatten() == Some(record.previous);
            chain.hashes.push(Some(position.hash));
            chain.records += 1;
            if !follows {
                let message = format!(
                    "it does not follow from record {}; one of the two was altered, or put there",
                    next - 1
                );
                self.find(Fault::Altered, at, message);
            }
        }
        self.content(record, body.ok(), speaker);
    }

    fn begin(&mut self, record: &Record, position: Position) {
        let chain = Chain {
            writer: None,
            instance: None,
            key: None,
            pinned: false,
            first: record.sequence,
            hashes: vec![Some(position.hash)],
            records: 1,
            signed_through: 0,
            newest_at_ms: 0,
            closed: false,
            unknown: 0,
        };
        self.chains.insert(record.chain, chain);
        let at = Some((record.chain, record.sequence));
        if record.sequence == 1 && !record.is_first() {
            self.find(Fault::Altered, at, "the first record names another one before it");
        }
        if record.sequence != 1 && !self.beginnings_may_be_gone {
            self.find(Fault::Missing, at, "the chain's beginning is not there");
        }
    }

    /// Handles a record whose place has already been passed.
    fn earlier(&mut self, record: &Record, position: Position, speaker: Option<&str>, body: Option<Body>) {
        let at = Some((record.chain, record.sequence));
        let Some(chain) = self.chains.get_mut(&record.chain) else { return };
        match chain.at(record.sequence) {
            // The writer published it a second time.
            Some(Some(hash)) if hash == position.hash => {}
            Some(Some(_)) => {
                self.find(Fault::Forked, at, "another record with this number is there already");
            }
            Some(None) => {
                let index = usize::try_from(record.sequence - chain.first).unwrap_or(usize::MAX);
                if let Some(place) = chain.hashes.get_mut(index) {
                    *place = Some(position.hash);
                    chain.records += 1;
                }
                self.find(Fault::Reordered, at, "it stands after records with higher numbers");
                self.content(record, body, speaker);
            }
            None => {
                self.find(Fault::Reordered, at, "it stands after the record that the chain begins with here");
            }
        }
    }

    fn content(&mut self, record: &Record, body: Option<Body>, speaker: Option<&str>) {
        let at = Some((record.chain, record.sequence));
        let Some(Body { at_ms, event }) = body else {
            if let Some(chain) = self.chains.get_mut(&record.chain) {
                chain.unknown += 1;
            }
            return;
        };
        if let Some(chain) = self.chains.get_mut(&record.chain) {
            chain.newest_at_ms = chain.newest_at_ms.max(at_ms);
        }
        match event {
            Event::Opened { writer, instance, key, .. } => {
                if record.sequence == 1 {
                    self.opened(record.chain, writer, instance, key, speaker);
                } else {
                    self.find(Fault::Altered, at, "a chain is opened by its first record only");
                }
            }
            Event::Checkpoint { sequence, hash, signature } => {
                self.checkpoint(record, Position { chain: record.chain, sequence, hash }, &signature);
            }
            Event::Closed => {
                if let Some(chain) = self.chains.get_mut(&record.chain) {
                    chain.closed = true;
                }
            }
            Event::SessionCharged(exchange) => {
                let session = exchange.session;
                if !self.charged.insert((record.chain, session)) {
                    self.find(Fault::Reused, at, format!("session {session} was charged before"));
                }
                self.once(record, &exchange);
            }
            Event::SessionSigned(exchange) => self.once(record, &exchange),
            _ => {}
        }
    }

    fn once(&mut self, record: &Record, &Exchange { session, nonce, answer, .. }: &Exchange) {
        let at = Some((record.chain, record.sequence));
        let other = self.nonces.insert(nonce, session).filter(|other| *other != session);
        if let Some(other) = other {
            self.find(Fault::Reused, at, format!("the nonce of session {session} was that of {other}"));
        }
        let other = self.answers.insert(answer, session).filter(|other| *other != session);
        if let Some(other) = other {
            self.find(Fault::Reused, at, format!("the answer of session {session} was that of {other}"));
        }
    }

    fn opened(
        &mut self,
        id: ChainId,
        writer: String,
        instance: Option<String>,
        key: [u8; 32],
        speaker: Option<&str>,
    ) {
        let at = Some((id, 1));
        if speaker.is_some_and(|speaker| speaker != writer) {
            let message = format!("{writer}'s chain was published by {}", speaker.unwrap_or_default());
            self.find(Fault::ForeignWriter, at, message);
        }
        let known: Vec<_> = self.pins.iter().filter(|pin| pin.writer == writer).collect();
        let pinned = known.iter().any(|pin| pin.key == key);
        if !pinned && !known.is_empty() {
            let message =
                format!("the chain is by the key {}, which is not pinned for {writer}", hex::encode(key));
            self.find(Fault::ForeignWriter, at, message);
        }
        if let Some(chain) = self.chains.get_mut(&id) {
            chain.writer = Some(writer);
            chain.instance = instance;
            chain.key = Some(key);
            chain.pinned = pinned;
        }
    }

    fn checkpoint(&mut self, record: &Record, covered: Position, signature: &[u8; 64]) {
        let at = Some((record.chain, record.sequence));
        let Some(chain) = self.chains.get_mut(&record.chain) else { return };
        if chain.key.is_none() {
            // The beginning is missing, so the key must be a pinned one.
            if let Some(pin) = self.pins.iter().find(|pin| covered.verify(&pin.key, signature).is_ok()) {
                chain.key = Some(pin.key);
                chain.writer = Some(pin.writer.clone());
                chain.pinned = true;
            }
        }
        let Some(key) = chain.key else {
            let message = "the chain's beginning is not there, and no pinned key signed this checkpoint";
            self.find(Fault::FalseCheckpoint, at, message);
            return;
        };
        if covered.sequence >= record.sequence || covered.verify(&key, signature).is_err() {
            self.find(Fault::FalseCheckpoint, at, "the signature is not by the chain's key");
            return;
        }
        match chain.at(covered.sequence) {
            Some(Some(hash)) if hash == covered.hash => {
                chain.signed_through = chain.signed_through.max(covered.sequence);
            }
            Some(Some(_)) => {
                let message = format!("the writer signed another record {} than is there", covered.sequence);
                self.find(Fault::Altered, Some((record.chain, covered.sequence)), message);
            }
            // It is missing, which is already a finding, or lies before the beginning.
            Some(None) | None => {}
        }
    }

    /// Returns the result over all records taken.
    #[must_use]
    pub fn finish(mut self) -> Report {
        for head in core::mem::take(&mut self.remembered) {
            let at = Some((head.chain, head.sequence));
            match self.chains.get(&head.chain).map(|chain| (chain.at(head.sequence), chain.first)) {
                Some((Some(Some(hash)), _)) if hash == head.hash => {}
                // Older than the records that are kept.
                Some((None, first)) if head.sequence < first => {}
                Some((Some(Some(_)), _)) => {
                    self.find(Fault::Rewritten, at, "another record was there at an earlier verification");
                }
                Some(_) | None => {
                    self.find(
                        Fault::Rewritten,
                        at,
                        "it was there at an earlier verification, and is not now",
                    );
                }
            }
        }
        let chains = self
            .chains
            .iter()
            .filter_map(|(id, chain)| {
                let last = Position {
                    chain: *id,
                    sequence: chain.next().saturating_sub(1),
                    hash: chain.hashes.last().copied().flatten()?,
                };
                Some(ChainReport {
                    writer: chain.writer.clone(),
                    instance: chain.instance.clone(),
                    pinned: chain.pinned,
                    first: chain.first,
                    last,
                    records: chain.records,
                    signed_through: chain.signed_through,
                    newest_at_ms: chain.newest_at_ms,
                    closed: chain.closed,
                    unknown: chain.unknown,
                })
            })
            .collect();
        Report {
            valid: self.findings.is_empty(),
            chains,
            findings: self.findings,
            more_findings: self.more_findings,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("chains", &self.chains.len()).finish_non_exhaustive()
    }
}

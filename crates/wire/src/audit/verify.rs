//! Checking audit records: nothing removed, moved, altered or brought in from elsewhere, signed by
//! whom it should be, and no nonce used twice.
//!
//! Records are taken in the order in which they lie in the stream or in a file. The same record a
//! second time is no fault: whoever ships records may do so again.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::SessionId;
use serde::{Deserialize, Serialize};

use super::{Body, ChainId, Event, Exchange, Position, Record};
use crate::encoding::hex_array;

/// Findings that are kept; more are counted.
pub const MAX_FINDINGS: usize = 1000;

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A line is no record.
    Malformed,
    /// Records between two that are there are not.
    Missing,
    /// A record does not follow from the one before it: one of the two was altered, or put there.
    Altered,
    /// A record stands later than its place.
    Reordered,
    /// Two different records claim one place.
    Forked,
    /// A checkpoint is not what the chain was at that place, or its signature is not by the chain's
    /// key.
    FalseCheckpoint,
    /// The chain is not by the key that is pinned for its writer, or by a writer that may not speak
    /// where it was found.
    ForeignWriter,
    /// What was there at an earlier verification is not there any more, or is something else.
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

/// One thing that is wrong, and where.
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
    /// The same for a person.
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

/// What was found of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainReport {
    /// Who writes it; `None` when its beginning is gone and no pinned key signed a checkpoint of
    /// it.
    pub writer: Option<String>,
    /// Which of the writer's processes, when it is one process's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether its key is one that the verifier was told.
    pub pinned: bool,
    /// The first record that is there: 1, unless older ones have been removed for their age.
    pub first: u64,
    /// The last record that is there.
    pub last: Position,
    /// How many records are there.
    pub records: u64,
    /// Up to where a checkpoint vouches for it; 0 when none does.
    pub signed_through: u64,
    /// The latest time a record states, in milliseconds since 1970.
    pub newest_at_ms: u64,
    /// Whether its writer closed it in order. A chain that is neither closed nor still written lost
    /// its writer, or its end.
    pub closed: bool,
    /// Records of kinds that this version does not know.
    pub unknown: u64,
}

/// What a log is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether nothing is wrong with it.
    pub valid: bool,
    /// Its chains.
    pub chains: Vec<ChainReport>,
    /// What is wrong with it, at most [`MAX_FINDINGS`] things.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more_findings: u64,
}

impl Report {
    /// How far each chain went, to be remembered for the next verification.
    pub fn heads(&self) -> impl Iterator<Item = Position> {
        self.chains.iter().map(|chain| chain.last)
    }
}

/// A key that somebody vouched for, and whose it is.
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

    /// The hash at `sequence`: outer `None` before the beginning or after the end.
    fn at(&self, sequence: u64) -> Option<Option<[u8; 32]>> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.hashes.get(index).copied()
    }
}

/// Takes the records of a log one after the other.
#[derive(Default)]
pub struct Verifier {
    pins: Vec<PinnedKey>,
    beginnings_may_be_gone: bool,
    remembered: Vec<Position>,
    chains: BTreeMap<ChainId, Chain>,
    /// Where each nonce was used.
    nonces: BTreeMap<[u8; 32], SessionId>,
    /// Where each answer was made.
    answers: BTreeMap<[u8; 32], SessionId>,
    charged: BTreeSet<(ChainId, SessionId)>,
    findings: Vec<Finding>,
    more_findings: u64,
}

/// The gap that one record may open. A larger one is no gap but nonsense: nobody removes a billion
/// records, and nobody shall make a verifier keep account of them.
const MAX_GAP: u64 = 1 << 20;

impl Verifier {
    /// A verifier that believes these keys. A chain of a writer with a pinned key must be by one of
    /// its keys; other chains are believed to be by the key they name themselves.
    #[must_use]
    pub fn new(pins: Vec<PinnedKey>) -> Self {
        Self { pins, ..Self::default() }
    }

    /// What an earlier verification saw last of a chain: it must still be there.
    pub fn remember(&mut self, head: Position) {
        self.remembered.push(head);
    }

    /// Lets chains begin anywhere: old records are removed when their time is over. Without this a
    /// chain that does not begin with its first record lacks something.
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

    /// Takes a line. `speaker` is who alone may have published it, when it comes from the stream.
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

    /// A record whose place has been passed already.
    fn earlier(&mut self, record: &Record, position: Position, speaker: Option<&str>, body: Option<Body>) {
        let at = Some((record.chain, record.sequence));
        let Some(chain) = self.chains.get_mut(&record.chain) else { return };
        match chain.at(record.sequence) {
            // It was shipped a second time.
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
            // The beginning is gone: the key is one of those that are pinned.
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
            // It is missing, which has been said, or came before the beginning.
            Some(None) | None => {}
        }
    }

    /// What the records that were taken are worth.
    #[must_use]
    pub fn finish(mut self) -> Report {
        for head in core::mem::take(&mut self.remembered) {
            let at = Some((head.chain, head.sequence));
            match self.chains.get(&head.chain).map(|chain| (chain.at(head.sequence), chain.first)) {
                Some((Some(Some(hash)), _)) if hash == head.hash => {}
                // Older than what is kept.
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

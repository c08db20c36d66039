//! Publishes audit records, and keeps the chain of a process that has no store.
//!
//! An orchestrator or a gateway decides without a database of its own. Each process writes one
//! chain from its start to its end. It puts its entries in a bounded queue. A task takes them from
//! there, gives each its place in the chain and publishes it, so no decision waits for that. While
//! the broker is away, records wait, up to a bound. Entries beyond it are counted, and the chain
//! says how many it lacks.
//!
//! On a new connection the process begins another chain, whose first record names where the one
//! before ended. The broker may have been put back to a copy without the last records, and a chain
//! that went on would show a gap that no writer can fill.

use core::time::Duration;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_nats::{HeaderValue, StatusCode};
use bytes::Bytes;
use duet_protocol::{codec, ids::PartyId};
use duet_wire::{
    audit::{self, Body, ChainId, Continues, Draft, Event, Position, Record, Refusals, Refused, SignedHead},
    signing::SigningKey,
};
use futures::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connect::Bus,
    request::{MAX_MESSAGE_SIZE_BYTES, PublishError},
    streams::{AUDIT, HEADS},
    subjects::{Address, PREFIX, Speaker},
};

/// How many entries may wait for their place in the chain: some seconds' worth at full load.
const QUEUE: usize = 4096;
/// How many records may wait for the broker. At some 600 bytes each they take 5 MB.
const MAX_UNPUBLISHED: usize = 8192;
/// How many records one message holds at most; fewer if they are large.
pub const RECORDS_PER_MESSAGE: usize = 256;
/// How many messages [`read`] requests from the stream at once.
const READ_AHEAD: usize = 32;
/// How long an entry may wait before it is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// How long the broker may take to store a message.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);
/// A checkpoint is due after so many records …
pub const CHECKPOINT_AFTER_RECORDS: u64 = 256;
/// … or when a record has been waiting for one for so long, in milliseconds.
pub const CHECKPOINT_AFTER_MS: u64 = 10_000;

/// Publishes the first of `records` as one message, as many as fit, and returns how many. The
/// records follow each other in one chain of `speaker`.
///
/// # Errors
/// See [`PublishError`]. The broker may have stored them all the same; publishing them again does
/// no harm.
pub async fn publish(
    bus: &Bus,
    speaker: &Speaker,
    records: &[Record],
    deadline: Duration,
) -> Result<usize, PublishError> {
    let (count, message) = audit::message(records, MAX_MESSAGE_SIZE_BYTES / 2);
    let Some(id) = records.get(..count).and_then(audit::message_id) else { return Ok(0) };
    let address = Address::Audit(speaker.clone());
    let published = bus.publish_stored(&address, message, Some(&id), deadline).await;
    bus.counted_audit().published(published.is_ok());
    published.map(|_| count)
}

/// Publishes how far the chain of `head`'s writer goes. The stream keeps the newest head of each
/// party.
///
/// # Errors
/// See [`PublishError`].
pub async fn publish_head(bus: &Bus, head: &SignedHead, deadline: Duration) -> Result<(), PublishError> {
    let address = Address::Head(head.head.writer.clone());
    let bytes = codec::encode(head)
        .map_err(|error| PublishError::Refused { subject: address.to_string(), reason: error.to_string() })?;
    bus.publish_stored(&address, bytes, None, deadline).await.map(drop)
}

/// Reads the head that `party` published last, without verifying it. The broker lets only `party`
/// ask for it.
///
/// # Errors
/// When the broker does not answer within `deadline`, has no such stream, or answers with something
/// else.
pub async fn read_head(
    bus: &Bus,
    party: &PartyId,
    deadline: Duration,
) -> Result<Option<SignedHead>, ReadError> {
    let failed = |error: &dyn core::fmt::Display| ReadError(error.to_string());
    let subject = format!("$JS.API.DIRECT.GET.{HEADS}.{}", Address::Head(party.clone()));
    let asking = bus.client().request(subject, Bytes::new());
    let reply = timeout(deadline, asking).await.map_err(|late| failed(&late))?.map_err(|e| failed(&e))?;
    match reply.status {
        Some(StatusCode::NOT_FOUND) => Ok(None),
        Some(status) if !status.is_success() => Err(failed(&status)),
        _ => codec::decode(&reply.payload).map(Some).map_err(|error| failed(&error)),
    }
}

/// Why the audit stream cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit stream cannot be read: {0}")]
pub struct ReadError(String);

/// A message of the audit stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The only speaker that may have published it.
    pub speaker: String,
    /// Its records, one per line.
    pub records: Bytes,
}

/// Reads the audit stream from its oldest message to its newest, in order, and passes each to
/// `take`. It is for the role `auditor`, which may only fetch messages one by one.
///
/// # Errors
/// When the broker does not answer.
pub async fn read(bus: &Bus, mut take: impl FnMut(Message)) -> Result<(), ReadError> {
    let any = format!("{PREFIX}.audit.*");
    let first = get(bus, &serde_json::json!({ "next_by_subj": any, "seq": 1 })).await?;
    let last = get(bus, &serde_json::json!({ "last_by_subj": any })).await?;
    let (Some((first, _)), Some((last, _))) = (first, last) else { return Ok(()) };
    let mut messages = futures::stream::iter(first..=last)
        .map(|sequence| async move { get(bus, &serde_json::json!({ "seq": sequence })).await })
        .buffered(READ_AHEAD);
    while let Some(message) = messages.next().await {
        // A missing message expired while this was reading.
        if let Some((_, message)) = message? {
            take(message);
        }
    }
    Ok(())
}

/// One message of the stream and its sequence number.
async fn get(bus: &Bus, which: &serde_json::Value) -> Result<Option<(u64, Message)>, ReadError> {
    let subject = format!("$JS.API.DIRECT.GET.{AUDIT}");
    let reply = bus
        .client()
        .request(subject, which.to_string().into())
        .await
        .map_err(|error| ReadError(error.to_string()))?;
    if reply.status == Some(StatusCode::NOT_FOUND) {
        return Ok(None);
    }
    let header =
        |name: &str| reply.headers.as_ref().and_then(|headers| headers.get(name)).map(HeaderValue::as_str);
    let (Some(subject), Some(sequence)) =
        (header("Nats-Subject"), header("Nats-Sequence").and_then(|text| text.parse().ok()))
    else {
        return Err(ReadError(format!("an answer without its place in the stream ({:?})", reply.status)));
    };
    let speaker = match subject.parse() {
        Ok(Address::Audit(speaker)) => speaker.to_string(),
        _ => subject.to_owned(),
    };
    Ok(Some((sequence, Message { speaker, records: reply.payload })))
}

#[derive(Debug)]
enum Entry {
    Event(Draft),
    Refused(Refused),
}

/// Returns the time in milliseconds since 1970.
type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The handle with which a process notes its decisions. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    entries: mpsc::Sender<Entry>,
    lost: Arc<AtomicU64>,
    now_ms: Now,
}

impl core::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// Notes an event. Never waits: when the queue is full, the event is counted as lost.
    pub fn note(&self, event: Event) {
        self.hand_in(Entry::Event(Draft::new((self.now_ms)(), event)));
    }

    /// Notes a refusal, or only counts it when there are many.
    pub fn refused(&self, refused: Refused) {
        self.hand_in(Entry::Refused(refused));
    }

    fn hand_in(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The task that writes and publishes a process's chain. Dropping it aborts it;
/// [`Recording::finish`] closes the chain in order.
#[derive(Debug)]
pub struct Recording {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Recording {
    /// Begins the chain of the process `instance`, which speaks as `speaker` and signs with `key`.
    /// `now_ms` returns the time in milliseconds since 1970.
    #[must_use]
    pub fn start(
        bus: &Bus,
        speaker: Speaker,
        instance: &str,
        key: SigningKey,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> (Self, Recorder) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let now_ms: Now = Arc::new(now_ms);
        let recorder = Recorder { entries: sender, lost: Arc::default(), now_ms: Arc::clone(&now_ms) };
        let writer = Writer {
            bus: bus.clone(),
            chain: Chain::begin(&speaker, instance, &key, now_ms(), None),
            refusals: Refusals::new(now_ms()),
            connection: bus.connection(),
            published: None,
            instance: instance.to_owned(),
            speaker,
            key,
            now_ms,
            entries: receiver,
            lost: Arc::clone(&recorder.lost),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(stop.clone()));
        (Self { task, stop }, recorder)
    }

    /// Closes the chain with the entries noted so far. Publishes it unless the broker takes longer
    /// than `patience`.
    pub async fn finish(mut self, patience: Duration) {
        self.stop.cancel();
        if timeout(patience, &mut self.task).await.is_err() {
            tracing::warn!("the end of the audit log was not published in time");
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A chain in memory: its records that are not yet published, and how many are not yet signed.
struct Chain {
    head: Position,
    unpublished: Vec<Record>,
    unsigned: u64,
    unsigned_since_ms: u64,
}

impl Chain {
    fn begin(
        speaker: &Speaker,
        instance: &str,
        key: &SigningKey,
        now_ms: u64,
        after: Option<Position>,
    ) -> Self {
        let mut id = [0; 16];
        if getrandom::fill(&mut id).is_err() {
            // The first record's time and instance still make the chain unique.
            tracing::error!("no randomness for the name of an audit chain");
        }
        let opened = Event::Opened {
            writer: speaker.to_string(),
            instance: Some(instance.to_owned()),
            key: key.verifying_key().to_bytes(),
            card: None,
            continues: after.map(|after| Continues { after }),
        };
        let first = Record::first(ChainId(id), Draft::new(now_ms, opened));
        Self { head: first.position(), unpublished: vec![first], unsigned: 1, unsigned_since_ms: now_ms }
    }

    fn append(&mut self, draft: Draft) {
        if self.unsigned == 0 {
            self.unsigned_since_ms = draft.at_ms;
        }
        let record = self.head.follow(draft);
        self.head = record.position();
        self.unpublished.push(record);
        self.unsigned += 1;
    }

    fn checkpoint_is_due(&self, now_ms: u64) -> bool {
        self.unsigned >= CHECKPOINT_AFTER_RECORDS
            || (self.unsigned > 0 && now_ms.saturating_sub(self.unsigned_since_ms) >= CHECKPOINT_AFTER_MS)
    }

    fn sign(&mut self, key: &SigningKey, now_ms: u64) {
        let checkpoint = self.head.sign(key);
        self.append(Draft::new(now_ms, checkpoint));
        // The checkpoint itself needs none.
        self.unsigned = 0;
    }
}

struct Writer {
    bus: Bus,
    /// The connection over which the chain was begun, or went on without a record before it.
    connection: Option<u64>,
    /// The last record of the chain that was published.
    published: Option<Position>,
    speaker: Speaker,
    instance: String,
    key: SigningKey,
    now_ms: Now,
    entries: mpsc::Receiver<Entry>,
    lost: Arc<AtomicU64>,
    refusals: Refusals,
    chain: Chain,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(PUBLISH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complained = false;
        loop {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            self.collect(is_last);
            match self.publish().await {
                Ok(()) if complained => {
                    tracing::info!("the audit log is published again");
                    complained = false;
                }
                Ok(()) => {}
                Err(error) if !complained => {
                    tracing::warn!(%error, "the audit log cannot be published now");
                    complained = true;
                }
                Err(error) => tracing::debug!(%error, "the audit log cannot be published yet"),
            }
            if is_last {
                return;
            }
        }
    }

    /// Gives the waiting entries their place in the chain.
    fn collect(&mut self, is_last: bool) {
        let now_ms = (self.now_ms)();
        while self.chain.unpublished.len() < MAX_UNPUBLISHED {
            let Ok(entry) = self.entries.try_recv() else { break };
            match entry {
                Entry::Event(draft) => self.chain.append(draft),
                Entry::Refused(refused) => {
                    if let Some(event) = self.refusals.take(refused) {
                        self.chain.append(Draft::new(now_ms, event));
                    }
                }
            }
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.bus.counted_audit().lost(lost);
            self.chain.append(Draft::new(now_ms, Event::Lost { entries: lost }));
        }
        if let Some(event) = self.refusals.window(now_ms, is_last) {
            self.chain.append(Draft::new(now_ms, event));
        }
        if is_last {
            self.chain.append(Draft::new(now_ms, Event::Closed));
        }
        if is_last || self.chain.checkpoint_is_due(now_ms) {
            self.chain.sign(&self.key, now_ms);
        }
    }

    /// Begins another chain with what is not published, unless nothing of this one is.
    fn begin_anew(&mut self) {
        let Some(after) = self.published.take() else { return };
        let unpublished = core::mem::take(&mut self.chain.unpublished);
        let now_ms = (self.now_ms)();
        self.chain = Chain::begin(&self.speaker, &self.instance, &self.key, now_ms, Some(after));
        for record in unpublished {
            match serde_json::from_slice(&record.body) {
                // It covers the chain before.
                Ok(Body { event: Event::Checkpoint { .. }, .. }) => {}
                Ok(Body { at_ms, event }) => self.chain.append(Draft::new(at_ms, event)),
                Err(error) => tracing::error!(%error, "an audit record of this process does not parse"),
            }
        }
        if self.entries.is_closed() {
            self.chain.sign(&self.key, now_ms);
        }
    }

    async fn publish(&mut self) -> Result<(), PublishError> {
        while !self.chain.unpublished.is_empty() {
            // The client would keep a message and send it over the next connection.
            let Some(connection) = self.bus.connection() else { return Err(PublishError::Unreachable) };
            if self.connection.replace(connection) != Some(connection) {
                self.begin_anew();
            }
            let count = self.chain.unpublished.len().min(RECORDS_PER_MESSAGE);
            let records = self.chain.unpublished.get(..count).unwrap_or_default();
            let published = publish(&self.bus, &self.speaker, records, PUBLISH_DEADLINE).await?;
            let last = self.chain.unpublished.drain(..published).next_back();
            self.published = last.map(|record| record.position()).or(self.published);
        }
        Ok(())
    }
}

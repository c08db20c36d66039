//! The party's audit log: records outside a signature's path, and publication.
//!
//! A store records its own decisions, in the transaction of the decision
//! ([`AuditStore::noting`](crate::store::AuditStore::noting)). Other events, such as a refusal or
//! the end of a session, go into a bounded queue here. A task appends them in batches.
//!
//! The same task signs checkpoints, publishes new records in order, and removes records that were
//! published long ago. It continues where the last worker stopped. Any worker of the party may
//! publish. Of a record that two of them publish, the stream keeps one, or the reader skips the
//! second.
//!
//! On each new connection the task asks the broker for the head of the party's chain. If that is
//! behind what was published, the broker was put back to an earlier copy of its store, or lost it.
//! The task then publishes again what the store still has of the records since.

mod chain;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use duet_bus::{
    Bus, Speaker,
    audit::{CHECKPOINT_AFTER_MS, CHECKPOINT_AFTER_RECORDS, RECORDS_PER_MESSAGE, publish, read_head},
};
use duet_protocol::ids::PaillierKeyId;
use duet_wire::{
    Code,
    audit::{Asked, Body, Draft, Event, Exchange, Position, Refusals, Refused},
};
use rand_core::Rng as _;
use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::chain::open;
use crate::{
    clock::Clock,
    compute::system_rng,
    context::Context,
    identity::Identity,
    metrics::Metrics,
    session::{Accepted, Ended, Engine, Role, Trace},
    store::{AuditChain, StoreError},
    witness::Telling,
};

/// The most entries that wait to be appended. A session waits for room in the queue, and sessions
/// are bounded. A refusal without room is only counted.
const QUEUE: usize = 1024;
/// The most records appended in one transaction. No other write runs during it.
const BATCH: usize = 256;
/// How long an entry may wait. Each append costs the disk one flush, for any number of entries.
const APPEND_EVERY: Duration = Duration::from_millis(500);
/// How often the task looks for something to publish or sign.
const SHIP_EVERY: Duration = Duration::from_secs(1);
/// The longest pause after the broker failed to store a message.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the broker may take to store a message.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);
/// How often the task removes records that were published long ago.
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// At the end of the worker, how long appending and publishing the last entries may take.
const FINISH: Duration = Duration::from_secs(5);
/// How many records before the broker's head are published again. The head may be a few records
/// ahead of the stream: it is of the moment after they were published.
const BEFORE_HEAD: u64 = 4096;
/// How long the broker may take to tell the head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// When the head is asked for again that seemed behind: another worker may be about to publish it.
const HEAD_PAUSE: Duration = Duration::from_secs(2);

/// Settings of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// How long the store keeps a record after its publication. Default 30 days. An unpublished
    /// record stays.
    pub keep: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

impl<E: Engine> Accepted<E> {
    fn asked(&self) -> Asked {
        Asked::by(&self.manifest.request, &self.request)
    }

    /// The party takes its seat in the session.
    pub(crate) fn taken(&self) -> Event {
        Event::SessionAccepted {
            session: self.manifest.session,
            attempt: self.manifest.attempt,
            asked: self.asked(),
            role: match self.role {
                Role::Initiator { .. } => duet_wire::audit::Role::Initiator,
                Role::Responder { .. } => duet_wire::audit::Role::Responder,
            },
            peer: self.peer().party.clone(),
            payload: self.request.payload.kind(),
            digest: self.digest,
            rule: self.ruling.rule.clone(),
        }
    }

    /// The session is charged, and this answer leaves the party.
    pub(crate) fn charged(&self, trace: Trace) -> Event {
        Event::SessionCharged(self.exchange(trace))
    }

    fn exchange(&self, Trace { nonce, answer }: Trace) -> Exchange {
        Exchange { session: self.manifest.session, asked: self.asked(), digest: self.digest, nonce, answer }
    }

    /// The party's key is locked: the answer led to a bad signature.
    pub(crate) fn locked(&self, paillier_key: PaillierKeyId) -> Event {
        Event::KeyLocked {
            paillier_key,
            session: self.manifest.session,
            asked: self.asked(),
            culprit: self.peer().party.clone(),
        }
    }

    /// The end of the session. `None` if it is recorded already, or must not be recorded.
    fn ended(&self, ended: &Ended) -> Option<Event> {
        let session = self.manifest.session;
        match ended {
            Ended::Signed { trace, .. } => Some(Event::SessionSigned(self.exchange(*trace))),
            Ended::Failed { culprit, refusal } => Some(Event::SessionFailed {
                session,
                asked: self.asked(),
                code: refusal.code,
                culprit: culprit.clone(),
                message: refusal.message.clone(),
            }),
            Ended::Released => Some(Event::SessionFailed {
                session,
                asked: self.asked(),
                code: Code::NoPairAvailable,
                culprit: None,
                message: "the orchestrator took the seat back: the session does not go on".to_owned(),
            }),
            Ended::Answered | Ended::Silent => None,
        }
    }
}

#[derive(Debug)]
enum Entry {
    Event(Draft),
    Refused(Refused),
}

/// Accepts entries that no decision of the store records. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    entries: mpsc::Sender<Entry>,
    overflow: Arc<Overflow>,
    clock: Clock,
    metrics: Metrics,
}

/// Counts refusals that found no room in the queue.
#[derive(Debug, Default)]
struct Overflow(Mutex<BTreeMap<Code, u64>>);

impl Overflow {
    fn count(&self, code: Code) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    fn take(&self) -> BTreeMap<Code, u64> {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal {
    /// Records the end of a session. Waits for room in the queue.
    pub(crate) async fn ended(&self, accepted: &Accepted, ended: &Ended) {
        if let Some(event) = accepted.ended(ended) {
            // This fails only after the worker has stopped.
            self.entries.send(Entry::Event(Draft::new(self.clock.now_ms(), event))).await.ok();
        }
    }

    /// Records a refusal. Without room in the queue, counts it.
    pub(crate) fn refused(&self, refused: Refused) {
        let code = refused.refusal.code;
        self.metrics.refused(refused.what, code);
        if self.entries.try_send(Entry::Refused(refused)).is_err() {
            self.overflow.count(code);
        }
    }
}

/// The tasks that append, sign, publish and remove records.
#[derive(Debug)]
pub(crate) struct Keeper {
    appending: JoinHandle<()>,
    shipping: JoinHandle<()>,
    stop_appending: CancellationToken,
    stop_shipping: CancellationToken,
    shipper: Shipper,
}

impl Keeper {
    /// Starts the tasks. They append `started` first, as soon as the store can be written. A worker
    /// with an unwritable store starts all the same, and answers requests with the reason.
    pub(crate) fn start(
        context: &Context,
        identity: &Identity,
        bus: &Bus,
        settings: AuditSettings,
        started: Draft,
    ) -> (Self, Journal) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let journal = Journal {
            entries: sender,
            overflow: Arc::default(),
            clock: context.clock.clone(),
            metrics: context.metrics.clone(),
        };
        let appender = Appender {
            context: context.clone(),
            entries: receiver,
            overflow: Arc::clone(&journal.overflow),
            refusals: Refusals::new(context.clock.now_ms()),
            pending: vec![started],
        };
        let shipper = Shipper {
            context: context.clone(),
            identity: identity.clone(),
            bus: bus.clone(),
            settings,
            telling: Telling::default(),
            connection: None,
        };
        let (stop_appending, stop_shipping) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Self {
            appending: tokio::spawn(appender.run(stop_appending.clone())),
            shipping: tokio::spawn(shipper.clone().run(stop_shipping.clone())),
            stop_appending,
            stop_shipping,
            shipper,
        };
        (keeper, journal)
    }

    /// Appends the queued entries, then `last` and a checkpoint. Publishes what the broker accepts
    /// now.
    pub(crate) async fn finish(mut self, last: Event) {
        let finishing = async {
            self.stop_appending.cancel();
            if (&mut self.appending).await.is_err() {
                tracing::error!("the audit log's task failed");
            }
            self.stop_shipping.cancel();
            (&mut self.shipping).await.ok();
            let context = &self.shipper.context;
            let last = Draft::new(context.clock.now_ms(), last);
            context.store().append_audit(&[last]).await.map_err(|error| error.to_string())?;
            self.shipper.sign_checkpoint().await.map_err(|error| error.to_string())?;
            self.shipper.publish().await
        };
        match timeout(FINISH, finishing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error, "the next worker publishes the end of the audit log"),
            Err(_) => tracing::warn!("the next worker publishes the end of the audit log"),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.appending.abort();
        self.shipping.abort();
    }
}

struct Appender {
    context: Context,
    entries: mpsc::Receiver<Entry>,
    overflow: Arc<Overflow>,
    refusals: Refusals,
    /// Entries that could not be appended yet: at most [`BATCH`], and one that counts refusals.
    pending: Vec<Draft>,
}

impl Appender {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(APPEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.entries.close();
                    true
                }
                _ = ticks.tick() => false,
            };
            let is_last = self.collect() && stopping;
            self.append(stopping).await;
            if is_last {
                return;
            }
        }
    }

    /// Moves queued entries to `pending`, up to one transaction's worth. Returns whether the queue
    /// is empty.
    fn collect(&mut self) -> bool {
        let is_all = loop {
            if self.pending.len() >= BATCH {
                break false;
            }
            match self.entries.try_recv() {
                Ok(Entry::Event(draft)) => self.pending.push(draft),
                Ok(Entry::Refused(refused)) => {
                    if let Some(event) = self.refusals.take(refused) {
                        self.push(event);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break true,
            }
        };
        for (code, refusals) in self.overflow.take() {
            self.refusals.count(code, refusals);
        }
        let is_closed = is_all && self.entries.is_closed();
        if let Some(event) = self.refusals.window(self.context.clock.now_ms(), is_closed) {
            self.push(event);
        }
        is_all
    }

    fn push(&mut self, event: Event) {
        self.pending.push(Draft::new(self.context.clock.now_ms(), event));
    }

    async fn append(&mut self, stopping: bool) {
        if self.pending.is_empty() {
            return;
        }
        match self.context.store().append_audit(&self.pending).await {
            Ok(()) => self.pending.clear(),
            Err(error) if stopping => {
                let entries = self.pending.len();
                tracing::error!(%error, entries, "audit entries are lost with this process");
                self.pending.clear();
            }
            Err(error) => tracing::warn!(%error, "audit entries wait for the store"),
        }
    }
}

#[derive(Debug, Clone)]
struct Shipper {
    context: Context,
    identity: Identity,
    bus: Bus,
    settings: AuditSettings,
    telling: Telling,
    /// The connection over which the stream was last compared with the store.
    connection: Option<u64>,
}

impl Shipper {
    async fn run(mut self, stop: CancellationToken) {
        let mut pause = SHIP_EVERY;
        let mut trim_at = Instant::now() + TRIM_EVERY;
        loop {
            // Workers that start together must not stay in step.
            let jitter = f64::from(system_rng().next_u32()) / f64::from(u32::MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.context.witness.until_locked() => {}
                () = sleep(pause.mul_f64(0.75 + jitter / 2.0)) => {}
            }
            match self.round().await {
                Ok(()) if pause > SHIP_EVERY => {
                    tracing::info!("the audit log is published again");
                    pause = SHIP_EVERY;
                }
                Ok(()) => {}
                Err(error) => {
                    if pause == SHIP_EVERY {
                        tracing::warn!(
                            error,
                            "the audit log is not published now; it stays in the share store"
                        );
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if Instant::now() >= trim_at {
                self.trim().await;
                trim_at = Instant::now() + TRIM_EVERY;
            }
        }
    }

    /// Begins a chain if the newest one was closed, signs a checkpoint if one is due, and
    /// publishes.
    async fn round(&mut self) -> Result<(), String> {
        // A database may turn out to be a restored one at any time, which closes the chain.
        open(&self.context, &self.identity).await.map_err(|error| error.to_string())?;
        if self.checkpoint_is_due().await.map_err(|error| error.to_string())? {
            self.sign_checkpoint().await.map_err(|error| error.to_string())?;
        }
        self.publish().await
    }

    /// Publishes new records and the chain's head. It waits until the store was compared with the
    /// heads that others keep. An older copy of the store must not overwrite those, nor publish a
    /// second history.
    async fn publish(&mut self) -> Result<(), String> {
        if self.context.witness.is_pending() {
            return Ok(());
        }
        self.compare().await?;
        self.ship().await?;
        self.telling.tell(&self.context, &self.identity, &self.bus).await
    }

    /// Finds out, once a connection, whether the broker still has what was published. If not, has
    /// it published again.
    async fn compare(&mut self) -> Result<(), String> {
        let connection = self.bus.connection().ok_or("there is no connection to the broker")?;
        if self.connection == Some(connection) {
            return Ok(());
        }
        if self.head_behind().await?.is_none() {
            self.connection = Some(connection);
            return Ok(());
        }
        sleep(HEAD_PAUSE).await;
        if let Some(head) = self.head_behind().await? {
            let from = head.map(|head| (head.chain, head.sequence.saturating_sub(BEFORE_HEAD)));
            let records = self.context.store().unship_audit(from).await.map_err(|error| error.to_string())?;
            tracing::warn!(
                records,
                "the broker's head of the audit log is behind what was published: the broker was put back to an earlier copy \
                 of its store, or lost it, or a worker crashed before it told the head; the records are published again"
            );
            self.telling = Telling::default();
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// The broker's head, or that it has none, if the head is behind what was published.
    async fn head_behind(&self) -> Result<Option<Option<Position>>, String> {
        // What was published first: the head follows it.
        let chains = self.context.store().audit_chains().await.map_err(|error| error.to_string())?;
        let own = self.identity.party();
        let head = read_head(&self.bus, own, HEAD_DEADLINE).await.map_err(|error| error.to_string())?;
        let head =
            head.and_then(|signed| signed.verify(self.identity.card.identity().as_bytes()).ok().cloned());
        let position = head.map(|head| head.position);
        let place = position.and_then(|head| chains.iter().position(|chain| chain.head.chain == head.chain));
        let is_behind = match (position, place) {
            (Some(head), Some(place)) => {
                let (of_head, later) = (chains.get(place), chains.get(place + 1..).unwrap_or_default());
                of_head.is_some_and(|chain| head.sequence < chain.shipped)
                    || later.iter().any(|chain| chain.shipped > 0)
            }
            // A chain that the store does not know: this store is the older copy.
            (Some(_), None) => false,
            (None, _) => chains.iter().any(|chain| chain.shipped > 0),
        };
        Ok(is_behind.then_some(position))
    }

    /// Whether many records, or old ones, have no checkpoint yet.
    async fn checkpoint_is_due(&self) -> Result<bool, StoreError> {
        let store = self.context.store();
        let Some(AuditChain { head, closed: false, .. }) = store.audit_chains().await?.pop() else {
            return Ok(false);
        };
        let window = u32::try_from(CHECKPOINT_AFTER_RECORDS).unwrap_or(u32::MAX);
        let from = head.sequence.saturating_sub(CHECKPOINT_AFTER_RECORDS);
        let now_ms = self.context.clock.now_ms();
        for record in store.audit_records(head.chain, from, window).await?.iter().rev() {
            match serde_json::from_slice(&record.body) {
                Ok(Body { event: Event::Checkpoint { .. }, .. }) => return Ok(false),
                Ok(Body { at_ms, .. }) if now_ms.saturating_sub(at_ms) >= CHECKPOINT_AFTER_MS => {
                    return Ok(true);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(head.sequence >= CHECKPOINT_AFTER_RECORDS)
    }

    /// Signs a checkpoint over all records so far.
    async fn sign_checkpoint(&self) -> Result<(), StoreError> {
        let store = self.context.store();
        let Some(AuditChain { head, closed: false, .. }) = store.audit_chains().await?.pop() else {
            return Ok(());
        };
        let checkpoint = head.sign(&*self.identity.keys);
        store.append_audit(&[Draft::new(self.context.clock.now_ms(), checkpoint)]).await
    }

    /// Publishes all unpublished records, oldest first.
    async fn ship(&self) -> Result<(), String> {
        let store = self.context.store();
        let speaker = Speaker::from(self.identity.party());
        let batch = u32::try_from(RECORDS_PER_MESSAGE).unwrap_or(u32::MAX);
        for chain in store.audit_chains().await.map_err(|error| error.to_string())? {
            let (id, mut shipped) = (chain.head.chain, chain.shipped);
            while shipped < chain.head.sequence {
                // The client would keep a message and send it over the next connection, perhaps
                // behind records that the broker has lost.
                if self.bus.connection() != self.connection {
                    return Err("the connection to the broker broke".to_owned());
                }
                let records =
                    store.audit_records(id, shipped, batch).await.map_err(|error| error.to_string())?;
                let published = publish(&self.bus, &speaker, &records, PUBLISH_DEADLINE)
                    .await
                    .map_err(|error| error.to_string())?;
                let Some(last) = records.get(..published).and_then(<[_]>::last) else { break };
                shipped = last.sequence;
                store.audit_shipped(id, shipped).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    async fn trim(&self) {
        let keep_ms = u64::try_from(self.settings.keep.as_millis()).unwrap_or(u64::MAX);
        let before_ms = self.context.clock.now_ms().saturating_sub(keep_ms);
        match self.context.store().trim_audit(before_ms).await {
            Ok(0) => {}
            Ok(records) => tracing::debug!(records, "removed audit records that were published long ago"),
            Err(error) => tracing::warn!(%error, "old audit records were not removed"),
        }
    }
}

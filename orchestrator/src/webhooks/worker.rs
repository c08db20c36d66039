//! Takes results from the broker and delivers them. Every orchestrator runs one worker per endpoint
//! and source. A delivery that fails goes to the endpoint's [`Retrier`].

use core::time::Duration;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_nats::jetstream::{Message, consumer::PullConsumer};
use duet_bus::{
    kv::{self, Key, Pattern},
    streams::StorageError,
};
use duet_wire::{JobId, SignedResult, webhook::EndpointId};
use futures::StreamExt as _;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    endpoint::{ACK_GRACE, Endpoint, Source},
    log,
    retrier::Retrier,
    retries::Retry,
    schedule,
};
use crate::{
    clock::whole_millis,
    metrics::Waiting,
    orchestrator::{Orchestrator, jitter},
    work::{acknowledge, again},
};

/// How long one request for results stays open at the broker.
const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// How long after that the client waits for the request's end before it gives up.
const PULL_GRACE: Duration = Duration::from_secs(5);

/// How often the number of waiting results is read.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The pause before a watch that ended, or a pull that failed, is begun anew.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause after the broker failed.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How often entries of removed endpoints are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Keeps a worker for every source of every endpoint, and a retrier for each, until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let retries = Arc::clone(&orchestrator.retries);
    let mut losses = orchestrator.stores.changes();
    let following = async {
        loop {
            tokio::select! {
                () = retries.follow() => {}
                // The copy is of a bucket that is gone.
                Ok(()) = losses.changed() => {}
            }
            sleep(PAUSE).await;
        }
    };
    let sweeping = async {
        loop {
            sleep(SWEEP_EVERY).await;
            retries.remove_orphans().await;
        }
    };
    let mut tasks = EndpointTasks { orchestrator, stop: stop.clone(), all: HashMap::new() };
    let keeping = async {
        loop {
            tasks.follow().await;
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = keeping => {}
        () = following => {}
        () = sweeping => {}
    }
    tasks.end().await;
}

/// The workers of one orchestrator.
struct EndpointTasks {
    orchestrator: Arc<Orchestrator>,
    stop: CancellationToken,
    all: HashMap<(EndpointId, Part), EndpointTask>,
}

/// What a task delivers to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    From(Source),
    Retries,
}

struct EndpointTask {
    endpoint: watch::Sender<Arc<Endpoint>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl EndpointTasks {
    /// Follows the endpoints' entries until the watch ends.
    async fn follow(&mut self) {
        let mut watcher = match self.orchestrator.webhooks.bucket().watch(&Pattern::everything()).await {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::debug!(%error, "the webhooks cannot be watched now");
                return;
            }
        };
        while let Some(change) = watcher.next().await {
            match change {
                Ok(kv::Change { value: Some(endpoint), .. }) => self.keep(endpoint),
                Ok(kv::Change { key, value: None, .. }) => {
                    if let Some(id) = endpoint_of(&key) {
                        // Deliveries under way may still store that they wait.
                        let patience = self.orchestrator.deliverer.settings().timeout + ACK_GRACE * 2;
                        self.orchestrator.retries.endpoint_removed(id, patience);
                        self.all.retain(|(endpoint, _), task| *endpoint != id || task.stop());
                    }
                }
                Err(error @ kv::ReadError::Newer { .. }) => {
                    tracing::warn!(%error, "a webhook is left to the release that wrote it");
                }
                Err(kv::ReadError::Malformed { .. }) => {
                    tracing::error!("a webhook's entry was not written by this version; passed over");
                }
                Err(error) => {
                    tracing::debug!(%error, "the watch over webhooks is begun anew");
                    return;
                }
            }
        }
    }

    /// Keeps a worker for each source of an endpoint, and its retrier; ends its others.
    fn keep(&mut self, endpoint: Endpoint) {
        let endpoint = Arc::new(endpoint);
        let mut parts: HashSet<Part> = endpoint.sources().into_iter().map(Part::From).collect();
        if endpoint.disabled.is_none() {
            parts.insert(Part::Retries);
        }
        self.all.retain(|(id, part), task| {
            *id != endpoint.id || (parts.contains(part) && !task.task.is_finished()) || task.stop()
        });
        for part in parts {
            self.all
                .entry((endpoint.id, part))
                .or_insert_with(|| {
                    let (sender, receiver) = watch::channel(Arc::clone(&endpoint));
                    let (stop, orchestrator) = (self.stop.child_token(), Arc::clone(&self.orchestrator));
                    let task = match part {
                        Part::From(source) => {
                            let worker = Worker { orchestrator, endpoint: receiver, source };
                            tokio::spawn(Arc::new(worker).run(stop.clone()))
                        }
                        Part::Retries => {
                            tokio::spawn(Arc::new(Retrier::new(orchestrator, receiver)).run(stop.clone()))
                        }
                    };
                    EndpointTask { endpoint: sender, stop, task }
                })
                .endpoint
                .send_replace(Arc::clone(&endpoint));
        }
    }

    /// Waits for deliveries under way; each has a deadline of its own.
    async fn end(self) {
        let patience = self.orchestrator.deliverer.settings().timeout + PAUSE;
        let all = self.all.into_values().map(|task| task.task);
        if timeout(patience, futures::future::join_all(all)).await.is_err() {
            tracing::warn!("deliveries were under way at the end; other orchestrators repeat them");
        }
    }
}

impl EndpointTask {
    /// Ends the worker. Returns false, so that `retain` removes it.
    fn stop(&self) -> bool {
        self.stop.cancel();
        false
    }
}

fn endpoint_of(key: &Key) -> Option<EndpointId> {
    key.as_str().split_once('.')?.1.parse().ok()
}

/// How many results of one source wait. Read now and then.
struct Backlog {
    waiting: Waiting,
    look_at: Instant,
}

impl Backlog {
    /// Failures are not retried before the next look: only metrics use the number.
    async fn look(&mut self, consumer: &mut PullConsumer) {
        if Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        if let Ok(info) = consumer.info().await {
            let unacknowledged = info.num_ack_pending.try_into().unwrap_or(u64::MAX);
            self.waiting.are(info.num_pending.saturating_add(unacknowledged));
        }
    }
}

/// Delivers from one source to one endpoint.
struct Worker {
    orchestrator: Arc<Orchestrator>,
    endpoint: watch::Receiver<Arc<Endpoint>>,
    source: Source,
}

#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Cursor(#[from] StorageError),
    #[error("the broker does not deliver: {0}")]
    Broker(String),
}

impl Worker {
    fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(&self.endpoint.borrow())
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let settings = self.orchestrator.deliverer.settings();
        let room = Arc::new(Semaphore::new(settings.max_under_way.into()));
        let mut tasks = JoinSet::new();
        let mut consumer: Option<PullConsumer> = None;
        let mut failures = 0_u32;
        let mut backlog = Backlog { waiting: self.orchestrator.metrics.waiting(), look_at: Instant::now() };
        loop {
            while matches!(self.source, Source::Replay(_)) && self.waits() && !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.recovery() => {}
                }
            }
            let pulled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                pulled = self.pull(&mut consumer, &mut backlog, &room, &mut tasks) => pulled,
            };
            while tasks.try_join_next().is_some() {}
            match pulled {
                Ok(0) if self.is_over(&mut consumer).await => break,
                Ok(_) => failures = 0,
                Err(error) => {
                    consumer = None;
                    if failures == 0 {
                        tracing::warn!(endpoint = %self.endpoint().id, %error, "results cannot be pulled; trying again");
                    }
                    failures = failures.saturating_add(1);
                    let pause = PAUSE.saturating_mul(1 << failures.min(6)).min(MAX_PAUSE);
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(pause.mul_f64(0.5 + jitter() / 2.0)) => {}
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Whether the endpoint fails, and deliveries wait that it can be probed with.
    fn waits(&self) -> bool {
        let endpoint = self.endpoint();
        endpoint.is_failing() && self.orchestrator.retries.waiting(endpoint.id) > 0
    }

    /// Waits until the endpoint may have recovered. A replay stays in the stream that long, because
    /// it could exceed the number of deliveries that may wait.
    async fn recovery(&self) {
        let mut endpoint = self.endpoint.clone();
        let recovered = endpoint.wait_for(|endpoint| !endpoint.is_failing());
        timeout(LOOK_EVERY, recovered).await.ok();
    }

    /// Requests as many results as there is room for. Returns how many arrived.
    async fn pull(
        self: &Arc<Self>,
        consumer: &mut Option<PullConsumer>,
        backlog: &mut Backlog,
        room: &Arc<Semaphore>,
        tasks: &mut JoinSet<()>,
    ) -> Result<usize, PullError> {
        let broker = |error: &dyn core::fmt::Display| PullError::Broker(error.to_string());
        let first = Arc::clone(room).acquire_owned().await.map_err(|error| broker(&error))?;
        let mut permits = vec![first];
        while let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            permits.push(permit);
        }
        let consumer = match consumer {
            Some(consumer) => consumer,
            None => {
                let settings = self.orchestrator.deliverer.settings();
                let Some(cursor) = self.endpoint().cursor(self.source, settings) else { return Ok(0) };
                let opened =
                    self.orchestrator.bus.results_cursor(&cursor, &self.orchestrator.storage).await?;
                consumer.insert(opened)
            }
        };
        backlog.look(consumer).await;
        let mut batch = consumer
            .batch()
            .max_messages(permits.len())
            .expires(PULL_EXPIRES)
            .messages()
            .await
            .map_err(|error| broker(&error))?;
        let mut came = 0;
        let deliver = async {
            while let Some(message) = batch.next().await {
                let message = message.map_err(|error| broker(&error))?;
                let Some(permit) = permits.pop() else {
                    return Err(PullError::Broker("more messages than were asked for".to_owned()));
                };
                came += 1;
                let worker = Arc::clone(self);
                tasks.spawn(async move {
                    worker.handle(&message).await;
                    drop(permit);
                });
            }
            Ok(())
        };
        timeout(PULL_EXPIRES + PULL_GRACE, deliver)
            .await
            .unwrap_or_else(|_| Err(PullError::Broker("no end of a pull in time".to_owned())))?;
        Ok(came)
    }

    /// Whether this is a finished replay. Removes the cursor of one.
    async fn is_over(&self, consumer: &mut Option<PullConsumer>) -> bool {
        let Source::Replay(number) = self.source else { return false };
        let endpoint = self.endpoint();
        if endpoint.replay(number).is_some() {
            let Some(consumer) = consumer else { return false };
            match consumer.info().await {
                Ok(info) if info.num_pending == 0 && info.num_ack_pending == 0 => {}
                _ => return false,
            }
            let key = endpoint.key();
            let ended = self.orchestrator.webhooks.change(&key, |endpoint| {
                let before = endpoint.replays.len();
                endpoint.replays.retain(|replay| replay.number != number);
                Ok(endpoint.replays.len() < before)
            });
            if let Err(refusal) = ended.await {
                tracing::debug!(endpoint = %endpoint.id, %refusal, "a replay's end was not noted");
                return false;
            }
        }
        if let Err(error) = self.orchestrator.bus.remove_cursor(&endpoint.cursor_name(self.source)).await {
            tracing::debug!(endpoint = %endpoint.id, %error, "the cursor of a replay is left behind");
        }
        true
    }

    /// Delivers one result once, unless the endpoint fails. What was not delivered is stored to be
    /// retried. Either way the result is then acknowledged.
    async fn handle(&self, message: &Message) {
        let endpoint = self.endpoint();
        let Some(job) = job_of(&message.payload) else {
            tracing::error!(subject = %message.subject, "a stored result does not parse; it is not delivered");
            acknowledge(message).await;
            return;
        };
        let Ok((sequence, stored_at_ms)) = message.info().map(|info| {
            let nanoseconds = info.published.unix_timestamp_nanos();
            (info.stream_sequence, u64::try_from(nanoseconds / 1_000_000).unwrap_or(0))
        }) else {
            tracing::error!(subject = %message.subject, "a result arrived without its place in the stream");
            return;
        };
        if let Source::Replay(number) = self.source
            && endpoint.replay(number).is_none_or(|replay| stored_at_ms > replay.until_ms)
        {
            acknowledge(message).await;
            return;
        }
        let now = self.orchestrator.clock.now_ms();
        let is_replay = matches!(self.source, Source::Replay(_));
        let retry =
            Retry { sequence, attempts: 0, due_ms: now, tried_at_ms: 0, claimed_until_ms: 0, is_replay };
        if endpoint.is_failing() {
            self.set_aside(&endpoint, job, retry, message).await;
            return;
        }
        let orchestrator = &self.orchestrator;
        let settings = orchestrator.deliverer.settings();
        let id = job.to_string();
        let attempt =
            orchestrator.deliverer.attempt(&endpoint, &id, message.payload.clone(), settings.timeout).await;
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(refusal) => {
                tracing::error!(endpoint = %endpoint.id, %refusal, "a delivery cannot be signed");
                again(message, MAX_PAUSE).await;
                return;
            }
        };
        let noted = orchestrator.note_attempt(&endpoint, &attempt, false).await;
        let now = self.orchestrator.clock.now_ms();
        let retry = attempt.error.as_ref().and_then(|_| {
            let pause = schedule::pause_after(1, settings, attempt.retry_after, jitter())?;
            Some(Retry {
                attempts: 1,
                due_ms: now.saturating_add(whole_millis(pause)),
                tried_at_ms: now,
                ..retry
            })
        });
        let probe_at_ms = noted.filter(|noted| noted.is_failing()).map(|noted| noted.next_probe_ms());
        let next_ms = retry.map(|retry| retry.due_ms.max(probe_at_ms.unwrap_or_default()));
        let delivery = attempt.into_delivery(&id, 1, next_ms);
        // A replayed result's lag means nothing: it was published long ago.
        orchestrator.metrics.delivery(&delivery, (!is_replay).then_some(stored_at_ms));
        tracing::debug!(endpoint = %endpoint.id, %job, ?delivery, "delivery");
        match retry {
            Some(retry) => self.set_aside(&endpoint, job, retry, message).await,
            None => acknowledge(message).await,
        }
        log::write(&orchestrator.bus, endpoint.id, &delivery).await;
    }

    /// Stores that a result waits, and acknowledges it. At the bound the endpoint is disabled, and
    /// the result rests at the broker until the endpoint is enabled.
    async fn set_aside(&self, endpoint: &Endpoint, job: JobId, retry: Retry, message: &Message) {
        let orchestrator = &self.orchestrator;
        if orchestrator.retries.is_full(endpoint.id, job, orchestrator.deliverer.settings().max_retries) {
            orchestrator.disable_full(endpoint).await;
            again(message, MAX_PAUSE).await;
            return;
        }
        match orchestrator.retries.put(endpoint.id, job, retry).await {
            Ok(()) => acknowledge(message).await,
            Err(error) => {
                tracing::warn!(endpoint = %endpoint.id, %job, error, "a delivery to retry was not stored; it rests at the broker");
                again(message, MAX_PAUSE).await;
            }
        }
    }
}

/// The job whose result this is.
pub(super) fn job_of(payload: &[u8]) -> Option<JobId> {
    let signed: SignedResult = serde_json::from_slice(payload).ok()?;
    Some(signed.parse_unverified().ok()?.job)
}

//! Answering requests: one subscription, a bounded number of handlers, a clean drain.

use core::{fmt, future::Future, time::Duration};
use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::{
    connect::Bus,
    request::{MAX_MESSAGE_SIZE_BYTES, PublishError},
    role::is_inbox,
    subjects::{Address, Filter},
    subscription::{SubscribeError, Subscription},
};

/// A message that arrived.
#[derive(Debug)]
pub struct Incoming {
    /// Where.
    pub address: Address,
    /// Its bytes, at most [`MAX_MESSAGE_SIZE_BYTES`].
    pub payload: Bytes,
    reply: Option<async_nats::Subject>,
    bus: Bus,
}

impl Incoming {
    pub(crate) fn new(
        address: Address,
        payload: Bytes,
        reply: Option<async_nats::Subject>,
        bus: Bus,
    ) -> Self {
        let reply = reply.filter(|subject| {
            let fine = is_inbox(subject);
            if !fine {
                tracing::warn!(%address, reply = %subject, "a reply was asked for outside any inbox; ignored");
            }
            fine
        });
        Self { address, payload, reply, bus }
    }

    /// Whether the sender waits for a reply, at an inbox.
    #[must_use]
    pub const fn wants_reply(&self) -> bool {
        self.reply.is_some()
    }

    /// Replies. Does nothing when the sender named no inbox.
    ///
    /// # Security
    /// A reply goes to a role's private inbox or nowhere: the broker lets a requester name any
    /// subject, and this process may publish where the requester may not.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::Unreachable`].
    pub async fn respond(&self, payload: impl Into<Bytes>) -> Result<(), PublishError> {
        let Some(reply) = &self.reply else { return Ok(()) };
        let payload = payload.into();
        let size_bytes = payload.len();
        let subject = || self.address.to_string();
        if size_bytes > MAX_MESSAGE_SIZE_BYTES {
            return Err(PublishError::TooLarge { subject: subject(), size_bytes });
        }
        self.bus.client().publish(reply.clone(), payload).await.map_err(|error| match error.kind() {
            async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                PublishError::TooLarge { subject: subject(), size_bytes }
            }
            async_nats::client::PublishErrorKind::InvalidSubject
            | async_nats::client::PublishErrorKind::Send => PublishError::Unreachable,
        })
    }
}

/// What a service does when all its handlers are busy.
#[derive(Debug, Clone)]
pub enum WhenFull {
    /// Later messages wait in the subscription's buffer.
    Wait,
    /// It leaves its queue group until a handler is free, so that another member gets them; what
    /// was on its way already is answered with these bytes.
    Leave {
        /// The encoded refusal.
        refusal: Bytes,
    },
}

/// How a service works.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Handlers at a time, at least 1.
    pub concurrency: usize,
    /// What happens beyond that.
    pub when_full: WhenFull,
    /// How long the broker has to confirm a subscription.
    pub deadline: Duration,
}

impl ServeOptions {
    /// At most `concurrency` handlers; further messages wait.
    #[must_use]
    pub const fn waiting(concurrency: usize) -> Self {
        Self { concurrency, when_full: WhenFull::Wait, deadline: Duration::from_secs(5) }
    }

    /// At most `concurrency` handlers; the queue group is left when all are busy.
    #[must_use]
    pub const fn leaving(concurrency: usize, refusal: Bytes) -> Self {
        Self { concurrency, when_full: WhenFull::Leave { refusal }, deadline: Duration::from_secs(5) }
    }
}

/// A running service. Dropping it aborts its handlers; [`Service::drain`] lets them finish.
pub struct Service {
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
    abort: AbortHandle,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Takes no new messages, lets the handlers finish, and returns whether they did so within
    /// `deadline`; those that did not are aborted.
    pub async fn drain(mut self, deadline: Duration) -> bool {
        drop(self.stop.take());
        match self.task.take() {
            Some(task) => timeout(deadline, task).await.is_ok(),
            None => true,
        }
    }

    /// Returns when the service has ended by itself: the connection was closed for good.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&mut self) {
        if let Some(task) = &mut self.task {
            // A handler's panic is reported where it happened.
            task.await.ok();
            self.task = None;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Bus {
    /// Calls `handler` for each message that matches `filter`, at most `options.concurrency` at a
    /// time. When this returns, the subscription is registered at the server.
    ///
    /// # Errors
    /// As [`Bus::subscribe_registered`].
    pub async fn serve<H, F>(
        &self,
        filter: Filter,
        options: ServeOptions,
        handler: H,
    ) -> Result<Service, SubscribeError>
    where
        H: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let subscription = self.subscribe_registered(&filter, options.deadline).await?;
        let (stop, stopped) = oneshot::channel();
        let worker = Worker {
            bus: self.clone(),
            filter,
            permits: Arc::new(Semaphore::new(options.concurrency.max(1))),
            handlers: JoinSet::new(),
            options,
            handler,
        };
        let task = tokio::spawn(worker.run(subscription, stopped));
        let abort = task.abort_handle();
        Ok(Service { stop: Some(stop), task: Some(task), abort })
    }
}

struct Worker<H> {
    bus: Bus,
    filter: Filter,
    permits: Arc<Semaphore>,
    handlers: JoinSet<()>,
    options: ServeOptions,
    handler: H,
}

/// What the service's loop has come to.
enum Step {
    Go(OwnedSemaphorePermit),
    Stop,
}

impl<H, F> Worker<H>
where
    H: Fn(Incoming) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    async fn run(mut self, mut subscription: Subscription, mut stopped: oneshot::Receiver<()>) {
        loop {
            let Some(permit) = self.admit(&mut subscription, &mut stopped).await else { break };
            let message = tokio::select! {
                biased;
                _ = &mut stopped => break,
                message = subscription.next() => message,
            };
            let Some(message) = message else { break };
            self.start(message, permit);
        }
        subscription.drain().await;
        while let Some(message) = subscription.next().await {
            match &self.options.when_full {
                WhenFull::Leave { refusal } => {
                    message.respond(refusal.clone()).await.ok();
                }
                WhenFull::Wait => {
                    if let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
                        self.start(message, permit);
                    }
                }
            }
        }
        while self.handlers.join_next().await.is_some() {}
    }

    fn start(&mut self, message: Incoming, permit: OwnedSemaphorePermit) {
        let work = (self.handler)(message);
        self.handlers.spawn(async move {
            work.await;
            drop(permit);
        });
        // Finished handlers are collected here, so that the set stays as small as the permits.
        while self.handlers.try_join_next().is_some() {}
    }

    /// Waits for a free handler, outside the queue group if the options say so. `None` means stop.
    async fn admit(
        &mut self,
        subscription: &mut Subscription,
        stopped: &mut oneshot::Receiver<()>,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let WhenFull::Leave { refusal } = self.options.when_full.clone() else {
            return match wait(&self.permits, stopped).await {
                Step::Go(permit) => Some(permit),
                Step::Stop => None,
            };
        };
        subscription.drain().await;
        while let Some(message) = subscription.next().await {
            message.respond(refusal.clone()).await.ok();
        }
        let permit = match wait(&self.permits, stopped).await {
            Step::Go(permit) => permit,
            Step::Stop => return None,
        };
        match self.bus.subscribe(&self.filter).await {
            Ok(again) => {
                *subscription = again;
                Some(permit)
            }
            Err(error) => {
                tracing::warn!(%error, filter = self.filter.subject(), "cannot listen again");
                None
            }
        }
    }
}

async fn wait(permits: &Arc<Semaphore>, stopped: &mut oneshot::Receiver<()>) -> Step {
    tokio::select! {
        biased;
        _ = stopped => Step::Stop,
        permit = Arc::clone(permits).acquire_owned() => permit.map_or(Step::Stop, Step::Go),
    }
}

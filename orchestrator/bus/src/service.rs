//! Answering requests: one subscription, a bounded number of handlers, a clean drain.

use core::{fmt, future::Future, time::Duration};
use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet, time::timeout};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Later messages wait in the subscription's bounded buffer.
    Wait,
    /// It is out of its queue group until a handler is free, so that another member gets them, or
    /// the sender learns at once that nobody listens.
    ///
    /// Each free handler is one member of the group, and its subscription ends at the server with
    /// the first message: nothing is ever on its way to a worker that has no room for it, and a
    /// worker with more room is given more.
    Leave,
}

/// How a service works.
#[derive(Debug, Clone, Copy)]
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
    pub const fn leaving(concurrency: usize) -> Self {
        Self { concurrency, when_full: WhenFull::Leave, deadline: Duration::from_secs(5) }
    }
}

/// A running service. Dropping it aborts its handlers; [`Service::drain`] lets them finish.
pub struct Service {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Takes no new messages, lets the handlers finish, and returns whether they did so within
    /// `deadline`; those that did not are aborted.
    ///
    /// A message that the server was sending at this very moment is lost: its sender runs into its
    /// deadline, as it would had this process died.
    pub async fn drain(mut self, deadline: Duration) -> bool {
        self.stop.send_replace(true);
        timeout(deadline, self.ended()).await.is_ok()
    }

    /// Returns when the service has ended by itself: the connection was closed for good.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&mut self) {
        // A handler's panic is reported where it happened.
        while self.tasks.join_next().await.is_some() {}
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
        let handler = Arc::new(handler);
        let concurrency = options.concurrency.max(1);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        match options.when_full {
            WhenFull::Wait => {
                let subscription = self.subscribe(&filter).await?;
                tasks.spawn(serve_waiting(subscription, concurrency, handler, stopped));
            }
            WhenFull::Leave => {
                for _ in 0..concurrency {
                    let subscription = self.subscribe_once(&filter).await?;
                    let seat = Seat { bus: self.clone(), filter: filter.clone(), stopped: stopped.clone() };
                    tasks.spawn(seat.serve(subscription, Arc::clone(&handler)));
                }
            }
        }
        self.sync(options.deadline).await?;
        Ok(Service { stop, tasks })
    }
}

/// Returns once the service is to stop, or its owner is gone.
async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    stopped.wait_for(|stop| *stop).await.ok();
}

/// One subscription for all handlers; it is read only while a handler is free.
async fn serve_waiting<H, F>(
    mut subscription: Subscription,
    concurrency: usize,
    handler: Arc<H>,
    mut stopped: watch::Receiver<bool>,
) where
    H: Fn(Incoming) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut handlers = JoinSet::new();
    let mut draining = false;
    loop {
        if handlers.len() >= concurrency {
            tokio::select! {
                _ = handlers.join_next() => {}
                // Full or not, others get what comes from now on.
                () = until_stopped(&mut stopped), if !draining => {
                    draining = true;
                    subscription.drain().await;
                }
            }
            continue;
        }
        let message = tokio::select! {
            biased;
            () = until_stopped(&mut stopped), if !draining => {
                // What had arrived is still handled.
                draining = true;
                subscription.drain().await;
                continue;
            }
            Some(_) = handlers.join_next() => continue,
            message = subscription.next() => message,
        };
        let Some(message) = message else { break };
        handlers.spawn(handler(message));
    }
    while handlers.join_next().await.is_some() {}
}

/// One handler's place in the queue group.
struct Seat {
    bus: Bus,
    filter: Filter,
    stopped: watch::Receiver<bool>,
}

impl Seat {
    async fn serve<H, F>(mut self, mut subscription: Subscription, handler: Arc<H>)
    where
        H: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let message = tokio::select! {
                message = subscription.next() => message,
                () = until_stopped(&mut self.stopped) => {
                    subscription.drain().await;
                    if let Some(message) = subscription.next().await {
                        handle(&*handler, message).await;
                    }
                    return;
                }
            };
            if let Some(message) = message {
                handle(&*handler, message).await;
            }
            if *self.stopped.borrow() {
                return;
            }
            match self.bus.subscribe_once(&self.filter).await {
                Ok(again) => subscription = again,
                // Closed for good.
                Err(_) => return,
            }
        }
    }
}

/// Runs the handler as a task of its own, so that its panic does not take the seat with it.
async fn handle<H, F>(handler: &H, message: Incoming)
where
    H: Fn(Incoming) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn(handler(message));
    task.join_next().await;
}

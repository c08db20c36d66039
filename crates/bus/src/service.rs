//! Answers requests: one subscription, a bounded number of handlers, a clean drain.

use core::{fmt, future::Future, time::Duration};
use std::sync::Arc;

use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    connect::Bus,
    incoming::Incoming,
    subjects::Filter,
    subscription::{SubscribeError, Subscription},
};

/// What a service does while all its handlers are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Later messages wait in the subscription's bounded buffer.
    Wait,
    /// The service leaves its queue group until a handler is free. Another member then gets later
    /// messages, or the sender learns at once that no service listens.
    ///
    /// Each free handler is one member of the group, and the server ends its subscription with the
    /// first message. So no message is on its way to a worker without room, and a worker with more
    /// room gets more.
    Leave,
}

/// The limits of a service.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// How many handlers may run at a time, at least 1.
    pub concurrency: usize,
    /// What the service does while all handlers are busy.
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

    /// At most `concurrency` handlers; the service leaves its queue group while all are busy.
    #[must_use]
    pub const fn leaving(concurrency: usize) -> Self {
        Self { concurrency, when_full: WhenFull::Leave, deadline: Duration::from_secs(5) }
    }
}

/// Whether a service is in its queue group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    /// Out of the group until told to come back.
    Away,
    /// Out of the group for good.
    Stopped,
}

/// Takes a service out of its queue group and back.
#[derive(Debug, Clone)]
pub struct Attendance(watch::Sender<Presence>);

impl Attendance {
    /// Sets whether the service takes messages from now on. It still handles those that have
    /// arrived. Has no effect on a service that was told to stop.
    pub fn set(&self, present: bool) {
        let presence = if present { Presence::Present } else { Presence::Away };
        self.0.send_if_modified(|current| {
            let changes = ![Presence::Stopped, presence].contains(current);
            if changes {
                *current = presence;
            }
            changes
        });
    }
}

/// A running service. Dropping it aborts its handlers; [`Service::drain`] lets them finish.
pub struct Service {
    presence: watch::Sender<Presence>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Takes no new messages and lets the handlers finish. Returns whether they did so within
    /// `deadline`; those that did not are aborted.
    ///
    /// A message that the server is sending at this very moment is lost. Its sender runs into its
    /// deadline, as it would had this process died.
    pub async fn drain(mut self, deadline: Duration) -> bool {
        self.presence.send_replace(Presence::Stopped);
        timeout(deadline, self.ended()).await.is_ok()
    }

    /// A handle that takes the service out of its queue group and back.
    #[must_use]
    pub fn attendance(&self) -> Attendance {
        Attendance(self.presence.clone())
    }

    /// Returns when the service has ended by itself because the connection was closed for good.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&mut self) {
        // A panicking handler is reported where it panicked.
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
        let (presence, place) = watch::channel(Presence::Present);
        let mut tasks = JoinSet::new();
        match options.when_full {
            WhenFull::Wait => {
                let subscription = self.subscribe(&filter).await?;
                let seat = Seat { bus: self.clone(), filter, presence: place };
                tasks.spawn(seat.serve_many(subscription, concurrency, handler));
            }
            WhenFull::Leave => {
                for _ in 0..concurrency {
                    let subscription = self.subscribe_once(&filter).await?;
                    let seat = Seat { bus: self.clone(), filter: filter.clone(), presence: place.clone() };
                    tasks.spawn(seat.serve_one(subscription, Arc::clone(&handler)));
                }
            }
        }
        self.sync(options.deadline).await?;
        Ok(Service { presence, tasks })
    }
}

/// A place in the queue group.
struct Seat {
    bus: Bus,
    filter: Filter,
    presence: watch::Receiver<Presence>,
}

impl Seat {
    /// Returns once the service has to leave, or its owner is gone.
    async fn until_absent(&mut self) {
        self.presence.wait_for(|presence| *presence != Presence::Present).await.ok();
    }

    /// Waits while the service is away. Returns whether it comes back.
    async fn returns(&mut self) -> bool {
        let settled = self.presence.wait_for(|presence| *presence != Presence::Away).await;
        settled.is_ok_and(|presence| *presence == Presence::Present)
    }

    /// Reads one subscription for all handlers, and only while a handler is free.
    async fn serve_many<H, F>(mut self, mut subscription: Subscription, concurrency: usize, handler: Arc<H>)
    where
        H: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut handlers = JoinSet::new();
        loop {
            self.serve_stay(&mut subscription, concurrency, &*handler, &mut handlers).await;
            if !self.returns().await {
                break;
            }
            match self.bus.subscribe(&self.filter).await {
                Ok(again) => subscription = again,
                // Closed for good.
                Err(_) => break,
            }
        }
        while handlers.join_next().await.is_some() {}
    }

    /// Serves until the subscription has ended: the service left, or the connection was closed.
    async fn serve_stay<H, F>(
        &mut self,
        subscription: &mut Subscription,
        concurrency: usize,
        handler: &H,
        handlers: &mut JoinSet<()>,
    ) where
        H: Fn(Incoming) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut leaving = false;
        loop {
            if handlers.len() >= concurrency {
                tokio::select! {
                    _ = handlers.join_next() => {}
                    // Full or not, other members get later messages.
                    () = self.until_absent(), if !leaving => {
                        leaving = true;
                        subscription.drain().await;
                    }
                }
                continue;
            }
            let message = tokio::select! {
                biased;
                () = self.until_absent(), if !leaving => {
                    // Handles messages that had already arrived.
                    leaving = true;
                    subscription.drain().await;
                    continue;
                }
                Some(_) = handlers.join_next() => continue,
                message = subscription.next() => message,
            };
            let Some(message) = message else { return };
            handlers.spawn(handler(message));
        }
    }

    /// Runs one handler with a subscription to one message at a time.
    async fn serve_one<H, F>(mut self, mut subscription: Subscription, handler: Arc<H>)
    where
        H: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let message = tokio::select! {
                message = subscription.next() => message,
                () = self.until_absent() => {
                    subscription.drain().await;
                    subscription.next().await
                }
            };
            if let Some(message) = message {
                handle(&*handler, message).await;
            }
            if !self.returns().await {
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

/// Runs the handler as a task of its own, so that its panic does not end the seat.
async fn handle<H, F>(handler: &H, message: Incoming)
where
    H: Fn(Incoming) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn(handler(message));
    task.join_next().await;
}

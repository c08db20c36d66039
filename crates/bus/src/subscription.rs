//! Subscriptions, and the certainty that the broker has registered them.

use core::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    connect::Bus,
    incoming::Incoming,
    subjects::{Address, Filter},
};

/// How long [`Bus::sync`] waits before it sends its message again. The first one may have been lost
/// with a connection.
const RESEND_EVERY: Duration = Duration::from_millis(500);

/// Why there is no subscription, or no certainty that it is registered.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The broker did not answer in time; it may be unreachable.
    #[error("the broker did not confirm within the deadline")]
    TimedOut,
    /// The connection was closed for good.
    #[error("the connection to the broker is closed")]
    Closed,
}

/// Messages that match a [`Filter`]. Dropping it unsubscribes.
///
/// It holds a bounded number of messages. The client drops further ones and reports
/// [`BusEvent::SlowConsumer`](crate::BusEvent).
#[derive(Debug)]
pub struct Subscription {
    subscriber: async_nats::Subscriber,
    bus: Bus,
}

impl Subscription {
    /// The next message; `None` once the subscription has ended.
    ///
    /// Messages on subjects that are not Duet's are skipped: a filter with wildcards may match
    /// tokens that are not identifiers.
    ///
    /// # Cancel safety
    /// Cancel safe: a message is either returned or still there.
    pub async fn next(&mut self) -> Option<Incoming> {
        while let Some(message) = self.subscriber.next().await {
            match message.subject.as_str().parse::<Address>() {
                Ok(address) => {
                    let async_nats::Message { payload, reply, headers, .. } = message;
                    return Some(Incoming::new(address, payload, reply, headers, self.bus.clone()));
                }
                Err(error) => tracing::debug!(%error, "skipped"),
            }
        }
        None
    }

    /// The next message, or `Ok(None)` once the subscription has ended.
    ///
    /// # Errors
    /// [`SubscribeError::TimedOut`] when none came within `deadline`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_within(&mut self, deadline: Duration) -> Result<Option<Incoming>, SubscribeError> {
        timeout(deadline, self.next()).await.map_err(|_| SubscribeError::TimedOut)
    }

    /// Tells the broker to send no more. Messages that it had already sent can still be read, until
    /// [`Self::next`] returns `None`.
    pub async fn drain(&mut self) {
        // It fails only when the connection, and so the subscription, is gone.
        self.subscriber.drain().await.ok();
    }
}

impl Bus {
    /// Subscribes. The broker may not have registered it yet when this returns; see [`Self::sync`].
    ///
    /// # Errors
    /// [`SubscribeError::Closed`].
    pub async fn subscribe(&self, filter: &Filter) -> Result<Subscription, SubscribeError> {
        let subject = filter.subject().to_owned();
        let subscriber = match filter.queue() {
            Some(queue) => self.client().queue_subscribe(subject, queue.to_owned()).await,
            None => self.client().subscribe(subject).await,
        };
        let subscriber = subscriber.map_err(|_| SubscribeError::Closed)?;
        Ok(Subscription { subscriber, bus: self.clone() })
    }

    /// Subscribes to one message: the server ends the subscription after it has sent one.
    ///
    /// # Errors
    /// [`SubscribeError::Closed`].
    pub(crate) async fn subscribe_once(&self, filter: &Filter) -> Result<Subscription, SubscribeError> {
        let mut subscription = self.subscribe(filter).await?;
        subscription.subscriber.unsubscribe_after(1).await.map_err(|_| SubscribeError::Closed)?;
        Ok(subscription)
    }

    /// Subscribes and waits until the broker has registered it.
    ///
    /// # Errors
    /// As [`Self::subscribe`] and [`Self::sync`].
    pub async fn subscribe_registered(
        &self,
        filter: &Filter,
        deadline: Duration,
    ) -> Result<Subscription, SubscribeError> {
        let subscription = self.subscribe(filter).await?;
        self.sync(deadline).await?;
        Ok(subscription)
    }

    /// Makes a round trip to the connected server. When it returns, that server has processed
    /// everything sent before on this connection, subscriptions included.
    ///
    /// It sends a message to a fresh private inbox and waits for it. `flush` does not suffice: it
    /// returns once the bytes are in the socket. A server handles one connection's commands in
    /// order, so the message's return shows that the subscriptions before it are registered **at
    /// that server**. The other servers of a cluster may learn of them a little later. For that
    /// reason message 1 of a session is sent with [`Self::request_resending`].
    ///
    /// # Errors
    /// [`SubscribeError::TimedOut`] when the message did not come back within `deadline`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn sync(&self, deadline: Duration) -> Result<(), SubscribeError> {
        let end = Instant::now() + deadline;
        let own = self.client().new_inbox();
        let token = own.rsplit('.').next().unwrap_or_default();
        let inbox = format!("{}.sync.{token}", self.inbox_prefix());
        let mut subscriber =
            self.client().subscribe(inbox.clone()).await.map_err(|_| SubscribeError::Closed)?;
        loop {
            self.client()
                .publish(inbox.clone(), bytes::Bytes::new())
                .await
                .map_err(|_| SubscribeError::Closed)?;
            let now = Instant::now();
            if now >= end {
                return Err(SubscribeError::TimedOut);
            }
            match timeout_at(end.min(now + RESEND_EVERY), subscriber.next()).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => return Err(SubscribeError::Closed),
                Err(_) => {}
            }
        }
    }
}

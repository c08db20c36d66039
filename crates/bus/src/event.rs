//! What happens to a connection, and what the broker complains about.

use async_nats::ServerError;
use tokio::sync::broadcast::{self, error::RecvError};

/// Something that happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// Connected, for the first time or again. The client has renewed all subscriptions.
    Connected,
    /// The connection is lost. The client is trying to connect again.
    Disconnected,
    /// A subscription fell behind and lost messages. The NATS client reports it by subscription id,
    /// and exposes no id to the subscriber.
    SlowConsumer,
    /// The broker refused something that this role may not do.
    PermissionDenied(Denied),
    /// The broker is about to shut down.
    LameDuck,
    /// The connection was closed for good.
    Closed,
    /// Another complaint of the broker's or of the client's.
    Complaint(String),
}

/// What the broker refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Publishing on this subject.
    Publish(String),
    /// Subscribing to this subject, in a queue group or not.
    Subscribe(String),
}

/// Resolves when the connection is lost or made anew.
///
/// # Cancel safety
/// Cancel safe.
pub async fn connection_changed(events: &mut broadcast::Receiver<BusEvent>) {
    loop {
        match events.recv().await {
            // One that was missed may have been this.
            Ok(BusEvent::Connected | BusEvent::Disconnected) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => core::future::pending().await,
        }
    }
}

impl From<async_nats::Event> for BusEvent {
    fn from(event: async_nats::Event) -> Self {
        use async_nats::Event;
        match event {
            Event::Connected => Self::Connected,
            Event::Disconnected => Self::Disconnected,
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => Self::SlowConsumer,
            Event::LameDuckMode => Self::LameDuck,
            Event::Closed => Self::Closed,
            Event::ServerError(ServerError::Other(text)) => {
                denied(&text).map_or(Self::Complaint(text), Self::PermissionDenied)
            }
            other => Self::Complaint(other.to_string()),
        }
    }
}

/// What the broker refused, if its complaint is about permissions. The complaint reads
/// `Permissions Violation for Publish to "a.b"` or `… for Subscription to "a.b" using queue "q"`.
fn denied(complaint: &str) -> Option<Denied> {
    let (_, what) = complaint.split_once("Permissions Violation for ")?;
    let subject = || what.split('"').nth(1).map(str::to_owned);
    if what.starts_with("Publish") {
        subject().map(Denied::Publish)
    } else if what.starts_with("Subscription") {
        subject().map(Denied::Subscribe)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_other_complaints() {
        assert_eq!(
            denied("Permissions Violation for Publish to \"duet.v1.job.demo\""),
            Some(Denied::Publish("duet.v1.job.demo".into())),
        );
        assert_eq!(
            denied("Permissions Violation for Subscription to \"duet.v1.invite.a\" using queue \"b\""),
            Some(Denied::Subscribe("duet.v1.invite.a".into())),
        );
        assert_eq!(denied("maximum payload exceeded"), None);
    }
}

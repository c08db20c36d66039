//! What a connection counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::event::BusEvent;

/// What happened, as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EventLabel {
    event: &'static str,
}

/// The label of each kind of [`BusEvent`].
const EVENTS: [&str; 7] =
    ["connected", "disconnected", "slow_consumer", "permission_denied", "lame_duck", "closed", "complaint"];

const fn label(event: &BusEvent) -> &'static str {
    match event {
        BusEvent::Connected => "connected",
        BusEvent::Disconnected => "disconnected",
        BusEvent::SlowConsumer => "slow_consumer",
        BusEvent::PermissionDenied(_) => "permission_denied",
        BusEvent::LameDuck => "lame_duck",
        BusEvent::Closed => "closed",
        BusEvent::Complaint(_) => "complaint",
    }
}

/// What happened to one connection, counted.
#[derive(Debug)]
pub(crate) struct Events(pub(crate) Family<EventLabel, Counter>);

impl Events {
    /// Starts every counter at 0, so that the first event of each kind shows as an increase.
    pub(crate) fn new() -> Self {
        let events = Family::default();
        for event in EVENTS {
            drop(events.get_or_create(&EventLabel { event }));
        }
        Self(events)
    }

    pub(crate) fn count(&self, event: &BusEvent) {
        self.0.get_or_create(&EventLabel { event: label(event) }).inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    outcome: &'static str,
}

/// Counts of the audit entries of one process: published and lost.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) publications: Family<OutcomeLabel, Counter>,
    pub(crate) lost: Counter,
}

impl Audit {
    pub(crate) fn new() -> Self {
        let audit = Self { publications: Family::default(), lost: Counter::default() };
        for outcome in ["published", "failed"] {
            drop(audit.publications.get_or_create(&OutcomeLabel { outcome }));
        }
        audit
    }

    /// Counts one attempt to publish records.
    pub(crate) fn published(&self, succeeded: bool) {
        let outcome = if succeeded { "published" } else { "failed" };
        self.publications.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts entries that found no place in the queue.
    pub(crate) fn lost(&self, entries: u64) {
        self.lost.inc_by(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Denied;

    #[test]
    fn every_event_is_counted_from_nothing() {
        let events = Events::new();
        let all = [
            BusEvent::Connected,
            BusEvent::Disconnected,
            BusEvent::SlowConsumer,
            BusEvent::PermissionDenied(Denied::Publish("a".into())),
            BusEvent::LameDuck,
            BusEvent::Closed,
            BusEvent::Complaint("b".into()),
        ];
        assert_eq!(all.iter().map(label).collect::<Vec<_>>(), EVENTS);
        for event in &all {
            assert_eq!(events.0.get(&EventLabel { event: label(event) }).unwrap().get(), 0, "{event:?}");
            events.count(event);
            assert_eq!(events.0.get(&EventLabel { event: label(event) }).unwrap().get(), 1, "{event:?}");
        }
    }
}

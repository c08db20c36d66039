//! What a connection counts, for the operator of the process.
//!
//! `docs/metrics.md` lists names, labels and alarms.

use async_nats::connection::State;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use crate::{Bus, BusEvent};

/// What happened, as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabel {
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
pub(crate) struct Events(Family<EventLabel, Counter>);

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

/// Reads the connection's state when the metrics are read.
#[derive(Debug)]
struct Connected(async_nats::Client);

impl Collector for Connected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let connected = ConstGauge::new(i64::from(self.0.connection_state() == State::Connected));
        let help = "1 while the connection to the broker stands, as far as the client has noticed. Watch \
             for: 0 for a minute";
        let metric =
            encoder.encode_descriptor("duet_broker_connected", help, None, connected.metric_type())?;
        connected.encode(metric)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Counts of the audit entries of one process: published and lost.
#[derive(Debug)]
pub(crate) struct Audit {
    publications: Family<OutcomeLabel, Counter>,
    lost: Counter,
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

impl Bus {
    /// Registers metrics of this connection with `registry`: whether it stands, its events, and its
    /// audit publications.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Connected(self.client().clone())));
        registry.register(
            "duet_broker_events",
            "events of that connection: `connected` (the first time included), `disconnected`, \
             `slow_consumer`, `permission_denied`, `lame_duck`, `closed`, `complaint`. Watch for: \
             any `slow_consumer`: messages were lost; any `permission_denied`: credentials or \
             `broker.conf` are wrong, or an intruder tries; repeated `disconnected`",
            self.counted_events().0.clone(),
        );
        registry.register(
            "duet_audit_publications",
            "tries to publish records of the audit log: `published`, `failed` (tried again). \
             Watch for: `failed` for minutes: only the process, or its store, has the records",
            self.counted_audit().publications.clone(),
        );
        registry.register(
            "duet_audit_entries_lost",
            "entries missing from the log because too many waited for the broker; the log states \
             their number; 0 for parties, whose sessions wait for a place. Watch for: any",
            self.counted_audit().lost.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::Denied;

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

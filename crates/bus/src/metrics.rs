//! What a connection shows the operator of the process.
//!
//! `docs/metrics.md` lists names, labels and alarms.

use async_nats::connection::State;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
    registry::Registry,
};

use crate::connect::Bus;

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

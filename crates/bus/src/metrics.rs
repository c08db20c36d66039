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
        let help = "Whether the connection to the broker stands, as far as the client has noticed";
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
            "What happened to the connection to the broker",
            self.counted_events().0.clone(),
        );
        registry.register(
            "duet_audit_publications",
            "Tries to publish records of the audit log",
            self.counted_audit().publications.clone(),
        );
        registry.register(
            "duet_audit_entries_lost",
            "Entries that the audit log lacks, and says so, because too many waited for the broker",
            self.counted_audit().lost.clone(),
        );
    }
}

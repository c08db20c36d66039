//! Which trace a message or a job belongs to, as W3C Trace Context has it (`traceparent`). A
//! message has it in its headers, a job in its record, so that an operator can follow a job through
//! all processes.
//!
//! No decision depends on it: the sender of a message may claim any trace. `tracestate` and baggage
//! are neither sent nor read, because Duet has no use for them.

use async_nats::HeaderMap;
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header's name, in NATS and in HTTP.
pub const TRACEPARENT: &str = "traceparent";

/// The length of a version 00 header, the only version there is, in bytes.
const LENGTH: usize = 55;

/// A `traceparent` on its way in or out.
#[derive(Default)]
struct Carrier(Option<String>);

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

impl Extractor for Carrier {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.as_deref().filter(|_| key == TRACEPARENT)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// The current span as a `traceparent`; `None` unless traces are exported.
#[must_use]
pub fn current() -> Option<String> {
    let mut carrier = Carrier::default();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Span::current().context(), &mut carrier);
    });
    carrier.0
}

/// Makes `span`, which no code has entered yet, a part of the trace that `traceparent` names. Has
/// no effect if that is malformed, or if traces are not exported.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent.filter(|text| text.len() == LENGTH) else { return };
    let carrier = Carrier(Some(traceparent.to_owned()));
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    if let Err(error) = span.set_parent(context) {
        tracing::trace!(%error, "no part of a trace");
    }
}

/// The headers of a message to send now, if it belongs to a trace.
pub(crate) fn headers() -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, current()?);
    Some(headers)
}

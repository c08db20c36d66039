//! Which trace something belongs to, as W3C Trace Context has it (`traceparent`): in a message's
//! headers and in a job's record, so that an operator can follow a job through all processes.
//!
//! Nothing is decided by it. It comes from whoever sent the message, who may claim any trace.
//! `tracestate` and baggage are neither sent nor read: what others put there is of no use here.

use async_nats::HeaderMap;
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, here and in HTTP.
pub const TRACEPARENT: &str = "traceparent";

/// What a header of the only version that there is has, in bytes.
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

/// The current span as a `traceparent`; nothing unless traces are exported.
#[must_use]
pub fn current() -> Option<String> {
    let mut carrier = Carrier::default();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Span::current().context(), &mut carrier);
    });
    carrier.0
}

/// Makes `span`, which nobody has entered yet, a part of what `traceparent` names. Without effect
/// if that is malformed, or traces are not exported.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent.filter(|text| text.len() == LENGTH) else { return };
    let carrier = Carrier(Some(traceparent.to_owned()));
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    if let Err(error) = span.set_parent(context) {
        tracing::trace!(%error, "no part of a trace");
    }
}

/// The headers of a message that is sent now, if it belongs to a trace.
pub(crate) fn headers() -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, current()?);
    Some(headers)
}

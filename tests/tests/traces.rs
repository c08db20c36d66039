//! Traces as a collector receives them: one job is one trace through all processes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use duet_actors::browser::{device::Device, socket::Socket};
use duet_harness::{duet::text, http::Api, stack::Stack};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as AnyValue},
};
use prost::Message as _;
use serde_json::json;
use tokio::time::{interval, timeout};

/// How long spans may take to arrive.
const DEADLINE: Duration = Duration::from_secs(60);

/// Exports spans almost at once, instead of every five seconds.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");

/// A trace of the caller, and the span in it that submits the job.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
}

/// What a collector received: the spans, and all bytes that contained them.
#[derive(Debug, Default)]
struct Taken {
    spans: Vec<Span>,
    bytes: Vec<u8>,
}

/// A collector that keeps what it receives.
struct Collector {
    url: String,
    taken: Arc<Mutex<Taken>>,
}

impl Collector {
    async fn start() -> Self {
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, taken }
    }

    /// The spans of the trace in which `wanted` finds something. Waits for such a trace.
    async fn spans_when<T>(&self, wanted: impl Fn(&[Span]) -> Option<T>) -> T {
        let mut look = interval(Duration::from_millis(50));
        let found = timeout(DEADLINE, async {
            loop {
                look.tick().await;
                if let Some(found) = wanted(&self.taken.lock().unwrap().spans) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("not among {:#?}", self.taken.lock().unwrap().spans))
    }
}

async fn take(State(taken): State<Arc<Mutex<Taken>>>, body: Bytes) {
    let mut taken = taken.lock().unwrap();
    taken.bytes.extend_from_slice(&body);
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let service = attributes(&resource.resource.unwrap().attributes).remove("service.name").unwrap();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            taken.spans.push(Span {
                service: service.clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                attributes: attributes(&span.attributes),
            });
        }
    }
}

fn attributes(of: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |value: &KeyValue| match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(AnyValue::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    of.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

/// The number of spans for each service and name.
fn count<'a>(spans: impl IntoIterator<Item = &'a Span>) -> BTreeMap<(&'a str, &'a str), usize> {
    let mut counts = BTreeMap::new();
    for span in spans {
        *counts.entry((span.service.as_str(), span.name.as_str())).or_default() += 1;
    }
    counts
}

/// The spans that contain `span`, from its parent upwards.
fn ancestors<'a>(spans: &'a [Span], span: &'a Span) -> Vec<&'a Span> {
    let mut above: Vec<&Span> = Vec::new();
    while let Some(parent) =
        spans.iter().find(|one| one.id == *above.last().map_or(&span.parent, |last| &last.parent))
    {
        above.push(parent);
    }
    above
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job__should_be_one_trace_through_all_processes() {
    let collector = Collector::start().await;
    let stack = Stack::start_with(&[("DUET_TRACES", &collector.url), AT_ONCE]).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let request =
        api.request(&json!({"kind": "personal_message", "text": "followed about"}), "followed").unwrap();
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let submitted = api.submit_traced(&request, "followed", &traceparent).await.unwrap();
    assert_eq!(submitted.status, 202, "{submitted:?}");
    assert_eq!(api.settled(text(&submitted.body, "/id").unwrap()).await.unwrap(), "signed");

    let spans = collector
        .spans_when(|all| {
            let spans: Vec<Span> = all.iter().filter(|span| span.trace == TRACE).cloned().collect();
            let counts = count(&spans);
            // One span of each party, and one report of each.
            let complete = counts.get(&("duet-orchestrator", "outcome")) == Some(&2)
                && counts.get(&("duet-party", "session")) == Some(&2)
                && counts.get(&("duet-orchestrator", "session")) == Some(&1);
            complete.then_some(spans)
        })
        .await;
    let counts = count(&spans);
    assert_eq!(counts[&("duet-orchestrator", "http")], 1, "{counts:?}");
    // Two claims, the charge, the pending verdict, and the release. Both opening messages, the
    // answer, and the verdict.
    assert_eq!(counts[&("duet-party", "store")], 5, "{counts:?}");
    assert!(counts[&("duet-party", "compute")] >= 4, "{counts:?}");
    assert_eq!(counts.get(&("duet-orchestrator", "job")), None);

    let all: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    for span in &spans {
        let is_first = span.name == "http";
        assert_eq!(span.parent == SPAN, is_first, "{span:?}");
        assert_eq!(all.contains(span.parent.as_str()), !is_first, "{span:?}");
    }
    let names = |span: &Span| -> Vec<String> {
        ancestors(&spans, span).iter().map(|span| format!("{} {}", span.service, span.name)).collect()
    };
    let attempt =
        spans.iter().find(|span| names(span) == ["duet-orchestrator http"] && span.name == "session");
    let session = &attempt.unwrap().attributes["session"];
    for span in spans.iter().filter(|span| span.service == "duet-party" && span.name == "session") {
        assert_eq!(
            names(span),
            ["duet-orchestrator request", "duet-orchestrator session", "duet-orchestrator http"]
        );
        assert_eq!(&span.attributes["session"], session);
    }
    let round = spans.iter().filter(|span| span.service == "duet-party" && span.name == "request");
    assert!(round.clone().any(|span| span.attributes["subject"].contains(".round.")), "{round:?}");

    // Neither the signed payload nor any credential is in them.
    let taken = collector.taken.lock().unwrap();
    let token = std::fs::read_to_string(stack.broker.credentials().join("tokens/demo")).unwrap();
    let key = std::fs::read_to_string(&wallet.requester_key).unwrap();
    for secret in ["followed about", token.trim(), key.trim()] {
        let shown = taken.bytes.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!shown, "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_asks_for__should_be_one_trace_from_the_gateway_on() {
    let collector = Collector::start().await;
    let stack = Stack::start_with(&[("DUET_TRACES", &collector.url), AT_ONCE]).await.unwrap();
    let mut socket = Socket::open(stack.gateway_url()).await.unwrap();
    let device = Device::create(stack.gateway_url(), &mut socket).await.unwrap();
    stack.all_pairs_ready(&device.id().to_string()).await.unwrap();
    device.authenticate(&mut socket).await.unwrap();
    device.sign(&mut socket, "asked for", "device+service").await.unwrap();

    let names = collector
        .spans_when(|all| {
            let session = all.iter().find(|span| {
                span.service == "duet-party"
                    && span.name == "session"
                    && all.iter().any(|one| one.trace == span.trace && one.service == "duet-gateway")
            })?;
            let mut names: Vec<String> = ancestors(all, session)
                .iter()
                .map(|span| format!("{} {}", span.service, span.name))
                .collect();
            // The request that the gateway forwards, and the device's request that it belongs to.
            (names.pop()? == "duet-gateway device").then_some(names)
        })
        .await;
    assert_eq!(names.last().map(String::as_str), Some("duet-gateway request"), "{names:?}");
    assert!(names.contains(&"duet-orchestrator approval".to_owned()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away__should_cost_no_signature() {
    let away = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut stack = Stack::start_with(&[("DUET_TRACES", &away), AT_ONCE]).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let request = api.request(&json!({"kind": "personal_message", "text": "untraced"}), "untraced").unwrap();
    // An invalid header has no effect either.
    let submitted = api
        .submit_traced(&request, "untraced", "00-nothing-of-a-trace-at-all-but-as-long-as-one-is-01")
        .await
        .unwrap();
    assert_eq!(submitted.status, 202, "{submitted:?}");
    assert_eq!(api.settled(text(&submitted.body, "/id").unwrap()).await.unwrap(), "signed");
    stack.service.stop().await.unwrap();

    let refusal = stack.duet().refused(&["orchestrator", "--traces", "ftp://collector"]).await.unwrap();
    assert_eq!(refusal.code, "usage", "{refusal:?}");
    assert!(refusal.message.contains("--traces"), "{refusal:?}");
}

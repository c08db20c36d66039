//! Webhooks whose receivers refuse: with a real broker and real receivers on the loopback. The
//! tests publish results themselves, as an orchestrator would.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_nats::jetstream::AckKind;
use axum::{Router, extract::State, http::HeaderMap, routing::post};
use duet_bus::{
    Address, Bus, Role,
    deliveries::{Cursor, CursorStart},
    kv,
    streams::StorageSettings,
};
use duet_orchestrator::{
    Config,
    webhooks::{WebhookCreated, WebhookView},
};
use duet_protocol::ids::{SessionId, WalletId};
use duet_wire::{
    DerivationPath, JobId, JobResult, SignedResult, TenantId, signing::SigningKey, webhook::EndpointId,
};
use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{interval, timeout},
};

use crate::rig::{DEADLINE, OTHER_TOKEN, Rig, TOKEN, now_ms};

/// How many results wait while an endpoint refuses.
const MANY: u32 = 2_000;

/// Requests by their `webhook-id`: how many were refused, and how many accepted.
type Arrived = BTreeMap<String, (usize, usize)>;

/// An HTTP server that may refuse.
struct Receiver {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    refuses_all: AtomicBool,
    refuses: BTreeSet<String>,
    arrived: watch::Sender<Arrived>,
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> StatusCode {
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    let refused = shared.refuses_all.load(SeqCst) || shared.refuses.contains(&id);
    shared.arrived.send_modify(|arrived| {
        let (refusals, acceptances) = arrived.entry(id).or_default();
        *(if refused { refusals } else { acceptances }) += 1;
    });
    if refused { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT }
}

impl Receiver {
    /// A receiver that refuses the results of these jobs.
    async fn that_refuses(jobs: impl IntoIterator<Item = JobId>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            refuses_all: AtomicBool::new(false),
            refuses: jobs.into_iter().map(|job| job.to_string()).collect(),
            arrived: watch::Sender::default(),
        });
        let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url: format!("http://{address}/hook"), shared }
    }

    async fn start() -> Self {
        Self::that_refuses([]).await
    }

    fn refuse(&self, all: bool) {
        self.shared.refuses_all.store(all, SeqCst);
    }

    /// Waits until it has accepted each of these results at least once.
    async fn accepts(&self, jobs: impl IntoIterator<Item = JobId>) {
        let mut missing: BTreeSet<String> = jobs.into_iter().map(|job| job.to_string()).collect();
        let mut arrived = self.shared.arrived.subscribe();
        let all = arrived.wait_for(|arrived| {
            missing.retain(|id| arrived.get(id).is_none_or(|(_, accepted)| *accepted == 0));
            missing.is_empty()
        });
        let came = timeout(DEADLINE, all).await.map(drop);
        assert!(came.is_ok(), "{} results were not delivered", missing.len());
    }

    /// How many requests it has refused.
    fn refused(&self) -> usize {
        self.shared.arrived.borrow().values().map(|(refused, _)| refused).sum()
    }

    /// Waits for the first refused requests.
    async fn refuses(&self, requests: usize) {
        let mut arrived = self.shared.arrived.subscribe();
        let all = arrived
            .wait_for(|arrived| arrived.values().map(|(refused, _)| refused).sum::<usize>() >= requests);
        timeout(DEADLINE, all).await.unwrap().unwrap();
    }
}

fn adjust(config: &mut Config) {
    config.webhooks.allow_private = true;
    config.webhooks.timeout = Duration::from_secs(2);
    config.webhooks.first_pause = Duration::from_millis(100);
}

async fn add(rig: &Rig, url: &str, token: &str, receiver: &Receiver) -> EndpointId {
    let request = rig.http.post(format!("{url}/v1/webhooks")).bearer_auth(token);
    let answer = request.json(&json!({"url": receiver.url})).timeout(DEADLINE).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json::<WebhookCreated>().await.unwrap().webhook.id
}

async fn shown(rig: &Rig, url: &str, id: EndpointId) -> WebhookView {
    rig.get(url, &format!("/v1/webhooks/{id}")).await.json().await.unwrap()
}

/// Waits until the endpoint of the tenant `demo` is as `wanted` says.
async fn becomes(
    rig: &Rig,
    url: &str,
    id: EndpointId,
    mut wanted: impl FnMut(&WebhookView) -> bool,
) -> WebhookView {
    let mut look = interval(Duration::from_millis(50));
    let mut last = None;
    let seen = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let view = last.insert(shown(rig, url, id).await);
            if wanted(view) {
                return view.clone();
            }
        }
    })
    .await;
    seen.unwrap_or_else(|_| panic!("the endpoint is {last:?}"))
}

fn job(number: u32) -> JobId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    JobId(id)
}

/// Publishes results of a tenant's jobs.
async fn publish(rig: &Rig, bus: &Bus, tenant: &str, jobs: impl IntoIterator<Item = JobId>) {
    let tenant: TenantId = tenant.parse().unwrap();
    let key = SigningKey::from_bytes(&[60; 32]);
    let digest = [3; 32];
    let all = jobs.into_iter().map(|job| {
        let result = JobResult {
            job,
            tenant: tenant.clone(),
            wallet: WalletId([7; 32]),
            path: DerivationPath::root(),
            address: rig.world.wallet.address(),
            digest,
            signature: rig.world.wallet.sign(&digest),
            signed_transaction: None,
            transaction_hash: None,
            session: SessionId([1; 16]),
            completed_at_ms: now_ms(),
        };
        let body = serde_json::to_vec(&SignedResult::sign(&result, &key).unwrap()).unwrap();
        let address = Address::Result(tenant.clone());
        async move { bus.publish_stored(&address, body, None, DEADLINE).await.unwrap() }
    });
    futures::stream::iter(all).buffer_unordered(64).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn results_that_an_endpoint_refuses__should_not_hold_up_those_that_it_takes() {
    let rig = Rig::with(adjust).await;
    let orchestrator = rig.start().await;
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    // More of them than may be under way at once.
    let receiver = Receiver::that_refuses((0..40).map(job)).await;
    add(&rig, &orchestrator.url, TOKEN, &receiver).await;
    publish(&rig, &bus, "demo", (0..40).map(job)).await;
    receiver.refuses(16).await;
    publish(&rig, &bus, "demo", (40..200).map(job)).await;
    receiver.accepts((40..200).map(job)).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_for_long__should_get_every_result_once_it_recovers() {
    let rig = Rig::with(|config| {
        adjust(config);
        // Refusals of an endpoint that refuses everything do not use up a result's attempts.
        config.webhooks.max_attempts = 2;
    })
    .await;
    let (first, second) = (rig.start().await, rig.start().await);
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.refuse(true);
    add(&rig, &first.url, TOKEN, &receiver).await;
    add(&rig, &first.url, OTHER_TOKEN, &other).await;
    publish(&rig, &bus, "demo", (0..MANY).map(job)).await;
    receiver.refuses(8).await;
    // Deliveries to other endpoints go on.
    publish(&rig, &bus, "other", (MANY..MANY + 300).map(job)).await;
    other.accepts((MANY..MANY + 300).map(job)).await;
    let third = rig.start().await;
    first.crash().await;
    // Probes are up to half a minute apart by now.
    receiver.refuses(receiver.refused() + 1).await;
    receiver.refuse(false);
    second.crash().await;
    receiver.accepts((0..MANY).map(job)).await;
    third.stop().await;
}

#[tokio::test]
async fn an_endpoint_with_too_many_retries__should_be_disabled_with_the_reason_and_go_on_when_enabled() {
    let rig = Rig::with(|config| {
        adjust(config);
        config.webhooks.max_retries = 50;
    })
    .await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.refuse(true);
    let id = add(&rig, url, TOKEN, &receiver).await;
    publish(&rig, &bus, "demo", (0..30).map(job)).await;
    let failing = becomes(&rig, url, id, |view| view.retries_waiting == 30).await;
    assert!(failing.failing_since_ms.is_some() && failing.disabled.is_none(), "{failing:?}");
    publish(&rig, &bus, "demo", (30..200).map(job)).await;
    let disabled = becomes(&rig, url, id, |view| view.disabled.is_some()).await;
    let reason = disabled.disabled.unwrap().reason;
    assert_eq!(reason, "50 deliveries wait to be retried, and no more are kept");
    // Those under way when it was disabled come on top.
    assert!((50..50 + 32).contains(&disabled.retries_waiting), "{}", disabled.retries_waiting);

    receiver.refuse(false);
    let enable = rig.http.post(format!("{url}/v1/webhooks/{id}/enable")).bearer_auth(TOKEN);
    assert_eq!(enable.timeout(DEADLINE).send().await.unwrap().status(), StatusCode::OK);
    receiver.accepts((0..200).map(job)).await;
    becomes(&rig, url, id, |view| view.retries_waiting == 0).await;
}

#[tokio::test]
async fn a_removed_endpoint__should_leave_no_retries_behind() {
    let rig = Rig::with(adjust).await;
    let (orchestrator, _other) = (rig.start().await, rig.start().await);
    let url = &orchestrator.url;
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let bucket = bus.ensure_bucket::<Value>(kv::WEBHOOK_RETRIES, &StorageSettings::default()).await.unwrap();
    let (removed, kept) = (Receiver::start().await, Receiver::start().await);
    removed.refuse(true);
    kept.refuse(true);
    let id = add(&rig, url, TOKEN, &removed).await;
    let other = add(&rig, url, TOKEN, &kept).await;
    publish(&rig, &bus, "demo", (0..100).map(job)).await;
    becomes(&rig, url, id, |view| view.retries_waiting == 100).await;
    becomes(&rig, url, other, |view| view.retries_waiting == 100).await;
    let remove = rig.http.delete(format!("{url}/v1/webhooks/{id}")).bearer_auth(TOKEN);
    assert_eq!(remove.timeout(DEADLINE).send().await.unwrap().status(), StatusCode::OK);
    let gone = async {
        let mut look = interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            let keys = bucket.keys().await.unwrap();
            if keys.iter().all(|key| key.endpoint_and_job().unwrap().0 == other) {
                return keys.len();
            }
        }
    };
    assert_eq!(timeout(DEADLINE, gone).await.unwrap(), 100);
    kept.refuse(false);
    kept.accepts((0..100).map(job)).await;
}

#[tokio::test]
async fn an_endpoint_of_the_version_before__should_get_new_results_while_old_ones_rest_at_the_broker() {
    let rig = Rig::with(adjust).await;
    let first = rig.start().await;
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let receiver = Receiver::start().await;
    let id = add(&rig, &first.url, TOKEN, &receiver).await;
    first.stop().await;

    // The consumer as that version made it, with all that may be under way at rest for an hour.
    let name = format!("webhook_{id}");
    bus.remove_cursor(&name).await.unwrap();
    let tenant: TenantId = "demo".parse().unwrap();
    let cursor = Cursor {
        name,
        tenant: tenant.clone(),
        start: CursorStart::After(0),
        ack_wait: Duration::from_secs(7),
        max_under_way: 16,
    };
    let consumer = bus.results_cursor(&cursor, &StorageSettings::default()).await.unwrap();
    publish(&rig, &bus, "demo", (0..20).map(job)).await;
    let mut batch = consumer.fetch().max_messages(16).messages().await.unwrap();
    let mut resting = 0;
    while let Some(message) = batch.next().await {
        let rest = AckKind::Nak(Some(Duration::from_secs(3_600)));
        message.unwrap().ack_with(rest).await.unwrap();
        resting += 1;
    }
    assert_eq!(resting, 16);
    // And its entry, which says that the endpoint fails and knows nothing of probes.
    let endpoints = bus.ensure_bucket::<Value>(kv::WEBHOOKS, &StorageSettings::default()).await.unwrap();
    let key = kv::Key::from((&tenant, id));
    let entry = endpoints.get(&key).await.unwrap().unwrap();
    let mut before = entry.value;
    before["failing_since_ms"] = json!(now_ms());
    endpoints.update(&key, &before, entry.revision).await.unwrap();

    let second = rig.start().await;
    // They were published in any order, so the broker decides which of them rest.
    publish(&rig, &bus, "demo", (20..60).map(job)).await;
    receiver.accepts((20..60).map(job)).await;
    let healthy = becomes(&rig, &second.url, id, |view| view.failing_since_ms.is_none()).await;
    assert_eq!(healthy.disabled, None);
}

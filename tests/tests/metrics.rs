//! The metrics that processes show at `/metrics`, compared with what was done to them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    time::Duration,
};

use duet_actors::{
    browser::{
        device::Device,
        socket::{Socket, upgrade},
    },
    malicious::MaliciousPartner,
    stage::Stage,
};
use duet_adversary::responder::respond_with;
use duet_harness::{
    duet::text,
    http::Api,
    stack::{Server, Stack},
};
use duet_protocol::ids::ShareIndex;
use duet_test_docs::metrics::{Exposition, documented};
use duet_test_docs::{part, table};
use duet_wire::{Code, OutcomeResult, Pair, gateway::Destination};
use prometheus_client::{encoding::prometheus_text, registry::Registry};
use serde_json::json;
use tokio::time::{interval, timeout};

/// How long an event may take to be counted.
const DEADLINE: Duration = Duration::from_secs(60);

/// The interval between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const LISTEN: (&str, &str) = ("DUET_METRICS_LISTEN", "127.0.0.1:0");

async fn shown(server: &Server) -> Exposition {
    let text = server.metrics().await.unwrap();
    Exposition::parse(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"))
}

/// Waits until the series of the metrics in `names` have grown by exactly `expected` since
/// `before`.
async fn grows(server: &Server, before: &Exposition, names: &[&str], expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> =
        expected.iter().map(|(series, growth)| ((*series).to_owned(), *growth)).collect();
    let mut last = BTreeMap::new();
    let mut look = interval(LOOK_EVERY);
    let grown = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            last = shown(server).await.growth(before, names);
            if last == expected {
                return;
            }
        }
    });
    assert!(grown.await.is_ok(), "expected {expected:#?}\nshown {last:#?}");
}

/// Waits until a series has this value.
async fn comes_to(server: &Server, series: &str, expected: f64) {
    let mut last = None;
    let mut look = interval(LOOK_EVERY);
    let came = timeout(DEADLINE, async {
        while last != Some(expected) {
            look.tick().await;
            last = Some(shown(server).await.value(series).unwrap());
        }
    });
    assert!(came.await.is_ok(), "{series} is {last:?}, not {expected}");
}

const JOBS: [&str; 9] = [
    "duet_jobs_accepted_total",
    "duet_jobs_ended_total",
    "duet_job_duration_seconds_count",
    "duet_job_queue_wait_seconds_count",
    "duet_jobs_open",
    "duet_attempts_started_total",
    "duet_attempts_ended_total",
    "duet_job_ends_published_total",
    "duet_refusals_total",
];

const SESSIONS: [&str; 7] = [
    "duet_sessions_active",
    "duet_sessions_ended_total",
    "duet_session_duration_seconds_count",
    "duet_refusals_total",
    "duet_policy_decisions_total",
    "duet_paillier_key_locks_total",
    "duet_store_decision_duration_seconds_count",
];

#[tokio::test(flavor = "multi_thread")]
async fn metrics__should_count_how_jobs_ended() {
    let stack = Stack::start_with(&[LISTEN]).await.unwrap();
    let wallet = stack.create_wallet("device", "transaction,personal_message").await.unwrap();
    let policy = stack.directory().join("policy.json");
    let rules = json!([{"name": "talk", "payloads": ["personal_message"]}]);
    let document =
        json!({"version": 1, "wallet": wallet.id, "revision": 1, "delay": "1h", "rules": rules}).to_string();
    fs::write(&policy, document).unwrap();
    wallet.duet.json(&["policy", "set", &policy.to_string_lossy()]).await.unwrap();

    let orchestrator = shown(&stack.orchestrator).await;
    let (service, partner) = (shown(&stack.service).await, shown(&stack.partner).await);

    // A signed job.
    wallet.queue(&["message", "counted"]).await.unwrap();
    let once = [
        ("duet_jobs_accepted_total", 1.0),
        ("duet_jobs_ended_total{code=none,outcome=signed}", 1.0),
        ("duet_job_duration_seconds_count{outcome=signed}", 1.0),
        ("duet_job_queue_wait_seconds_count", 1.0),
        ("duet_attempts_started_total{pair=service+partner}", 1.0),
        ("duet_attempts_ended_total{code=none,outcome=signed}", 1.0),
        ("duet_job_ends_published_total{outcome=published}", 1.0),
    ];
    grows(&stack.orchestrator, &orchestrator, &JOBS, &once).await;
    let signed = [
        ("duet_sessions_ended_total{code=none,outcome=signed,role=initiator}", 1.0),
        ("duet_session_duration_seconds_count{role=initiator}", 1.0),
        ("duet_policy_decisions_total{decision=allowed}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=claim}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=pending}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=release}", 1.0),
    ];
    grows(&stack.service, &service, &SESSIONS, &signed).await;
    let answered = [
        ("duet_sessions_ended_total{code=none,outcome=answered,role=responder}", 1.0),
        ("duet_session_duration_seconds_count{role=responder}", 1.0),
        ("duet_policy_decisions_total{decision=allowed}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=claim}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=charge}", 1.0),
    ];
    grows(&stack.partner, &partner, &SESSIONS, &answered).await;

    // The orchestrator refuses a request before it becomes a job.
    let orchestrator = shown(&stack.orchestrator).await;
    let api = Api::new(&stack, &wallet).unwrap();
    let mut forged = api.request(&json!({"kind": "personal_message", "text": "forged"}), "forged").unwrap();
    forged.signature = [7; 64];
    assert_eq!(api.submit(&forged, "forged").await.unwrap().status, 401);
    let names = [&JOBS[..], &["duet_http_requests_total", "duet_http_refusals_total"]].concat();
    let refused = [
        ("duet_refusals_total{code=bad-signature,request=job}", 1.0),
        ("duet_http_requests_total{method=POST,route=/v1/jobs,status=4xx}", 1.0),
        ("duet_http_refusals_total{code=bad-signature}", 1.0),
    ];
    grows(&stack.orchestrator, &orchestrator, &names, &refused).await;

    // The first party refuses, because of its owner's policy.
    let (orchestrator, partner) = (shown(&stack.orchestrator).await, shown(&stack.partner).await);
    let service = shown(&stack.service).await;
    let transaction = stack.directory().join("transaction.json");
    let payment = json!({
        "type": "0x2", "chainId": 31337, "nonce": 0, "to": "0x00000000000000000000000000000000DeaDBeef", "value": "1",
        "gas": 21000, "maxFeePerGas": "1000000000", "maxPriorityFeePerGas": "1",
    });
    fs::write(&transaction, payment.to_string()).unwrap();
    let failed = wallet.queue(&["tx", &transaction.to_string_lossy()]).await.unwrap_err();
    assert!(format!("{failed:#}").contains("policy-refused"), "{failed:#}");
    let given_up = [
        ("duet_jobs_accepted_total", 1.0),
        ("duet_jobs_ended_total{code=policy-refused,outcome=failed}", 1.0),
        ("duet_job_duration_seconds_count{outcome=failed}", 1.0),
        ("duet_job_queue_wait_seconds_count", 1.0),
        ("duet_attempts_started_total{pair=service+partner}", 1.0),
        ("duet_attempts_ended_total{code=policy-refused,outcome=failed}", 1.0),
        ("duet_job_ends_published_total{outcome=published}", 1.0),
    ];
    grows(&stack.orchestrator, &orchestrator, &JOBS, &given_up).await;
    let refused = [
        ("duet_refusals_total{code=policy-refused,request=invitation}", 1.0),
        ("duet_policy_decisions_total{decision=policy-refused}", 1.0),
    ];
    grows(&stack.partner, &partner, &SESSIONS, &refused).await;
    grows(&stack.service, &service, &SESSIONS, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics__should_count_what_devices_do_at_a_gateway() {
    let stack = Stack::start_with(&[LISTEN]).await.unwrap();
    let mut socket = Socket::open(stack.gateway_url()).await.unwrap();
    let device = Device::create(stack.gateway_url(), &mut socket).await.unwrap();
    let id = device.id();
    stack.all_pairs_ready(&id.to_string()).await.unwrap();

    let names = ["duet_gateway_requests_total", "duet_gateway_turned_away_total", "duet_gateway_sockets"];
    let before = shown(&stack.gateway).await;
    device.authenticate(&mut socket).await.unwrap();
    let signed = device.sign(&mut socket, "counted", "device+service").await;
    signed.unwrap();
    let session = duet_protocol::ids::SessionId([9; 16]);
    let round = Destination::Round { session, to: "service".parse().unwrap() };
    assert_eq!(socket.refused(round, vec![1]).await.unwrap(), Code::Unauthorized);
    upgrade(stack.gateway_url(), "127.0.0.1", Some("https://elsewhere.example")).await.unwrap_err();
    let asked = [
        ("duet_gateway_requests_total{code=none,kind=authenticate,outcome=answered}", 1.0),
        ("duet_gateway_requests_total{code=none,kind=approval,outcome=answered}", 1.0),
        ("duet_gateway_requests_total{code=none,kind=round,outcome=answered}", 2.0),
        // The event that it has signed, for readers that follow the session.
        ("duet_gateway_requests_total{code=none,kind=event,outcome=answered}", 1.0),
        ("duet_gateway_requests_total{code=none,kind=outcome,outcome=answered}", 1.0),
        ("duet_gateway_requests_total{code=unauthorized,kind=round,outcome=refused}", 1.0),
        ("duet_gateway_turned_away_total{reason=origin}", 1.0),
    ];
    grows(&stack.gateway, &before, &names, &asked).await;
    comes_to(&stack.gateway, "duet_gateway_sockets", 1.0).await;
    drop(socket);
    comes_to(&stack.gateway, "duet_gateway_sockets", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics__should_count_results_that_an_endpoint_does_not_take() {
    let stack = Stack::start_with(&[LISTEN, ("DUET_WEBHOOKS_TO_PRIVATE", "1")]).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    // No server listens there any more.
    let url = format!("http://{}/hook", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let added = stack.duet().json(&["webhook", "add", &url]).await.unwrap();
    comes_to(&stack.orchestrator, "duet_webhook_results_waiting", 0.0).await;
    for message in ["first", "second"] {
        wallet.queue(&["message", message]).await.unwrap();
    }
    comes_to(&stack.orchestrator, "duet_webhook_results_waiting", 2.0).await;
    stack.duet().json(&["webhook", "remove", text(&added, "/webhook/id").unwrap()]).await.unwrap();
    comes_to(&stack.orchestrator, "duet_webhook_results_waiting", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric__should_be_documented_and_name_no_wallet_or_job() {
    let stack = Stack::start_with(&[LISTEN]).await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    let queued = wallet.queue(&["message", "named nowhere"]).await.unwrap();
    let signed = wallet.sign(&["message", "nor this"], "partner").await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let job = text(&queued, "/job/id").unwrap();
    assert_eq!(api.get(&format!("/v1/jobs/{job}")).await.unwrap().status, 200);
    assert_eq!(api.get("/nowhere/secret-path").await.unwrap().status, 404);
    let names =
        [job, &wallet.id, &wallet.address, text(&queued, "/job/session").unwrap_or(job), "secret-path"];
    assert!(signed.get("signature").is_some());

    let mut all = Vec::new();
    for (server, heading) in [
        (&stack.orchestrator, "orchestrators"),
        (&stack.service, "parties"),
        (&stack.partner, "parties"),
        (&stack.gateway, "gateways"),
    ] {
        let text = server.metrics().await.unwrap();
        for name in names {
            assert!(!text.to_lowercase().contains(&name.to_lowercase()), "{heading} show {name}");
        }
        assert!(!text.contains("demo"), "{heading} show the tenant");
        let shown = Exposition::parse(&text).unwrap();
        assert_eq!(shown.value("duet_broker_connected").unwrap(), 1.0);
        assert!(shown.value("process_resident_memory_bytes").unwrap() > 1e6);
        all.push((heading, shown));
    }
    // What every process shows, with the same meaning, has a table of its own.
    let in_all = |row: &[String; 5]| all.iter().all(|(_, shown)| shown.rows().contains(row));
    const PAGE: &str = "docs/metrics.md";
    const HEADING: [&str; 5] = ["name", "type", "labels", "meaning", "watch for"];
    for (heading, shown) in &all {
        let (common, own): (Vec<_>, Vec<_>) = shown.rows().into_iter().partition(in_all);
        part(PAGE, "every process", &table(HEADING, common)).unwrap();
        part(PAGE, heading, &table(HEADING, own)).unwrap();
    }
    let documented: BTreeSet<String> =
        documented().unwrap().into_values().flat_map(BTreeMap::into_keys).collect();
    let shown = all.iter().flat_map(|(_, shown)| shown.families.keys().cloned());
    assert_eq!(documented, shown.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_metrics_address__should_be_refused_with_a_remedy() {
    let stack = Stack::start().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refusal = stack
        .duet()
        .refused(&["orchestrator", "--listen", "127.0.0.1:0", "--metrics", &address])
        .await
        .unwrap();
    assert_eq!(refusal.code, "usage", "{refusal:?}");
    assert!(refusal.message.contains(&address), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lock__should_be_counted() {
    let (mut stage, wallet) = Stage::with_wallet().await.unwrap();
    stage.enrolled(wallet.id).await.unwrap();
    let mut registry = Registry::default();
    stage.service.worker.as_ref().unwrap().register_metrics(&mut registry);
    let shown = || {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();
        Exposition::parse(&text).unwrap()
    };
    let before = shown();

    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await.unwrap();
    drop(stage.partner.worker.take());
    let partner = MaliciousPartner::of(&stage, &[&wallet], key).await.unwrap();
    let request = stage.request(&wallet, "m", "cheated");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let mut rounds = partner.listen(&manifest).await.unwrap();
    stage.invite(&manifest.initiator.party, &manifest.encode().unwrap()).await.unwrap();
    let opened = partner.opened(&manifest, &request, &mut rounds).await.unwrap();
    assert_eq!(shown().value("duet_sessions_active{role=initiator}").unwrap(), 1.0);
    opened.answer(|state| respond_with(state, &duet_protocol::natural::Natural::from(2))).await.unwrap();
    let outcome = stage.outcome(&manifest, ShareIndex::Service).await.unwrap();
    assert!(matches!(outcome, OutcomeResult::Failed { code: Code::PeerMisbehaved, .. }), "{outcome:?}");
    let expected: BTreeMap<String, f64> = [
        ("duet_paillier_key_locks_total", 1.0),
        ("duet_policy_decisions_total{decision=no_policy}", 1.0),
        ("duet_session_duration_seconds_count{role=initiator}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=claim}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=pending}", 1.0),
        ("duet_store_decision_duration_seconds_count{decision=release}", 1.0),
        ("duet_sessions_ended_total{code=peer-misbehaved,outcome=failed,role=initiator}", 1.0),
    ]
    .map(|(series, growth)| (series.to_owned(), growth))
    .into();
    assert_eq!(shown().growth(&before, &SESSIONS), expected);
}

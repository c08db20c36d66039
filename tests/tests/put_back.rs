//! A whole installation whose broker is put back to an earlier copy of its store, or loses it,
//! while all processes run. No process is started again.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{path::Path, time::Duration};

use duet_harness::{
    duet::text,
    http::Api,
    stack::{ALL_KINDS, Stack, Wallet},
};
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::audit::{keys, until_shipped, verify};

/// How long the installation may take to be ready again.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the log has of a job that the service and the partner sign.
const OF_A_JOB: [(&str, &str); 2] = [("service", "session_signed"), ("partner", "session_charged")];

/// Puts the broker back to a copy of its store, or to an empty store.
async fn put_back(stack: &mut Stack, copy: Option<&Path>) {
    stack.broker.kill().await.unwrap();
    stack.broker.empty().unwrap();
    if let Some(copy) = copy {
        stack.broker.put_back(copy).unwrap();
    }
    stack.broker.resume().await.unwrap();
}

/// Waits until the orchestrator is ready in the broker's `epoch` and the parties have come back.
async fn ready(stack: &Stack, wallet: &Wallet, epoch: u64) -> Value {
    let (mut look, mut last) = (interval(Duration::from_millis(100)), Value::Null);
    let ready = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let answer = reqwest::get(format!("{}/readyz", stack.api_url())).await.unwrap();
            let is_ready = answer.status().is_success();
            last = answer.json().await.unwrap();
            if is_ready && last.get("broker_epoch").is_some_and(|shown| *shown == epoch) {
                return;
            }
        }
    });
    assert!(ready.await.is_ok(), "not ready in epoch {epoch}: {last}");
    stack.all_pairs_ready(&wallet.id).await.unwrap();
    last
}

/// Has a message signed under an idempotency key. Returns the job's id, its state and the job.
async fn ended(api: &Api, message: &str, key: &str) -> (String, String, Value) {
    let request = api.request(&json!({"kind": "personal_message", "text": message}), key).unwrap();
    let submitted = api.submit(&request, key).await.unwrap();
    let id = text(&submitted.body, "/id").unwrap_or_else(|error| panic!("{error}: {submitted:?}")).to_owned();
    let state = api.settled(&id).await.unwrap();
    let job = api.get(&format!("/v1/jobs/{id}")).await.unwrap().body;
    (id, state, job)
}

async fn signed(api: &Api, message: &str, key: &str) -> String {
    let (id, state, job) = ended(api, message, key).await;
    assert_eq!(state, "signed", "{job}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation__should_go_on_with_a_broker_that_was_put_back() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let (duet, keys) = (stack.duet(), keys(&stack).await);
    signed(&api, "pay Alice", "payout-1").await;
    let yesterday = stack.directory().join("yesterday");
    stack.broker.kill().await.unwrap();
    stack.broker.copy(&yesterday).unwrap();
    stack.broker.resume().await.unwrap();
    ready(&stack, &wallet, 1).await;
    let bob = signed(&api, "pay Bob", "payout-2").await;
    until_shipped(&duet, &bob, &OF_A_JOB).await;
    let read = api.get("/v1/results").await.unwrap().body;
    let cursor = text(&read, "/next").unwrap().to_owned();

    put_back(&mut stack, Some(&yesterday)).await;
    let said = ready(&stack, &wallet, 2).await;
    assert!(said["broker_went_back_at_ms"].is_u64(), "{said}");

    // The job that ended since is not signed over another digest, and is over its own.
    let (_, state, job) = ended(&api, "pay Mallory", "payout-2").await;
    assert_eq!((state.as_str(), text(&job, "/failure/code").unwrap()), ("failed", "conflict"), "{job}");
    signed(&api, "pay Carol", "payout-3").await;
    signed(&api, "pay Dave", "payout-4").await;
    // The consumer reads only now.
    let gone = api.get(&format!("/v1/results?after={cursor}")).await.unwrap();
    assert_eq!((gone.status, text(&gone.body, "/code").unwrap()), (410, "cursor-gone"), "{gone:?}");
    let valid = text(&gone.body, "/detail").unwrap().split("after=").nth(1).unwrap();
    let valid = valid.split(',').next().unwrap();
    let rest = api.get(&format!("/v1/results?after={valid}")).await.unwrap();
    assert_eq!(rest.body["results"].as_array().unwrap().len(), 3, "{rest:?}");

    // The parties publish again what the audit stream has lost.
    until_shipped(&duet, &bob, &OF_A_JOB).await;
    let report = verify(&duet, &keys, &[]).await.unwrap();
    assert_eq!(report["valid"], true, "{report}");
    let records = until_shipped(&duet, "broker_went_back", &[("orchestrator", "broker_went_back")]).await;
    assert_eq!(records[0]["body"]["event"]["epoch"], 2, "{records:?}");

    // An orchestrator that starts and remembers nothing hears it from the parties.
    stack.orchestrator.kill().await.unwrap();
    put_back(&mut stack, Some(&yesterday)).await;
    stack.orchestrator.start().await.unwrap();
    let said = ready(&stack, &wallet, 3).await;
    assert!(said["broker_went_back_at_ms"].is_u64(), "{said}");
    signed(&api, "pay Erin", "payout-5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation__should_go_on_with_a_broker_that_lost_its_store() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let (duet, keys) = (stack.duet(), keys(&stack).await);
    let alice = signed(&api, "pay Alice", "payout-1").await;
    until_shipped(&duet, &alice, &OF_A_JOB).await;
    put_back(&mut stack, None).await;
    let said = ready(&stack, &wallet, 2).await;
    assert!(said["stores_lost_at_ms"].is_u64(), "{said}");
    signed(&api, "pay Bob", "payout-2").await;
    let gone = api.get("/v1/results?after=1.1").await.unwrap();
    assert_eq!(gone.status, 410, "{gone:?}");
    until_shipped(&duet, &alice, &OF_A_JOB).await;
    let report = verify(&duet, &keys, &[]).await.unwrap();
    assert_eq!(report["valid"], true, "{report}");
}

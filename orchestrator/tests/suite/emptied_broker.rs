//! The broker returns with an empty store while orchestrators run.

use std::time::Duration;

use duet_wire::JobStateName;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::rig::{DEADLINE, Rig};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

/// Asks an orchestrator for its readiness until it is ready and reports a loss. Returns all earlier
/// answers.
async fn ready_after_a_loss(rig: &Rig, url: &str) -> Vec<Value> {
    let (mut look, mut refusals) = (interval(Duration::from_millis(50)), Vec::new());
    let ready = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let answer = rig.http.get(format!("{url}/readyz")).send().await.unwrap();
            let is_ready = answer.status() == StatusCode::OK;
            let body: Value = answer.json().await.unwrap();
            if is_ready && body["stores_lost_at_ms"].is_u64() {
                return;
            }
            if !is_ready {
                refusals.push(body);
            }
        }
    });
    assert!(ready.await.is_ok(), "never ready again: {refusals:?}");
    refusals
}

#[tokio::test(flavor = "multi_thread")]
async fn orchestrators__should_make_everything_anew_and_say_so() {
    let mut rig = Rig::new().await;
    let (first, second) = (rig.start().await, rig.start().await);
    // One job waits for its owner, and one is signed. So there are revisions and results that will
    // be lost.
    let waiting = rig.accepted(&first.url, &rig.request("waiting", DEVICE)).await;
    rig.reaches(&second.url, &waiting, JobStateName::AwaitingOwner).await;
    let signed = rig.accepted(&first.url, &rig.request("signed", BACKEND)).await;
    rig.settled(&second.url, &signed).await;
    let mut events = rig.events(&first.url, &waiting).await;
    assert!(events.next().await.is_some());

    rig.broker.kill().await.unwrap();
    rig.broker.empty().unwrap();
    rig.broker.resume().await.unwrap();

    for running in [&first, &second] {
        for refusal in ready_after_a_loss(&rig, &running.url).await {
            let code = refusal["code"].as_str().unwrap();
            let detail = refusal["detail"].as_str().unwrap();
            assert!(["broker-unreachable", "storage-unavailable"].contains(&code), "{refusal}");
            if detail.contains("lacks") {
                assert!(detail.contains("empty") && detail.contains("stop all orchestrators"), "{detail}");
            }
        }
    }
    // The queued job is lost, and the reader of its stream is not kept waiting.
    assert_eq!(
        rig.get(&first.url, &format!("/v1/jobs/{}", waiting.id)).await.status(),
        StatusCode::NOT_FOUND
    );
    while events.next().await.is_some() {}
    // Either orchestrator accepts the request again, and it is signed. Lists and events show the
    // present state.
    let again = rig.accepted(&second.url, &rig.request("signed", BACKEND)).await;
    assert_eq!(rig.settled(&first.url, &again).await.state, JobStateName::Signed);
    let again = rig.accepted(&first.url, &rig.request("waiting", DEVICE)).await;
    rig.reaches(&second.url, &again, JobStateName::AwaitingOwner).await;
    for running in [&first, &second] {
        let listed: Value = rig.get(&running.url, "/v1/jobs").await.json().await.unwrap();
        assert_eq!(listed["jobs"].as_array().unwrap().len(), 2, "{listed}");
    }
    first.stop().await;
    second.stop().await;
}

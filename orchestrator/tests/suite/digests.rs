//! A transaction belongs to one job, and an old signature does not bypass a decision.

use duet_wire::{
    Code, JobStateName,
    batch::{BatchItem, BatchRequest},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Act, DEADLINE, Rig, Running, TOKEN, problem};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

/// A request for one transaction, the same for every key.
fn payment(rig: &Rig, key: &str, nonce: u64) -> Value {
    let mut request = rig.request(key, BACKEND);
    request["payload"] = json!({
        "kind": "transaction", "type": "0x2", "chainId": 31337, "nonce": nonce,
        "to": "0x00000000000000000000000000000000DeaDBeef", "value": "1", "gas": 21000,
        "maxFeePerGas": "1000000000", "maxPriorityFeePerGas": "1",
    });
    request
}

async fn refused(rig: &Rig, orchestrator: &Running, request: &Value, first: &str) {
    let answer = rig.submit(&orchestrator.url, request).await;
    let body = problem(answer, StatusCode::CONFLICT, Code::DuplicateDigest).await;
    assert_eq!(body["job"], *first, "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(first) && detail.contains("Duet-Repeat-Digest"), "{detail}");
}

async fn submit_meant(rig: &Rig, orchestrator: &Running, request: &Value, meant: &str) -> reqwest::Response {
    let key = request["idempotency_key"].as_str().unwrap();
    rig.submission(&orchestrator.url, TOKEN, key, rig.signed(request))
        .header("Duet-Repeat-Digest", meant)
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_transaction_of_another_job__should_be_refused_unless_it_is_meant() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    rig.script(&[Act::Hold]);
    let first = rig.accepted(&orchestrator.url, &payment(&rig, "first", 0)).await;
    let id = first.id.to_string();

    // While the job runs, and after it is signed. Its own submission again gives the same job.
    let manifest = rig.held.recv().await.unwrap();
    refused(&rig, &orchestrator, &payment(&rig, "second", 0), &id).await;
    rig.release(&manifest).await;
    assert_eq!(rig.settled(&orchestrator.url, &first).await.state, JobStateName::Signed);
    refused(&rig, &orchestrator, &payment(&rig, "second", 0), &id).await;
    assert_eq!(rig.submit(&orchestrator.url, &payment(&rig, "first", 0)).await.status(), StatusCode::OK);

    // Another nonce is another transaction. Another key of the wallet is another sender.
    rig.accepted(&orchestrator.url, &payment(&rig, "next", 1)).await;
    let mut child = payment(&rig, "child", 0);
    child["path"] = json!("m/1");
    rig.script(&[Act::Refuse(Code::PolicyRefused)]);
    rig.accepted(&orchestrator.url, &child).await;

    // A repetition is signed only if the requester states that it is intended: by a header with an
    // exact value, or in a batch by a member.
    let unclear = submit_meant(&rig, &orchestrator, &payment(&rig, "second", 0), "perhaps").await;
    problem(unclear, StatusCode::BAD_REQUEST, Code::MalformedJson).await;
    let not_meant = submit_meant(&rig, &orchestrator, &payment(&rig, "second", 0), "false").await;
    problem(not_meant, StatusCode::CONFLICT, Code::DuplicateDigest).await;
    let meant = submit_meant(&rig, &orchestrator, &payment(&rig, "second", 0), "true").await;
    assert_eq!(meant.status(), StatusCode::ACCEPTED);
    let items = [("third", false), ("fourth", true)].map(|(key, repeat_digest)| BatchItem {
        request: rig.signed(&payment(&rig, key, 0)),
        priority: duet_wire::Priority::Normal,
        repeat_digest,
    });
    let batch = BatchRequest { items: items.to_vec() }.to_json().unwrap();
    let answer = rig.http.post(format!("{}/v1/batches", orchestrator.url)).bearer_auth(TOKEN).body(batch);
    let answer: Value = answer.timeout(DEADLINE).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["items"][0]["problem"]["code"], "duplicate-digest", "{answer}");
    assert_eq!(answer["items"][0]["job"], *id, "{answer}");
    assert_eq!(answer["items"][1]["verdict"], "accepted", "{answer}");
    orchestrator.stop().await;
}

#[tokio::test]
async fn a_transaction_whose_job_failed__should_be_free_and_then_not_come_back() {
    let rig = Rig::with(|config| config.queue.max_attempts = 1).await;
    let orchestrator = rig.start().await;
    rig.script(&[Act::Refuse(Code::PolicyRefused)]);
    let first = rig.accepted(&orchestrator.url, &payment(&rig, "first", 0)).await;
    assert_eq!(rig.settled(&orchestrator.url, &first).await.state, JobStateName::Failed);
    let second = rig.accepted(&orchestrator.url, &payment(&rig, "second", 0)).await;
    assert_eq!(rig.settled(&orchestrator.url, &second).await.state, JobStateName::Signed);

    // The dead letter would sign the transaction a second time.
    let path = format!("{}/v1/dead-letters/{}/redrive", orchestrator.url, first.id);
    let back = rig.http.post(path).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap();
    let refused = problem(back, StatusCode::CONFLICT, Code::DuplicateDigest).await;
    assert!(refused["detail"].as_str().unwrap().contains(&second.id.to_string()), "{refused}");
    orchestrator.stop().await;
}

#[tokio::test]
async fn one_transaction_under_many_keys_at_once__should_be_one_job() {
    let rig = Rig::new().await;
    let (one, other) = (rig.start().await, rig.start().await);
    let submissions = (0..12).map(|number| {
        let url = if number % 2 == 0 { &one.url } else { &other.url };
        let request = payment(&rig, &format!("key-{number}"), 0);
        let rig = &rig;
        async move { rig.submit(url, &request).await.status() }
    });
    let statuses = futures::future::join_all(submissions).await;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(StatusCode::ACCEPTED), count(StatusCode::CONFLICT)), (1, 11), "{statuses:?}");
    one.stop().await;
    other.stop().await;
}

/// A request for one message, the same for every key.
fn login(rig: &Rig, key: &str, pairs: &[&str]) -> Value {
    let mut request = rig.request(key, pairs);
    request["payload"] = json!({"kind": "personal_message", "text": "log in"});
    request
}

#[tokio::test]
async fn the_same_message__should_get_its_first_signature_only_after_a_new_decision() {
    let rig = Rig::with(|config| config.queue.max_attempts = 1).await;
    let orchestrator = rig.start().await;
    let first = rig.accepted(&orchestrator.url, &login(&rig, "monday", BACKEND)).await;
    let first = rig.settled(&orchestrator.url, &first).await.ending.signature.unwrap();

    // The party signs with a new nonce, so its signature differs and is as valid. The answer has
    // the first one.
    rig.script(&[Act::SignAfresh]);
    let second = rig.accepted(&orchestrator.url, &login(&rig, "tuesday", BACKEND)).await;
    let second = rig.settled(&orchestrator.url, &second).await;
    assert_eq!(second.ending.signature.as_ref(), Some(&first));
    let signed = second.ending.result.unwrap().verify(&rig.result_key()).unwrap();
    assert_eq!(signed.signature.to_string(), first);

    // Also from another orchestrator, which has not seen the first job.
    let other = rig.start().await;
    rig.script(&[Act::SignAfresh]);
    let third = rig.accepted(&other.url, &login(&rig, "wednesday", BACKEND)).await;
    assert_eq!(rig.settled(&other.url, &third).await.ending.signature.as_ref(), Some(&first));

    // When a party refuses or the owner rejects, there is no signature, not even the old one.
    for code in [Code::PolicyRefused, Code::ApprovalMissing, Code::LimitExceeded] {
        rig.script(&[Act::Refuse(code)]);
        let job = rig.accepted(&orchestrator.url, &login(&rig, code.as_str(), BACKEND)).await;
        let failed = rig.settled(&orchestrator.url, &job).await;
        assert_eq!(failed.state, JobStateName::Failed, "{failed:?}");
        assert_eq!((failed.ending.signature, failed.ending.result), (None, None));
    }
    let job = rig.accepted(&orchestrator.url, &login(&rig, "thursday", DEVICE)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    let device = rig.world.card(duet_protocol::ids::ShareIndex::Device);
    rig.owner(&device, duet_wire::approval::ApprovalAction::Reject { job: job.id }).await;
    let rejected = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(rejected.ending.failure.map(|failure| failure.code), Some(Code::RejectedByOwner));
    assert_eq!((rejected.ending.signature, rejected.ending.result), (None, None));
    // An expired request is refused as usual.
    let mut late = login(&rig, "friday", BACKEND);
    late["expires_at"] = json!(1);
    problem(rig.submit(&orchestrator.url, &late).await, StatusCode::GONE, Code::JobExpired).await;
    orchestrator.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_transaction__should_never_be_answered_with_an_old_signature() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let first = rig.accepted(&orchestrator.url, &payment(&rig, "first", 0)).await;
    let first = rig.settled(&orchestrator.url, &first).await.ending;
    rig.script(&[Act::SignAfresh]);
    let meant = submit_meant(&rig, &orchestrator, &payment(&rig, "second", 0), "true").await;
    let second = serde_json::from_str(&meant.text().await.unwrap()).unwrap();
    let second = rig.settled(&orchestrator.url, &second).await.ending;
    assert!(second.signature.is_some() && first.signature != second.signature);
    assert_ne!(first.signed_transaction, second.signed_transaction);
    orchestrator.stop().await;
}

//! Records what a release writes into the broker: `docs/releases.md` says when. The unit tests read
//! the recordings, in `tests/fixtures`.
//!
//! This file compiles with the release that it records, so it uses only what that release has.

use std::{collections::BTreeMap, fs, path::Path};

use duet_bus::{
    Address, Role, audit,
    kv::{self, Pattern},
    streams::StorageSettings,
};
use duet_orchestrator::api::JobView;
use duet_wire::{Code, JobStateName};
use serde_json::{Value, json};

use crate::rig::{Act, DEADLINE, Rig, TOKEN, now_ms};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

const BUCKETS: [&str; 6] = [kv::JOBS, kv::SESSIONS, kv::BATCHES, kv::WEBHOOKS, kv::DIGESTS, kv::ANSWERS];

async fn post(rig: &Rig, url: String, body: &Value) {
    let answer = rig.http.post(url).bearer_auth(TOKEN).timeout(DEADLINE).json(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

#[tokio::test]
#[ignore = "records the fixtures of a release; set DUET_RECORD to the folder"]
async fn recordings__should_have_every_record_and_every_state() {
    let mut rig = Rig::with(|config| config.queue.max_attempts = 2).await;
    let orchestrator = rig.start().await;
    let url = orchestrator.url.as_str();
    post(&rig, format!("{url}/v1/webhooks"), &json!({ "url": "https://example.com/hook" })).await;

    let first = rig.request("signed", BACKEND);
    let signed = rig.accepted_urgently(url, &first, "high").await;
    assert_eq!(rig.settled(url, &signed).await.state, JobStateName::Signed);
    let mut payment = rig.request("paid", BACKEND);
    payment["payload"] = json!({
        "kind": "transaction", "type": "0x2", "chainId": 31337, "nonce": 0,
        "to": "0x00000000000000000000000000000000DeaDBeef", "value": "1", "gas": 21000,
        "maxFeePerGas": "1000000000", "maxPriorityFeePerGas": "1",
    });
    let paid = rig.accepted(url, &payment).await;
    assert_eq!(rig.settled(url, &paid).await.state, JobStateName::Signed);

    // Every kind of evidence but silence, which takes a minute.
    for (key, acts) in [
        ("refused", &[Act::Refuse(Code::PolicyRefused)][..]),
        ("reported", &[Act::Fail(Code::Internal); 8]),
        ("blamed", &[Act::SignAnotherDigest; 8]),
    ] {
        rig.script(acts);
        let job = rig.accepted(url, &rig.request(key, BACKEND)).await;
        assert_eq!(rig.settled(url, &job).await.state, JobStateName::Failed, "{key}");
        rig.world.script.lock().unwrap().clear();
    }
    rig.script(&[Act::Fail(Code::Internal); 8]);
    let back = rig.accepted(url, &rig.request("put-back", BACKEND)).await;
    assert_eq!(rig.settled(url, &back).await.state, JobStateName::Failed);
    rig.world.script.lock().unwrap().clear();
    rig.told([&back]).await;
    post(&rig, format!("{url}/v1/dead-letters/{}/redrive", back.id), &json!({})).await;
    rig.reaches(url, &back, JobStateName::Signed).await;

    let requests = [first, rig.request("one", BACKEND), rig.request("two", BACKEND)];
    assert!(rig.submit_batch(url, &requests).await.status().is_success());
    for request in &requests[1..] {
        let job: JobView = rig.submit(url, request).await.json().await.unwrap();
        rig.reaches(url, &job, JobStateName::Signed).await;
    }

    let cancelled = rig.accepted(url, &rig.request("cancelled", DEVICE)).await;
    assert!(rig.cancel(url, &cancelled).await.status().is_success());
    let revoked = rig.accepted(url, &rig.request("revoked", DEVICE)).await;
    let proof = rig.revocation(url, &revoked, &rig.world.requester.clone()).await;
    assert!(rig.revoke(url, &revoked, &proof).await.status().is_success());
    let mut short = rig.request("expired", DEVICE);
    short["expires_at"] = json!(now_ms() / 1000 + 3);
    let expired = rig.accepted(url, &short).await;
    rig.reaches(url, &expired, JobStateName::Expired).await;
    let waiting = rig.accepted(url, &rig.request("waiting", DEVICE)).await;
    rig.reaches(url, &waiting, JobStateName::AwaitingOwner).await;
    rig.script(&[Act::Hold]);
    // Enough for the pauses, which grow.
    rig.script(&[Act::Refuse(Code::Overloaded); 1000]);
    let running = rig.accepted(url, &rig.request("running", BACKEND)).await;
    rig.reaches(url, &running, JobStateName::Running).await;
    rig.held.recv().await.unwrap();
    let queued = rig.accepted(url, &rig.request("queued", BACKEND)).await;
    let mut events = rig.events(url, &queued).await;
    while events.next().await.is_some_and(|(_, data)| !data.contains("overloaded")) {}
    rig.told([&signed, &paid, &back, &cancelled, &revoked, &expired]).await;
    orchestrator.stop().await;

    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let mut recording = BTreeMap::new();
    for name in BUCKETS {
        let bucket = bus.ensure_bucket::<Value>(name, &StorageSettings::default()).await.unwrap();
        let entries = bucket.list(&Pattern::everything(), 1000).await.unwrap();
        let entries: BTreeMap<String, Value> =
            entries.into_iter().map(|(key, entry)| (key.to_string(), entry.value)).collect();
        assert!(!entries.is_empty(), "{name}");
        recording.insert(name, serde_json::to_value(entries).unwrap());
    }
    let (mut results, mut ended, mut after) = (Vec::new(), Vec::new(), 0);
    while let Some(end) = bus.next_end(&"demo".parse().unwrap(), after).await.unwrap() {
        let value: Value = serde_json::from_slice(&end.payload).unwrap();
        if matches!(end.address, Address::Result(_)) {
            results.push(value)
        } else {
            ended.push(value)
        }
        after = end.sequence;
    }
    let mut lines = Vec::new();
    let auditor = rig.broker.connect(Role::Auditor).await.unwrap();
    audit::read(&auditor, |message| {
        let text =
            duet_wire::audit::lines(&message.records).map(|line| String::from_utf8(line.into()).unwrap());
        lines.extend(text.map(Value::String));
    })
    .await
    .unwrap();
    assert!(!results.is_empty() && !ended.is_empty() && !lines.is_empty());
    recording.extend([
        ("results", Value::Array(results)),
        ("ended", Value::Array(ended)),
        ("audit", Value::Array(lines)),
    ]);
    let folder = std::env::var("DUET_RECORD").unwrap();
    fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_string_pretty(&recording).unwrap() + "\n";
    fs::write(Path::new(&folder).join("records.json"), text).unwrap();
}

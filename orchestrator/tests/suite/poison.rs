//! Jobs that cannot be processed are set aside, and the queue continues.

use std::time::Duration;

use duet_bus::{Address, Bus, Role, kv, kv::Key, streams::StorageSettings};
use duet_orchestrator::api::JobPage;
use duet_wire::{Code, JobId, JobRecord, JobStateName, SigningRequest};
use serde_json::Value;

use crate::rig::{Act, DEADLINE, Rig, now_ms};

const BACKEND: &[&str] = &["service+partner"];

/// A bucket into which the test can write anything.
async fn bucket(bus: &Bus) -> kv::Bucket<Value> {
    bus.ensure_bucket::<Value>(kv::JOBS, &StorageSettings::default()).await.unwrap()
}

/// The record that a submission of `key` would make.
fn record(rig: &Rig, key: &str) -> JobRecord {
    let signed = rig.signed(&rig.request(key, BACKEND));
    let request = SigningRequest::from_json(&signed.body).unwrap();
    JobRecord::new(signed, &request, now_ms())
}

async fn announce(bus: &Bus, job: JobId) {
    let address = Address::Job("demo".parse().unwrap());
    bus.publish_stored(&address, job.to_string(), None, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn entries_that_cannot_be_read__should_not_block_the_queue() {
    let rig = Rig::with(|config| config.queue.max_in_flight = 1).await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let bucket = bucket(&bus).await;
    let tenant = "demo".parse().unwrap();

    // An entry that is not a record.
    let garbage = JobId([0xaa; 16]);
    bucket.create(&Key::from((&tenant, garbage)), &Value::from("garbage")).await.unwrap();
    announce(&bus, garbage).await;
    // A record under another job's name.
    let misplaced = JobId([0xbb; 16]);
    let document = serde_json::to_value(record(&rig, "misplaced")).unwrap();
    bucket.create(&Key::from((&tenant, misplaced)), &document).await.unwrap();
    announce(&bus, misplaced).await;
    // A record whose request does not parse.
    let mut unreadable = record(&rig, "unreadable");
    unreadable.request.body = b"{\"version\": 2}".to_vec();
    let key = Key::from((&tenant, unreadable.id));
    bucket.create(&key, &serde_json::to_value(&unreadable).unwrap()).await.unwrap();
    announce(&bus, unreadable.id).await;
    // An announcement of a job that does not exist.
    announce(&bus, JobId([0xcc; 16])).await;

    for number in 0..5 {
        let job = rig.accepted(url, &rig.request(&format!("healthy-{number}"), BACKEND)).await;
        assert_eq!(rig.settled(url, &job).await.state, JobStateName::Signed);
    }
    // The one valid record ends as a dead letter. The others do not hide jobs from lists.
    let ended = async {
        loop {
            let value = bucket.get(&key).await.unwrap().unwrap().value;
            if value["state"] == "failed" {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(ended["code"], Code::Internal.as_str());
    let page: JobPage = rig.get(url, "/v1/jobs").await.json().await.unwrap();
    assert_eq!(page.jobs.len(), 5);
}

#[tokio::test]
async fn a_job_that_kills_its_workers__should_end_and_let_others_by() {
    let mut rig = Rig::with(|config| {
        config.queue.max_in_flight = 1;
        config.queue.max_attempts = 2;
        config.queue.session_timeout = Duration::from_secs(1);
        config.queue.outcome_grace = Duration::ZERO;
        config.queue.retry_pause = Duration::from_secs(1);
    })
    .await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    // In both attempts the worker is never heard of again.
    rig.script(&[Act::Hold, Act::Sign, Act::Hold]);
    let poison = rig.accepted(url, &rig.request("poison", BACKEND)).await;
    rig.held.recv().await.unwrap();
    // While it waits between its attempts, another job has its turn.
    let healthy = rig.accepted(url, &rig.request("healthy", BACKEND)).await;
    assert_eq!(rig.settled(url, &healthy).await.state, JobStateName::Signed);
    let settled = rig.settled(url, &poison).await;
    assert_eq!((settled.state, settled.history.len()), (JobStateName::Failed, 2));
    assert_eq!(settled.ending.failure.unwrap().code, Code::Deadline);
}

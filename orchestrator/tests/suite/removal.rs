//! A job is removed while an orchestrator is cut off from the broker.

use std::time::Duration;

use duet_bus::{
    Role,
    kv::{self, Key},
    streams::StorageSettings,
};
use duet_harness::broker::Broker;
use duet_wire::JobStateName;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::rig::{DEADLINE, Rig, now_ms};

const DEVICE: &[&str] = &["device+service"];

/// How long a bucket remembers a removal: as short as the broker permits.
const MARKER_TTL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_missed_a_removal__should_find_out() {
    let mut rig = Rig::with(|config| {
        config.storage.marker_ttl = MARKER_TTL;
        config.queue.max_open_jobs_per_tenant = 1;
    })
    .await;
    let orchestrator = rig.start().await;
    let mut request = rig.request("removed", DEVICE);
    request["expires_at"] = json!(now_ms() / 1000 + 5);
    let job = rig.accepted(&orchestrator.url, &request).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;

    // The same store at another address, where the orchestrator does not find it.
    rig.broker.kill().await.unwrap();
    let elsewhere = Broker::start_in(rig.broker.credentials()).await.unwrap();
    let bus = elsewhere.connect(Role::Orchestrator).await.unwrap();
    let settings = StorageSettings { marker_ttl: MARKER_TTL, ..StorageSettings::default() };
    let bucket = bus.ensure_bucket::<Value>(kv::JOBS, &settings).await.unwrap();
    let key = Key::from((&job.tenant, job.id));
    let entry = bucket.get(&key).await.unwrap().unwrap();
    bucket.purge(&key, entry.revision).await.unwrap();
    let stream = format!("KV_{}", kv::JOBS);
    let forgotten =
        async { while bus.look_at_stream(&stream).await.unwrap().is_some_and(|look| look.bytes > 0) {} };
    timeout(DEADLINE, forgotten).await.unwrap();
    drop((bus, elsewhere));
    rig.broker.resume().await.unwrap();

    // It takes the job for an open one until the job's time is over.
    let found_out = async {
        while rig.submit(&orchestrator.url, &rig.request("next", DEVICE)).await.status()
            != StatusCode::ACCEPTED
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, found_out).await.expect("the removed job still counts as open");
    orchestrator.stop().await;
}

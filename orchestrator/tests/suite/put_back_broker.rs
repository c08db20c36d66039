//! The broker is put back to an earlier copy of its store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use duet_bus::{Role, kv};
use duet_orchestrator::api::{EndPage, JobView};
use duet_wire::{Code, JobId, JobStateName, remembered::Remembered};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::rig::{DEADLINE, Rig, TOKEN, problem};

const BACKEND: &[&str] = &["service+partner"];

/// Has so many jobs signed, and their ends published.
async fn sign(rig: &Rig, url: &str, names: &[&str]) -> Vec<JobView> {
    let mut jobs = Vec::new();
    for name in names {
        let job = rig.accepted(url, &rig.request(name, BACKEND)).await;
        assert_eq!(rig.settled(url, &job).await.state, JobStateName::Signed);
        jobs.push(job);
    }
    rig.told(&jobs).await;
    jobs
}

/// A copy of the broker's store as it is now.
async fn copy(rig: &mut Rig) -> PathBuf {
    let copy = rig.broker.credentials().join("copy");
    rig.broker.kill().await.unwrap();
    rig.broker.copy(&copy).unwrap();
    rig.broker.resume().await.unwrap();
    copy
}

async fn put_back(rig: &mut Rig, copy: &Path) {
    rig.broker.kill().await.unwrap();
    rig.broker.empty().unwrap();
    rig.broker.put_back(copy).unwrap();
    rig.broker.resume().await.unwrap();
}

/// Waits until the orchestrator is ready in the broker's `epoch`. Returns what it says.
async fn ready(rig: &Rig, url: &str, epoch: u64) -> Value {
    let (mut look, mut last) = (interval(Duration::from_millis(50)), Value::Null);
    let ready = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let answer = rig.http.get(format!("{url}/readyz")).send().await.unwrap();
            let is_ready = answer.status() == StatusCode::OK;
            last = answer.json().await.unwrap();
            if is_ready && last["broker_epoch"] == epoch {
                return;
            }
        }
    });
    assert!(ready.await.is_ok(), "not ready in epoch {epoch}: {last}");
    last
}

async fn page(rig: &Rig, url: &str, after: &str) -> EndPage {
    rig.get(url, &format!("/v1/results?after={after}")).await.json().await.unwrap()
}

fn jobs(page: &EndPage) -> Vec<JobId> {
    page.results.iter().map(|end| end.job).collect()
}

/// Refuses `after`, and says that a reader goes on after `valid`.
async fn is_gone(rig: &Rig, url: &str, after: &str, valid: &str) {
    for path in [format!("/v1/results?after={after}"), format!("/v1/results/events?after={after}")] {
        let refused = problem(rig.get(url, &path).await, StatusCode::GONE, Code::CursorGone).await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("after={valid},")), "{path}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orchestrators__should_begin_one_epoch_and_refuse_cursors_of_what_is_gone() {
    let mut rig = Rig::new().await;
    let (first, second) = (rig.start().await, rig.start().await);
    let kept = sign(&rig, &first.url, &["one", "two"]).await;
    let yesterday = copy(&mut rig).await;
    for running in [&first, &second] {
        let said = ready(&rig, &running.url, 1).await;
        assert_eq!(said.get("broker_went_back_at_ms"), None, "{said}");
    }
    let gone = sign(&rig, &first.url, &["three", "four", "five"]).await;
    let read = page(&rig, &second.url, "0").await;
    assert_eq!((read.results.len(), read.next.as_str()), (5, "1.5"));

    put_back(&mut rig, &yesterday).await;
    for running in [&first, &second] {
        let said = ready(&rig, &running.url, 2).await;
        assert!(said["broker_went_back_at_ms"].is_u64(), "{said}");
        assert_eq!(running.metric("duet_broker_epoch"), "2");
        assert_eq!(running.metric("duet_broker_went_back_total"), "1");
    }
    // The consumer reads only after the stream has outgrown its cursor.
    let new = sign(&rig, &second.url, &["six", "seven", "eight", "nine"]).await;
    let new: Vec<JobId> = new.iter().map(|job| job.id).collect();
    for running in [&first, &second] {
        let url = &running.url;
        for after in ["1.5", "5", "1.3", "7.1"] {
            is_gone(&rig, url, after, if after == "7.1" { "2.0" } else { "2.2" }).await;
        }
        for after in ["2.2", "1.2", "2"] {
            let read = page(&rig, url, after).await;
            assert_eq!((jobs(&read), read.next.as_str()), (new.clone(), "2.6"), "{after}");
        }
        // The board shows what the bucket holds.
        for job in &gone {
            assert_eq!(rig.get(url, &format!("/v1/jobs/{}", job.id)).await.status(), StatusCode::NOT_FOUND);
        }
        let listed: Value = rig.get(url, "/v1/jobs").await.json().await.unwrap();
        assert_eq!(listed["jobs"].as_array().unwrap().len(), kept.len() + new.len(), "{listed}");
    }
    // One that starts later knows it from the broker.
    let third = rig.start().await;
    is_gone(&rig, &third.url, "1.5", "2.2").await;
    assert_eq!(third.metric("duet_broker_went_back_total"), "0");
    for running in [first, second, third] {
        running.stop().await;
    }
}

/// What a responder that took part in a session now would remember.
async fn memory(rig: &Rig, epoch: u64) -> Remembered {
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let look = bus.look_at_stream(&format!("KV_{}", kv::JOBS)).await.unwrap().unwrap();
    Remembered { epoch, revision: look.last_sequence, created_ns: look.created_ns }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_remembers_nothing__should_hear_it_from_the_parties() {
    let mut rig = Rig::new().await;
    let first = rig.start().await;
    sign(&rig, &first.url, &["one"]).await;
    let yesterday = copy(&mut rig).await;
    ready(&rig, &first.url, 1).await;
    sign(&rig, &first.url, &["two"]).await;
    *rig.world.remembered.lock().unwrap() = vec![memory(&rig, 1).await];
    first.stop().await;
    put_back(&mut rig, &yesterday).await;

    let second = rig.start().await;
    ready(&rig, &second.url, 2).await;
    is_gone(&rig, &second.url, "1.2", "2.1").await;
    second.stop().await;
    // What was found needs to be found but once.
    let third = rig.start().await;
    ready(&rig, &third.url, 2).await;
    third.stop().await;

    // A party that answers late is asked until it does. The lost broker has no epoch.
    *rig.world.remembered.lock().unwrap() = vec![memory(&rig, 2).await];
    rig.broker.restart_empty().await.unwrap();
    for party in [&mut rig.service, &mut rig.partner] {
        party.leave().await;
    }
    let fourth = rig.start().await;
    ready(&rig, &fourth.url, 1).await;
    for party in [&mut rig.service, &mut rig.partner] {
        party.come_back().await;
    }
    ready(&rig, &fourth.url, 3).await;
    assert!(rig.ends(&fourth.url, TOKEN).await.is_empty());
    is_gone(&rig, &fourth.url, "2.1", "3.0").await;
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_that_lie_about_the_broker__should_begin_one_epoch_a_day() {
    let rig = Rig::new().await;
    let first = rig.start().await;
    sign(&rig, &first.url, &["one"]).await;
    let believed = memory(&rig, 1).await;
    first.stop().await;
    // Nothing was put back. Each start hears another lie, as a reconnection would.
    let lies = [
        Remembered { revision: believed.revision + 1_000_000, ..believed },
        Remembered { revision: u64::MAX, epoch: 2, ..believed },
        Remembered { created_ns: 1, epoch: 2, ..believed },
        Remembered { epoch: u64::MAX, ..believed },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        *rig.world.remembered.lock().unwrap() = vec![lie];
        let running = rig.start().await;
        ready(&rig, &running.url, 2).await;
        for party in ["service", "partner"] {
            let name = format!("duet_party_memories_not_believed_total{{party=\"{party}\"}}");
            assert_eq!(running.metric(&name), number.min(1).to_string(), "{lie}");
        }
        // What was told is still there, and what is told now is signed.
        let kept = rig.ends(&running.url, TOKEN).await.len();
        sign(&rig, &running.url, &[&format!("lie-{number}")]).await;
        assert_eq!(rig.ends(&running.url, TOKEN).await.len(), kept + 1);
        running.stop().await;
    }
}

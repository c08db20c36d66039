//! Limits of a tenant: refusals state when to come back, and do not affect other tenants.

use std::num::NonZeroU32;

use duet_orchestrator::api::JobView;
use duet_wire::{Code, JobStateName};
use reqwest::{Response, StatusCode};

use crate::rig::{Act, DEADLINE, OTHER_TOKEN, Rig, TOKEN, problem};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

/// The seconds after which the client should come back.
fn retry_after(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_tenant_with_all_its_jobs_open__should_be_refused_alone() {
    let rig = Rig::with(|config| config.queue.max_open_jobs_per_tenant = 2).await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let first = rig.accepted(url, &rig.request("first", DEVICE)).await;
    rig.accepted(url, &rig.request("second", DEVICE)).await;
    let refused = rig.submit(url, &rig.request("third", DEVICE)).await;
    assert!((1..=60).contains(&retry_after(&refused)));
    let body = problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::QueueFull).await;
    assert!(body["detail"].as_str().unwrap().starts_with("the tenant has 2 open jobs"), "{body}");
    // An earlier submission is still known, and the other tenant is not affected.
    assert_eq!(rig.submit(url, &rig.request("first", DEVICE)).await.status(), StatusCode::OK);
    rig.accepted(url, &rig.other_request("theirs", DEVICE)).await;

    assert_eq!(rig.cancel(url, &first).await.status(), StatusCode::OK);
    rig.accepted(url, &rig.request("third", DEVICE)).await;
}

#[tokio::test]
async fn a_tenant_that_asks_too_often__should_be_slowed_down_alone() {
    let rig = Rig::with(|config| {
        config.http.requests_per_second_per_tenant = NonZeroU32::new(1).unwrap();
    })
    .await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let mut answers = Vec::new();
    // Two at once are permitted. Of many within a few seconds, most are too many.
    for _ in 0..40 {
        answers.push(rig.get(url, "/v1/jobs").await);
    }
    let refused = answers.pop().unwrap();
    assert!(retry_after(&refused) >= 1);
    problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::RateLimited).await;
    let other = rig.http.get(format!("{url}/v1/jobs")).bearer_auth(OTHER_TOKEN).timeout(DEADLINE);
    assert_eq!(other.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn event_streams__should_be_bounded_per_tenant() {
    let rig = Rig::with(|config| config.http.max_event_streams_per_tenant = 1).await;
    let orchestrator = rig.start().await;
    let path = format!("{}/v1/results/events", orchestrator.url);
    let open = rig.event_stream(&path, TOKEN, "").await;
    let refused = rig.http.get(&path).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap();
    assert!(retry_after(&refused) >= 1);
    problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::QueueFull).await;
    let _theirs = rig.event_stream(&path, OTHER_TOKEN, "").await;
    drop(open);
    let again = async {
        while rig.http.get(&path).bearer_auth(TOKEN).send().await.unwrap().status() != StatusCode::OK {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.unwrap();
}

#[tokio::test]
async fn a_full_stream_of_announcements__should_refuse_new_jobs_and_lose_none() {
    let mut rig = Rig::with(|config| {
        config.queue.max_in_flight = 1;
        config.storage.jobs_max_bytes = 2 * 1024;
    })
    .await;
    rig.script(&[Act::Hold]);
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    rig.accepted(url, &rig.request("held", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = rig.submit(url, &rig.request(&format!("job-{}", accepted.len()), BACKEND)).await;
        if answer.status() != StatusCode::ACCEPTED {
            break answer;
        }
        accepted.push(answer.json::<JobView>().await.unwrap());
        assert!(accepted.len() < 500, "nothing was refused");
    };
    assert!(retry_after(&refused) >= 1);
    let body = problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::QueueFull).await;
    assert!(body["detail"].as_str().unwrap().contains("DUET_JOBS"), "{body}");
    // All accepted jobs are signed, even those without an announcement. Then there is room again.
    rig.release(&manifest).await;
    for job in &accepted {
        assert_eq!(rig.settled(url, job).await.state, JobStateName::Signed);
    }
    let again = async {
        while rig.submit(url, &rig.request("again", BACKEND)).await.status() != StatusCode::ACCEPTED {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.unwrap();
}

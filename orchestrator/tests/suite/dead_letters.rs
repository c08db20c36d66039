//! Dead letters, listed and put back into the queue over HTTP and with the command.

use duet_harness::duet::Duet;
use duet_orchestrator::api::{JobPage, JobView};
use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, JobStateName, approval::ApprovalAction, approval::ApprovalReply};
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::{Act, DEADLINE, Rig, Running, TOKEN, problem};

const BACKEND: &[&str] = &["service+partner"];

/// A job that three failed attempts made a dead letter.
async fn dead_letter(rig: &Rig, orchestrator: &Running, name: &str) -> JobView {
    rig.script(&[Act::Fail(Code::Deadline); 3]);
    let job = rig.accepted(&orchestrator.url, &rig.request(name, BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.history.len()), (JobStateName::Failed, 3));
    settled
}

async fn rig() -> Rig {
    Rig::with(|config| config.queue.max_attempts = 3).await
}

async fn redrive(rig: &Rig, url: &str, token: &str, job: &str) -> reqwest::Response {
    let path = format!("{url}/v1/dead-letters/{job}/redrive");
    rig.http.post(path).bearer_auth(token).timeout(DEADLINE).send().await.unwrap()
}

#[tokio::test]
async fn a_dead_letter__should_be_signed_after_it_was_put_back() {
    let rig = rig().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let older = dead_letter(&rig, &orchestrator, "older").await;
    let newer = dead_letter(&rig, &orchestrator, "newer").await;
    let signed = rig.accepted(url, &rig.request("signed", BACKEND)).await;
    rig.settled(url, &signed).await;

    let page: JobPage = rig.get(url, "/v1/dead-letters?limit=1").await.json().await.unwrap();
    assert_eq!((page.jobs.len(), page.jobs[0].id, page.next), (1, newer.id, Some(newer.id)));
    let rest = format!("/v1/dead-letters?after={}", newer.id);
    let page: JobPage = rig.get(url, &rest).await.json().await.unwrap();
    assert_eq!((page.jobs.len(), page.jobs[0].id, page.next), (1, older.id, None));
    let shown: JobView = rig.get(url, &format!("/v1/dead-letters/{}", older.id)).await.json().await.unwrap();
    assert_eq!((shown.history.len(), shown.ending.failure.unwrap().code), (3, Code::Deadline));

    // Its cause is repaired. It has all its attempts again, and the second of them succeeds.
    rig.script(&[Act::Fail(Code::Deadline), Act::Sign]);
    let back = redrive(&rig, url, TOKEN, &older.id.to_string()).await;
    assert_eq!(back.status(), StatusCode::ACCEPTED);
    let settled = rig.settled(url, &older).await;
    assert_eq!((settled.state, settled.history.len()), (JobStateName::Signed, 5));
    assert!(settled.put_back_at_ms.is_some());
    let page: JobPage = rig.get(url, "/v1/dead-letters").await.json().await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [newer.id]);
}

#[tokio::test]
async fn a_job_that_fails_again_after_it_was_put_back__should_be_a_dead_letter_again() {
    let rig = rig().await;
    let orchestrator = rig.start().await;
    let job = dead_letter(&rig, &orchestrator, "twice").await;
    rig.script(&[Act::Fail(Code::Internal); 3]);
    assert_eq!(
        redrive(&rig, &orchestrator.url, TOKEN, &job.id.to_string()).await.status(),
        StatusCode::ACCEPTED
    );
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.history.len()), (JobStateName::Failed, 6));
    assert_eq!(settled.ending.failure.unwrap().code, Code::Internal);
}

#[tokio::test]
async fn what_is_no_dead_letter_of_the_tenant__should_not_be_put_back() {
    let mut rig = rig().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let job = dead_letter(&rig, &orchestrator, "mine").await.id.to_string();
    let stranger = redrive(&rig, url, "another token", &job).await;
    problem(stranger, StatusCode::NOT_FOUND, Code::NotFound).await;
    let anonymous = redrive(&rig, url, "no token", &job).await;
    problem(anonymous, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;

    rig.script(&[Act::Hold]);
    let running = rig.accepted(url, &rig.request("running", BACKEND)).await;
    rig.held.recv().await.unwrap();
    let refused = redrive(&rig, url, TOKEN, &running.id.to_string()).await;
    problem(refused, StatusCode::CONFLICT, Code::Conflict).await;
    let absent = rig.get(url, &format!("/v1/dead-letters/{}", running.id)).await;
    problem(absent, StatusCode::NOT_FOUND, Code::NotFound).await;

    // A rejection by the owner stays.
    let asked = rig.accepted(url, &rig.request("rejected", &["device+service"])).await;
    rig.reaches(url, &asked, JobStateName::AwaitingOwner).await;
    let key = rig.world.card(ShareIndex::Device);
    assert_eq!(rig.owner(&key, ApprovalAction::Reject { job: asked.id }).await, ApprovalReply::Done);
    let refused = redrive(&rig, url, TOKEN, &asked.id.to_string()).await;
    let status = refused.status();
    problem(refused, status, Code::RejectedByOwner).await;
    assert!(status.is_client_error());
}

#[tokio::test]
async fn the_command__should_list_show_and_put_back() {
    let rig = rig().await;
    let orchestrator = rig.start().await;
    let job = dead_letter(&rig, &orchestrator, "by-command").await;
    let id = job.id.to_string();
    let duet = Duet::new(rig.broker.credentials())
        .with("DUET_API_URL", &orchestrator.url)
        .with("DUET_API_TOKEN", TOKEN);
    let listed = duet.json(&["job", "dead", "list"]).await.unwrap();
    assert_eq!(listed["jobs"][0]["id"], json!(id));
    let shown = duet.json(&["job", "dead", "show", &id]).await.unwrap();
    assert_eq!(shown["job"]["history"].as_array().unwrap().len(), 3);
    let back = duet.json(&["job", "dead", "redrive", &id]).await.unwrap();
    assert!(back["job"]["put_back_at_ms"].is_u64());
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Signed);
    assert_eq!(duet.refused(&["job", "dead", "show", &id]).await.unwrap().code, "not-found");
}

//! Dead letters, listed and put back into the queue over HTTP and with the command.

use duet_harness::duet::Duet;
use duet_orchestrator::api::{JobPage, JobView};
use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, JobId, JobStateName, approval::ApprovalAction, approval::ApprovalReply};
use reqwest::StatusCode;
use serde_json::{Value, json};

use tokio::time::{Duration, interval, timeout};

use crate::rig::{Act, DEADLINE, Rig, Running, TOKEN, now_ms, problem};

const BACKEND: &[&str] = &["service+partner"];

/// A job that three failed attempts made a dead letter.
async fn dead_letter(rig: &Rig, orchestrator: &Running, name: &str) -> JobView {
    dead_letter_of(rig, orchestrator, &rig.request(name, BACKEND), Code::Deadline).await
}

/// A dead letter whose attempts failed with `code`.
async fn dead_letter_of(rig: &Rig, orchestrator: &Running, request: &Value, code: Code) -> JobView {
    rig.script(&[Act::Fail(code); 3]);
    let job = rig.accepted(&orchestrator.url, request).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.history.len()), (JobStateName::Failed, 3));
    settled
}

fn duet(rig: &Rig, orchestrator: &Running) -> Duet {
    Duet::new(rig.broker.credentials()).with("DUET_API_URL", &orchestrator.url).with("DUET_API_TOKEN", TOKEN)
}

/// The ids of the dead letters, newest first.
async fn dead(rig: &Rig, url: &str) -> Vec<JobId> {
    let page: JobPage = rig.get(url, "/v1/dead-letters").await.json().await.unwrap();
    page.jobs.iter().map(|job| job.id).collect()
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
    let duet = duet(&rig, &orchestrator);
    let listed = duet.json(&["job", "dead", "list"]).await.unwrap();
    assert_eq!(listed["jobs"][0]["id"], json!(id));
    let shown = duet.json(&["job", "dead", "show", &id]).await.unwrap();
    assert_eq!(shown["job"]["history"].as_array().unwrap().len(), 3);
    let back = duet.json(&["job", "dead", "redrive", &id]).await.unwrap();
    assert!(back["job"]["put_back_at_ms"].is_u64());
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Signed);
    assert_eq!(duet.refused(&["job", "dead", "show", &id]).await.unwrap().code, "not-found");
}

#[tokio::test]
async fn a_filter__should_put_back_exactly_what_it_selects_and_name_what_has_expired() {
    let rig = rig().await;
    let orchestrator = rig.start().await;
    let (url, duet) = (&orchestrator.url, duet(&rig, &orchestrator));
    let mut expiring = rig.request("expires", BACKEND);
    expiring["expires_at"] = json!(now_ms() / 1000 + 8);
    let expired = dead_letter_of(&rig, &orchestrator, &expiring, Code::Internal).await;
    let mut by_code = Vec::new();
    for (name, code) in [
        ("timed-out", Code::Deadline),
        ("broke", Code::Internal),
        ("timed-out-too", Code::Deadline),
        ("broke-too", Code::Internal),
    ] {
        by_code.push(dead_letter_of(&rig, &orchestrator, &rig.request(name, BACKEND), code).await);
    }
    let [timed_out, broke, timed_out_too, broke_too] = &by_code[..] else { panic!("four") };
    let mut look = interval(Duration::from_millis(50));
    while now_ms() < expired.expires_at_ms {
        look.tick().await;
    }

    // Without a filter the command asks for `--all`, and a filter may select none.
    assert_eq!(duet.refused(&["job", "dead", "redrive"]).await.unwrap().code, "usage");
    for nothing in [["--code", "policy-refused"], ["--ended-before", "1h"]] {
        let none = duet.json(&[&["job", "dead", "redrive"][..], &nothing[..]].concat()).await.unwrap();
        assert_eq!((&none["selected"], &none["put_back"]), (&json!({}), &json!(0)), "{none}");
    }
    // A dry run changes nothing.
    let dry = duet.json(&["job", "dead", "redrive", "--all", "--dry-run"]).await.unwrap();
    assert_eq!(dry["selected"], json!({"deadline": 2, "internal": 3}));
    assert_eq!((&dry["put_back"], &dry["first"][0]["id"]), (&json!(0), &json!(broke_too.id)));
    assert_eq!(dead(&rig, url).await.len(), 5);

    let wallet = rig.world.wallet.id.to_string();
    let filter =
        ["job", "dead", "redrive", "--code", "internal,locked", "--wallet", &wallet, "--ended-after", "1h"];
    let back = duet.json(&filter).await.unwrap();
    assert_eq!(back["selected"], json!({"internal": 3}));
    assert_eq!((&back["put_back"], &back["expired"]), (&json!(2), &json!([expired.id])), "{back}");
    for job in [broke, broke_too] {
        assert_eq!(rig.settled(url, job).await.state, JobStateName::Signed);
    }
    assert_eq!(dead(&rig, url).await, [timed_out_too.id, timed_out.id, expired.id]);

    // The same command again puts nothing back, and `--limit` takes the newest.
    let again = duet.json(&filter).await.unwrap();
    assert_eq!((&again["put_back"], &again["expired"]), (&json!(0), &json!([expired.id])), "{again}");
    let one = duet.json(&["job", "dead", "redrive", "--all", "--limit", "1"]).await.unwrap();
    assert_eq!((&one["selected"], &one["put_back"]), (&json!({"deadline": 1}), &json!(1)), "{one}");
    assert_eq!(rig.settled(url, timed_out_too).await.state, JobStateName::Signed);
    assert_eq!(dead(&rig, url).await, [timed_out.id, expired.id]);
    let listed = duet.json(&["job", "dead", "list", "--code", "deadline"]).await.unwrap();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
    let unknown = rig.get(url, "/v1/dead-letters?code=no-such-code").await;
    problem(unknown, StatusCode::BAD_REQUEST, Code::MalformedJson).await;
}

#[tokio::test]
async fn dead_letters_beyond_the_queues_room__should_be_put_back_once_there_is_room() {
    let mut rig = Rig::with(|config| {
        config.queue.max_attempts = 3;
        config.queue.max_open_jobs_per_tenant = 2;
    })
    .await;
    let orchestrator = rig.start().await;
    let mut jobs = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        jobs.push(dead_letter(&rig, &orchestrator, name).await);
    }
    // Two jobs in work take all the room, so the command waits, and gives up when its time is over.
    rig.script(&[Act::Hold; 2]);
    for name in ["in-work", "in-work-too"] {
        rig.accepted(&orchestrator.url, &rig.request(name, BACKEND)).await;
    }
    let duet = duet(&rig, &orchestrator);
    let all = ["job", "dead", "redrive", "--all"];
    let refused = duet.refused(&[&all[..], &["--timeout", "3s"]].concat()).await.unwrap();
    assert_eq!(refused.code, "queue-full");
    assert_eq!(dead(&rig, &orchestrator.url).await.len(), 5);
    // Once they end, it goes on.
    let redriving = tokio::spawn(async move { duet.json(&all).await });
    for _ in 0..2 {
        let manifest = timeout(DEADLINE, rig.held.recv()).await.unwrap().unwrap();
        rig.release(&manifest).await;
    }
    let back = timeout(DEADLINE * 2, redriving).await.unwrap().unwrap().unwrap();
    assert_eq!(back["put_back"], json!(5), "{back}");
    for job in &jobs {
        assert_eq!(rig.settled(&orchestrator.url, job).await.state, JobStateName::Signed);
    }
}

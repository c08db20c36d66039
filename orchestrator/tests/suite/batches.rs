//! Batches and results: submitted at once, reported as they end, and continued from any cursor.

use std::collections::BTreeMap;

use duet_bus::kv::Key;
use duet_orchestrator::api::{BatchAnswer, BatchView, EndPage, EndView, ItemStatus};
use duet_wire::{
    Code, JobId, JobStateName, Priority,
    batch::{BatchItem, BatchRequest, MAX_BATCH_ITEMS},
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Act, DEADLINE, Events, OTHER_TOKEN, Rig, TOKEN, problem};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

impl Rig {
    pub(super) async fn submit_batch(&self, url: &str, requests: &[Value]) -> Response {
        let items = requests
            .iter()
            .map(|request| BatchItem {
                request: self.signed(request),
                priority: Priority::Normal,
                repeat_digest: false,
            })
            .collect();
        self.http
            .post(format!("{url}/v1/batches"))
            .bearer_auth(TOKEN)
            .body(BatchRequest { items }.to_json().unwrap())
            .timeout(DEADLINE)
            .send()
            .await
            .unwrap()
    }

    async fn accepted_batch(&self, url: &str, requests: &[Value]) -> BatchAnswer {
        let response = self.submit_batch(url, requests).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        assert!(status.is_success(), "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn batch_events(&self, url: &str, answer: &BatchAnswer, last: &str) -> Events {
        let url = format!("{url}/v1/batches/{}/events", answer.id.unwrap());
        self.event_stream(&url, TOKEN, last).await
    }
}

/// The next end in a stream. `None` when the stream reports that it is complete.
async fn next_end(events: &mut Events) -> Option<EndView> {
    let (name, data) = events.next().await.expect("the stream broke");
    match name.as_str() {
        "end" => Some(serde_json::from_str(&data).unwrap()),
        "done" => None,
        other => panic!("unexpected event {other}"),
    }
}

/// All ends in a stream until it is complete. Each must be of another job.
async fn all_ends(mut events: Events) -> BTreeMap<JobId, EndView> {
    let mut all = BTreeMap::new();
    while let Some(end) = next_end(&mut events).await {
        assert!(all.insert(end.job, end).is_none(), "told twice");
    }
    all
}

fn jobs(answer: &BatchAnswer) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = answer.items.iter().filter_map(|item| item.job).collect();
    jobs.sort_unstable();
    jobs
}

#[tokio::test]
async fn a_batch__should_be_told_to_its_end_from_any_cursor_on_any_orchestrator() {
    let rig = Rig::new().await;
    let orchestrators = [rig.start().await, rig.start().await];
    let requests: Vec<Value> =
        (0..12).map(|number| rig.request(&format!("item-{number}"), BACKEND)).collect();
    // Jobs of another tenant, and this tenant's other jobs, are not part of the batch.
    rig.accepted(&orchestrators[0].url, &rig.request("apart", BACKEND)).await;
    rig.accepted(&orchestrators[0].url, &rig.other_request("theirs", BACKEND)).await;
    let answer = rig.accepted_batch(&orchestrators[0].url, &requests).await;
    assert!(answer.items.iter().all(|item| item.status == ItemStatus::Accepted));

    // Read ends one by one, each from another orchestrator, after the last one's cursor.
    let (mut seen, mut last) = (Vec::new(), String::new());
    for orchestrator in orchestrators.iter().cycle() {
        let mut events = rig.batch_events(&orchestrator.url, &answer, &last).await;
        let Some(end) = next_end(&mut events).await else { break };
        assert_eq!(end.state, JobStateName::Signed);
        last.clone_from(&end.cursor);
        seen.push(end.job);
    }
    let mut once = seen.clone();
    once.sort_unstable();
    assert_eq!(once, jobs(&answer));

    // From the beginning, the ends come again in the same order.
    let mut again = rig.batch_events(&orchestrators[1].url, &answer, "").await;
    let mut order = Vec::new();
    while let Some(end) = next_end(&mut again).await {
        order.push(end.job);
    }
    assert_eq!(order, seen);
    let path = format!("/v1/batches/{}", answer.id.unwrap());
    let view: BatchView = rig.get(&orchestrators[1].url, &path).await.json().await.unwrap();
    assert!(view.jobs.iter().all(|job| job.state == Some(JobStateName::Signed)));
}

#[tokio::test]
async fn a_batch_that_is_submitted_again__should_be_the_same_one() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let old: Vec<Value> = (0..3).map(|number| rig.request(&format!("old-{number}"), BACKEND)).collect();
    let first = rig.accepted_batch(url, &old).await;
    assert_eq!(all_ends(rig.batch_events(url, &first, "").await).await.len(), 3);
    let again = rig.accepted_batch(url, &old).await;
    assert_eq!(again.id, first.id);
    assert!(again.items.iter().all(|item| item.status == ItemStatus::Known));
    assert_eq!(all_ends(rig.batch_events(url, &again, "").await).await.len(), 3);

    // The batch also reports jobs that had ended before it named them, each once.
    rig.script(&[Act::Refuse(Code::PolicyRefused)]);
    let mut mixed = old;
    mixed.extend((0..2).map(|number| rig.request(&format!("new-{number}"), BACKEND)));
    let second = rig.accepted_batch(url, &mixed).await;
    assert_ne!(second.id, first.id);
    let all = all_ends(rig.batch_events(url, &second, "").await).await;
    assert_eq!(all.len(), 5);
    let failed: Vec<_> = all.values().filter(|end| end.state == JobStateName::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].ending.failure.as_ref().unwrap().code, Code::PolicyRefused);
    // From each cursor, exactly the following ends.
    let mut order = Vec::new();
    let mut events = rig.batch_events(url, &second, "").await;
    while let Some(end) = next_end(&mut events).await {
        order.push(end);
    }
    for (place, end) in order.iter().enumerate() {
        let rest = all_ends(rig.batch_events(url, &second, &end.cursor).await).await;
        assert_eq!(rest.len(), order.len() - place - 1, "after {}", end.cursor);
    }
}

#[tokio::test]
async fn requests_of_a_batch__should_stand_and_fall_alone() {
    let rig = Rig::with(|config| config.queue.max_open_jobs_per_tenant = 3).await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let taken = rig.accepted(url, &rig.request("taken", DEVICE)).await;
    let mut conflicting = rig.request("taken", DEVICE);
    conflicting["payload"]["text"] = json!("something else");
    let mut unknown = rig.request("unknown-wallet", DEVICE);
    unknown["wallet"] = json!("ab".repeat(32));
    let mut expired = rig.request("expired", DEVICE);
    expired["expires_at"] = json!(1_000);
    let mut poem = rig.request("poem", DEVICE);
    poem["payload"] = json!({"kind": "poem"});
    let requests = [
        rig.request("good", DEVICE),
        conflicting,
        unknown,
        expired,
        rig.other_request("theirs", DEVICE),
        poem,
    ];
    let answer = rig.accepted_batch(url, &requests).await;
    let codes: Vec<_> =
        answer.items.iter().map(|item| item.problem.as_ref().map(|problem| problem.code)).collect();
    assert_eq!(
        codes,
        [
            None,
            Some(Code::Conflict),
            Some(Code::UnknownWallet),
            Some(Code::JobExpired),
            Some(Code::WrongTenant),
            Some(Code::MalformedJson)
        ]
    );
    assert_eq!(answer.items[1].job, Some(taken.id));

    // A batch without room for any of its jobs is told when to come back. With room for some, it is
    // answered.
    let more: Vec<Value> = (0..3).map(|number| rig.request(&format!("more-{number}"), DEVICE)).collect();
    let answer = rig.accepted_batch(url, &more).await;
    assert!(answer.items.iter().any(|item| item.status == ItemStatus::Accepted));
    let refused: Vec<Value> = (0..3).map(|number| rig.request(&format!("no-{number}"), DEVICE)).collect();
    let refused = rig.submit_batch(url, &refused).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::QueueFull).await;

    // An invalid batch is refused with the path of the fault.
    let body = json!({"requests": [{"body": "{}", "requester": "00", "signature": "00"}]});
    let request = rig.http.post(format!("{url}/v1/batches")).bearer_auth(TOKEN).body(body.to_string());
    let body = problem(request.send().await.unwrap(), StatusCode::BAD_REQUEST, Code::MalformedJson).await;
    assert_eq!(body["path"], "requests[0].requester");
    let many = vec![rig.request("many", DEVICE); MAX_BATCH_ITEMS + 1];
    problem(rig.submit_batch(url, &many).await, StatusCode::BAD_REQUEST, Code::MalformedJson).await;
    // Another tenant does not find the batch.
    let path = format!("{url}/v1/batches/{}", answer.id.unwrap());
    let stranger = rig.http.get(path).bearer_auth(OTHER_TOKEN).send().await.unwrap();
    problem(stranger, StatusCode::NOT_FOUND, Code::NotFound).await;
}

#[tokio::test]
async fn results__should_be_paged_and_followed_from_a_cursor() {
    let rig = Rig::new().await;
    let (first, second) = (rig.start().await, rig.start().await);
    let mut submitted = Vec::new();
    for number in 0..5 {
        let job = rig.accepted(&first.url, &rig.request(&format!("job-{number}"), BACKEND)).await;
        rig.settled(&first.url, &job).await;
        submitted.push(job.id);
    }
    let cancelled = rig.accepted(&first.url, &rig.request("cancelled", DEVICE)).await;
    assert_eq!(rig.cancel(&first.url, &cancelled).await.status(), StatusCode::OK);
    submitted.push(cancelled.id);
    submitted.sort_unstable();

    let url = format!("{}/v1/results/events", second.url);
    let mut events = rig.event_stream(&url, TOKEN, "").await;
    let mut told = Vec::new();
    for _ in 0..submitted.len() {
        told.push(next_end(&mut events).await.unwrap());
    }
    let mut jobs: Vec<JobId> = told.iter().map(|end| end.job).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, submitted);
    // It continues with later ends, of jobs submitted anywhere.
    let late = rig.accepted(&first.url, &rig.request("late", BACKEND)).await;
    assert_eq!(next_end(&mut events).await.unwrap().job, late.id);

    // The same ends in pages.
    let (mut paged, mut next) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/v1/results?limit=4&after={next}");
        let page: EndPage = rig.get(&first.url, &path).await.json().await.unwrap();
        if page.results.is_empty() {
            assert_eq!(page.next, next);
            break;
        }
        next = page.next;
        paged.extend(page.results);
    }
    assert_eq!(paged[..6], told[..]);
    assert_eq!(paged[6].job, late.id);
    let signed = paged[0].ending.result.as_ref().unwrap().verify(&rig.result_key()).unwrap();
    assert_eq!(signed.job, paged[0].job);
    assert!(rig.ends(&first.url, OTHER_TOKEN).await.is_empty());
    let refused = rig.get(&first.url, "/v1/results?after=yesterday").await;
    problem(refused, StatusCode::BAD_REQUEST, Code::MalformedJson).await;
}

#[tokio::test]
async fn an_end_that_was_published_and_not_noted__should_not_be_told_twice() {
    let rig =
        Rig::with(|config| config.storage.duplicate_window = std::time::Duration::from_millis(200)).await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("noted", BACKEND)).await;
    rig.settled(&orchestrator.url, &job).await;
    // As if the process had died between publishing and recording it, longer ago than the stream's
    // window for duplicates.
    let mut entry = rig.told([&job]).await.remove(0);
    entry.value.end_published_at_ms = None;
    let key = Key::from((&job.tenant, job.id));
    rig.bucket().await.update(&key, &entry.value, entry.revision).await.unwrap();
    rig.told([&job]).await;
    assert_eq!(rig.ends(&orchestrator.url, TOKEN).await.len(), 1);
}

#[tokio::test]
async fn the_command__should_submit_a_batch_and_tell_how_it_ends() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("requester.key");
    std::fs::write(&key_file, hex::encode(rig.world.requester.to_bytes())).unwrap();
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let lines = folder.path().join("batch.jsonl");
    let line = |number: u8, priority: &str| {
        json!({
            "idempotency_key": format!("cli-{number}"),
            "payload": {"kind": "personal_message", "text": format!("payout {number}")},
            "priority": priority,
        })
        .to_string()
    };
    std::fs::write(&lines, [line(1, "low"), String::new(), line(2, "high")].join("\n")).unwrap();
    let duet = duet_harness::duet::Duet::new(rig.broker.credentials())
        .with("DUET_API_URL", &orchestrator.url)
        .with("DUET_API_TOKEN", TOKEN)
        .with("DUET_REQUESTER_KEY", key_file.to_str().unwrap());
    let lines = lines.to_str().unwrap();
    let submitted = duet.json(&["batch", "submit", lines, "--expires-at", "4000000000"]).await;
    // Further ahead than thirty days: the answer names each refused request.
    let refused = submitted.unwrap();
    assert_eq!(refused["batch"]["items"][0]["problem"]["code"], "valid-too-long");

    let submitted = duet.json(&["batch", "submit", lines]).await.unwrap();
    let verdicts: Vec<_> =
        submitted["batch"]["items"].as_array().unwrap().iter().map(|item| &item["verdict"]).collect();
    assert_eq!(verdicts, ["accepted", "accepted"]);
    let id = submitted["batch"]["id"].as_str().unwrap();
    let answer: BatchAnswer = serde_json::from_value(submitted["batch"].clone()).unwrap();
    assert_eq!(all_ends(rig.batch_events(&orchestrator.url, &answer, "").await).await.len(), 2);
    let shown = duet.json(&["batch", "get", id]).await.unwrap();
    assert_eq!(shown["batch"]["jobs"][0]["state"], "signed");
    let results = duet.json(&["job", "results"]).await.unwrap();
    let cursor = results["results"][0]["cursor"].as_str().unwrap();
    // One document a line. One end follows the first.
    let last = duet.json(&["batch", "watch", id, "--after", cursor]).await.unwrap();
    assert_eq!(last["end"]["job"], results["results"][1]["job"]);
    let urgent = rig.get(&orchestrator.url, &format!("/v1/jobs/{}", answer.items[1].job.unwrap())).await;
    assert_eq!(urgent.json::<Value>().await.unwrap()["priority"], "high");

    std::fs::write(folder.path().join("wrong.jsonl"), "{\"payload\": {}}").unwrap();
    let wrong = folder.path().join("wrong.jsonl");
    let refused = duet.refused(&["batch", "submit", wrong.to_str().unwrap()]).await.unwrap();
    assert_eq!(refused.code, "malformed-json");
}

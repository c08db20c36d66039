//! Submitting, reading, listing and cancelling jobs.

use duet_bus::{Filter, Role};
use duet_wire::{
    Code, JobStateName, Priority, SignedRequest, SignedResult,
    batch::{BatchItem, BatchRequest},
    signing::{Identity as _, SigningKey},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Act, DEADLINE, Rig, TOKEN, now_ms, problem};

const DEVICE: &[&str] = &["device+service"];
const BACKEND: &[&str] = &["service+partner"];

#[tokio::test]
async fn a_queued_job__should_end_in_one_signed_result() {
    let rig = Rig::new().await;
    let subscriber = rig.broker.connect(Role::Results).await.unwrap();
    let filter = Filter::results(&"demo".parse().unwrap());
    let mut results = subscriber.subscribe_registered(&filter, DEADLINE).await.unwrap();
    let orchestrator = rig.start().await;

    let job = rig.accepted(&orchestrator.url, &rig.request("payout-1", BACKEND)).await;
    let mut events = rig.events(&orchestrator.url, &job).await;
    let mut names = Vec::new();
    while let Some((name, data)) = events.next().await {
        let data: Value = serde_json::from_str(&data).unwrap();
        names.push(if name == "state" { data["state"].as_str().unwrap().to_owned() } else { name });
    }
    assert_eq!(names.last().map(String::as_str), Some("signed"), "{names:?}");

    let shown = rig.get(&orchestrator.url, &format!("/v1/jobs/{}", job.id)).await;
    let shown: Value = shown.json().await.unwrap();
    let signed: SignedResult = serde_json::from_value(shown["result"].clone()).unwrap();
    let result = signed.verify(&rig.result_key()).unwrap();
    assert_eq!(result.digest, job.digest);
    assert_eq!(result.address, rig.world.wallet.address());

    // Verify the signature with a library that took no part in making it.
    let signature = alloy_primitives::Signature::from_raw_array(&result.signature.to_bytes()).unwrap();
    let recovered = signature.recover_address_from_prehash(&job.digest.into()).unwrap();
    assert_eq!(recovered.0.0, rig.world.wallet.address());

    let published = results.next_within(DEADLINE).await.unwrap().unwrap();
    let published: SignedResult = serde_json::from_slice(&published.payload).unwrap();
    assert_eq!(published, signed);

    // The same submission again gives the same job with the same result, and nothing is published.
    let again = rig.submit(&orchestrator.url, &rig.request("payout-1", BACKEND)).await;
    assert_eq!(again.status(), StatusCode::OK);
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["result"], shown["result"]);
    let other = rig.accepted(&orchestrator.url, &rig.request("payout-2", BACKEND)).await;
    rig.told([&job, &other]).await;
    let ends = rig.ends(&orchestrator.url, TOKEN).await;
    assert_eq!(rig.with_results(&ends), [job.id, other.id]);
    orchestrator.stop().await;
}

#[tokio::test]
async fn an_idempotency_key__should_stand_for_one_content() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let request = rig.request("once", DEVICE);
    let job = rig.accepted(&orchestrator.url, &request).await;

    let again = rig.submit(&orchestrator.url, &request).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(again.json::<Value>().await.unwrap()["id"], job.id.to_string());

    let mut later = request.clone();
    later["expires_at"] = json!(now_ms() / 1000 + 7200);
    assert_eq!(rig.submit(&orchestrator.url, &later).await.status(), StatusCode::OK);

    let mut other = request;
    other["payload"]["text"] = json!("pay another payee");
    let refused = rig.submit(&orchestrator.url, &other).await;
    assert_eq!(refused.headers()["location"].to_str().unwrap(), format!("/v1/jobs/{}", job.id));
    let body = problem(refused, StatusCode::CONFLICT, Code::Conflict).await;
    assert_eq!(body["job"], job.id.to_string());
}

#[tokio::test]
async fn simultaneous_submissions__should_make_one_job() {
    let rig = Rig::new().await;
    let (first, second) = (rig.start().await, rig.start().await);
    let request = rig.request("race", DEVICE);
    let answers = futures::future::join_all((0..16).map(|number| {
        let url = if number % 2 == 0 { &first.url } else { &second.url };
        rig.submit(url, &request)
    }))
    .await;
    let accepted = answers.iter().filter(|answer| answer.status() == StatusCode::ACCEPTED).count();
    let known = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
    assert_eq!((accepted, known), (1, 15));
}

#[tokio::test]
async fn a_submission_that_cannot_be_signed__should_be_refused_by_name() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let good = rig.request("refused", DEVICE);
    let with = |path: &str, value: Value| {
        let mut request = good.clone();
        *request.pointer_mut(path).unwrap() = value;
        request
    };

    for (request, status, code) in [
        (with("/expires_at", json!(now_ms() / 1000 - 1)), 410, Code::JobExpired),
        (with("/tenant", json!("other")), 403, Code::WrongTenant),
        (with("/wallet", json!("ab".repeat(32))), 404, Code::UnknownWallet),
        (
            with("/payload", json!({"kind": "digest", "digest": format!("0x{}", "11".repeat(32))})),
            403,
            Code::KindNotAllowed,
        ),
        (with("/payload", json!({"kind": "poem"})), 400, Code::MalformedJson),
        (with("/version", json!(3)), 400, Code::UnsupportedVersion),
        (with("/issued_at", json!(now_ms() / 1000 + 2 * 86_400)), 503, Code::ClockDiffers),
        (with("/expires_at", json!(now_ms() / 1000 + 31 * 86_400)), 403, Code::ValidTooLong),
    ] {
        let refused = rig.submit(url, &request).await;
        problem(refused, StatusCode::from_u16(status).unwrap(), code).await;
    }

    // The refusal names the path of the fault.
    let refused = rig.submit(url, &with("/payload/text", json!(7))).await;
    let body = problem(refused, StatusCode::BAD_REQUEST, Code::MalformedJson).await;
    assert_eq!(body["path"], "payload.text", "{body}");

    let bytes = serde_json::to_vec(&good).unwrap();
    let stranger = SignedRequest::sign(bytes.clone(), &SigningKey::from_bytes(&[77; 32]));
    let refused = rig.submit_as(url, TOKEN, "refused", stranger).await;
    problem(refused, StatusCode::FORBIDDEN, Code::RequesterNotAllowed).await;

    let mut altered = SignedRequest::sign(bytes.clone(), &rig.world.requester);
    altered.body.push(b' ');
    let refused = rig.submit_as(url, TOKEN, "refused", altered).await;
    problem(refused, StatusCode::UNAUTHORIZED, Code::BadSignature).await;

    let signed = SignedRequest::sign(bytes, &rig.world.requester);
    let refused = rig.submit_as(url, "no such token", "refused", signed.clone()).await;
    problem(refused, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
    let refused = rig.submit_as(url, "another token", "refused", signed.clone()).await;
    problem(refused, StatusCode::FORBIDDEN, Code::WrongTenant).await;
    let refused = rig.submit_as(url, TOKEN, "another-key", signed).await;
    problem(refused, StatusCode::BAD_REQUEST, Code::MalformedJson).await;

    let huge = with("/payload/text", json!("x".repeat(200 * 1024)));
    problem(rig.submit(url, &huge).await, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge).await;

    // None of these left a job.
    let list: Value = rig.get(url, "/v1/jobs").await.json().await.unwrap();
    assert_eq!(list["jobs"], json!([]));
}

#[tokio::test]
async fn a_source_of_failures__should_be_slowed_down_and_no_other() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let request = rig.request("right", BACKEND);
    let right = SignedRequest::sign(serde_json::to_vec(&request).unwrap(), &rig.world.requester);
    let mut wrong = right.clone();
    wrong.body.push(b' ');

    for (token, signed, code) in
        [("no such token", &right, Code::Unauthorized), (TOKEN, &wrong, Code::BadSignature)]
    {
        let mut refused = 0;
        let slowed = loop {
            let answer = rig.submit_as(url, token, "right", signed.clone()).await;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                break answer;
            }
            problem(answer, StatusCode::UNAUTHORIZED, code).await;
            refused += 1;
            assert!(refused < 500, "{code} without end");
        };
        assert!(refused >= 30, "{refused} of {code}: people make mistakes");
        let wait: u64 = slowed.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        problem(slowed, StatusCode::TOO_MANY_REQUESTS, Code::RateLimited).await;
    }
    // A valid request from the same address and tenant is accepted.
    rig.accepted(url, &request).await;
}

#[tokio::test]
async fn a_full_queue__should_be_refused_until_there_is_room() {
    let rig = Rig::with(|config| config.queue.max_open_jobs = 2).await;
    let orchestrator = rig.start().await;
    let first = rig.accepted(&orchestrator.url, &rig.request("first", DEVICE)).await;
    rig.accepted(&orchestrator.url, &rig.request("second", DEVICE)).await;
    let third = rig.request("third", DEVICE);
    let refused = rig.submit(&orchestrator.url, &third).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::QueueFull).await;

    assert_eq!(rig.cancel(&orchestrator.url, &first).await.status(), StatusCode::OK);
    rig.accepted(&orchestrator.url, &third).await;
}

#[tokio::test]
async fn a_full_bucket__should_be_refused_and_not_dropped() {
    let rig = Rig::with(|config| config.storage.bucket_max_bytes = 16 * 1024).await;
    let orchestrator = rig.start().await;
    let mut refused = None;
    for number in 0..64 {
        let answer = rig.submit(&orchestrator.url, &rig.request(&format!("job-{number}"), DEVICE)).await;
        if answer.status() != StatusCode::ACCEPTED {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the bucket holds 16 KiB");
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, StatusCode::TOO_MANY_REQUESTS, Code::QueueFull).await;
}

#[tokio::test]
async fn a_job__should_be_cancelled_only_while_it_waits() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let waiting = rig.accepted(&orchestrator.url, &rig.request("waiting", DEVICE)).await;
    assert_eq!(rig.cancel(&orchestrator.url, &waiting).await.status(), StatusCode::OK);
    assert_eq!(rig.settled(&orchestrator.url, &waiting).await.state, JobStateName::Cancelled);
    // Cancelling it again is harmless.
    assert_eq!(rig.cancel(&orchestrator.url, &waiting).await.status(), StatusCode::OK);

    rig.script(&[Act::Hold]);
    let running = rig.accepted(&orchestrator.url, &rig.request("running", BACKEND)).await;
    rig.held.recv().await.unwrap();
    let refused = rig.cancel(&orchestrator.url, &running).await;
    problem(refused, StatusCode::CONFLICT, Code::Conflict).await;

    let missing = rig.get(&orchestrator.url, &format!("/v1/jobs/{}", "00".repeat(16))).await;
    problem(missing, StatusCode::NOT_FOUND, Code::NotFound).await;
}

#[tokio::test]
async fn lists__should_show_a_tenant_its_own() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    for number in 0..5 {
        rig.accepted(&orchestrator.url, &rig.request(&format!("job-{number}"), DEVICE)).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/jobs?limit=2".to_owned();
    loop {
        let page: Value = rig.get(&orchestrator.url, &path).await.json().await.unwrap();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs?limit=2&after={next}"),
            None => break,
        }
    }
    seen.sort_by_key(ToString::to_string);
    seen.dedup();
    assert_eq!(seen.len(), 5);

    let wallets: Value = rig.get(&orchestrator.url, "/v1/wallets").await.json().await.unwrap();
    assert_eq!(wallets["wallets"][0]["id"], rig.world.wallet.id.to_string());
    assert_eq!(wallets["wallets"][0]["pairs"].as_array().unwrap().len(), 3);
    let other = rig
        .http
        .get(format!("{}/v1/wallets", orchestrator.url))
        .bearer_auth("another token")
        .send()
        .await
        .unwrap();
    assert_eq!(other.json::<Value>().await.unwrap()["wallets"], json!([]));
    let path = format!("/v1/wallets/{}", rig.world.wallet.id);
    assert_eq!(rig.get(&orchestrator.url, &path).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn readiness__should_follow_the_broker() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let ready = rig.get(&orchestrator.url, "/readyz").await;
    assert_eq!(ready.status(), StatusCode::OK);
    assert!(ready.headers().contains_key("x-request-id"));
    rig.broker.kill().await.unwrap();
    let unready = rig.get(&orchestrator.url, "/readyz").await;
    assert_eq!(unready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.get(&orchestrator.url, "/healthz").await.status(), StatusCode::OK);
    rig.broker.resume().await.unwrap();
    let back = async {
        while rig.get(&orchestrator.url, "/readyz").await.status() != StatusCode::OK {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, back).await.unwrap();
}

#[tokio::test]
async fn each_way_to_be_unauthorised__should_say_what_is_expected() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let detail = |body: &Value, parts: &[&str]| {
        let detail = body["detail"].as_str().unwrap().to_owned();
        for part in parts {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        detail
    };

    // The token: none, under another scheme, and an unknown one, which is not repeated in the
    // answer.
    let jobs = || rig.http.get(format!("{url}/v1/jobs")).timeout(DEADLINE);
    let unauthorized = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        problem(answer, StatusCode::UNAUTHORIZED, Code::Unauthorized).await
    };
    detail(&unauthorized(jobs()).await, &["no header Authorization", "Authorization: Bearer TOKEN"]);
    detail(&unauthorized(jobs().basic_auth("demo", Some(TOKEN))).await, &["scheme Bearer", "Bearer TOKEN"]);
    let unknown = unauthorized(jobs().bearer_auth("not-a-token")).await;
    assert!(!detail(&unknown, &["Authorization", "not known here"]).contains("not-a-token"));

    // The signature without the tag that says what is signed: alone and in a batch.
    let request = rig.request("unsigned", BACKEND);
    let body = serde_json::to_vec(&request).unwrap();
    let mut signed = rig.signed(&request);
    signed.signature = rig.world.requester.sign_bytes(&body);
    let requester = hex::encode(signed.requester);
    let size = format!("{} bytes", body.len());
    let hash = duet_protocol::transcript::sha256(&body);
    let hash = hex::encode(hash);
    let expected = [
        "Duet-Signature",
        "Duet-Requester",
        &requester,
        "`duet/v1/signing-request`, a newline",
        &size,
        &hash,
    ];
    let answer = rig.submit_as(url, TOKEN, "unsigned", signed.clone()).await;
    detail(&problem(answer, StatusCode::UNAUTHORIZED, Code::BadSignature).await, &expected);
    let item = BatchItem { request: signed, priority: Priority::Normal, repeat_digest: false };
    let batch = BatchRequest { items: vec![item] }.to_json().unwrap();
    let answer = rig.http.post(format!("{url}/v1/batches")).bearer_auth(TOKEN).body(batch);
    let answer: Value = answer.timeout(DEADLINE).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["items"][0]["problem"]["code"], "bad-signature", "{answer}");
    detail(&answer["items"][0]["problem"], &expected);

    // An approval that is signed like a request.
    rig.script(&[Act::Hold]);
    let job = rig.accepted(url, &rig.request("approved", BACKEND)).await;
    let approver = SigningKey::from_bytes(&[70; 32]);
    let content = rig.signed(&rig.request("approved", BACKEND));
    let wrong = SignedRequest::sign(content.body, &approver);
    let approval =
        json!({"approver": hex::encode(wrong.requester), "signature": hex::encode(wrong.signature)});
    let post =
        rig.http.post(format!("{url}/v1/jobs/{}/approvals", job.id)).bearer_auth(TOKEN).json(&approval);
    let answer = post.timeout(DEADLINE).send().await.unwrap();
    let refused = problem(answer, StatusCode::UNAUTHORIZED, Code::BadSignature).await;
    let approver = hex::encode(approver.verifying_key().as_bytes());
    detail(&refused, &["`signature`", &approver, "`duet/v1/request-approval`, a newline", "SHA-256"]);
    orchestrator.stop().await;
}

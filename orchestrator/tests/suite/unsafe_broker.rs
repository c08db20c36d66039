//! Brokers that do not prove that they keep what they acknowledge.

use std::time::Duration;

use duet_orchestrator::api::JobView;
use duet_protocol::ids::ShareIndex;
use duet_wire::{
    Code, JobStateName,
    approval::{ApprovalAction, ApprovalReply},
};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::rig::{Act, DEADLINE, Rig, problem};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

const ALWAYS: &str = "sync_interval: always";
const PERMISSION: &str = "\"duet.v1.broker\"\n";
const IMPORT: &str =
    "{ service: { account: SYS, subject: \"$SYS.REQ.SERVER.PING.JSZ\" }, to: \"duet.v1.broker\" }";
const EXPORT: &str = "{ service: \"$SYS.REQ.SERVER.PING.JSZ\", response_type: stream, accounts: [DUET] }";

/// Restarts the broker with a configuration that lacks these lines.
async fn restart_without(rig: &mut Rig, lines: &[&str]) {
    rig.broker.kill().await.unwrap();
    rig.broker
        .change_configuration(|text| {
            lines.iter().fold(text.to_owned(), |text, line| {
                assert!(text.contains(line), "{line}");
                text.replace(line, "")
            })
        })
        .unwrap();
    rig.broker.resume().await.unwrap();
}

async fn restart_properly(rig: &mut Rig) {
    rig.broker.kill().await.unwrap();
    rig.broker.restore_configuration();
    rig.broker.resume().await.unwrap();
}

/// Asks for readiness until the answer has this status and, unless it is empty, this code.
async fn readiness(rig: &Rig, url: &str, status: StatusCode, code: &str) -> Value {
    let (mut look, mut last) = (interval(Duration::from_millis(50)), Value::Null);
    let came = timeout(DEADLINE, async {
        loop {
            look.tick().await;
            let answer = rig.http.get(format!("{url}/readyz")).send().await.unwrap();
            let is_it = answer.status() == status;
            last = answer.json().await.unwrap();
            if is_it && last["code"].as_str().unwrap_or_default() == code {
                return;
            }
        }
    });
    assert!(came.await.is_ok(), "never {status} {code}: {last}");
    last
}

async fn unsafe_broker(rig: &Rig, url: &str) -> String {
    let refusal = readiness(rig, url, StatusCode::SERVICE_UNAVAILABLE, "unsafe-broker").await;
    refusal["detail"].as_str().unwrap().to_owned()
}

async fn ready(rig: &Rig, url: &str) -> Value {
    readiness(rig, url, StatusCode::OK, "").await
}

async fn state(rig: &Rig, url: &str, job: &JobView) -> JobStateName {
    rig.get(url, &format!("/v1/jobs/{}", job.id)).await.json::<JobView>().await.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_flush__should_get_no_job_until_it_does() {
    let mut rig = Rig::with(|config| {
        config.queue.max_in_flight = 1;
        // Longer than a slow machine takes to restart the broker.
        config.queue.session_timeout = Duration::from_secs(120);
    })
    .await;
    let running = rig.start().await;
    assert_eq!(ready(&rig, &running.url).await["broker"], "safe");
    rig.script(&[Act::Hold]);
    let runs = rig.accepted(&running.url, &rig.request("runs", BACKEND)).await;
    let session = rig.held.recv().await.unwrap();
    let queued = rig.accepted(&running.url, &rig.request("queued", BACKEND)).await;
    let owners = rig.accepted(&running.url, &rig.request("owners", DEVICE)).await;
    while rig.invited.try_recv().is_ok() {}

    restart_without(&mut rig, &[ALWAYS]).await;
    let detail = unsafe_broker(&rig, &running.url).await;
    assert!(detail.contains("duet-development") && detail.contains(ALWAYS), "{detail}");
    assert_eq!(
        (running.metric("duet_broker_safe"), running.metric("duet_broker_trusted")),
        ("0".into(), "0".into())
    );

    // Nothing is accepted, alone or in a batch, and no owner's device can begin a session.
    let later = rig.request("later", BACKEND);
    let refused = rig.submit(&running.url, &later).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, StatusCode::SERVICE_UNAVAILABLE, Code::UnsafeBroker).await;
    let refused = rig.submit_batch(&running.url, core::slice::from_ref(&later)).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, StatusCode::SERVICE_UNAVAILABLE, Code::UnsafeBroker).await;
    let approve = ApprovalAction::Approve { job: owners.id };
    let reply = rig.owner(&rig.world.card(ShareIndex::Device), approve).await;
    assert!(
        matches!(&reply, ApprovalReply::Refused(refusal) if refusal.code == Code::UnsafeBroker),
        "{reply:?}"
    );

    // The session that runs ends, and no other begins in its place.
    rig.release(&session).await;
    assert_eq!(rig.settled(&running.url, &runs).await.state, JobStateName::Signed);
    unsafe_broker(&rig, &running.url).await;
    assert_eq!(state(&rig, &running.url, &queued).await, JobStateName::Queued);
    assert_ne!(state(&rig, &running.url, &owners).await, JobStateName::Running);
    assert!(rig.invited.try_recv().is_err(), "a party was invited");

    restart_properly(&mut rig).await;
    ready(&rig, &running.url).await;
    assert_eq!(rig.settled(&running.url, &queued).await.state, JobStateName::Signed);
    let later = rig.accepted(&running.url, &later).await;
    assert_eq!(rig.settled(&running.url, &later).await.state, JobStateName::Signed);
    assert_eq!(running.metric("duet_broker_safe"), "1");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_says_nothing__should_get_no_job_and_the_lines_to_add() {
    let mut rig = Rig::new().await;
    for missing in [&[EXPORT, IMPORT][..], &[PERMISSION]] {
        restart_without(&mut rig, missing).await;
        let running = rig.start().await;
        let detail = unsafe_broker(&rig, &running.url).await;
        for line in [EXPORT, IMPORT, PERMISSION.trim()] {
            assert!(detail.contains(line), "{detail}");
        }
        let refused = rig.submit(&running.url, &rig.request("refused", BACKEND)).await;
        problem(refused, StatusCode::SERVICE_UNAVAILABLE, Code::UnsafeBroker).await;
        restart_properly(&mut rig).await;
        ready(&rig, &running.url).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_broker__should_get_jobs_and_be_shown_as_such() {
    let mut rig = Rig::with(|config| config.trust_broker = true).await;
    restart_without(&mut rig, &[ALWAYS]).await;
    let running = rig.start().await;
    assert_eq!(ready(&rig, &running.url).await["broker"], "trusted");
    let job = rig.accepted(&running.url, &rig.request("trusted", BACKEND)).await;
    assert_eq!(rig.settled(&running.url, &job).await.state, JobStateName::Signed);
    assert_eq!(
        (running.metric("duet_broker_safe"), running.metric("duet_broker_trusted")),
        ("0".into(), "1".into())
    );
    running.stop().await;
}

//! Jobs that wait for their owner.

use duet_protocol::ids::{PartyId, ShareIndex};
use duet_wire::{
    Code, JobStateName, Manifest, OutcomeReply, OutcomeResult, Pair,
    approval::{ApprovalAction, ApprovalReply},
    signing::SigningKey,
};
use serde_json::json;

use crate::rig::{Rig, now_ms, report, signature_for};

const DEVICE: &[&str] = &["device+service"];

fn device() -> PartyId {
    "device".parse().unwrap()
}

fn refused(reply: &ApprovalReply) -> Code {
    match reply {
        ApprovalReply::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn an_approved_job__should_be_signed_with_the_device() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("approve", DEVICE)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;

    let key = rig.world.card(ShareIndex::Device);
    let ApprovalReply::Jobs { jobs, more } = rig.owner(&key, ApprovalAction::List).await else {
        panic!("no list")
    };
    assert_eq!((jobs.len(), more, jobs[0].job), (1, false, job.id));
    assert_eq!(jobs[0].request.verify().unwrap().idempotency_key.as_str(), "approve");

    let reply = rig.owner(&key, ApprovalAction::Approve { job: job.id }).await;
    let ApprovalReply::Session { manifest } = reply else { panic!("{reply:?}") };
    let manifest = Manifest::decode(&manifest).unwrap();
    manifest.verify(now_ms()).unwrap();
    assert_eq!(manifest.pair(), Some(Pair::DeviceService));
    // The responder, and nobody else, was invited.
    assert_eq!(rig.invited.recv().await.unwrap().as_str(), "service");
    assert!(rig.invited.try_recv().is_err());
    // It runs; it cannot be approved a second time.
    let again = rig.owner(&key, ApprovalAction::Approve { job: job.id }).await;
    assert_eq!(refused(&again), Code::Conflict);

    let signed = OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) };
    assert_eq!(report(&rig.device, &key, &device(), &manifest, signed).await, OutcomeReply::Acknowledged);
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.pair), (JobStateName::Signed, Some(Pair::DeviceService)));
}

#[tokio::test]
async fn a_rejected_job__should_be_given_up() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("reject", DEVICE)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    let key = rig.world.card(ShareIndex::Device);
    let reply = rig.owner(&key, ApprovalAction::Reject { job: job.id }).await;
    assert_eq!(reply, ApprovalReply::Done);
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.failure.map(|failure| failure.code), Some(Code::RejectedByOwner));
}

#[tokio::test]
async fn a_stranger__should_approve_nothing() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("stranger", DEVICE)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    let stranger = SigningKey::from_bytes(&[99; 32]);
    for action in [
        ApprovalAction::List,
        ApprovalAction::Approve { job: job.id },
        ApprovalAction::Reject { job: job.id },
    ] {
        assert_eq!(refused(&rig.owner(&stranger, action).await), Code::BadSignature);
    }
    let view = rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    assert_eq!(view.attempts, 0);
}

#[tokio::test]
async fn a_session_that_failed_on_the_device__should_leave_the_job_with_its_owner() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("device-fails", DEVICE)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    let key = rig.world.card(ShareIndex::Device);
    for attempt in 1..=2 {
        let reply = rig.owner(&key, ApprovalAction::Approve { job: job.id }).await;
        let ApprovalReply::Session { manifest } = reply else { panic!("{reply:?}") };
        let manifest = Manifest::decode(&manifest).unwrap();
        assert_eq!(manifest.attempt, attempt);
        let result = if attempt == 1 {
            OutcomeResult::Failed { code: Code::Deadline, culprit: None, message: "asleep".to_owned() }
        } else {
            OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) }
        };
        report(&rig.device, &key, &device(), &manifest, result).await;
    }
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Signed);
}

#[tokio::test]
async fn a_device_that_goes_away__should_leave_the_job_with_its_owner() {
    let rig = Rig::with(|config| {
        config.queue.session_timeout = std::time::Duration::from_secs(1);
        config.queue.outcome_grace = std::time::Duration::from_millis(100);
    })
    .await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("gone", DEVICE)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    let mut events = rig.events(&orchestrator.url, &job).await;
    let key = rig.world.card(ShareIndex::Device);
    let reply = rig.owner(&key, ApprovalAction::Approve { job: job.id }).await;
    assert!(matches!(reply, ApprovalReply::Session { .. }), "{reply:?}");
    let mut states = Vec::new();
    while states.len() < 3 {
        let (name, data) = events.next().await.unwrap();
        if name == "state" {
            let data: serde_json::Value = serde_json::from_str(&data).unwrap();
            states.push(data["state"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(states, ["awaiting_owner", "running", "awaiting_owner"]);
}

#[tokio::test]
async fn a_job_whose_owner_does_not_come__should_expire() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let mut request = rig.request("too-late", DEVICE);
    request["expires_at"] = json!(now_ms() / 1000 + 2);
    let job = rig.accepted(&orchestrator.url, &request).await;
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Expired);
    let key = rig.world.card(ShareIndex::Device);
    let reply = rig.owner(&key, ApprovalAction::Approve { job: job.id }).await;
    assert_eq!(refused(&reply), Code::JobExpired);
    // Submitting it again finds the same job, expired.
    let again = rig.submit(&orchestrator.url, &request).await;
    assert_eq!(again.json::<serde_json::Value>().await.unwrap()["state"], "expired");
}

//! Jobs that wait for their owner.

use std::time::Duration;

use duet_bus::Address;
use duet_protocol::codec;
use duet_protocol::ids::{PartyId, ShareIndex};
use duet_wire::{
    Code, JobRecord, JobState, JobStateName, Manifest, OutcomeReply, OutcomeResult, Pair, SignedRequest,
    approval::{ApprovalAction, ApprovalReply},
    gateway::{WaitingAnswer, WaitingQuestion},
    signing::SigningKey,
    wallet::InitiatorState,
};
use serde_json::{Value, json};

use crate::rig::{DEADLINE, Rig, now_ms, report, signature_for};

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

/// The owner's own request, signed by the wallet's requester.
fn own(rig: &Rig, request: &Value) -> ApprovalAction {
    let body = serde_json::to_vec(request).unwrap();
    ApprovalAction::Sign { request: SignedRequest::sign(body, &rig.world.requester) }
}

fn manifest_of(reply: &ApprovalReply) -> Manifest {
    let ApprovalReply::Session { manifest } = reply else { panic!("no session: {reply:?}") };
    Manifest::decode(manifest).unwrap()
}

fn record_of(reply: &ApprovalReply) -> JobRecord {
    let ApprovalReply::Job { record } = reply else { panic!("no job: {reply:?}") };
    serde_json::from_slice(record).unwrap()
}

/// The number of jobs that wait for the owner of the rig's wallet, as a gateway learns it.
async fn waiting(rig: &Rig) -> u32 {
    let wallet = rig.world.wallet.id;
    let question = codec::encode(&WaitingQuestion { wallet }).unwrap();
    let reply = rig.device.request(&Address::Approval(wallet), question, DEADLINE).await.unwrap();
    let answer: WaitingAnswer = codec::decode(&reply).unwrap();
    assert_eq!(answer.wallet, wallet);
    answer.jobs
}

#[tokio::test]
async fn the_owners_own_request__should_be_a_session_at_once() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let key = rig.world.card(ShareIndex::Device);
    let request = rig.request("own", DEVICE);
    let manifest = manifest_of(&rig.owner(&key, own(&rig, &request)).await);
    manifest.verify(now_ms()).unwrap();
    assert_eq!((manifest.pair(), manifest.attempt), (Some(Pair::DeviceService), 1));
    assert_eq!(rig.invited.recv().await.unwrap().as_str(), "service");
    assert_eq!(rig.world.wallet.id, manifest.wallet);

    // Asked again in the meantime, it gives the same job, and no second session.
    let running = record_of(&rig.owner(&key, own(&rig, &request)).await);
    assert_eq!((running.id, running.state.name()), (manifest.job, JobStateName::Running));
    assert!(rig.invited.try_recv().is_err());

    let signature = signature_for(&rig.world, &manifest);
    let signed = OutcomeResult::Signed { signature };
    assert_eq!(report(&rig.device, &key, &device(), &manifest, signed).await, OutcomeReply::Acknowledged);
    // The device sees the outcome after a reload, with either question.
    for action in [own(&rig, &request), ApprovalAction::Job { job: manifest.job }] {
        let record = record_of(&rig.owner(&key, action).await);
        let JobState::Signed { result } = &record.state else { panic!("{record:?}") };
        assert_eq!(result.verify(&rig.result_key()).unwrap().signature, signature);
    }
    // To the tenant it is an ordinary job: submitted again or listed.
    let view: duet_orchestrator::api::JobView =
        rig.submit(&orchestrator.url, &request).await.json().await.unwrap();
    assert_eq!((view.id, view.state, view.attempts), (manifest.job, JobStateName::Signed, 1));
}

#[tokio::test]
async fn another_request_under_the_same_key__should_conflict() {
    let rig = Rig::new().await;
    let _orchestrator = rig.start().await;
    let key = rig.world.card(ShareIndex::Device);
    let mut request = rig.request("own-twice", DEVICE);
    manifest_of(&rig.owner(&key, own(&rig, &request)).await);
    request["payload"]["text"] = json!("something else");
    assert_eq!(refused(&rig.owner(&key, own(&rig, &request)).await), Code::Conflict);
}

#[tokio::test]
async fn what_the_owner_may_not_ask_for__should_be_refused_and_leave_nothing() {
    let mut rig = Rig::with(|config| config.queue.max_open_jobs = 1).await;
    let orchestrator = rig.start().await;
    let key = rig.world.card(ShareIndex::Device);
    let request = rig.request("refused", DEVICE);
    let changed = |field: &str, value: Value| {
        let mut request = request.clone();
        request[field] = value;
        request
    };
    for (request, code) in [
        (changed("pairs", json!(["service+partner"])), Code::NoPairAvailable),
        (changed("tenant", json!("other")), Code::WrongTenant),
        (changed("wallet", json!("09".repeat(32))), Code::MalformedMessage),
        (
            changed("payload", json!({"kind": "digest", "digest": format!("0x{}", "01".repeat(32))})),
            Code::KindNotAllowed,
        ),
        (changed("expires_at", json!(1)), Code::JobExpired),
    ] {
        assert_eq!(refused(&rig.owner(&key, own(&rig, &request)).await), code, "{request}");
    }
    let stranger = SigningKey::from_bytes(&[99; 32]);
    let body = serde_json::to_vec(&request).unwrap();
    let by_stranger = ApprovalAction::Sign { request: SignedRequest::sign(body, &stranger) };
    assert_eq!(refused(&rig.owner(&key, by_stranger).await), Code::RequesterNotAllowed);
    assert_eq!(refused(&rig.owner(&stranger, own(&rig, &request)).await), Code::BadSignature);
    let list: Value = rig.get(&orchestrator.url, "/v1/jobs").await.json().await.unwrap();
    assert_eq!(list["jobs"], json!([]), "{list}");
    assert!(rig.invited.try_recv().is_err());

    // The limit of the queue applies to owners too.
    rig.accepted(&orchestrator.url, &rig.request("the-only-one", DEVICE)).await;
    assert_eq!(refused(&rig.owner(&key, own(&rig, &request)).await), Code::QueueFull);
}

#[tokio::test]
async fn jobs_that_wait__should_be_counted_for_the_gateway() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    assert_eq!(waiting(&rig).await, 0);
    let first = rig.accepted(&orchestrator.url, &rig.request("first", DEVICE)).await;
    let second = rig.accepted(&orchestrator.url, &rig.request("second", DEVICE)).await;
    for job in [&first, &second] {
        rig.reaches(&orchestrator.url, job, JobStateName::AwaitingOwner).await;
    }
    assert_eq!(waiting(&rig).await, 2);
    let key = rig.world.card(ShareIndex::Device);
    assert_eq!(rig.owner(&key, ApprovalAction::Reject { job: first.id }).await, ApprovalReply::Done);
    assert_eq!(waiting(&rig).await, 1);
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
    // Only the responder was invited.
    assert_eq!(rig.invited.recv().await.unwrap().as_str(), "service");
    assert!(rig.invited.try_recv().is_err());
    // The job runs. It cannot be approved a second time.
    let again = rig.owner(&key, ApprovalAction::Approve { job: job.id }).await;
    assert_eq!(refused(&again), Code::Conflict);

    let signed = OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) };
    assert_eq!(report(&rig.device, &key, &device(), &manifest, signed).await, OutcomeReply::Acknowledged);
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.pair), (JobStateName::Signed, Some(Pair::DeviceService)));
}

/// The preferred pair cannot sign, so the owner is asked. Then the preferred pair can sign after
/// all.
#[tokio::test]
async fn a_job_that_prefers_backends__should_not_wait_for_its_owner_longer_than_it_must() {
    let rig = Rig::with(|config| config.queue.max_retry_pause = Duration::from_millis(200)).await;
    *rig.world.initiator_state.lock().unwrap() = InitiatorState::Locked;
    let orchestrator = rig.start().await;
    let preferring =
        rig.accepted(&orchestrator.url, &rig.request("either", &["service+partner", "device+partner"])).await;
    let waiting_for_owner =
        rig.accepted(&orchestrator.url, &rig.request("owner", &["device+partner", "service+partner"])).await;
    for job in [&preferring, &waiting_for_owner] {
        rig.reaches(&orchestrator.url, job, JobStateName::AwaitingOwner).await;
    }
    *rig.world.initiator_state.lock().unwrap() = InitiatorState::Ready;
    let settled = rig.settled(&orchestrator.url, &preferring).await;
    assert_eq!((settled.state, settled.pair), (JobStateName::Signed, Some(Pair::ServicePartner)));
    // A request that names the device first waits for it.
    let key = rig.world.card(ShareIndex::Device);
    let ApprovalReply::Jobs { jobs, .. } = rig.owner(&key, ApprovalAction::List).await else {
        panic!("no list")
    };
    assert_eq!(jobs.iter().map(|job| job.job).collect::<Vec<_>>(), [waiting_for_owner.id]);
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
    assert_eq!(settled.ending.failure.map(|failure| failure.code), Some(Code::RejectedByOwner));
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
    // Submitting it again gives the same job, expired.
    let again = rig.submit(&orchestrator.url, &request).await;
    assert_eq!(again.json::<serde_json::Value>().await.unwrap()["state"], "expired");
}

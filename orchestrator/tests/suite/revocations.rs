//! Revoked requests: who may revoke, how the job ends, and that the parties are told.

use std::sync::atomic::Ordering::SeqCst;

use duet_orchestrator::api::JobView;
use duet_protocol::ids::{PartyId, ShareIndex};
use duet_wire::{
    Code, JobStateName, OutcomeResult,
    approval::{ApprovalAction, ApprovalReply},
    signing::SigningKey,
};
use reqwest::StatusCode;

use crate::rig::{Act, Rig, problem, report};

const DEVICE: &[&str] = &["device+service"];
const BACKEND: &[&str] = &["service+partner"];

fn parties(names: [&str; 2]) -> Vec<PartyId> {
    names.map(|name| name.parse().unwrap()).to_vec()
}

/// Waits until both parties keep the revocation and the job shows that.
async fn kept(rig: &Rig, url: &str, job: &JobView) -> JobView {
    loop {
        let view: JobView = rig.get(url, &format!("/v1/jobs/{}", job.id)).await.json().await.unwrap();
        let revocation = view.revocation.as_ref().unwrap();
        if revocation.waits_for.is_empty() {
            let mut by = revocation.kept_by.clone();
            by.sort();
            assert_eq!(by, parties(["partner", "service"]));
            return view;
        }
        tokio::time::sleep(core::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_job_that_waits__should_be_cancelled_at_the_parties_as_well() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let job = rig.accepted(url, &rig.request("revoked", DEVICE)).await;
    let proof = rig.revocation(url, &job, &rig.world.requester).await;

    let stranger = SigningKey::from_bytes(&[99; 32]);
    let by_stranger = rig.revocation(url, &job, &stranger).await;
    let refused = rig.revoke(url, &job, &by_stranger).await;
    problem(refused, StatusCode::FORBIDDEN, Code::RequesterNotAllowed).await;
    let forged = duet_wire::revocation::RevocationProof { by: proof.by, ..by_stranger };
    problem(rig.revoke(url, &job, &forged).await, StatusCode::UNAUTHORIZED, Code::BadSignature).await;
    assert!(rig.world.revoked.lock().unwrap().is_empty(), "no party was told");

    assert_eq!(rig.revoke(url, &job, &proof).await.status(), StatusCode::OK);
    // Here the requester is also the wallet's owner. A job that waits for its owner by then is
    // rejected, and not cancelled.
    let ended = kept(&rig, url, &job).await;
    let rejected = ended.ending.failure.is_some_and(|failure| failure.code == Code::RejectedByOwner);
    assert!(ended.state == JobStateName::Cancelled || rejected, "{:?}", ended.state);
    assert_eq!(rig.world.revoked.lock().unwrap().len(), 2);
    // A second revocation changes nothing.
    assert_eq!(rig.revoke(url, &job, &proof).await.status(), StatusCode::OK);
    assert_eq!(rig.world.revoked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_job_that_was_cancelled_in_name_only__should_be_revoked_afterwards() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let job = rig.accepted(url, &rig.request("by-name", DEVICE)).await;
    let cancelled: JobView = rig.cancel(url, &job).await.json().await.unwrap();
    assert_eq!((cancelled.state, cancelled.revocation), (JobStateName::Cancelled, None));
    let proof = rig.revocation(url, &job, &rig.world.requester).await;
    assert_eq!(rig.revoke(url, &job, &proof).await.status(), StatusCode::OK);
    kept(&rig, url, &job).await;
}

#[tokio::test]
async fn parties_that_do_not_answer__should_be_told_until_they_do() {
    let rig = Rig::new().await;
    rig.world.busy.store(5, SeqCst);
    let first = rig.start().await;
    let job = rig.accepted(&first.url, &rig.request("busy", DEVICE)).await;
    let proof = rig.revocation(&first.url, &job, &rig.world.requester).await;
    assert_eq!(rig.revoke(&first.url, &job, &proof).await.status(), StatusCode::OK);
    // Also by another orchestrator, because the job's record contains it.
    first.stop().await;
    let second = rig.start().await;
    kept(&rig, &second.url, &job).await;
    assert_eq!(rig.world.busy.load(SeqCst), 0);
}

#[tokio::test]
async fn a_job_that_runs__should_end_with_its_session() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    rig.script(&[Act::Hold]);
    let job = rig.accepted(url, &rig.request("runs", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    let proof = rig.revocation(url, &job, &rig.world.requester).await;
    let answer: JobView = rig.revoke(url, &job, &proof).await.json().await.unwrap();
    assert_eq!(answer.state, JobStateName::Running);
    let failed =
        OutcomeResult::Failed { code: Code::Deadline, culprit: None, message: "as the test says".to_owned() };
    let service: PartyId = "service".parse().unwrap();
    report(&rig.service.bus, &rig.world.card(ShareIndex::Service), &service, &manifest, failed).await;
    let settled = rig.settled(url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Cancelled, 1), "no second attempt");
    kept(&rig, url, &job).await;
}

#[tokio::test]
async fn a_signed_job__should_not_be_revoked() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let job = rig.accepted(url, &rig.request("signed", BACKEND)).await;
    rig.settled(url, &job).await;
    let proof = rig.revocation(url, &job, &rig.world.requester).await;
    problem(rig.revoke(url, &job, &proof).await, StatusCode::CONFLICT, Code::Conflict).await;
    assert!(rig.world.revoked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_owners_no__should_count_at_the_parties() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let job = rig.accepted(url, &rig.request("rejected", DEVICE)).await;
    rig.reaches(url, &job, JobStateName::AwaitingOwner).await;
    let proof = rig.revocation(url, &job, &rig.world.requester).await;
    let device = rig.world.card(ShareIndex::Device);
    let reply = rig.owner(&device, ApprovalAction::Revoke { job: job.id, proof }).await;
    assert_eq!(reply, ApprovalReply::Done);
    let settled = rig.settled(url, &job).await;
    assert_eq!(settled.ending.failure.map(|failure| failure.code), Some(Code::RejectedByOwner));
    kept(&rig, url, &job).await;
}

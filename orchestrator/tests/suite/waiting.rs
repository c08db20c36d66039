//! What says nothing about a job ends none: the job waits, shows why, and goes on.

use std::time::Duration;

use duet_orchestrator::api::JobView;
use duet_protocol::ids::{PartyId, ShareIndex};
use duet_wire::{
    Code, JobStateName,
    job::{AttemptOutcome, Evidence},
    wallet::InitiatorState,
};
use reqwest::StatusCode;

use crate::rig::{Act, Rig, problem};

const BACKEND: &[&str] = &["service+partner"];

/// How often attempts ended with `code`.
fn times(job: &JobView, code: Code) -> u32 {
    let ended = |outcome: &Option<AttemptOutcome>| match outcome {
        Some(AttemptOutcome::Failed { code: ended, .. }) => *ended == code,
        _ => false,
    };
    job.history.iter().filter(|attempt| ended(&attempt.outcome)).map(|attempt| attempt.times()).sum()
}

#[tokio::test]
async fn a_locked_key__should_let_the_job_wait_until_it_is_rotated() {
    for state in [InitiatorState::Locked, InitiatorState::NeedsRotation] {
        let rig = Rig::new().await;
        *rig.world.initiator_state.lock().unwrap() = state;
        let orchestrator = rig.start().await;
        let job = rig.accepted(&orchestrator.url, &rig.request("locked", BACKEND)).await;
        let code = if state == InitiatorState::Locked { Code::Locked } else { Code::NeedsRotation };
        let waiting = rig.waits(&orchestrator.url, &job, code).await;
        assert_eq!((waiting.state, waiting.attempts), (JobStateName::Queued, 0));
        assert!(waiting.waiting.unwrap().message.contains("rotate"), "it says what a person can do");
        *rig.world.initiator_state.lock().unwrap() = InitiatorState::Ready;
        let settled = rig.settled(&orchestrator.url, &job).await;
        assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 1), "{settled:?}");
        assert_eq!(settled.waiting, None);
    }
}

#[tokio::test]
async fn a_lock_that_a_party_tells_of__should_let_the_job_wait_as_well() {
    let rig = Rig::new().await;
    // More than a job has attempts.
    rig.script(&[Act::Refuse(Code::Locked); 8]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("told", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 9), "{settled:?}");
    assert_eq!(
        (settled.history.len(), times(&settled, Code::Locked)),
        (2, 8),
        "listed once, with its number"
    );
}

#[tokio::test]
async fn a_wallet_that_a_party_does_not_know_yet__should_be_waited_for() {
    let rig = Rig::new().await;
    *rig.world.ignorant.lock().unwrap() = Some(ShareIndex::Partner);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("unknown", BACKEND)).await;
    rig.waits(&orchestrator.url, &job, Code::UnknownWallet).await;
    *rig.world.ignorant.lock().unwrap() = None;
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Signed);
}

#[tokio::test]
async fn a_wallet_that_no_party_that_answers_knows__should_be_refused_at_intake() {
    let mut rig = Rig::new().await;
    *rig.world.ignorant.lock().unwrap() = Some(ShareIndex::Service);
    rig.partner.leave().await;
    let orchestrator = rig.start().await;
    let refused = rig.submit(&orchestrator.url, &rig.request("nobody", BACKEND)).await;
    problem(refused, StatusCode::NOT_FOUND, Code::UnknownWallet).await;
}

#[tokio::test]
async fn a_party_that_is_away__should_be_waited_for() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    // The orchestrator has heard of the wallet.
    let job = rig.accepted(&orchestrator.url, &rig.request("before", BACKEND)).await;
    rig.settled(&orchestrator.url, &job).await;
    rig.partner.leave().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("away", BACKEND)).await;
    let waiting = rig.waits(&orchestrator.url, &job, Code::PartyAway).await;
    assert!(waiting.waiting.unwrap().message.contains("partner"));
    rig.partner.come_back().await;
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Signed);
}

#[tokio::test]
async fn a_party_without_workers__should_use_up_no_attempt() {
    let mut rig = Rig::with(|config| {
        config.queue.worker_search = Duration::ZERO;
        config.queue.max_retry_pause = Duration::from_millis(50);
    })
    .await;
    rig.partner.stop_taking_part().await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("restart", BACKEND)).await;
    // Twice as many as a job has attempts.
    let waiting = rig.sees(&orchestrator.url, &job, |view| times(view, Code::NoSeat) >= 12).await;
    assert_eq!(waiting.history.len(), 1, "{:?}", waiting.history);
    rig.partner.come_back().await;
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Signed);
}

#[tokio::test]
async fn a_worker_that_the_broker_does_not_know_yet__should_be_found_by_the_first_invitation() {
    let mut rig = Rig::with(|config| {
        config.queue.worker_search = Duration::from_secs(60);
        config.queue.invitation_timeout = Duration::from_secs(60);
        config.queue.session_timeout = Duration::from_secs(120);
    })
    .await;
    rig.partner.stop_taking_part().await;
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("late-worker", BACKEND)).await;
    rig.reaches(&orchestrator.url, &job, JobStateName::Running).await;
    rig.partner.come_back().await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 1), "{:?}", settled.history);
}

#[tokio::test]
async fn a_refusal_by_the_second_party__should_release_the_seat_of_the_first() {
    let mut rig = Rig::new().await;
    rig.script(&[Act::Refuse(Code::Overloaded)]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("refused", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 2));
    assert_eq!(rig.partner.released().await, settled.history[0].session);
}

#[tokio::test]
async fn a_session_that_fails__should_leave_no_seat_taken() {
    let mut rig = Rig::new().await;
    rig.script(&[Act::Fail(Code::Internal)]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("failed", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    let first = settled.history[0].session;
    assert_eq!((rig.partner.released().await, rig.service.released().await), (first, first));
}

#[tokio::test]
async fn a_worker_that_accepts_too_late__should_be_released_and_the_silence_not_count() {
    let mut rig = Rig::with(|config| {
        config.queue.max_attempts = 1;
        config.queue.invitation_timeout = Duration::from_millis(200);
    })
    .await;
    rig.script(&[Act::Late, Act::Sign]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("late", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.state, JobStateName::Signed, "{:?}", settled.ending);
    let first = &settled.history[0];
    let Some(AttemptOutcome::Failed { code, evidence, .. }) = &first.outcome else { panic!("{first:?}") };
    let service: PartyId = "service".parse().unwrap();
    assert_eq!(*code, Code::Deadline);
    assert_eq!(*evidence, Some(Evidence::Silence { of: service, before_acceptance: true }));
    assert_eq!(rig.partner.released().await, first.session);
    rig.world.late.notify_one();
    assert_eq!(rig.service.released().await, first.session);
}

#[tokio::test]
async fn a_job_that_keeps_failing__should_be_tried_until_its_time_is_over_as_well() {
    let rig = Rig::with(|config| {
        config.queue.max_attempts = 2;
        config.queue.give_up_after = Duration::from_secs(86_400);
        config.queue.max_retry_pause = Duration::from_millis(20);
    })
    .await;
    rig.script(&[Act::Fail(Code::Deadline); 7]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("patient", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, times(&settled, Code::Deadline)), (JobStateName::Signed, 7));
}

#[tokio::test]
async fn a_job_whose_time_is_over__should_still_have_all_its_attempts() {
    let rig = Rig::with(|config| config.queue.give_up_after = Duration::ZERO).await;
    rig.script(&[Act::Fail(Code::Deadline); 5]);
    rig.script(&[Act::Fail(Code::Internal)]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("hopeless", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Failed, 6));
    assert_eq!(settled.ending.failure.unwrap().code, Code::Internal, "the last cause");
}

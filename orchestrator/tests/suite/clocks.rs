//! Clocks that differ: the error names the clock, and no attempt is used up.

use duet_wire::{Code, JobStateName, job::AttemptOutcome};
use serde_json::json;

use crate::rig::{Act, Rig, now_ms};

const BACKEND: &[&str] = &["service+partner"];

#[tokio::test]
async fn a_party_whose_clock_is_ahead__should_be_named_and_use_up_no_attempt() {
    let rig = Rig::new().await;
    // More refusals than a job has attempts.
    rig.script(&[Act::Ahead(40_000); 8]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("ahead", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.state, JobStateName::Signed, "{:?}", settled.ending);
    let failures: Vec<_> = settled
        .history
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Some(AttemptOutcome::Failed { code, message, .. }) => {
                Some((*code, message.as_str(), attempt.times()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(failures.iter().map(|(_, _, times)| times).sum::<u32>(), 8);
    for (code, message, _) in failures {
        assert_eq!(code, Code::ClockDiffers);
        // The time in transit adds to the difference or reduces it.
        let said = message.strip_prefix("the clock of service is ").and_then(|rest| rest.split_once(' '));
        let (seconds, rest) = said.unwrap_or_else(|| panic!("{message}"));
        assert!((39..60).contains(&seconds.parse::<u64>().unwrap()), "{message}");
        assert!(rest.starts_with("s ahead of the broker's (20"), "{message}");
    }
}

#[tokio::test]
async fn a_party_that_says_expired_too_early__should_let_the_job_wait() {
    let rig = Rig::new().await;
    rig.script(&[Act::Ahead(0)]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("right", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    let Some(AttemptOutcome::Failed { code, message, .. }) = &settled.history[0].outcome else {
        panic!("{settled:?}")
    };
    // The clocks agree, and the job has not expired by the broker's.
    assert_eq!(*code, Code::ClockDiffers);
    assert!(message.starts_with("the session is over here (service: 20"), "{message}");
    assert_eq!(settled.state, JobStateName::Signed);
}

#[tokio::test]
async fn a_request_from_a_clock_that_is_ahead__should_be_accepted() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let mut request = rig.request("requester-ahead", BACKEND);
    request["issued_at"] = json!(now_ms() / 1000 + 600);
    // The parties decide when a request becomes valid.
    rig.accepted(&orchestrator.url, &request).await;
}

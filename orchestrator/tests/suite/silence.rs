//! A party that gives no answer: jobs wait for it, one question at a time asks whether it is back,
//! and then they go on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use duet_bus::Filter;
use duet_wire::JobStateName;
use tokio::time::{Duration, timeout};

use crate::rig::{DEADLINE, Rig, Running};

const BACKEND: &[&str] = &["service+partner"];

/// How many jobs wait.
const JOBS: usize = 200;

/// Waits until a metric has a value.
async fn shows(orchestrator: &Running, series: &str, value: usize) {
    let shown = async {
        while orchestrator.metric(series) != value.to_string() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let shown = timeout(DEADLINE, shown).await;
    assert!(shown.is_ok(), "{series} is {}, not {value}", orchestrator.metric(series));
}

#[tokio::test]
async fn a_silent_party__should_be_asked_one_question_at_a_time_however_many_jobs_wait() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    // The orchestrator has heard of the wallet.
    let job = rig.accepted(&orchestrator.url, &rig.request("before", BACKEND)).await;
    rig.settled(&orchestrator.url, &job).await;
    assert_eq!(orchestrator.metric("duet_party_reachable{party=\"partner\"}"), "1");

    // It hears questions and invitations, and answers none.
    rig.partner.leave().await;
    let filter = Filter::cards(&rig.partner.name);
    let mut questions = rig.partner.bus.subscribe_registered(&filter, DEADLINE).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = tokio::spawn({
        let asked = Arc::clone(&asked);
        async move {
            while questions.next().await.is_some() {
                asked.fetch_add(1, SeqCst);
            }
        }
    });
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let request = rig.request(&format!("waits-{number}"), BACKEND);
        jobs.push(rig.accepted(&orchestrator.url, &request).await);
    }
    shows(&orchestrator, "duet_jobs_waiting{code=\"deadline\"}", JOBS).await;
    assert_eq!(orchestrator.metric("duet_party_reachable{party=\"partner\"}"), "0");
    let asked = asked.load(SeqCst);
    assert!((1..JOBS / 10).contains(&asked), "{asked} questions");

    counting.abort();
    counting.await.unwrap_err();
    rig.partner.come_back().await;
    for job in &jobs {
        let settled = rig.settled(&orchestrator.url, job).await;
        assert_eq!(settled.state, JobStateName::Signed, "{:?}", settled.ending);
    }
    shows(&orchestrator, "duet_jobs_waiting{code=\"deadline\"}", 0).await;
    assert_eq!(orchestrator.metric("duet_party_reachable{party=\"partner\"}"), "1");
}

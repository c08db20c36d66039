//! Several orchestrators at once: there is no leader, and each answers for any job.

use std::collections::HashSet;

use duet_orchestrator::api::{JobPage, JobView};
use duet_wire::{Code, JobStateName};
use reqwest::StatusCode;

use crate::rig::{Act, DEADLINE, Rig, TOKEN, problem};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

#[tokio::test]
async fn any_orchestrator__should_answer_for_any_job() {
    let rig = Rig::new().await;
    let orchestrators = [rig.start().await, rig.start().await, rig.start().await];
    let [first, second, third] = &orchestrators;
    let job = rig.accepted(&first.url, &rig.request("anywhere", DEVICE)).await;
    // Another orchestrator than the one it was submitted to shows, lists, finds and cancels it.
    rig.reaches(&second.url, &job, JobStateName::AwaitingOwner).await;
    let shown: JobView = rig.get(&third.url, &format!("/v1/jobs/{}", job.id)).await.json().await.unwrap();
    assert_eq!(shown.id, job.id);
    let listed: JobPage = rig.get(&third.url, "/v1/jobs").await.json().await.unwrap();
    assert_eq!(listed.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [job.id]);
    assert_eq!(rig.submit(&second.url, &rig.request("anywhere", DEVICE)).await.status(), StatusCode::OK);
    assert_eq!(rig.cancel(&third.url, &job).await.status(), StatusCode::OK);
    assert_eq!(rig.settled(&first.url, &job).await.state, JobStateName::Cancelled);

    // Another orchestrator than the one that gave up puts a dead letter back.
    rig.script(&[Act::Refuse(Code::PolicyRefused)]);
    let dead = rig.accepted(&first.url, &rig.request("dead", BACKEND)).await;
    assert_eq!(rig.settled(&second.url, &dead).await.state, JobStateName::Failed);
    let path = format!("{}/v1/dead-letters/{}/redrive", third.url, dead.id);
    let back = rig.http.post(path).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap();
    assert_eq!(back.status(), StatusCode::ACCEPTED);
    assert_eq!(rig.settled(&first.url, &dead).await.state, JobStateName::Signed);
}

#[tokio::test]
async fn an_orchestrator_that_dies_at_work__should_leave_its_jobs_to_the_others() {
    let mut rig = Rig::with(|config| {
        config.queue.session_timeout = std::time::Duration::from_secs(2);
        config.queue.outcome_grace = std::time::Duration::from_millis(200);
        config.queue.max_in_flight = 4;
    })
    .await;
    let first = rig.start().await;
    // Sessions that never end occupy its places, and more jobs wait behind them.
    rig.script(&[Act::Hold; 3]);
    let mut jobs = Vec::new();
    for number in 0..20 {
        jobs.push(rig.accepted(&first.url, &rig.request(&format!("job-{number}"), BACKEND)).await);
    }
    for _ in 0..3 {
        rig.held.recv().await.unwrap();
    }
    first.crash().await;
    let others = [rig.start().await, rig.start().await];
    for (number, job) in jobs.iter().enumerate() {
        let settled = rig.settled(&others[number % 2].url, job).await;
        assert_eq!(settled.state, JobStateName::Signed, "{:?}", settled.history);
    }
    rig.told(&jobs).await;
    let ends = rig.ends(&others[0].url, TOKEN).await;
    let told: HashSet<_> = ends.iter().map(|end| end.job).collect();
    assert_eq!((ends.len(), told.len()), (20, 20));
}

#[tokio::test]
async fn what_one_orchestrator_remembers__should_not_outlive_its_truth() {
    let rig = Rig::new().await;
    let (first, second) = (rig.start().await, rig.start().await);
    *rig.world.tenant.lock().unwrap() = "stranger".parse().unwrap();
    for (url, key) in [(&first.url, "stranger-1"), (&second.url, "stranger-2")] {
        let refused = rig.submit(url, &rig.request(key, BACKEND)).await;
        problem(refused, StatusCode::NOT_FOUND, Code::UnknownWallet).await;
    }
    *rig.world.tenant.lock().unwrap() = "demo".parse().unwrap();
    // The facts are valid for five minutes, but not for refusing a job.
    for (url, key) in [(&first.url, "ready-1"), (&second.url, "ready-2")] {
        let accepted = async {
            loop {
                let answer = rig.submit(url, &rig.request(key, BACKEND)).await;
                if answer.status() == StatusCode::ACCEPTED {
                    return answer.json::<JobView>().await.unwrap();
                }
            }
        };
        let job = tokio::time::timeout(DEADLINE, accepted).await.unwrap();
        assert_eq!(rig.settled(url, &job).await.state, JobStateName::Signed);
    }
}

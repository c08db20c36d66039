//! A deployment that is merely busy: more orchestrators start sessions than the workers have seats.
//! Every accepted job is signed, and none becomes a dead letter.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{collections::BTreeMap, time::Duration};

use duet_harness::{
    duet::text,
    http::Api,
    stack::{Stack, Wallet},
};
use tokio::time::{Instant, sleep};

/// How many jobs each orchestrator accepts.
const JOBS_EACH: usize = 150;

/// How long all jobs may take. They are counted, not timed: this only ends a run that hangs.
const DEADLINE: Duration = Duration::from_secs(240);

/// How often the jobs' states are read.
const PAUSE: Duration = Duration::from_millis(500);

/// Queues jobs at the orchestrator at `url`, in one batch. Returns their ids.
async fn queue(stack: &Stack, wallet: &Wallet, url: &str, name: &str) -> Vec<String> {
    let api = Api::at(url, stack.broker.credentials(), wallet).unwrap();
    api.queue_messages(name, JOBS_EACH).await.unwrap()
}

/// How many of `jobs` ended in which state. Waits until all have ended.
async fn ended(api: &Api, jobs: &[String]) -> BTreeMap<String, usize> {
    let end = Instant::now() + DEADLINE;
    let mut open: Vec<&String> = jobs.iter().collect();
    let mut states = BTreeMap::new();
    while !open.is_empty() {
        assert!(Instant::now() < end, "{} of {} jobs did not end: {states:?}", open.len(), jobs.len());
        let mut still_open = Vec::new();
        for job in open {
            let answer = api.get(&format!("/v1/jobs/{job}")).await.unwrap();
            match text(&answer.body, "/state").unwrap() {
                state @ ("signed" | "failed" | "expired" | "cancelled") => {
                    if state != "signed" {
                        eprintln!("{job} is {state}: {}", answer.body);
                    }
                    *states.entry(state.to_owned()).or_default() += 1;
                }
                _ => still_open.push(job),
            }
        }
        open = still_open;
        sleep(PAUSE).await;
    }
    states
}

#[tokio::test]
async fn four_orchestrators_with_one_worker_per_party__should_sign_every_job() {
    let stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", "personal_message").await.unwrap();
    let mut others = ["second", "third", "fourth"].map(|name| stack.another_orchestrator(name));
    let mut urls = vec![stack.api_url().to_owned()];
    for orchestrator in &mut others {
        let ready = orchestrator.start().await.unwrap();
        urls.push(format!("http://{}", text(&ready, "/listen").unwrap()));
    }
    let names = ["first", "second", "third", "fourth"];
    let queued = urls.iter().zip(names).map(|(url, name)| queue(&stack, &wallet, url, name));
    let jobs = futures::future::join_all(queued).await.concat();
    assert_eq!(jobs.len(), 4 * JOBS_EACH);
    let states = ended(&Api::new(&stack, &wallet).unwrap(), &jobs).await;
    assert_eq!(states, BTreeMap::from([("signed".to_owned(), jobs.len())]));
}

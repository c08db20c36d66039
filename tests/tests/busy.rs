//! A deployment that is merely busy: more orchestrators start sessions than the workers have seats.
//! Every accepted job is signed, and none becomes a dead letter. Parties go and come back.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{collections::BTreeMap, time::Duration};

use duet_harness::{
    duet::text,
    http::Api,
    stack::{ALL_KINDS, Pair, Stack, Wallet},
};
use serde_json::Value;

/// How many jobs each orchestrator accepts.
const JOBS_EACH: usize = 150;

/// How long all jobs may take. They are counted, not timed: this only ends a run that hangs.
const DEADLINE: Duration = Duration::from_secs(240);

/// Queues jobs at the orchestrator at `url`, in one batch. Returns their ids.
async fn queue(stack: &Stack, wallet: &Wallet, url: &str, name: &str) -> Vec<String> {
    let api = Api::at(url, stack.broker.credentials(), wallet).unwrap();
    api.queue_messages(name, JOBS_EACH).await.unwrap()
}

#[tokio::test]
async fn four_orchestrators_with_one_worker_per_party__should_sign_every_job() {
    let (stack, wallet) = Stack::with_wallet("personal_message").await.unwrap();
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
    let api = Api::new(&stack, &wallet).unwrap();
    let states = api.all_settled(&jobs, DEADLINE).await.unwrap();
    assert_eq!(states, BTreeMap::from([("signed".to_owned(), jobs.len())]));
    // Seats are offered, so few attempts find none. Without offers, 600 jobs took 2,203 attempts.
    let mut attempts = 0;
    for job in &jobs {
        let answer = api.get(&format!("/v1/jobs/{job}")).await.unwrap();
        attempts += answer.body.pointer("/attempts").and_then(Value::as_u64).unwrap();
    }
    println!("{attempts} attempts at {} jobs", jobs.len());
    let most = jobs.len() + jobs.len() / 2;
    assert!(attempts <= u64::try_from(most).unwrap(), "{attempts} attempts");
}

/// Submits a message for service and partner. Returns the job's id.
async fn submit(wallet: &Wallet, message: &str) -> String {
    let key = wallet.requester_key.to_string_lossy();
    let job = ["job", "submit", "message", message, "--wallet", &wallet.id, "--requester-key", &key];
    let job = wallet.duet.json(&[&job[..], &["--pairs", "service+partner"]].concat()).await.unwrap();
    text(&job, "/job/id").unwrap().to_owned()
}

#[tokio::test]
async fn a_party_whose_only_worker_restarts__should_cost_no_job() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    wallet.sign_by(Pair::ServicePartner, &["message", "before"]).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    stack.partner.stop().await.unwrap();
    let mut jobs = Vec::new();
    for message in ["one", "two", "three"] {
        jobs.push(submit(&wallet, message).await);
    }
    for job in &jobs {
        api.waits(job, "party-away").await.unwrap();
    }
    stack.partner.start().await.unwrap();
    for job in &jobs {
        assert_eq!(api.settled(job).await.unwrap(), "signed");
    }
}

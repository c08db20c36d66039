//! Several workers of each party on one share store, as real processes. They share the work, and
//! see each other's locks and rotations at once. They come and go without losing a job.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use duet_chaos::{databases, signers};
use duet_harness::{
    duet::text,
    http::Api,
    parties::Database,
    stack::{ALL_KINDS, Pair, Server, Stack, Wallet},
};
use duet_party::store::{
    Gate, KeyStore as _, Lock, LockOutcome, PaillierState, RecordStore as _,
    postgres::{PostgresOptions, PostgresStore},
};
use duet_protocol::ids::SessionId;
use duet_test_postgres::{Line, PostgresServer as Postgres};
use tokio::{task::JoinSet, time::timeout};

/// How long a worker may take to find its database again.
const PATIENCE: Duration = Duration::from_secs(120);

/// A stack with a second worker of each party.
struct Crew {
    stack: Stack,
    // They work until this is dropped.
    _workers: [Server; 2],
}

impl Crew {
    async fn start(databases: Option<[Database; 2]>) -> Self {
        let stack = Stack::start_on(databases).await.unwrap();
        let workers = stack.second_workers().await.unwrap();
        Self { stack, _workers: workers }
    }

    /// The number of sessions that a worker has accepted, from its log.
    fn sessions(&self, worker: &str) -> usize {
        let log =
            fs::read_to_string(self.stack.directory().join("logs").join(format!("{worker}.log"))).unwrap();
        log.lines().filter(|line| line.contains("accepted")).count()
    }
}

/// Signs `count` messages by service and partner, all at once, and verifies every signature.
async fn sign_many(wallet: &Wallet, what: &str, count: usize) {
    let mut jobs = JoinSet::new();
    for number in 0..count {
        let (wallet, message) = (wallet.clone(), format!("{what} {number}"));
        jobs.spawn(async move { sign_one(&wallet, &message).await });
    }
    jobs.join_all().await;
}

async fn sign_one(wallet: &Wallet, message: &str) {
    let signed = wallet.sign_by(Pair::ServicePartner, &["message", message]).await.unwrap();
    let signature = text(&signed, "/signature").unwrap();
    let signer = signers::message_signer(message.as_bytes(), signature).unwrap();
    assert_eq!(signer.to_string(), wallet.address);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_on_one_database__should_share_jobs_locks_and_rotations() {
    let server = Postgres::shared().await.unwrap();
    let crew = Crew::start(Some(databases::two(server).await.unwrap())).await;
    let wallet = crew.stack.create_wallet("device", ALL_KINDS).await.unwrap();
    sign_many(&wallet, "shared", 16).await;
    for worker in ["service", "service-2", "partner", "partner-2"] {
        assert!(crew.sessions(worker) > 0, "{worker} had nothing to do");
    }

    // Another worker of the service locks the key: it has its own connections to the same store.
    let party = crew.stack.party("service");
    let database = party.database().unwrap();
    let password = database.password.clone().into();
    let options = PostgresOptions::at(&database.url).unwrap().with_password(&password);
    let other = PostgresStore::open(&options).await.unwrap();
    let keys = other.all_paillier_keys().await.unwrap();
    let key = keys.iter().find(|key| key.state == PaillierState::Ready).unwrap().id;
    let lock = Lock {
        key,
        session: SessionId([1; 16]),
        wallet: None,
        card: None,
        evidence: b"evidence".to_vec(),
        at_ms: 1,
    };
    let locked = other.lock_paillier_key(&lock).await.unwrap();
    assert_eq!(locked, LockOutcome::Locked);
    assert_eq!(
        other.release_verdict(key, SessionId([2; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    other.close().await;
    let key = wallet.requester_key.to_string_lossy().into_owned();
    let submit = ["job", "submit", "message", "locked", "--wallet", &wallet.id, "--requester-key", &key];
    let api = Api::new(&crew.stack, &wallet).unwrap();
    let service = party.command(&crew.stack.duet());
    let only = [&submit[..], &["--pairs", "service+partner"]].concat();
    // No matter which workers get the session. The job waits, and says for what.
    let job = wallet.duet.json(&only).await.unwrap();
    let job = text(&job, "/job/id").unwrap().to_owned();
    api.waits(&job, "locked").await.unwrap();

    // The key is for the partner alone, so the lock quarantines the partner's card.
    let partner = crew.stack.party("partner").command(&crew.stack.duet());
    let card = partner.json(&["party", "card"]).await.unwrap();
    service.json(&["party", "accept-culprit", text(&card, "/fingerprint").unwrap()]).await.unwrap();

    // A rotation by another process reaches all workers at once. None continues with the key in its
    // memory.
    let rotated = service.json(&["party", "rotate"]).await.unwrap();
    assert!(!rotated["rotated"].as_array().unwrap().is_empty(), "{rotated}");
    crew.stack.all_pairs_ready(&wallet.id).await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "signed", "the job that waited");
    sign_many(&wallet, "rotated", 8).await;
    let status = service.json(&["party", "status"]).await.unwrap();
    assert_eq!(status["wallets"], 1, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off__should_make_its_party_refuse_until_it_is_back() {
    let server = Postgres::shared().await.unwrap();
    let line = Line::to(server.folder()).unwrap();
    let [mut service, partner] = databases::two(server).await.unwrap();
    service.url = line.url(&service.url);
    let stack = Stack::start_on(Some([service, partner])).await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    for bytes in [0, 100, 300] {
        // In the middle of an answer, or before it.
        line.cut_after(bytes);
        let sign = ["sign", "message", "cut off", "--wallet", &wallet.id, "--with", "service"];
        let refused = wallet.duet.refused(&sign).await.unwrap();
        assert_eq!(refused.code, "storage-unavailable", "{bytes}: {}", refused.message);
        line.mend();
        let back = async {
            let message = format!("back after {bytes}");
            while wallet.sign(&["message", &message], "service").await.is_err() {}
        };
        timeout(PATIENCE, back).await.unwrap();
    }
    sign_many(&wallet, "queued", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_on_one_file__should_share_jobs() {
    let crew = Crew::start(None).await;
    let wallet = crew.stack.create_wallet("device", ALL_KINDS).await.unwrap();
    sign_many(&wallet, "shared", 16).await;
    for worker in ["service", "service-2", "partner", "partner-2"] {
        assert!(crew.sessions(worker) > 0, "{worker} had nothing to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker__should_end_with_0_while_no_job_is_lost() {
    let server = Postgres::shared().await.unwrap();
    let mut stack = Stack::start_on(Some(databases::two(server).await.unwrap())).await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut teams = JoinSet::new();
    for team in 0..3 {
        let (wallet, done) = (wallet.clone(), Arc::clone(&done));
        teams.spawn(async move {
            let mut jobs = 0;
            while !done.load(Ordering::SeqCst) {
                sign_one(&wallet, &format!("team {team} job {jobs}")).await;
                jobs += 1;
            }
            jobs
        });
    }
    // At both parties a new worker comes and the older one goes, while jobs run.
    for round in 2..=3 {
        let mut service = stack.another_worker(&stack.service, &format!("service-{round}"), &[]);
        service.start().await.unwrap();
        assert_eq!(stack.service.stop().await.unwrap(), Some(0), "{}", stack.service.log_tail(20));
        stack.service = service;
        let mut partner = stack.another_worker(&stack.partner, &format!("partner-{round}"), &[]);
        partner.start().await.unwrap();
        assert_eq!(stack.partner.stop().await.unwrap(), Some(0), "{}", stack.partner.log_tail(20));
        stack.partner = partner;
    }
    done.store(true, Ordering::SeqCst);
    // A failed job makes its team's task panic.
    let jobs: Vec<usize> = teams.join_all().await;
    assert!(jobs.iter().all(|jobs| *jobs > 0), "{jobs:?}");
}

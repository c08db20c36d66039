//! Measures what a party's decisions cost beside the cryptography: checking the request, deciding
//! by the wallet's policy, and charging in a store.
//!
//! A charge runs against a file and against a local PostgreSQL server: alone, with a limit, and
//! with an audit record. The differences between these are the costs. The rest is the disk's and
//! the server's time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on stops"
)]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use duet_party::{
    policy::VerifiedPolicies,
    store::{
        Charge, NewWallet, PolicyMark, PolicyRow, ShareStore, Spending,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
};
use duet_protocol::ids::{Epoch, SessionId, ShareIndex, WalletId};
use duet_test_postgres::PostgresServer;
use duet_wire::{
    JobId, Pair, SignedRequest,
    audit::{Asked, ChainId, Draft, Event, Exchange},
    policy::{Decision, Facts, SignedPolicy, Spend},
    signing::SigningKey,
};
use zeroize::Zeroizing;

const WALLET: WalletId = WalletId([1; 32]);

fn charged(session: SessionId) -> Draft {
    let asked =
        Asked { requester: [2; 32], tenant: "demo".parse().unwrap(), job: JobId([3; 16]), wallet: WALLET };
    let answer = session_hash(session);
    let exchange = Exchange { session, asked, digest: [4; 32], nonce: [5; 32], answer };
    Draft::new(1, Event::SessionCharged(exchange))
}

fn session_hash(session: SessionId) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(session.0).for_each(|(to, from)| *to = from);
    hash
}

/// What the store decides together with a charge.
#[derive(Clone, Copy)]
enum With<'a> {
    Nothing,
    Limit(&'a Spend, &'a PolicyMark),
    Record,
}

/// Charges `count` sessions, one after the other.
async fn charge(store: &Arc<dyn ShareStore>, next: &mut u128, count: u64, with: With<'_>) -> Duration {
    let started = Instant::now();
    for _ in 0..count {
        *next += 1;
        let session = SessionId(next.to_be_bytes());
        let digest = session_hash(session);
        let charge = Charge { session, wallet: WALLET, digest, charged_at_ms: 1 };
        let handle = match with {
            With::Nothing => Arc::clone(store),
            With::Limit(spend, newest) => {
                let spends = vec![spend.clone()];
                store.spending(Spending {
                    wallet: WALLET,
                    request: digest,
                    spent: digest,
                    decided_by: Some(*newest),
                    at_ms: 1,
                    spends,
                })
            }
            With::Record => store.noting(charged(session)),
        };
        assert!(handle.charge(&charge).await.unwrap());
    }
    started.elapsed()
}

fn owner() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A payment, signed by its requester.
fn request() -> SignedRequest {
    let wallet = hex(&WALLET.0);
    let payload = format!(
        r#"{{"kind":"transaction","type":"0x2","chainId":31337,"nonce":0,"to":"{PAYEE}","value":"1","gas":21000,"maxFeePerGas":"1000000000","maxPriorityFeePerGas":"1"}}"#
    );
    let body = format!(
        r#"{{"version":1,"tenant":"demo","wallet":"{wallet}","path":"m/0/5","payload":{payload},"idempotency_key":"bench","expires_at":2000000000,"pairs":["service+partner"]}}"#
    );
    SignedRequest::sign(body.into_bytes(), &owner())
}

const PAYEE: &str = "0x00000000000000000000000000000000DeaDBeef";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Eight rules. The last one is for the payment, and has a limit.
fn policy() -> SignedPolicy {
    let other = |number: u32| {
        format!(
            r#"{{"name":"other-{number}","payloads":["transaction"],"chains":[{number}],"to":["{PAYEE}"],"max_value":"1"}}"#
        )
    };
    let payouts = format!(
        r#"{{"name":"payouts","payloads":["transaction"],"chains":[31337],"to":["{PAYEE}"],"max_value":"10","limits":[{{"within":"1h","value":"1000000000000"}}]}}"#
    );
    let rules: Vec<String> = (1..8).map(other).chain([payouts]).collect();
    let body = format!(
        r#"{{"version":1,"wallet":"{}","revision":1,"delay":"1h","rules":[{}]}}"#,
        hex(&WALLET.0),
        rules.join(",")
    );
    SignedPolicy::sign(body.into_bytes(), &owner()).unwrap()
}

/// A wallet's row, without a share.
fn wallet() -> NewWallet {
    NewWallet {
        id: WALLET,
        epoch: Epoch(0),
        index: ShareIndex::Service,
        tenant: "demo".to_owned(),
        public_key: [2; 33],
        package_hash: [6; 32],
        receipt: vec![6; 300],
        admission: None,
        prepared_at_ms: 1,
        expires_at_ms: 2_000_000_000_000,
        records: Vec::new(),
        enrolments: Vec::new(),
    }
}

/// The worker's use of a wallet's policies before it takes a seat.
async fn decide(
    store: &dyn ShareStore,
    verified: &VerifiedPolicies,
    owner: &[u8; 32],
    newest: &PolicyMark,
    signed: &SignedRequest,
) -> Spend {
    let request = signed.verify().unwrap();
    let held = verified.of(store, WALLET, Some(newest), owner).await.unwrap();
    let policy = &held.all[0].policy;
    assert!(!policy.asks_for_approvals());
    let approved_by = BTreeSet::new();
    let facts = Facts {
        requester: &signed.requester,
        payload: &request.payload,
        pair: Pair::ServicePartner,
        now_s: 1_900_000_000,
        owner,
        approved_by: &approved_by,
    };
    match policy.decide(&facts) {
        Decision::Allowed { spend, .. } => spend,
        refused => panic!("{refused:?}"),
    }
}

/// A store with a wallet, its policy and an audit chain. Returned with it: what the policy charges,
/// and the policy's mark.
async fn filled(
    store: Arc<dyn ShareStore>,
    verified: &VerifiedPolicies,
    signed: &SignedRequest,
) -> (Arc<dyn ShareStore>, Spend, PolicyMark) {
    let genesis = Draft::new(1, Event::WorkerStarted { instance: "bench".to_owned() });
    store.begin_audit(ChainId([1; 16]), &genesis, None).await.unwrap();
    store.prepare_wallet(&wallet()).await.unwrap();
    let row = PolicyRow { revision: 1, effective_at_ms: 1, signed: policy() };
    store.put_policy(WALLET, &row, 1).await.unwrap();
    let newest = row.mark();
    let spend = decide(&*store, verified, &owner().verifying_key().to_bytes(), &newest, signed).await;
    (store, spend, newest)
}

fn store(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let signed = request();
    let (verified, owner) = (VerifiedPolicies::default(), owner().verifying_key().to_bytes());
    let stores = runtime.block_on(async {
        let file = SqliteStore::create(&SqliteOptions::at(directory.path().join("store.db"))).await.unwrap();
        let database = PostgresServer::shared().await.unwrap().database().await.unwrap();
        let password = Zeroizing::new(database.password.clone());
        let options = PostgresOptions::at(&database.url).unwrap().with_password(&password);
        let server = PostgresStore::create(&options).await.unwrap();
        [
            ("sqlite", filled(Arc::new(file), &verified, &signed).await),
            ("postgres", filled(Arc::new(server), &verified, &signed).await),
        ]
    });
    let mut group = criterion.benchmark_group("party.authorise");
    group.bench_function("request", |bencher| {
        bencher.iter(|| signed.verify().unwrap().payload.digest().unwrap());
    });
    let [(_, (held, _, newest)), _] = &stores;
    group.bench_function("request-and-policy", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..count {
                    decide(&**held, &verified, &owner, newest, &signed).await;
                }
                started.elapsed()
            })
        });
    });
    for (name, (store, ..)) in &stores {
        group.bench_function(format!("wallet.{name}"), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let started = Instant::now();
                    for _ in 0..count {
                        assert!(store.wallet_with_policy(WALLET).await.unwrap().is_some());
                    }
                    started.elapsed()
                })
            });
        });
    }
    group.finish();
    let mut next = 0;
    let mut group = criterion.benchmark_group("party.charge");
    group.sample_size(50);
    for (at, (store, spend, newest)) in &stores {
        for (name, with) in
            [("plain", With::Nothing), ("limited", With::Limit(spend, newest)), ("recorded", With::Record)]
        {
            group.bench_function(format!("{at}.{name}"), |bencher| {
                bencher.iter_custom(|count| runtime.block_on(charge(store, &mut next, count, with)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);

//! What the audit log costs a decision of the share store: a session claimed and charged with and without a
//! record, on a file. The difference between the two is the cost; the rest is the disk's.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use duet_party::store::{
    AuditStore as _, Charge, ShareStore,
    sqlite::{SqliteOptions, SqliteStore},
};
use duet_protocol::ids::{SessionId, WalletId};
use duet_wire::{
    JobId,
    audit::{Asked, ChainId, Draft, Event},
};

const WALLET: WalletId = WalletId([1; 32]);

fn charged(session: SessionId) -> Draft {
    let asked =
        Asked { requester: [2; 32], tenant: "demo".parse().unwrap(), job: JobId([3; 16]), wallet: WALLET };
    let event = Event::SessionCharged {
        session,
        asked,
        digest: [4; 32],
        nonce: [5; 32],
        answer: session_hash(session),
    };
    Draft::new(1, event)
}

fn session_hash(session: SessionId) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(session.0).for_each(|(to, from)| *to = from);
    hash
}

/// Charges so many sessions, one after the other, with or without a record of each.
async fn charge(store: &Arc<SqliteStore>, next: &mut u128, count: u64, recorded: bool) -> Duration {
    let started = Instant::now();
    for _ in 0..count {
        *next += 1;
        let session = SessionId(next.to_be_bytes());
        let charge = Charge { session, wallet: WALLET, digest: session_hash(session), charged_at_ms: 1 };
        let handle: Arc<dyn ShareStore> =
            if recorded { store.noting(charged(session)) } else { Arc::clone(store) as _ };
        assert!(handle.charge(&charge).await.unwrap());
    }
    started.elapsed()
}

fn store(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = runtime.block_on(async {
        let store = SqliteStore::create(&SqliteOptions::at(directory.path().join("store.db"))).await.unwrap();
        let genesis = Draft::new(1, Event::WorkerStarted { instance: "bench".to_owned() });
        store.begin_audit(ChainId([1; 16]), &genesis, None).await.unwrap();
        Arc::new(store)
    });
    let mut next = 0;
    let mut group = criterion.benchmark_group("store.charge");
    group.sample_size(50);
    for (name, recorded) in [("plain", false), ("recorded", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| runtime.block_on(charge(&store, &mut next, count, recorded)));
        });
    }
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);

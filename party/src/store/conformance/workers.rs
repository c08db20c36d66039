//! Two workers on one store: whatever is decided once is decided once for both.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::*;

pub(super) type Two<S> = [Arc<S>; 2];

pub(super) async fn all<S: ShareStore>(make: impl AsyncFn() -> Two<S>) {
    one_claim_and_one_charge(make().await).await;
    one_verdict(make().await).await;
    no_verdict_after_a_lock(make().await).await;
    one_package_of_a_wallet(make().await).await;
    a_quota_for_both(make().await).await;
    prepared_here_and_committed_there(make().await).await;
    committed_or_expired(make().await).await;
    one_first_key(make().await).await;
    the_newest_two_enrolments(make().await).await;
    one_pin(make().await).await;
    every_unlock_attempt_counts(make().await).await;
    one_chain(make().await).await;
    one_limit_for_both(make().await).await;
    one_policy_of_a_revision(make().await).await;
}

/// What `count` tasks come to, taking turns between the workers, all at once.
pub(super) async fn race<S: ShareStore, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    workers: &Two<S>,
    count: u8,
    task: impl Fn(Arc<S>, u8) -> F,
) -> Vec<T> {
    let mut tasks = JoinSet::new();
    for (number, worker) in (0..count).zip(workers.iter().cycle()) {
        tasks.spawn(task(Arc::clone(worker), number));
    }
    tasks.join_all().await
}

async fn one_claim_and_one_charge<S: ShareStore>(workers: Two<S>) {
    let (session, wallet) = (SessionId([1; 16]), WalletId([1; 32]));
    let claims = race(&workers, 12, move |store, _| async move {
        store.claim_session(session, wallet, 5_000, 1_000).await.unwrap()
    });
    assert_eq!(claims.await.into_iter().filter(|claimed| *claimed).count(), 1);

    let charges = race(&workers, 12, move |store, number| async move {
        let charge = Charge { session, wallet, digest: [number; 32], charged_at_ms: 1 };
        store.charge(&charge).await.unwrap().then_some(number)
    });
    let charged: Vec<u8> = charges.await.into_iter().flatten().collect();
    assert_eq!(charged.len(), 1, "one signature ciphertext per session");
    for worker in &workers {
        for number in 0..12 {
            let expected = u64::from(charged.contains(&number));
            assert_eq!(worker.charges(wallet, [number; 32]).await.unwrap(), expected);
        }
    }
}

async fn one_verdict<S: ShareStore>(workers: Two<S>) {
    let key = put_key(&*workers[0], 1).await;
    let outcomes = race(&workers, 24, move |store, number| async move {
        store.lock_paillier_key(&lock(key, SessionId([number; 16]), b"evidence", 1)).await.unwrap()
    });
    let verdicts = outcomes.await.into_iter().filter(|outcome| *outcome == LockOutcome::Locked).count();
    assert_eq!(verdicts, 1, "24 bad signatures at two workers are one verdict");
    for worker in &workers {
        assert_eq!(
            worker.release_verdict(key, SessionId([0; 16])).await.unwrap(),
            Gate::Closed(PaillierState::Locked)
        );
        assert_eq!(worker.paillier_key(key).await.unwrap().unwrap().state, PaillierState::Locked);
    }
}

/// A caller that asks one worker's gate after the other worker's lock has returned finds it closed.
async fn no_verdict_after_a_lock<S: ShareStore>(workers: Two<S>) {
    for round in 1..=8 {
        let key = put_key(&*workers[0], round).await;
        let locked = Arc::new(AtomicBool::new(false));
        let (locker, flag) = (Arc::clone(&workers[0]), Arc::clone(&locked));
        let locking = tokio::spawn(async move {
            locker.lock_paillier_key(&lock(key, SessionId([1; 16]), b"evidence", 1)).await.unwrap();
            flag.store(true, Ordering::SeqCst);
        });
        let asking = race(&workers, 4, move |store, _| {
            let locked = Arc::clone(&locked);
            async move {
                let mut closed = false;
                while !closed {
                    let after = locked.load(Ordering::SeqCst);
                    let gate = store.release_verdict(key, SessionId([0; 16])).await.unwrap();
                    closed = gate == Gate::Closed(PaillierState::Locked);
                    assert!(closed || !after, "a verdict left after the lock");
                }
            }
        });
        asking.await;
        locking.await.unwrap();
    }
}

async fn one_package_of_a_wallet<S: ShareStore>(workers: Two<S>) {
    let outcomes = race(&workers, 8, |store, number| async move {
        // Two packages, each sent four times.
        let package = number / 4;
        (package, store.prepare_wallet(&new_wallet(1, package, None)).await.unwrap())
    })
    .await;
    let prepared: Vec<u8> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == PrepareOutcome::Prepared)
        .map(|(package, _)| *package)
        .collect();
    assert_eq!(prepared.len(), 1, "{outcomes:?}");
    for (package, outcome) in &outcomes {
        match outcome {
            PrepareOutcome::Prepared => {}
            PrepareOutcome::Already(row) => {
                assert_eq!((*package, row.receipt[0]), (prepared[0], prepared[0]))
            }
            PrepareOutcome::Conflict => assert_ne!(*package, prepared[0]),
            PrepareOutcome::QuotaExceeded => panic!("there is no quota"),
            PrepareOutcome::SameKey => panic!("both packages are one wallet"),
        }
    }
}

async fn a_quota_for_both<S: ShareStore>(workers: Two<S>) {
    let admission = Admission { token: [7; 16], max_wallets: 3 };
    let outcomes = race(&workers, 10, move |store, number| async move {
        store.prepare_wallet(&new_wallet(number + 1, 1, Some(admission))).await.unwrap()
    });
    let prepared = outcomes.await.into_iter().filter(|outcome| *outcome == PrepareOutcome::Prepared).count();
    assert_eq!(prepared, 3, "a token admits exactly what it says, at whichever worker");
}

async fn prepared_here_and_committed_there<S: ShareStore>(workers: Two<S>) {
    let wallet = new_wallet(1, 1, None);
    assert_eq!(workers[0].prepare_wallet(&wallet).await.unwrap(), PrepareOutcome::Prepared);
    let id = wallet.id;
    let outcomes = race(&workers, 6, move |store, number| async move {
        (number, store.commit_wallet(id, &[number], 1_500).await.unwrap())
    })
    .await;
    let committed: Vec<u8> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == CommitOutcome::Committed)
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(committed.len(), 1, "{outcomes:?}");
    for (_, outcome) in outcomes.iter().filter(|(number, _)| !committed.contains(number)) {
        assert_eq!(
            *outcome,
            CommitOutcome::Already(committed.clone()),
            "every worker gets the same acknowledgement"
        );
    }
    for worker in &workers {
        assert_eq!(worker.wallet(id).await.unwrap().unwrap().commit_ack, Some(committed.clone()));
        assert!(worker.record(&wallet.records[0].0).await.unwrap().is_some());
    }
}

/// A commit and the sweep that forgets expired wallets exclude each other.
async fn committed_or_expired<S: ShareStore>(workers: Two<S>) {
    const WALLETS: u8 = 12;
    for id in 1..=WALLETS {
        workers[0].prepare_wallet(&new_wallet(id, id, None)).await.unwrap();
    }
    let sweeper = Arc::clone(&workers[1]);
    let sweep = tokio::spawn(async move { sweeper.expire_prepared(2_000).await.unwrap() });
    let committing = [Arc::clone(&workers[0]), Arc::clone(&workers[0])];
    let commits = race(&committing, WALLETS, |store, number| async move {
        let id = number + 1;
        (id, store.commit_wallet(WalletId([id; 32]), b"ack", 1_999).await.unwrap())
    });
    let outcomes = commits.await;
    let expired = sweep.await.unwrap();
    let mut kept = 0;
    for (id, outcome) in outcomes {
        let wallet = new_wallet(id, id, None);
        let row = workers[1].wallet(wallet.id).await.unwrap();
        let share = workers[1].record(&wallet.records[0].0).await.unwrap();
        let enrolments = workers[1].enrolments(wallet.id).await.unwrap();
        match outcome {
            CommitOutcome::Committed => {
                kept += 1;
                assert_eq!(row.unwrap().state, WalletState::Committed);
                assert!(share.is_some() && enrolments.len() == 1, "a committed wallet is whole");
            }
            CommitOutcome::Unknown => {
                assert!(row.is_none() && share.is_none() && enrolments.is_empty(), "nothing of it is left");
            }
            CommitOutcome::Already(_) => panic!("committed once only"),
        }
    }
    assert_eq!(kept + expired, u64::from(WALLETS));
}

async fn one_first_key<S: ShareStore>(workers: Two<S>) {
    let scope = PaillierScope::Responder { card: CardFingerprint([1; 32]), tenant: "acme".to_owned() };
    let first = scope.clone();
    let stands = race(&workers, 6, move |store, number| {
        let scope = first.clone();
        async move {
            let id = PaillierKeyId([number + 1; 16]);
            let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
            store.put_first_paillier_key(id, &scope, &sealed(&label, b"key"), 1).await.unwrap().id
        }
    })
    .await;
    assert!(stands.iter().all(|id| *id == stands[0]), "two workers at once make one key: {stands:?}");
    for worker in &workers {
        let keys = worker.paillier_keys(&scope).await.unwrap();
        assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [stands[0]]);
    }
}

async fn the_newest_two_enrolments<S: ShareStore>(workers: Two<S>) {
    let wallet = WalletId([1; 32]);
    let row = move |key: u8| EnrolmentRow {
        wallet,
        initiator: ShareIndex::Device,
        paillier_key: PaillierKeyId([key; 16]),
        epoch: Epoch(0),
    };
    race(&workers, 8, move |store, number| async move {
        let row = row(number + 1);
        let record = sealed(&enrolment_label(&row), &[number]);
        store.put_enrolment(&row, &record, 1).await.unwrap();
    })
    .await;
    let held = workers[0].enrolments(wallet).await.unwrap();
    assert_eq!(held.len(), 2);
    for key in 1..=8 {
        let record = workers[1].record(&enrolment_label(&row(key))).await.unwrap();
        assert_eq!(record.is_some(), held.contains(&row(key)), "a record for each, and no other");
    }
}

async fn one_pin<S: ShareStore>(workers: Two<S>) {
    let outcomes = race(&workers, 6, |store, number| async move {
        store.pin_card(&party("partner"), CardFingerprint([number; 32])).await.unwrap()
    })
    .await;
    let pinned = workers[0].pinned_card(&party("partner")).await.unwrap().unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == PinOutcome::Pinned).count(), 1);
    let different = outcomes.iter().filter(|outcome| **outcome == PinOutcome::Different(pinned)).count();
    assert_eq!(different, 5, "every other worker is told which card is pinned");
}

async fn every_unlock_attempt_counts<S: ShareStore>(workers: Two<S>) {
    let mut counts =
        race(&workers, 4, |store, _| async move { store.count_unlock_attempt(1_000).await.unwrap() }).await;
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3, 4], "guesses at two workers are counted together");
    assert!(workers[1].count_unlock_attempt(1_000).await.is_err());
}

/// What both decide is recorded in one chain, in order, each decision once.
async fn one_chain<S: ShareStore>(workers: Two<S>) {
    race(&workers, 4, |store, number| async move {
        store.begin_audit(ChainId([number + 1; 16]), &draft(1, "genesis"), None).await.unwrap();
    })
    .await;
    let chains = workers[0].audit_chains().await.unwrap();
    assert_eq!(chains.len(), 1, "two workers at once begin one chain");
    race(&workers, 24, |store, number| async move {
        // Each session at both workers.
        let (session, wallet) = (SessionId([number / 2; 16]), WalletId([1; 32]));
        store.noting(draft(2, "claimed")).claim_session(session, wallet, 5_000, 1_000).await.unwrap();
    })
    .await;
    let records = workers[1].audit_records(chains[0].head.chain, 0, 100).await.unwrap();
    assert_eq!(records.len(), 13);
    assert!(is_chained(&records));
}

async fn one_limit_for_both<S: ShareStore>(workers: Two<S>) {
    let charges = race(&workers, 16, |store, number| async move {
        match charge_at(&*store, number, 1_000, vec![spend(4, &[&["rule/a"]])]).await {
            Ok(charged) => charged,
            Err(StoreError::LimitExceeded(_)) => false,
            Err(error) => panic!("{error}"),
        }
    });
    let charged = charges.await.into_iter().filter(|charged| *charged).count();
    assert_eq!(charged, 2, "what is charged at two workers is counted together");
}

async fn one_policy_of_a_revision<S: ShareStore>(workers: Two<S>) {
    let wallet = WalletId([1; 32]);
    let outcomes = race(&workers, 6, move |store, number| async move {
        let signed = SignedPolicy { body: vec![b'a' + number], signature: [1; 64] };
        let policy = PolicyRow { revision: 1, effective_at_ms: 1, signed };
        store.put_policy(wallet, &policy, 1).await.unwrap()
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == PutPolicy::Stored).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == PutPolicy::Stale(1)).count(), 5);
}

//! Paillier keys, whom they are agreed with, and their locks.

use super::*;

pub(super) async fn own_enrolments<S: ShareStore>(store: &S) {
    let (wallet, responder) = (WalletId([1; 32]), party("partner"));
    let (old, new) = (PaillierKeyId([1; 16]), PaillierKeyId([2; 16]));
    assert_eq!(store.own_enrolment(wallet, &responder).await.unwrap(), OwnEnrolment::default());
    store.offer_enrolment(wallet, &responder, old).await.unwrap();
    store.agree_enrolment(wallet, &responder, old).await.unwrap();
    store.offer_enrolment(wallet, &responder, new).await.unwrap();
    let rotating = OwnEnrolment { agreed: Some(old), offered: Some(new) };
    assert_eq!(store.own_enrolment(wallet, &responder).await.unwrap(), rotating);
    store.agree_enrolment(wallet, &responder, new).await.unwrap();
    let rotated = OwnEnrolment { agreed: Some(new), offered: None };
    assert_eq!(store.own_enrolment(wallet, &responder).await.unwrap(), rotated);
    // A worker that was slow does not bring an older key back.
    let (older, newer) = (put_key(store, 7).await, put_key(store, 8).await);
    for key in [newer, older] {
        store.agree_enrolment(wallet, &responder, key).await.unwrap();
        assert_eq!(store.own_enrolment(wallet, &responder).await.unwrap().agreed, Some(newer));
    }

    for id in [1, 2, 3] {
        store.prepare_wallet(&new_wallet(id, id, None)).await.unwrap();
    }
    store.commit_wallet(WalletId([2; 32]), b"ack", 1).await.unwrap();
    store.commit_wallet(WalletId([1; 32]), b"ack", 2).await.unwrap();
    let missing = |index| async move { store.wallets_without_enrolment(index, 10).await.unwrap() };
    assert_eq!(missing(ShareIndex::Service).await, [WalletId([2; 32])], "1 has agreed, 3 is not committed");
    assert_eq!(missing(ShareIndex::Partner).await, []);
    store.waive_enrolment(WalletId([2; 32])).await.unwrap();
    assert_eq!(missing(ShareIndex::Service).await, []);
}

pub(super) async fn locks<S: ShareStore>(store: &S) {
    let (first, second) = (put_key(store, 1).await, put_key(store, 2).await);
    assert_eq!(store.release_verdict(first, SessionId([0; 16])).await.unwrap(), Gate::Open);
    let session = SessionId([1; 16]);
    assert_eq!(
        store.lock_paillier_key(&lock(first, session, b"evidence", 1)).await.unwrap(),
        LockOutcome::Locked
    );
    assert_eq!(
        store.lock_paillier_key(&lock(first, session, b"evidence", 2)).await.unwrap(),
        LockOutcome::AlreadyLocked
    );
    assert_eq!(
        store.release_verdict(first, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert_eq!(
        store.release_verdict(second, SessionId([0; 16])).await.unwrap(),
        Gate::Open,
        "a lock is one key's"
    );
    // Storing the key again does not unlock it.
    put_key(store, 1).await;
    assert_eq!(store.paillier_key(first).await.unwrap().unwrap().state, PaillierState::Locked);
    assert!(
        store.release_verdict(PaillierKeyId([9; 16]), SessionId([0; 16])).await.is_err(),
        "an unknown key is no open gate"
    );
    let keys = store.paillier_keys(&PaillierScope::Wallet(WalletId([9; 32]))).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [second, first], "newest first");
}

pub(super) async fn superseded_keys<S: ShareStore>(store: &S) {
    const MINUTE: u64 = 60_000;
    let wallet = WalletId([9; 32]);
    let (old, new) = (put_key(store, 1).await, put_key(store, 2).await);
    let kept = async || store.all_paillier_keys().await.unwrap().len();
    let responders = [party("service"), party("partner")];
    for responder in &responders {
        store.agree_enrolment(wallet, responder, old).await.unwrap();
    }
    let mut now_ms = 10 * MINUTE;
    let removed = async |now_ms| store.remove_superseded_keys(now_ms).await.unwrap();
    // One responder has agreed to the new key, the other is offered it.
    store.agree_enrolment(wallet, &responders[0], new).await.unwrap();
    store.offer_enrolment(wallet, &responders[1], new).await.unwrap();
    assert_eq!(removed(now_ms).await, []);
    assert_eq!(removed(now_ms + 10 * MINUTE).await, [], "the partner still answers to the old key");
    now_ms += 20 * MINUTE;
    // A session with the old key runs when the partner agrees.
    store.lock_paillier_key(&lock(old, SessionId([1; 16]), b"evidence", now_ms)).await.unwrap();
    store.claim_session(SessionId([2; 16]), wallet, now_ms + 5 * MINUTE, now_ms).await.unwrap();
    store.agree_enrolment(wallet, &responders[1], new).await.unwrap();
    assert_eq!(removed(now_ms).await, []);
    assert_eq!(removed(now_ms + 2 * MINUTE).await, [], "the session may still use it");
    // A session that began later cannot.
    store.claim_session(SessionId([3; 16]), wallet, now_ms + 60 * MINUTE, now_ms + 3 * MINUTE).await.unwrap();
    let label = RecordLabel::of_party(RecordKind::PaillierKey, old.as_bytes());
    assert!(store.record(&label).await.unwrap().is_none(), "the lock destroyed the key itself");
    assert_eq!(removed(now_ms + 6 * MINUTE).await, [old]);
    assert_eq!(store.paillier_key(old).await.unwrap(), None);
    assert_eq!(kept().await, 1);
    // Not even a record that turns up again unlocks it or makes it a key.
    assert_eq!(put_key(store, 1).await, old);
    assert!(store.record(&label).await.unwrap().is_none());
    assert_eq!(
        store.release_verdict(old, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert_eq!(removed(now_ms + 60 * MINUTE).await, [], "the newest stays");
}

pub(super) async fn parallel_bad_verdicts<S: ShareStore>(store: Arc<S>) {
    let key = put_key(&*store, 1).await;
    let tasks: Vec<_> = (0..64)
        .map(|session| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store
                    .lock_paillier_key(&lock(key, SessionId([session; 16]), b"evidence", session.into()))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut verdicts = 0;
    for task in tasks {
        verdicts += usize::from(task.await.unwrap() == LockOutcome::Locked);
    }
    assert_eq!(verdicts, 1, "64 bad signatures at once are one verdict");
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
}

//! What every share store must do, written over the trait: another back end passes the same tests.
//! `make` gives a new, empty, ready store each time, opened twice: as two workers of a party have it open. What only one does
//! is checked here, their races in [`workers`].

mod workers;

use std::{future::Future, sync::Arc};

use super::*;
use crate::at_rest::{KeyEncryptionKey, RecordKind};

fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

fn sealed(label: &RecordLabel, content: &[u8]) -> SealedRecord {
    SealedRecord::seal(&key(), label, content).unwrap()
}

fn key() -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes([1; 32].into())
}

fn new_wallet(id: u8, package: u8, token: Option<Admission>) -> NewWallet {
    let wallet = WalletId([id; 32]);
    let share = RecordLabel::of_wallet(RecordKind::Share, wallet, ShareIndex::Service, Epoch(0), &[]);
    let record = sealed(&share, b"share");
    NewWallet {
        id: wallet,
        epoch: Epoch(0),
        index: ShareIndex::Service,
        tenant: "acme".to_owned(),
        package_hash: [package; 32],
        receipt: vec![package],
        admission: token,
        prepared_at_ms: 1_000,
        expires_at_ms: 2_000,
        records: vec![(share, record)],
        enrolments: vec![EnrolmentRow {
            wallet,
            initiator: ShareIndex::Device,
            paillier_key: PaillierKeyId([id; 16]),
            epoch: Epoch(0),
        }],
    }
}

async fn put_key<S: ShareStore>(store: &S, id: u8) -> PaillierKeyId {
    let id = PaillierKeyId([id; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
    let scope = PaillierScope::Wallet(WalletId([9; 32]));
    store.put_paillier_key(id, &scope, &sealed(&label, b"key"), PaillierState::Ready, 1).await.unwrap();
    id
}

/// Runs every check against stores from `make_two`.
pub(super) async fn all<S: ShareStore, F: Future<Output = [S; 2]>>(make_two: impl Fn() -> F) {
    let make = async || {
        let [store, _] = make_two().await;
        store
    };
    settings_and_records(&make().await).await;
    pins(&make().await).await;
    preparing_and_committing(&make().await).await;
    quota(Arc::new(make().await)).await;
    enrolments(&make().await).await;
    own_enrolments(&make().await).await;
    locks(&make().await).await;
    superseded_keys(&make().await).await;
    parallel_bad_verdicts(Arc::new(make().await)).await;
    sessions_and_charges(Arc::new(make().await)).await;
    deals(&make().await).await;
    unlock_attempts(&make().await).await;
    workers::all(async || make_two().await.map(Arc::new)).await;
}

async fn settings_and_records<S: ShareStore>(store: &S) {
    assert_eq!(store.readiness(), Readiness::Ready);
    assert_eq!(store.setting("a").await.unwrap(), None);
    store.put_setting("a", b"1").await.unwrap();
    store.put_setting("a", b"2").await.unwrap();
    assert_eq!(store.setting("a").await.unwrap(), Some(b"2".to_vec()));

    let first = RecordLabel::of_party(RecordKind::PartyKeys, b"");
    let second =
        RecordLabel::of_wallet(RecordKind::Share, WalletId([1; 32]), ShareIndex::Service, Epoch(1), b"x");
    assert_eq!(store.record(&first).await.unwrap(), None);
    let records = [(first.clone(), sealed(&first, b"1")), (second.clone(), sealed(&second, b"2"))];
    store.put_records(&records).await.unwrap();
    for (label, record) in &records {
        assert_eq!(store.record(label).await.unwrap().as_ref(), Some(record));
    }
    let other_epoch = RecordLabel { epoch: Epoch(2), ..second.clone() };
    assert_eq!(store.record(&other_epoch).await.unwrap(), None);
    let mut labels = store.record_labels().await.unwrap();
    labels.sort_by_key(|label| label.kind as u8);
    assert_eq!(labels, [first.clone(), second]);

    // A record that somebody moved to another label does not open there.
    let moved = RecordLabel { item: b"other".to_vec(), ..first.clone() };
    store.put_records(&[(moved.clone(), records[0].1.clone())]).await.unwrap();
    assert!(store.record(&moved).await.unwrap().unwrap().open(&key(), &moved).is_err());

    let replaced = sealed(&first, b"3");
    store.replace_records(&[(first.clone(), replaced.clone())], ("a", b"3")).await.unwrap();
    assert_eq!(store.record(&first).await.unwrap(), Some(replaced));
    assert_eq!(store.setting("a").await.unwrap(), Some(b"3".to_vec()));
}

async fn pins<S: ShareStore>(store: &S) {
    let (first, second) = (CardFingerprint([1; 32]), CardFingerprint([2; 32]));
    let name = party("partner");
    assert_eq!(store.pinned_card(&name).await.unwrap(), None);
    assert_eq!(store.pin_card(&name, first).await.unwrap(), PinOutcome::Pinned);
    assert_eq!(store.pin_card(&name, first).await.unwrap(), PinOutcome::Same);
    assert_eq!(store.pin_card(&name, second).await.unwrap(), PinOutcome::Different(first));
    assert_eq!(store.pinned_card(&name).await.unwrap(), Some(first));
}

async fn preparing_and_committing<S: ShareStore>(store: &S) {
    let wallet = new_wallet(1, 1, None);
    assert_eq!(store.prepare_wallet(&wallet).await.unwrap(), PrepareOutcome::Prepared);
    let PrepareOutcome::Already(row) = store.prepare_wallet(&wallet).await.unwrap() else {
        panic!("a repeated package is the same wallet");
    };
    assert_eq!((row.state, row.receipt.as_slice()), (WalletState::Prepared, [1].as_slice()));
    assert_eq!(store.prepare_wallet(&new_wallet(1, 2, None)).await.unwrap(), PrepareOutcome::Conflict);
    assert!(store.wallets(None, 10).await.unwrap().is_empty(), "prepared wallets are not listed");
    assert!(store.record(&wallet.records[0].0).await.unwrap().is_some());

    // Nothing is due yet; then the wallet expires with all that belongs to it.
    assert_eq!(store.expire_prepared(1_999).await.unwrap(), 0);
    assert_eq!(store.expire_prepared(2_000).await.unwrap(), 1);
    assert_eq!(store.wallet(wallet.id).await.unwrap(), None);
    assert_eq!(store.record(&wallet.records[0].0).await.unwrap(), None);
    assert!(store.enrolments(wallet.id).await.unwrap().is_empty());
    assert_eq!(store.commit_wallet(wallet.id, b"ack", 1).await.unwrap(), CommitOutcome::Unknown);

    // Prepared again, committed, and then it never expires.
    assert_eq!(store.prepare_wallet(&wallet).await.unwrap(), PrepareOutcome::Prepared);
    assert_eq!(store.commit_wallet(wallet.id, b"ack", 1_500).await.unwrap(), CommitOutcome::Committed);
    assert_eq!(
        store.commit_wallet(wallet.id, b"other", 1_600).await.unwrap(),
        CommitOutcome::Already(b"ack".to_vec())
    );
    assert_eq!(store.expire_prepared(u64::MAX).await.unwrap(), 0);
    let row = store.wallet(wallet.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.commit_ack.as_deref()), (WalletState::Committed, Some(b"ack".as_slice())));
    assert_eq!((row.index, row.tenant.as_str()), (ShareIndex::Service, "acme"));

    for id in [3, 2] {
        store.prepare_wallet(&new_wallet(id, id, None)).await.unwrap();
        store.commit_wallet(WalletId([id; 32]), b"ack", 1).await.unwrap();
    }
    let ids = |rows: Vec<WalletRow>| rows.iter().map(|row| row.id.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(store.wallets(None, 2).await.unwrap()), [1, 2]);
    assert_eq!(ids(store.wallets(Some(WalletId([2; 32])), 2).await.unwrap()), [3]);
    store.prepare_wallet(&new_wallet(4, 4, None)).await.unwrap();
    assert_eq!(store.count_wallets().await.unwrap(), 3, "prepared wallets are not counted");
}

async fn quota<S: ShareStore>(store: Arc<S>) {
    let admission = Admission { token: [7; 16], max_wallets: 3 };
    let tasks: Vec<_> = (1..=8)
        .map(|id| {
            let store = Arc::clone(&store);
            tokio::spawn(
                async move { store.prepare_wallet(&new_wallet(id, id, Some(admission))).await.unwrap() },
            )
        })
        .collect();
    let mut prepared = 0;
    for task in tasks {
        match task.await.unwrap() {
            PrepareOutcome::Prepared => prepared += 1,
            PrepareOutcome::QuotaExceeded => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(prepared, 3, "a token admits exactly what it says, however many come at once");
}

async fn enrolments<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let row = |initiator, key| EnrolmentRow {
        wallet,
        initiator,
        paillier_key: PaillierKeyId([key; 16]),
        epoch: Epoch(0),
    };
    let label = |key: u8| {
        RecordLabel::of_wallet(RecordKind::Enrolment, wallet, ShareIndex::Device, Epoch(0), &[key; 16])
    };
    for key in [1, 2, 3] {
        let record = sealed(&label(key), &[key]);
        store.put_enrolment(&row(ShareIndex::Device, key), &record, key.into()).await.unwrap();
    }
    let other = row(ShareIndex::Service, 9);
    store.put_enrolment(&other, &sealed(&label(9), b"other"), 9).await.unwrap();
    let held = store.enrolments(wallet).await.unwrap();
    let keys: Vec<_> = held.iter().map(|row| (row.initiator, row.paillier_key.0[0])).collect();
    let device = ShareIndex::Device;
    assert_eq!(keys, [(ShareIndex::Service, 9), (device, 3), (device, 2)], "the newest two of each");
    assert!(store.record(&label(1)).await.unwrap().is_none());
    assert!(store.record(&label(2)).await.unwrap().is_some());
}

async fn own_enrolments<S: ShareStore>(store: &S) {
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

async fn locks<S: ShareStore>(store: &S) {
    let (first, second) = (put_key(store, 1).await, put_key(store, 2).await);
    assert_eq!(store.release_verdict(first).await.unwrap(), Gate::Open);
    let session = SessionId([1; 16]);
    assert_eq!(store.lock_paillier_key(first, session, b"evidence", 1).await.unwrap(), LockOutcome::Locked);
    assert_eq!(
        store.lock_paillier_key(first, session, b"evidence", 2).await.unwrap(),
        LockOutcome::AlreadyLocked
    );
    assert_eq!(store.release_verdict(first).await.unwrap(), Gate::Closed(PaillierState::Locked));
    assert_eq!(store.release_verdict(second).await.unwrap(), Gate::Open, "a lock is one key's");
    // Storing the key again does not unlock it.
    put_key(store, 1).await;
    assert_eq!(store.paillier_key(first).await.unwrap().unwrap().state, PaillierState::Locked);
    assert!(store.release_verdict(PaillierKeyId([9; 16])).await.is_err(), "an unknown key is no open gate");
    let keys = store.paillier_keys(&PaillierScope::Wallet(WalletId([9; 32]))).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [second, first], "newest first");
}

async fn superseded_keys<S: ShareStore>(store: &S) {
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
    store.lock_paillier_key(old, SessionId([1; 16]), b"evidence", now_ms).await.unwrap();
    store.claim_session(SessionId([2; 16]), wallet, now_ms + 5 * MINUTE, now_ms).await.unwrap();
    store.agree_enrolment(wallet, &responders[1], new).await.unwrap();
    assert_eq!(removed(now_ms).await, []);
    assert_eq!(removed(now_ms + 2 * MINUTE).await, [], "the session may still use it");
    // A session that began later cannot.
    store.claim_session(SessionId([3; 16]), wallet, now_ms + 60 * MINUTE, now_ms + 3 * MINUTE).await.unwrap();
    let label = RecordLabel::of_party(RecordKind::PaillierKey, old.as_bytes());
    assert!(store.record(&label).await.unwrap().is_some());
    assert_eq!(removed(now_ms + 6 * MINUTE).await, [old]);
    assert!(store.record(&label).await.unwrap().is_none(), "the key itself is gone");
    assert_eq!(store.paillier_key(old).await.unwrap(), None);
    assert_eq!(kept().await, 1);
    // Not even a record that turns up again unlocks it or makes it a key.
    assert_eq!(put_key(store, 1).await, old);
    assert!(store.record(&label).await.unwrap().is_none());
    assert_eq!(store.release_verdict(old).await.unwrap(), Gate::Closed(PaillierState::Locked));
    assert_eq!(removed(now_ms + 60 * MINUTE).await, [], "the newest stays");
}

async fn parallel_bad_verdicts<S: ShareStore>(store: Arc<S>) {
    let key = put_key(&*store, 1).await;
    let tasks: Vec<_> = (0..64)
        .map(|session| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store
                    .lock_paillier_key(key, SessionId([session; 16]), b"evidence", session.into())
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
    assert_eq!(store.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::Locked));
}

async fn sessions_and_charges<S: ShareStore>(store: Arc<S>) {
    let (session, wallet) = (SessionId([1; 16]), WalletId([1; 32]));
    let claims: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.claim_session(session, wallet, 5_000, 1_000).await.unwrap() })
        })
        .collect();
    let mut claimed = 0;
    for claim in claims {
        claimed += usize::from(claim.await.unwrap());
    }
    assert_eq!(claimed, 1, "two workers never sit in one session");

    let charge = Charge { session, wallet, digest: [3; 32], charged_at_ms: 1 };
    assert!(store.charge(&charge).await.unwrap());
    assert!(!store.charge(&Charge { digest: [4; 32], ..charge }).await.unwrap());
    assert_eq!(store.charges(wallet, [3; 32]).await.unwrap(), 1);
    assert_eq!(store.charges(wallet, [4; 32]).await.unwrap(), 0);
    // Neither a sweep nor time makes a charge go away, nor a session that could still be replayed.
    store.expire_prepared(5_001).await.unwrap();
    assert!(!store.claim_session(session, wallet, 5_000, 1_000).await.unwrap());
    store.expire_prepared(u64::MAX).await.unwrap();
    assert!(!store.charge(&charge).await.unwrap());
}

async fn deals<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let label = RecordLabel::of_wallet(RecordKind::Deal, wallet, ShareIndex::Device, Epoch(0), &[]);
    store.put_deal(wallet, &sealed(&label, b"1"), 1).await.unwrap();
    let record = sealed(&label, b"2");
    store.put_deal(wallet, &record, 2).await.unwrap();
    assert_eq!(store.deals().await.unwrap(), [DealRow { wallet, restored: false }]);
    assert_eq!(store.record(&label).await.unwrap(), Some(record));
    store.remove_deal(wallet).await.unwrap();
    assert!(store.deals().await.unwrap().is_empty());
    assert_eq!(store.record(&label).await.unwrap(), None);
}

async fn unlock_attempts<S: ShareStore>(store: &S) {
    for expected in 1..=4 {
        assert_eq!(store.count_unlock_attempt(1_000).await.unwrap(), expected);
    }
    let refused = store.count_unlock_attempt(1_000).await;
    assert!(matches!(refused, Err(UnlockRefused::TooEarly { failures: 4, wait_ms: 1_000 })));
    assert_eq!(store.count_unlock_attempt(2_000).await.unwrap(), 5);
    let refused = store.count_unlock_attempt(2_000).await;
    assert!(matches!(refused, Err(UnlockRefused::TooEarly { failures: 5, wait_ms: 2_000 })));
    store.clear_unlock_attempts().await.unwrap();
    assert_eq!(store.count_unlock_attempt(2_000).await.unwrap(), 1);
}

//! What every share store must do, written over the trait: another back end passes the same tests.
//! `make` gives a new, empty, ready store each time, opened twice: as two workers of a party have
//! it open. What only one does is checked here, their races in [`workers`].

mod key_change;
mod pending;
mod workers;

use std::{collections::BTreeSet, future::Future, sync::Arc};

use duet_wire::{
    audit::{ChainId, Draft, Event, Record},
    policy::{Bound, Limit, SignedPolicy, Spend, SpendLimit, SpendOption},
};

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
        public_key: [id; 33],
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

/// A lock because of a session of the wallet that [`put_key`]'s keys are for.
pub(super) fn lock(key: PaillierKeyId, session: SessionId, evidence: &[u8], at_ms: u64) -> Lock {
    let (wallet, card) = (Some(WalletId([9; 32])), Some(CardFingerprint([8; 32])));
    Lock { key, session, wallet, card, evidence: evidence.to_vec(), at_ms }
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
    audit_chains(Arc::new(make().await)).await;
    noted_decisions(&make().await).await;
    witnessed_locks(&make().await).await;
    kept_heads(&make().await).await;
    policies(&make().await).await;
    policies_change(&make().await).await;
    newest_policies(&make().await).await;
    limits(&make().await).await;
    limits_at_once(Arc::new(make().await)).await;
    approvals(&make().await).await;
    pending::all(async || make_two().await.map(Arc::new)).await;
    revocations(&make().await).await;
    limits_after_a_restore(&make().await).await;
    key_change::all(async || make_two().await.map(Arc::new)).await;
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
    // A record that an attacker moved to another label does not open there.
    let moved = RecordLabel { item: b"other".to_vec(), ..first.clone() };
    store.put_records(&[(moved.clone(), records[0].1.clone())]).await.unwrap();
    assert!(store.record(&moved).await.unwrap().unwrap().open(&key(), &moved).is_err());

    store.remove_setting("a", b"1").await.unwrap();
    assert_eq!(store.setting("a").await.unwrap(), Some(b"2".to_vec()), "it has another value by now");
    store.remove_setting("a", b"2").await.unwrap();
    assert_eq!(store.setting("a").await.unwrap(), None);
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
    let of_the_same_key = NewWallet { public_key: wallet.public_key, ..new_wallet(9, 9, None) };
    assert_eq!(store.prepare_wallet(&of_the_same_key).await.unwrap(), PrepareOutcome::SameKey);
    assert_eq!(store.wallet(of_the_same_key.id).await.unwrap(), None);
    assert!(store.wallets_without_public_key(10).await.unwrap().is_empty());
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

async fn parallel_bad_verdicts<S: ShareStore>(store: Arc<S>) {
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

fn draft(at_ms: u64, instance: &str) -> Draft {
    Draft::new(at_ms, Event::WorkerStarted { instance: instance.to_owned() })
}

fn is_chained(records: &[Record]) -> bool {
    records.windows(2).all(|pair| {
        let before = pair[0].position();
        (pair[1].sequence, pair[1].previous) == (before.sequence + 1, before.hash)
    })
}

async fn audit_chains<S: ShareStore>(store: Arc<S>) {
    // Without a chain nothing is recorded, and nothing fails.
    store.append_audit(&[draft(1, "a")]).await.unwrap();
    assert_eq!(store.audit_chains().await.unwrap(), []);

    let (first, second) = (ChainId([1; 16]), ChainId([2; 16]));
    store.begin_audit(first, &draft(1, "genesis"), None).await.unwrap();
    // Two workers begin at once, or one begins while the chain is written: the first counts.
    store.begin_audit(second, &draft(2, "genesis"), None).await.unwrap();
    store.begin_audit(second, &draft(2, "genesis"), Some(first)).await.unwrap();
    assert_eq!(store.audit_chains().await.unwrap().len(), 1);

    // Many at once leave one chain, in order.
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let entries: Vec<_> = (0..4).map(|at| draft(10 + at, &task.to_string())).collect();
                store.append_audit(&entries).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let records = store.audit_records(first, 0, 100).await.unwrap();
    assert_eq!(records.len(), 65);
    assert!(records[0].is_first() && is_chained(&records));
    let chain = store.audit_chains().await.unwrap()[0];
    assert_eq!(chain.head, records.last().unwrap().position());
    assert_eq!((chain.head_at_ms, chain.closed, chain.shipped), (13, false, 0));
    assert_eq!(store.audit_records(first, 63, 1).await.unwrap(), [records[63].clone()]);

    // What is published never counts back, and only that is removed, but never the newest.
    store.audit_shipped(first, 40).await.unwrap();
    store.audit_shipped(first, 30).await.unwrap();
    assert_eq!(store.audit_chains().await.unwrap()[0].shipped, 40);
    assert_eq!(store.trim_audit(10).await.unwrap(), 1);
    assert_eq!(store.trim_audit(100).await.unwrap(), 39);
    assert_eq!(store.audit_records(first, 0, 100).await.unwrap(), records[40..]);
    store.audit_shipped(first, 65).await.unwrap();
    assert_eq!(store.trim_audit(100).await.unwrap(), 24);
    store.append_audit(&[draft(200, "later")]).await.unwrap();
    let kept = store.audit_records(first, 0, 100).await.unwrap();
    assert_eq!(kept.iter().map(|record| record.sequence).collect::<Vec<_>>(), [65, 66]);
    assert!(is_chained(&kept));
}

/// Each decision is recorded in its own transaction, once, and nothing where nothing was decided.
async fn noted_decisions<S: ShareStore>(store: &S) {
    let chain = ChainId([1; 16]);
    store.begin_audit(chain, &draft(1, "genesis"), None).await.unwrap();
    let recorded = async || store.audit_chains().await.unwrap()[0].head.sequence - 1;
    let noting = || store.noting(draft(2, "decided"));
    let (wallet, session, key) = (WalletId([1; 32]), SessionId([1; 16]), PaillierKeyId([1; 16]));
    let responder = party("partner");

    for repeated in [false, true] {
        noting().pin_card(&responder, CardFingerprint([1; 32])).await.unwrap();
        assert_eq!(recorded().await, 1, "pin {repeated}");
    }
    for repeated in [false, true] {
        noting().prepare_wallet(&new_wallet(1, 1, None)).await.unwrap();
        noting().commit_wallet(wallet, b"ack", 1_500).await.unwrap();
        assert_eq!(recorded().await, 3, "wallet {repeated}");
    }
    let label = RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes());
    let scope = PaillierScope::Wallet(wallet);
    for repeated in [false, true] {
        let record = sealed(&label, b"key");
        noting().put_paillier_key(key, &scope, &record, PaillierState::Ready, 1).await.unwrap();
        assert_eq!(recorded().await, 4, "key {repeated}");
    }
    noting().agree_enrolment(wallet, &responder, key).await.unwrap();
    let row = EnrolmentRow { wallet, initiator: ShareIndex::Device, paillier_key: key, epoch: Epoch(0) };
    noting().put_enrolment(&row, &sealed(&enrolment_label(&row), b"enrolment"), 1).await.unwrap();
    assert_eq!(recorded().await, 6);
    for repeated in [false, true] {
        noting().claim_session(session, wallet, 5_000, 1_000).await.unwrap();
        noting().charge(&Charge { session, wallet, digest: [1; 32], charged_at_ms: 1 }).await.unwrap();
        noting().lock_paillier_key(&lock(key, session, b"evidence", 1)).await.unwrap();
        assert_eq!(recorded().await, 9, "session {repeated}");
    }
    let first = PaillierKeyId([2; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, first.as_bytes());
    let scope = PaillierScope::Responder { card: CardFingerprint([1; 32]), tenant: "acme".to_owned() };
    for repeated in [false, true] {
        noting().put_first_paillier_key(first, &scope, &sealed(&label, b"key"), 1).await.unwrap();
        assert_eq!(recorded().await, 10, "first key {repeated}");
    }
    let signed = SignedPolicy { body: b"policy".to_vec(), signature: [1; 64] };
    let policy = PolicyRow { revision: 1, effective_at_ms: 1, signed };
    for repeated in [false, true] {
        noting().put_policy(wallet, &policy, 1).await.unwrap();
        noting().put_approval(wallet, [1; 32], [7; 32], 1_000, 1).await.unwrap();
        assert_eq!(recorded().await, 12, "policy {repeated}");
    }
    // A caller that does not note records nothing.
    store.claim_session(SessionId([2; 16]), wallet, 5_000, 1_000).await.unwrap();
    assert_eq!(recorded().await, 12);
    assert!(is_chained(&store.audit_records(chain, 0, 100).await.unwrap()));
}

async fn policies<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let row = |revision: u64, effective_at_ms| PolicyRow {
        revision,
        effective_at_ms,
        signed: SignedPolicy { body: format!("policy {revision}").into_bytes(), signature: [1; 64] },
    };
    let put = async |revision, effective_at_ms, now_ms| {
        store.put_policy(wallet, &row(revision, effective_at_ms), now_ms).await.unwrap()
    };
    let held = async || {
        let rows = store.policies(wallet).await.unwrap();
        rows.iter().map(|row| row.revision).collect::<Vec<_>>()
    };
    assert_eq!(put(3, 10, 10).await, PutPolicy::Stored);
    assert_eq!(
        put(3, 20, 20).await,
        PutPolicy::Already(row(3, 10)),
        "it counts from when it was first stored"
    );
    assert_eq!(put(2, 20, 20).await, PutPolicy::Stale(3));
    assert!(store.policies(WalletId([2; 32])).await.unwrap().is_empty());
    // Those that wait are kept beside the one in effect; the ones before it are not.
    assert_eq!(put(4, 100, 20).await, PutPolicy::Stored);
    assert_eq!(held().await, [3, 4]);
    assert_eq!(put(5, 200, 150).await, PutPolicy::Stored);
    assert_eq!(held().await, [4, 5]);
    for revision in [6, 7, 8] {
        assert_eq!(put(revision, 1000, 150).await, PutPolicy::Stored);
    }
    assert_eq!(put(9, 1000, 150).await, PutPolicy::TooManyPending);
    assert_eq!(store.policies(wallet).await.unwrap()[0], row(4, 100));
}

/// A limit of 10 within a minute under this scope.
fn limited(scope: &str) -> SpendLimit {
    let value = Bound::AtMost(duet_wire::policy::wei(10));
    SpendLimit { scope: scope.to_owned(), limit: Limit { within_s: 60, value, signatures: Some(3) } }
}

fn spend(value: u8, options: &[&[&str]]) -> Spend {
    let mut wei = [0; 32];
    wei[31] = value;
    let option = |scopes: &&[&str]| SpendOption {
        rule: "rule".to_owned(),
        limits: scopes.iter().map(|scope| limited(scope)).collect(),
    };
    Spend { wallet: WalletId([1; 32]), value: wei, options: options.iter().map(option).collect() }
}

/// A charge of nothing against a limit with room.
pub(super) fn spending(wallet: WalletId, digest: u8) -> Spending {
    Spending {
        wallet,
        request: [digest; 32],
        spent: [digest; 32],
        decided_by: None,
        at_ms: 1,
        spends: vec![spend(0, &[&["wallet"]])],
    }
}

async fn charge_at<S: ShareStore>(
    store: &S,
    number: u8,
    at_ms: u64,
    spends: Vec<Spend>,
) -> Result<bool, StoreError> {
    let (wallet, digest) = (WalletId([1; 32]), [number; 32]);
    let charge = Charge { session: SessionId([number; 16]), wallet, digest, charged_at_ms: at_ms };
    store
        .spending(Spending { wallet, request: [0; 32], spent: digest, decided_by: None, at_ms, spends })
        .charge(&charge)
        .await
}

async fn limits<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let one = |value| vec![spend(value, &[&["rule/a"]])];
    assert!(charge_at(store, 1, 1_000, one(6)).await.unwrap());
    // A session is charged once, and spends once, whatever it would be charged for.
    for digest in [[1; 32], [99; 32]] {
        let again = Charge { session: SessionId([1; 16]), wallet, digest, charged_at_ms: 1_500 };
        let spending = Spending {
            wallet,
            request: [0; 32],
            spent: digest,
            decided_by: None,
            at_ms: 1_500,
            spends: one(1),
        };
        assert!(!store.spending(spending).charge(&again).await.unwrap());
    }
    let full = charge_at(store, 2, 2_000, one(5)).await;
    assert!(matches!(&full, Err(StoreError::LimitExceeded(limit)) if limit.contains("rule/a")), "{full:?}");
    // What was refused is neither charged nor spent, and can be charged when there is room.
    assert_eq!(store.charges(wallet, [2; 32]).await.unwrap(), 0);
    assert!(charge_at(store, 2, 3_000, one(4)).await.unwrap());
    // The same digest in another session is no further spending.
    let again = Charge { session: SessionId([9; 16]), wallet, digest: [2; 32], charged_at_ms: 3_500 };
    let spending =
        Spending { wallet, request: [0; 32], spent: [2; 32], decided_by: None, at_ms: 3_500, spends: one(4) };
    assert!(store.spending(spending).charge(&again).await.unwrap());
    // The window moves on; the slice in which it begins counts whole.
    assert!(charge_at(store, 3, 61_900, one(1)).await.is_err());
    assert!(charge_at(store, 3, 62_100, one(1)).await.unwrap());
    // A clock that goes back frees nothing.
    assert!(charge_at(store, 4, 0, one(10)).await.is_err());
    // A sum that does not fit into 256 bits has no room, whatever the bound.
    let most = Bound::AtMost(duet_wire::policy::wei(0).wrapping_sub(duet_wire::policy::wei(1)));
    let all = |value: [u8; 32]| {
        let limit = Limit { within_s: 60, value: most, signatures: None };
        let limits = vec![SpendLimit { scope: "rule/all".to_owned(), limit }];
        vec![Spend { wallet, value, options: vec![SpendOption { rule: "all".to_owned(), limits }] }]
    };
    let wei = |value: u8| {
        let mut bytes = [0; 32];
        bytes[31] = value;
        bytes
    };
    assert!(charge_at(store, 50, 62_100, all([0xff; 32])).await.unwrap());
    assert!(charge_at(store, 51, 62_100, all(wei(0))).await.unwrap());
    // In the same part of the window, and in another one.
    for at_ms in [62_100, 64_100] {
        let full = charge_at(store, 52, at_ms, all(wei(1))).await;
        assert!(
            matches!(&full, Err(StoreError::LimitExceeded(limit)) if limit.contains("rule/all")),
            "{full:?}"
        );
    }
    // Other scopes and wallets have accounts of their own; signatures are counted as well.
    for number in 10..13 {
        assert!(charge_at(store, number, 62_100, vec![spend(0, &[&["wallet"]])]).await.unwrap());
    }
    assert!(charge_at(store, 13, 62_100, vec![spend(0, &[&["wallet"]])]).await.is_err());

    // The first option that has room is charged; two policies that know one limit charge it once.
    let either = || spend(6, &[&["rule/b"], &["rule/c"]]);
    for number in 20..22 {
        assert!(
            charge_at(store, number, 62_100, vec![either(), spend(6, &[&["rule/b"], &["rule/c"]])])
                .await
                .unwrap()
        );
    }
    assert!(charge_at(store, 22, 62_100, vec![either()]).await.is_err());
    // All policies must have room.
    let both = vec![spend(1, &[&["rule/d"]]), spend(1, &[&["rule/b", "wallet"]])];
    assert!(charge_at(store, 23, 62_100, both).await.is_err());
    assert!(
        charge_at(store, 24, 62_100, vec![spend(10, &[&["rule/d"]])]).await.unwrap(),
        "nothing was spent"
    );

    // More limits than a statement has parts: all of them count, the last one as well.
    let scopes: Vec<String> = (0..700).map(|number| format!("rule/{number:03}")).collect();
    let option = |scope: &String| SpendOption {
        rule: "rule".to_owned(),
        limits: vec![limited(scope), limited("rule/last")],
    };
    let many = |value| Spend { options: scopes.iter().map(option).collect(), ..spend(value, &[]) };
    assert!(charge_at(store, 25, 62_100, vec![many(6)]).await.unwrap());
    assert!(charge_at(store, 26, 62_100, vec![many(4)]).await.unwrap());
    assert!(matches!(charge_at(store, 27, 62_100, vec![many(1)]).await, Err(StoreError::LimitExceeded(_))));
    assert!(charge_at(store, 28, 62_100, vec![spend(1, &[&["rule/000"]])]).await.is_err());
    assert!(charge_at(store, 28, 62_100, vec![spend(1, &[&["rule/699"]])]).await.unwrap());

    // An initiator spends when it claims.
    let claim = async |number: u8, value| {
        let digest = [number; 32];
        let spends = vec![spend(value, &[&["rule/e"]])];
        let spending =
            Spending { wallet, request: [0; 32], spent: digest, decided_by: None, at_ms: 62_100, spends };
        store.spending(spending).claim_session(SessionId([number; 16]), wallet, 70_000, 62_100).await
    };
    assert!(claim(30, 10).await.unwrap());
    assert!(matches!(claim(31, 1).await, Err(StoreError::LimitExceeded(_))));
    assert!(claim(31, 0).await.unwrap(), "the session was not claimed");
}

/// A policy that is stored after the decision makes the claim or the charge fail, whatever it
/// spends.
async fn policies_change<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let signed = SignedPolicy { body: b"policy".to_vec(), signature: [1; 64] };
    let policy = |revision| PolicyRow { revision, effective_at_ms: 1, signed: signed.clone() };
    let by = |revision| Some(policy(revision).mark());
    let charge = async |number: u8, decided_by, spends: Vec<Spend>| {
        let spent = [number; 32];
        let charge = Charge { session: SessionId([number; 16]), wallet, digest: spent, charged_at_ms: 1_000 };
        store
            .spending(Spending { wallet, request: [0; 32], spent, decided_by, at_ms: 1_000, spends })
            .charge(&charge)
            .await
    };
    let one = || vec![spend(1, &[&["rule/a"]])];
    assert!(charge(1, None, one()).await.unwrap());
    store.put_policy(wallet, &policy(4), 1).await.unwrap();
    for (number, spends) in [(2, one()), (3, Vec::new())] {
        let late = charge(number, None, spends).await;
        assert!(matches!(late, Err(StoreError::PolicyChanged)), "{late:?}");
        assert_eq!(store.charges(wallet, [number; 32]).await.unwrap(), 0);
    }
    assert!(charge(4, by(4), one()).await.unwrap());
    assert!(charge(5, by(4), Vec::new()).await.unwrap());
    // The same revision is not yet the same policy: in a store that was put back another one may
    // have it.
    let mark = policy(4).mark();
    for other in [PolicyMark { effective_at_ms: 2, ..mark }, PolicyMark { signature: [2; 64], ..mark }] {
        assert!(matches!(charge(6, Some(other), one()).await, Err(StoreError::PolicyChanged)), "{other:?}");
    }
    store.put_policy(wallet, &policy(7), 1).await.unwrap();
    // What was charged before is looked at no less.
    for number in [4, 6] {
        let charge = Charge {
            session: SessionId([60 + number; 16]),
            wallet,
            digest: [number; 32],
            charged_at_ms: 1_000,
        };
        let spending = Spending {
            wallet,
            request: [0; 32],
            spent: [number; 32],
            decided_by: by(4),
            at_ms: 1_000,
            spends: one(),
        };
        let late = store.spending(spending).charge(&charge).await;
        assert!(matches!(late, Err(StoreError::PolicyChanged)), "{late:?}");
    }
    let spending = Spending {
        wallet,
        request: [0; 32],
        spent: [7; 32],
        decided_by: by(4),
        at_ms: 1_000,
        spends: Vec::new(),
    };
    let claimed = store.spending(spending).claim_session(SessionId([7; 16]), wallet, 9_000, 1_000).await;
    assert!(matches!(claimed, Err(StoreError::PolicyChanged)), "{claimed:?}");
    assert!(charge(6, by(7), one()).await.unwrap());
}

/// A wallet is read with the mark of its newest policy.
async fn newest_policies<S: ShareStore>(store: &S) {
    let id = WalletId([1; 32]);
    let policy = |wallet, revision, effective_at_ms| PolicyRow {
        revision,
        effective_at_ms,
        signed: SignedPolicy { body: b"policy".to_vec(), signature: [wallet; 64] },
    };
    let newest = async || store.wallet_with_policy(id).await.unwrap();
    store.put_policy(id, &policy(1, 1, 1), 1).await.unwrap();
    assert_eq!(newest().await, None, "a policy is no wallet");
    for number in [1, 2] {
        store.prepare_wallet(&new_wallet(number, 1, None)).await.unwrap();
    }
    let row = store.wallet(id).await.unwrap().unwrap();
    assert_eq!(newest().await, Some((row.clone(), Some(policy(1, 1, 1).mark()))));
    // One that does not count yet is the newest already; another wallet's is not.
    store.put_policy(id, &policy(1, 3, 9_000), 1).await.unwrap();
    store.put_policy(WalletId([3; 32]), &policy(3, 7, 1), 1).await.unwrap();
    assert_eq!(newest().await, Some((row, Some(policy(1, 3, 9_000).mark()))));
    let without = store.wallet_with_policy(WalletId([2; 32])).await.unwrap();
    assert_eq!(without.map(|(_, newest)| newest), Some(None));
}

async fn limits_at_once<S: ShareStore>(store: Arc<S>) {
    let charges: Vec<_> = (0..16)
        .map(|number| {
            let store = Arc::clone(&store);
            let spends = vec![spend(4, &[&["rule/a"]])];
            tokio::spawn(async move { charge_at(&*store, number, 1_000, spends).await.is_ok() })
        })
        .collect();
    let mut charged = 0;
    for charge in charges {
        charged += usize::from(charge.await.unwrap());
    }
    assert_eq!(charged, 2, "workers that charge at once stay within the limit together");
}

async fn approvals<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    store.put_approval(wallet, [1; 32], [7; 32], 1_000, 0).await.unwrap();
    store.put_approval(wallet, [1; 32], [7; 32], 1_000, 0).await.unwrap();
    store.put_approval(wallet, [1; 32], [8; 32], 2_000, 0).await.unwrap();
    let mut approvers = store.approvals(wallet, [1; 32], 0).await.unwrap();
    approvers.sort_unstable();
    assert_eq!(approvers, [[7; 32], [8; 32]]);
    assert!(store.approvals(wallet, [2; 32], 0).await.unwrap().is_empty());
    assert!(store.approvals(WalletId([2; 32]), [1; 32], 0).await.unwrap().is_empty());
    store.put_approval(wallet, [2; 32], [7; 32], 2_000, 1_000).await.unwrap();
    assert_eq!(store.approvals(wallet, [1; 32], 0).await.unwrap(), [[8; 32]], "expired");
    // One that was made later counts longer; one that is over counts no more, though it is still
    // there.
    store.put_approval(wallet, [1; 32], [8; 32], 3_000, 1_000).await.unwrap();
    store.put_approval(wallet, [1; 32], [8; 32], 2_500, 1_000).await.unwrap();
    assert_eq!(store.approvals(wallet, [1; 32], 2_999).await.unwrap(), [[8; 32]]);
    assert!(store.approvals(wallet, [1; 32], 3_000).await.unwrap().is_empty());
}

/// A revocation stops claims that charge, and charges, until its request has expired.
async fn revocations<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let revoked = |request: u8, expires_at_ms| RevokedRequest {
        wallet,
        request: [request; 32],
        by: [7; 32],
        expires_at_ms,
    };
    let is_revoked = async |request: u8| store.request_facts(wallet, [request; 32]).await.unwrap().is_revoked;
    let charge = async |number: u8, request: u8| {
        let charge =
            Charge { session: SessionId([number; 16]), wallet, digest: [number; 32], charged_at_ms: 1 };
        let spending = Spending { request: [request; 32], spends: Vec::new(), ..spending(wallet, number) };
        store.spending(spending).charge(&charge).await
    };
    assert!(charge(1, 1).await.unwrap());
    assert!(!is_revoked(1).await);
    assert_eq!(store.revoke_request(&revoked(1, 2_000), 0).await.unwrap(), Revoked::Now);
    assert_eq!(store.revoke_request(&revoked(1, 2_000), 0).await.unwrap(), Revoked::Before);
    assert!(is_revoked(1).await && !is_revoked(2).await);
    assert!(!store.request_facts(WalletId([2; 32]), [1; 32]).await.unwrap().is_revoked, "of one wallet");
    assert!(matches!(charge(2, 1).await, Err(StoreError::Revoked)));
    assert_eq!(store.charges(wallet, [2; 32]).await.unwrap(), 0, "nothing was charged");
    assert!(charge(2, 2).await.unwrap(), "another request");
    let spending = Spending { request: [1; 32], spends: Vec::new(), ..spending(wallet, 3) };
    let claimed = store.spending(spending).claim_session(SessionId([9; 16]), wallet, 70_000, 1).await;
    assert!(matches!(claimed, Err(StoreError::Revoked)), "{claimed:?}");

    // It is forgotten when its request has expired, which nothing signs then.
    assert_eq!(store.revoke_request(&revoked(2, 9_000), 1_999).await.unwrap(), Revoked::Now);
    assert!(is_revoked(1).await);
    assert_eq!(store.revoke_request(&revoked(3, 9_000), 2_000).await.unwrap(), Revoked::Now);
    assert!(!is_revoked(1).await && is_revoked(2).await);
    assert_eq!(store.readiness(), Readiness::Ready, "a refusal is no failure of the store");
}

/// Limits count as used up for their time after a restore.
async fn limits_after_a_restore<S: ShareStore>(store: &S) {
    let one = || vec![spend(1, &[&["rule/a"]])];
    let restored_at = 100_000_u64.to_be_bytes();
    store.put_setting(LIMITS_USED_UP_SINCE, &restored_at).await.unwrap();
    store.put_setting(RESTORED_AT, &restored_at).await.unwrap();
    assert_eq!(store.request_facts(WalletId([1; 32]), [1; 32]).await.unwrap().restored_at_ms, Some(100_000),);
    for at_ms in [99_000, 100_000, 159_999] {
        let full = charge_at(store, 1, at_ms, one()).await;
        assert!(
            matches!(&full, Err(StoreError::LimitExceeded(limit)) if limit.contains("restored")),
            "{at_ms}: {full:?}"
        );
    }
    // Where no limit is charged there is none to be used up.
    assert!(charge_at(store, 2, 100_000, Vec::new()).await.unwrap());
    // The limit's minute has passed: what was spent in it is known again.
    assert!(charge_at(store, 3, 160_000, one()).await.unwrap());
    // The operator says otherwise.
    store.remove_setting(LIMITS_USED_UP_SINCE, &restored_at).await.unwrap();
    assert!(charge_at(store, 4, 100_000, one()).await.unwrap());
}

/// What is named as locked by the store's own records is found whatever the keys' rows say, and
/// stays found.
async fn witnessed_locks<S: ShareStore>(store: &S) {
    let chain = ChainId([1; 16]);
    store.begin_audit(chain, &draft(1, "genesis"), None).await.unwrap();
    let (named, repaired, ready) =
        (put_key(store, 1).await, put_key(store, 2).await, put_key(store, 3).await);
    store.append_audit(&[draft(2, "\"kind\":\"key_locked\"")]).await.unwrap();
    assert!(store.locked_by_audit().await.unwrap().is_empty());
    let found = |paillier_keys| Draft::new(3, Event::KeysFoundLocked { paillier_keys });
    store.append_audit(&[found(vec![named])]).await.unwrap();
    assert_eq!(
        store.release_verdict(named, SessionId([0; 16])).await.unwrap(),
        Gate::Open,
        "the row says nothing of it"
    );
    assert_eq!(store.locked_by_audit().await.unwrap(), BTreeSet::from([named]));

    let forgotten = BTreeSet::from([named, repaired, PaillierKeyId([9; 16])]);
    let noting = store.noting(found(vec![named, repaired]));
    assert_eq!(noting.lock_witnessed(&forgotten, 4).await.unwrap(), [named, repaired]);
    assert_eq!(store.lock_witnessed(&forgotten, 5).await.unwrap(), []);
    for key in [named, repaired] {
        assert_eq!(
            store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
            Gate::Closed(PaillierState::Locked)
        );
        let label = RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes());
        assert_eq!(store.record(&label).await.unwrap(), None, "the sealed key is gone");
    }
    assert_eq!(store.release_verdict(ready, SessionId([0; 16])).await.unwrap(), Gate::Open);
    assert_eq!(store.locked_by_audit().await.unwrap(), BTreeSet::from([named, repaired]));

    // Removing old records leaves those that name locks.
    store.append_audit(&[draft(9, "last")]).await.unwrap();
    let head = store.audit_chains().await.unwrap()[0].head;
    store.audit_shipped(chain, head.sequence).await.unwrap();
    assert_eq!(store.trim_audit(100).await.unwrap(), head.sequence - 3);
    assert_eq!(store.locked_by_audit().await.unwrap(), BTreeSet::from([named, repaired]));

    store.mark_restored().await.unwrap();
    assert!(store.was_restored().await.unwrap());
    assert_eq!(
        store.release_verdict(ready, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::NeedsRotation)
    );
    assert_eq!(
        store.release_verdict(named, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert!(store.audit_chains().await.unwrap()[0].closed);
}

/// Of each chain the head that goes furthest is kept, and of each writer the chains that came last.
async fn kept_heads<S: ShareStore>(store: &S) {
    let writer = party("partner");
    let head = |chain: u8, sequence, content: u8| HeadRow {
        writer: writer.clone(),
        chain: ChainId([chain; 16]),
        sequence,
        head: vec![content],
    };
    for row in [head(1, 5, 1), head(1, 4, 2), head(1, 5, 3), head(2, 1, 4)] {
        store.keep_head(&row, 3).await.unwrap();
    }
    assert_eq!(store.heads(&writer).await.unwrap(), [head(1, 5, 1), head(2, 1, 4)]);
    store.keep_head(&head(1, 6, 5), 3).await.unwrap();
    store.keep_head(&head(3, 1, 6), 3).await.unwrap();
    store.keep_head(&HeadRow { writer: party("service"), ..head(9, 9, 9) }, 3).await.unwrap();
    store.keep_head(&head(4, 1, 7), 3).await.unwrap();
    assert_eq!(store.heads(&writer).await.unwrap(), [head(2, 1, 4), head(3, 1, 6), head(4, 1, 7)]);
    assert_eq!(store.heads(&party("service")).await.unwrap().len(), 1);
}

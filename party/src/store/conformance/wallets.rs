//! Wallets, pins, the enrolments of their initiators, unfinished key generations.

use super::*;

pub(super) async fn pins<S: ShareStore>(store: &S) {
    let (first, second) = (CardFingerprint([1; 32]), CardFingerprint([2; 32]));
    let name = party("partner");
    assert_eq!(store.pinned_card(&name).await.unwrap(), None);
    assert_eq!(store.pin_card(&name, first).await.unwrap(), PinOutcome::Pinned);
    assert_eq!(store.pin_card(&name, first).await.unwrap(), PinOutcome::Same);
    assert_eq!(store.pin_card(&name, second).await.unwrap(), PinOutcome::Different(first));
    assert_eq!(store.pinned_card(&name).await.unwrap(), Some(first));
}

pub(super) async fn preparing_and_committing<S: ShareStore>(store: &S) {
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

pub(super) async fn quota<S: ShareStore>(store: Arc<S>) {
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

pub(super) async fn enrolments<S: ShareStore>(store: &S) {
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

pub(super) async fn deals<S: ShareStore>(store: &S) {
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

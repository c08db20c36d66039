//! Audit chains, and the decisions that are recorded in them.

use super::*;

pub(super) async fn audit_chains<S: ShareStore>(store: Arc<S>) {
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
    // Unless the broker has lost it.
    for (from, records, shipped) in
        [(Some((first, 30)), 35, 30), (Some((ChainId([9; 16]), 5)), 65, 0), (None, 65, 0)]
    {
        assert_eq!(store.unship_audit(from).await.unwrap(), records);
        assert_eq!(store.audit_chains().await.unwrap()[0].shipped, shipped);
        store.audit_shipped(first, 40).await.unwrap();
    }
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
pub(super) async fn noted_decisions<S: ShareStore>(store: &S) {
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

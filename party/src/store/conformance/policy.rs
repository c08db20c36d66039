//! Policies and approvals.

use super::*;

pub(super) async fn policies<S: ShareStore>(store: &S) {
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

/// A policy that is stored after the decision makes the claim or the charge fail, whatever it
/// spends.
pub(super) async fn policies_change<S: ShareStore>(store: &S) {
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
pub(super) async fn newest_policies<S: ShareStore>(store: &S) {
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

pub(super) async fn approvals<S: ShareStore>(store: &S) {
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

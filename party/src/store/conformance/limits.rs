//! What is charged to the limits of policies.

use super::*;

pub(super) async fn limits<S: ShareStore>(store: &S) {
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

pub(super) async fn limits_at_once<S: ShareStore>(store: Arc<S>) {
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

/// Limits count as used up for their time after a restore.
pub(super) async fn limits_after_a_restore<S: ShareStore>(store: &S) {
    let one = || vec![spend(1, &[&["rule/a"]])];
    let restored_at = 100_000_u64.to_be_bytes();
    store.put_setting(LIMITS_USED_UP_SINCE, &restored_at).await.unwrap();
    store.put_setting(RESTORED_AT, &restored_at).await.unwrap();
    assert_eq!(
        store.request_facts(WalletId([1; 32]), [1; 32], JobId([1; 16])).await.unwrap().restored_at_ms,
        Some(100_000),
    );
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

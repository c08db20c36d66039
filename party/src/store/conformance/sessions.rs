//! Sessions, charges and revocations.

use super::*;

pub(super) async fn sessions_and_charges<S: ShareStore>(store: Arc<S>) {
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
    // No sweep removes a session that could still be replayed, nor a charge before its time.
    store.expire_prepared(5_001).await.unwrap();
    assert!(!store.claim_session(session, wallet, 5_000, 1_000).await.unwrap());
    let kept_ms = 400 * 24 * 3_600_000;
    store.expire_prepared(kept_ms).await.unwrap();
    assert!(!store.charge(&charge).await.unwrap());
    store.expire_prepared(kept_ms + 1).await.unwrap();
    assert_eq!(store.charges(wallet, [3; 32]).await.unwrap(), 0);
}

/// A revocation stops claims that charge, and charges, until its request has expired.
pub(super) async fn revocations<S: ShareStore>(store: &S) {
    let wallet = WalletId([1; 32]);
    let revoked = |request: u8, expires_at_ms| RevokedRequest {
        wallet,
        request: [request; 32],
        by: [7; 32],
        expires_at_ms,
    };
    let is_revoked = async |request: u8| {
        store.request_facts(wallet, [request; 32], JobId([1; 16])).await.unwrap().is_revoked
    };
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
    assert!(
        !store.request_facts(WalletId([2; 32]), [1; 32], JobId([1; 16])).await.unwrap().is_revoked,
        "of one wallet"
    );
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

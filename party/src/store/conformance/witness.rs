//! What shows that a store forgot a lock.

use super::*;

/// What is named as locked by the store's own records is found whatever the keys' rows say, and
/// stays found.
pub(super) async fn witnessed_locks<S: ShareStore>(store: &S) {
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
pub(super) async fn kept_heads<S: ShareStore>(store: &S) {
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

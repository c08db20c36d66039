//! Records, settings, and attempts to open the store.

use super::*;

pub(super) async fn settings_and_records<S: ShareStore>(store: &S) {
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

pub(super) async fn unlock_attempts<S: ShareStore>(store: &S) {
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

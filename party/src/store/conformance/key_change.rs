//! Changing what opens a store, and the key that its records are sealed under.

use std::{future::Future, sync::Arc};

use tokio::task::JoinSet;

use super::*;

fn new_key() -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes([2; 32].into())
}

fn label(number: u32) -> RecordLabel {
    RecordLabel::of_party(RecordKind::Card, &number.to_be_bytes())
}

/// From whatever the store says now to the new key.
fn change(replaces: Option<&[u8]>) -> KeyChange {
    let rewrap = |label: &RecordLabel, record: &SealedRecord| record.rewrap(&key(), &new_key(), label);
    let key = NewKey {
        id: new_key().id(),
        rewrap: Box::new(rewrap),
        records: vec![],
        succession: Some(b"succession".to_vec()),
    };
    KeyChange { replaces: replaces.map(<[u8]>::to_vec), descriptor: b"new".to_vec(), key: Some(key) }
}

pub(super) async fn all<S: ShareStore, F: Future<Output = [Arc<S>; 2]>>(make_two: impl Fn() -> F) {
    let [store, other] = make_two().await;
    one_after_the_other(&*store, &*other).await;
    let [store, other] = make_two().await;
    all_or_nothing(&*store, &*other).await;
    while_records_are_written(make_two().await).await;
}

async fn one_after_the_other<S: ShareStore>(store: &S, other: &S) {
    // More records than are in memory at a time.
    let records: Vec<_> = (0..1201).map(|number| (label(number), sealed(&label(number), b"x"))).collect();
    store.put_records(&records).await.unwrap();
    let first = KeyChange { replaces: None, descriptor: b"old".to_vec(), key: None };
    assert_eq!(store.change_key(&first).await.unwrap(), 0);
    for replaces in [None, Some(b"else".as_slice())] {
        let refused = other.change_key(&change(replaces)).await;
        assert!(matches!(refused, Err(StoreError::KeyChanged)), "{refused:?}");
    }
    // A change is recorded with itself, and what was refused is not.
    let chain = ChainId([1; 16]);
    store.begin_audit(chain, &draft(1, "genesis"), None).await.unwrap();
    let noting = other.noting(draft(2, "changed"));
    assert!(noting.change_key(&change(None)).await.is_err());
    assert_eq!(noting.change_key(&change(Some(b"old"))).await.unwrap(), 1201);
    let recorded = store.audit_records(chain, 0, 100).await.unwrap();
    assert_eq!(recorded.len(), 2);
    assert!(is_chained(&recorded));
    assert_eq!(store.setting(KEY_DESCRIPTOR).await.unwrap(), Some(b"new".to_vec()));
    assert_eq!(store.setting(KEY_ID).await.unwrap(), Some(new_key().id().0.to_vec()));
    assert_eq!(store.setting(KEY_SUCCESSION).await.unwrap(), Some(b"succession".to_vec()));
    for number in 0..1201 {
        let record = store.record(&label(number)).await.unwrap().unwrap();
        assert_eq!(record.open(&new_key(), &label(number)).unwrap().as_slice(), b"x");
    }
    // However a record comes in, one under the old key does not.
    let stale = sealed(&label(0), b"stale");
    assert!(matches!(store.put_records(&[(label(0), stale)]).await, Err(StoreError::KeyChanged)));
    assert!(matches!(store.prepare_wallet(&new_wallet(1, 1, None)).await, Err(StoreError::KeyChanged)));
    assert!(store.wallet(WalletId([1; 32])).await.unwrap().is_none());
    let deal = sealed(&deal_label(WalletId([1; 32])), b"stale");
    assert!(matches!(store.put_deal(WalletId([1; 32]), &deal, 1).await, Err(StoreError::KeyChanged)));
    let id = PaillierKeyId([1; 16]);
    let paillier = sealed(&RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes()), b"stale");
    let scope = PaillierScope::Wallet(WalletId([9; 32]));
    let refused = store.put_paillier_key(id, &scope, &paillier, PaillierState::Ready, 1).await;
    assert!(matches!(refused, Err(StoreError::KeyChanged)), "{refused:?}");
    let row = EnrolmentRow {
        wallet: WalletId([1; 32]),
        initiator: ShareIndex::Device,
        paillier_key: id,
        epoch: Epoch(0),
    };
    let refused = store.put_enrolment(&row, &sealed(&enrolment_label(&row), b"stale"), 1).await;
    assert!(matches!(refused, Err(StoreError::KeyChanged)), "{refused:?}");
    let fresh = SealedRecord::seal(&new_key(), &label(0), b"fresh").unwrap();
    store.put_records(&[(label(0), fresh)]).await.unwrap();
}

async fn all_or_nothing<S: ShareStore>(store: &S, other: &S) {
    store.put_setting(KEY_DESCRIPTOR, b"old").await.unwrap();
    let foreign = SealedRecord::seal(&new_key(), &label(700), b"x").unwrap();
    let records: Vec<_> = (0..700).map(|number| (label(number), sealed(&label(number), b"x"))).collect();
    store.put_records(&records).await.unwrap();
    // The last one is under no key that is known.
    store.put_records(&[(label(700), SealedRecord::from_bytes(foreign.as_bytes().to_vec()))]).await.unwrap();
    assert!(matches!(store.change_key(&change(Some(b"old"))).await, Err(StoreError::Corrupt(_))));
    assert_eq!(other.setting(KEY_DESCRIPTOR).await.unwrap(), Some(b"old".to_vec()));
    assert_eq!(other.setting(KEY_SUCCESSION).await.unwrap(), None);
    for number in 0..700 {
        let record = other.record(&label(number)).await.unwrap().unwrap();
        assert!(record.open(&key(), &label(number)).is_ok());
    }
    store.put_records(&[(label(0), sealed(&label(0), b"still"))]).await.unwrap();
}

/// Whatever is stored while the key changes opens under the key that the store has afterwards.
async fn while_records_are_written<S: ShareStore>([store, other]: [Arc<S>; 2]) {
    const WRITERS: u32 = 8;
    store.put_setting(KEY_DESCRIPTOR, b"old").await.unwrap();
    let records: Vec<_> = (0..1000).map(|number| (label(number), sealed(&label(number), b"x"))).collect();
    store.put_records(&records).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(if writer % 2 == 0 { &store } else { &other });
        writers.spawn(async move {
            let mut written = Vec::new();
            // Until the key has changed, and a bound in case it never does.
            for number in (0..10_000).map(|number| 1000 + number * WRITERS + writer) {
                match store.put_records(&[(label(number), sealed(&label(number), b"y"))]).await {
                    Ok(()) => written.push(number),
                    Err(StoreError::KeyChanged) => return written,
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("the key never changed");
        });
    }
    let rewrapped = store.change_key(&change(Some(b"old"))).await.unwrap();
    let written: Vec<u32> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(rewrapped, 1000 + written.len() as u64, "nothing was stored that was not wrapped anew");
    for number in written.into_iter().chain(0..1000) {
        let record = other.record(&label(number)).await.unwrap().unwrap();
        assert!(record.open(&new_key(), &label(number)).is_ok(), "{number}");
    }
}

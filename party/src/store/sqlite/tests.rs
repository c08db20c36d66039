use std::path::Path;

use super::*;
use crate::{
    at_rest::{KeyEncryptionKey, RecordKind},
    store::{Charge, Gate, KeyStore as _, PaillierScope, PaillierState, SessionStore as _, conformance},
};
use duet_protocol::ids::{PaillierKeyId, SessionId, WalletId};

fn options(directory: &Path) -> SqliteOptions {
    SqliteOptions::at(directory.join("store.db"))
}

async fn put_key(store: &SqliteStore, id: u8) -> PaillierKeyId {
    let id = PaillierKeyId([id; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
    let key = KeyEncryptionKey::from_bytes([1; 32].into());
    let record = SealedRecord::seal(&key, &label, b"key").unwrap();
    let scope = PaillierScope::Wallet(WalletId([9; 32]));
    store.put_paillier_key(id, &scope, &record, PaillierState::Ready, 1).await.unwrap();
    id
}

const SESSION: SessionId = SessionId([1; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let made = std::sync::atomic::AtomicU32::new(0);
    conformance::all(|| async {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let options = SqliteOptions::at(directory.path().join(format!("{number}.db")));
        let first = SqliteStore::create(&options).await.unwrap();
        [first, SqliteStore::open(&options).await.unwrap()]
    })
    .await;
}

#[tokio::test]
async fn a_store_is_created_once_and_opened_only_if_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(SqliteStore::open(&options(directory.path())).await, Err(StoreError::Exists(_))));
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    assert!(matches!(SqliteStore::create(&options(directory.path())).await, Err(StoreError::Exists(_))));
    drop(store);
    let store = SqliteStore::open(&options(directory.path())).await.unwrap();
    assert!(!store.was_restored().await.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    store.put_setting("a", b"b").await.unwrap();
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

/// What kill -9 leaves behind: the files as they are, without a close.
async fn killed_copy(store: &SqliteStore) -> (tempfile::TempDir, SqliteStore) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal", "store.db.generation"] {
        std::fs::copy(store.path().with_file_name(name), copy.path().join(name)).unwrap();
    }
    let opened = SqliteStore::open(&options(copy.path())).await.unwrap();
    (copy, opened)
}

#[tokio::test]
async fn a_lock_and_a_charge_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let key = put_key(&store, 1).await;
    let charge = Charge { session: SESSION, wallet: WalletId([1; 32]), digest: [1; 32], charged_at_ms: 1 };
    assert!(store.charge(&charge).await.unwrap());
    assert_eq!(store.lock_paillier_key(key, SESSION, b"evidence", 1).await.unwrap(), LockOutcome::Locked);
    let (_copy, after) = killed_copy(&store).await;
    assert_eq!(after.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::Locked));
    assert!(!after.charge(&charge).await.unwrap());
    assert!(!after.was_restored().await.unwrap());
}

#[tokio::test]
async fn a_transaction_that_was_not_committed_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let mut transaction = store.write("test").await.unwrap();
    write_setting(&mut transaction, "half", b"stored").await.unwrap();
    let (_copy, after) = killed_copy(&store).await;
    assert_eq!(after.setting("half").await.unwrap(), None);
}

#[tokio::test]
async fn a_lock_that_cannot_be_written_makes_the_store_unready_until_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let (key, other) = (put_key(&store, 1).await, put_key(&store, 2).await);
    store.refuse_writes(true).await.unwrap();

    assert!(store.lock_paillier_key(key, SESSION, b"evidence", 1).await.is_err());
    assert!(matches!(store.readiness(), Readiness::Unready(_)));
    // Nothing is released, under whichever key.
    assert!(matches!(store.release_verdict(key).await, Err(StoreError::NotReady(_))));
    assert!(matches!(store.release_verdict(other).await, Err(StoreError::NotReady(_))));
    assert!(store.recover().await.is_err());

    store.refuse_writes(false).await.unwrap();
    store.recover().await.unwrap();
    assert_eq!(store.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::Locked));
    assert_eq!(store.release_verdict(other).await.unwrap(), Gate::Open);
}

#[tokio::test]
async fn a_full_disk_is_refused_and_leaves_the_store_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    store.close().await;
    let pages = std::fs::metadata(directory.path().join("store.db")).unwrap().len() / 4096 + 2;
    let full =
        SqliteOptions { max_size_pages: Some(u32::try_from(pages).unwrap()), ..options(directory.path()) };
    let store = SqliteStore::open(&full).await.unwrap();
    let refused = store.put_setting("large", &vec![1; 1 << 20]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(store.setting("large").await.unwrap(), None);
    store.put_setting("small", b"1").await.unwrap();
}

#[tokio::test]
async fn a_closed_store_releases_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let key = put_key(&store, 1).await;
    store.close().await;
    assert!(store.lock_paillier_key(key, SESSION, b"evidence", 1).await.is_err());
    assert!(store.release_verdict(key).await.is_err());
}

#[tokio::test]
async fn a_lock_is_written_even_if_its_caller_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let key = put_key(&store, 1).await;
    {
        let lock = store.lock_paillier_key(key, SESSION, b"evidence", 1);
        // Polled once, so that it has started, then dropped.
        assert!(futures::FutureExt::now_or_never(lock).is_none());
    }
    // The single writer is taken by the lock before this asks for it, or the gate fails the test.
    tokio::task::yield_now().await;
    assert_eq!(store.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::Locked));
}

#[tokio::test]
async fn a_backup_restores_everything_and_initiates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let (key, locked) = (put_key(&store, 1).await, put_key(&store, 2).await);
    store.lock_paillier_key(locked, SESSION, b"evidence", 1).await.unwrap();
    store.put_setting("a", b"b").await.unwrap();
    let backup = directory.path().join("backup.db");
    store.back_up(&backup).await.unwrap();
    assert!(matches!(store.back_up(&backup).await, Err(StoreError::Exists(_))));
    assert_eq!(store.release_verdict(key).await.unwrap(), Gate::Open, "the store itself goes on");

    let elsewhere = tempfile::tempdir().unwrap();
    let restored = SqliteStore::restore(&backup, &options(elsewhere.path())).await.unwrap();
    assert!(restored.was_restored().await.unwrap());
    assert_eq!(restored.setting("a").await.unwrap(), Some(b"b".to_vec()));
    assert_eq!(restored.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::NeedsRotation));
    assert_eq!(restored.release_verdict(locked).await.unwrap(), Gate::Closed(PaillierState::Locked));
    // A key made after the restore is a rotation, and works.
    let fresh = put_key(&restored, 3).await;
    assert_eq!(restored.release_verdict(fresh).await.unwrap(), Gate::Open);
    restored.close().await;
    let again = SqliteStore::open(&options(elsewhere.path())).await.unwrap();
    assert_eq!(again.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::NeedsRotation));
    assert_eq!(again.release_verdict(fresh).await.unwrap(), Gate::Open);
    assert!(matches!(
        SqliteStore::restore(&backup, &options(elsewhere.path())).await,
        Err(StoreError::Exists(_))
    ));
}

#[tokio::test]
async fn a_database_file_put_back_from_before_a_lock_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let key = put_key(&store, 1).await;
    store.close().await;
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();

    let store = SqliteStore::open(&options(directory.path())).await.unwrap();
    assert_eq!(store.release_verdict(key).await.unwrap(), Gate::Open);
    store.lock_paillier_key(key, SESSION, b"evidence", 1).await.unwrap();
    store.close().await;
    std::fs::copy(&copy, &path).unwrap();

    let store = SqliteStore::open(&options(directory.path())).await.unwrap();
    assert!(store.was_restored().await.unwrap());
    assert_eq!(store.release_verdict(key).await.unwrap(), Gate::Closed(PaillierState::NeedsRotation));
}

#[tokio::test]
async fn a_database_file_without_its_generation_or_with_anothers_counts_as_restored() {
    for other in [None, Some("00112233445566778899aabbccddeeff 1"), Some("garbage")] {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(&options(directory.path())).await.unwrap();
        let key = put_key(&store, 1).await;
        store.close().await;
        let file = directory.path().join("store.db.generation");
        match other {
            None => std::fs::remove_file(&file).unwrap(),
            Some(text) => std::fs::write(&file, text).unwrap(),
        }
        let store = SqliteStore::open(&options(directory.path())).await.unwrap();
        assert_eq!(
            store.release_verdict(key).await.unwrap(),
            Gate::Closed(PaillierState::NeedsRotation),
            "{other:?}"
        );
    }
}

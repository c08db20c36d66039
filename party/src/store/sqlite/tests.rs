use std::path::Path;

use super::*;
use crate::{
    at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord},
    store::{
        AuditStore as _, Charge, Gate, KeyStore as _, LockOutcome, PaillierScope, PaillierState, Readiness,
        RecordStore as _, SessionStore as _, StoreError, WalletStore as _,
        backend::Backend as _,
        conformance::{self, lock},
        shared::records::write_setting,
    },
};
use duet_protocol::ids::{PaillierKeyId, SessionId, WalletId};
use duet_wire::audit::{Body, ChainId, Draft, Event, Record};
use sqlx::{AssertSqlSafe, Connection as _, sqlite::SqliteConnectOptions};

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
    assert_eq!(
        store.lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.unwrap(),
        LockOutcome::Locked
    );
    let (_copy, after) = killed_copy(&store).await;
    assert_eq!(
        after.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert!(!after.charge(&charge).await.unwrap());
    assert!(!after.was_restored().await.unwrap());
}

#[tokio::test]
async fn a_transaction_that_was_not_committed_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let mut transaction = store.begin("test").await.unwrap();
    write_setting(&mut *transaction, "half", b"stored").await.unwrap();
    let (_copy, after) = killed_copy(&store).await;
    assert_eq!(after.setting("half").await.unwrap(), None);
}

#[tokio::test]
async fn a_transaction_that_sqlite_itself_rolled_back_does_not_stop_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    // What SQLite does when the disk is full in the middle of one.
    let mut transaction = store.begin("fill the disk").await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut *transaction).await.unwrap();
    assert!(transaction.commit().await.is_err());
    store.recover().await.unwrap();
    store.put_setting("a", b"b").await.unwrap();
}

/// Makes every write fail, as a full or read-only disk would, or lets them succeed again.
async fn refuse_writes(store: &SqliteStore, refuse: bool) {
    let statement = if refuse { "PRAGMA query_only = ON" } else { "PRAGMA query_only = OFF" };
    for pool in [&store.writer, &store.unflushed] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_that_cannot_be_written_makes_the_store_unready_until_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let (key, other) = (put_key(&store, 1).await, put_key(&store, 2).await);
    refuse_writes(&store, true).await;

    assert!(store.lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.is_err());
    assert!(matches!(store.readiness(), Readiness::Unready(_)));
    // Nothing is released, under whichever key.
    assert!(matches!(store.release_verdict(key, SessionId([0; 16])).await, Err(StoreError::NotReady(_))));
    assert!(matches!(store.release_verdict(other, SessionId([0; 16])).await, Err(StoreError::NotReady(_))));
    assert!(store.recover().await.is_err());

    refuse_writes(&store, false).await;
    store.recover().await.unwrap();
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert_eq!(store.release_verdict(other, SessionId([0; 16])).await.unwrap(), Gate::Open);
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
    assert!(store.lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.is_err());
    assert!(store.release_verdict(key, SessionId([0; 16])).await.is_err());
}

#[tokio::test]
async fn a_lock_is_written_even_if_its_caller_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let key = put_key(&store, 1).await;
    {
        let wanted = lock(key, SESSION, b"evidence", 1);
        let lock = store.lock_paillier_key(&wanted);
        // Polled once, so that it has started, then dropped.
        assert!(futures::FutureExt::now_or_never(lock).is_none());
    }
    // The single writer is taken by the lock before this asks for it, or the gate fails the test.
    tokio::task::yield_now().await;
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let reason = async || match SqliteStore::open(&options(directory.path())).await {
        Err(StoreError::NotAStore { path: named, reason }) if named == path => reason,
        other => panic!("{other:?}"),
    };
    std::fs::write(&path, b"").unwrap();
    assert!(reason().await.contains("the file is empty"));
    std::fs::write(&path, b"SQLite format 3").unwrap();
    reason().await;
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    reason().await;
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 8192]);
    std::fs::remove_file(&path).unwrap();
    let foreign = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&foreign).await.unwrap();
    sqlx::query("CREATE TABLE bookmarks (url TEXT)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(reason().await.contains("something else"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(reason().await.contains("folder"));
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    put_key(&store, 1).await;
    let backup = directory.path().join("backup.db");
    store.back_up(&backup).await.unwrap();
    let whole = std::fs::read(&backup).unwrap();
    let cut = directory.path().join("cut.db");
    let elsewhere = tempfile::tempdir().unwrap();
    for kept in [0, 15, 100, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&cut, &whole[..kept]).unwrap();
        let refused = SqliteStore::restore(&cut, &options(elsewhere.path())).await;
        assert!(
            matches!(&refused, Err(StoreError::NotAStore { path, .. }) if *path == cut),
            "{kept} of {} bytes: {refused:?}",
            whole.len()
        );
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing is left behind");
    }
    let missing = SqliteStore::restore(&directory.path().join("none"), &options(elsewhere.path())).await;
    assert!(matches!(missing, Err(StoreError::Exists(_))), "{missing:?}");
    SqliteStore::restore(&backup, &options(elsewhere.path())).await.unwrap();
}

#[tokio::test]
async fn a_backup_restores_everything_and_initiates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let (key, locked) = (put_key(&store, 1).await, put_key(&store, 2).await);
    store.lock_paillier_key(&lock(locked, SESSION, b"evidence", 1)).await.unwrap();
    store.put_setting("a", b"b").await.unwrap();
    let backup = directory.path().join("backup.db");
    store.back_up(&backup).await.unwrap();
    assert!(matches!(store.back_up(&backup).await, Err(StoreError::Exists(_))));
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Open,
        "the store itself goes on"
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let restored = SqliteStore::restore(&backup, &options(elsewhere.path())).await.unwrap();
    assert!(restored.was_restored().await.unwrap());
    assert_eq!(restored.setting("a").await.unwrap(), Some(b"b".to_vec()));
    assert_eq!(
        restored.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::NeedsRotation)
    );
    assert_eq!(
        restored.release_verdict(locked, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    // A key made after the restore is a rotation, and works.
    let fresh = put_key(&restored, 3).await;
    assert_eq!(restored.release_verdict(fresh, SessionId([0; 16])).await.unwrap(), Gate::Open);
    restored.close().await;
    let again = SqliteStore::open(&options(elsewhere.path())).await.unwrap();
    assert_eq!(
        again.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::NeedsRotation)
    );
    assert_eq!(again.release_verdict(fresh, SessionId([0; 16])).await.unwrap(), Gate::Open);
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
    assert_eq!(store.release_verdict(key, SessionId([0; 16])).await.unwrap(), Gate::Open);
    store.lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.unwrap();
    store.close().await;
    std::fs::copy(&copy, &path).unwrap();

    let store = SqliteStore::open(&options(directory.path())).await.unwrap();
    assert!(store.was_restored().await.unwrap());
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::NeedsRotation)
    );
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
            store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
            Gate::Closed(PaillierState::NeedsRotation),
            "{other:?}"
        );
    }
}

#[tokio::test]
async fn a_charge_and_its_audit_record_survive_a_kill_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let entry = |text: &str| Draft::new(1, Event::WorkerStarted { instance: text.to_owned() });
    store.begin_audit(ChainId([1; 16]), &entry("genesis"), None).await.unwrap();
    let charge = Charge { session: SESSION, wallet: WalletId([1; 32]), digest: [1; 32], charged_at_ms: 1 };
    assert!(store.noting(entry("charged")).charge(&charge).await.unwrap());
    let (_copy, after) = killed_copy(&store).await;
    assert!(!after.charge(&charge).await.unwrap());
    assert_eq!(after.audit_chains().await.unwrap(), store.audit_chains().await.unwrap());
    assert_eq!(after.audit_chains().await.unwrap()[0].head.sequence, 2);

    // A record that cannot be written takes the charge with it.
    sqlx::query("DROP TABLE audit_records").execute(&store.writer).await.unwrap();
    let other = Charge { session: SessionId([2; 16]), ..charge };
    assert!(store.noting(entry("charged")).charge(&other).await.is_err());
    assert_eq!(store.charges(charge.wallet, charge.digest).await.unwrap(), 1);
}

#[tokio::test]
async fn a_lock_that_is_written_late_is_recorded_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let entry = |text: &str| Draft::new(1, Event::WorkerStarted { instance: text.to_owned() });
    store.begin_audit(ChainId([1; 16]), &entry("genesis"), None).await.unwrap();
    let key = put_key(&store, 1).await;
    refuse_writes(&store, true).await;
    assert!(
        store.noting(entry("locked")).lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.is_err()
    );
    refuse_writes(&store, false).await;
    store.recover().await.unwrap();
    assert_eq!(store.audit_chains().await.unwrap()[0].head.sequence, 2);
}

#[tokio::test]
async fn a_restored_store_begins_a_chain_and_leaves_the_old_one_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let entry = |text: &str| Draft::new(1, Event::WorkerStarted { instance: text.to_owned() });
    let (old, new) = (ChainId([1; 16]), ChainId([2; 16]));
    store.begin_audit(old, &entry("genesis"), None).await.unwrap();
    let key = put_key(&store, 1).await;
    let backup = directory.path().join("backup.db");
    store.back_up(&backup).await.unwrap();
    store.append_audit(&[entry("after the backup")]).await.unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let restored = SqliteStore::restore(&backup, &options(elsewhere.path())).await.unwrap();
    // Nothing is decided without a record, and the old chain is not forked for one.
    let early = restored.append_audit(&[entry("too early")]).await;
    assert!(matches!(early, Err(StoreError::NotReady(_))), "{early:?}");
    let wallet = WalletId([1; 32]);
    let charge = Charge { session: SESSION, wallet, digest: [1; 32], charged_at_ms: 1 };
    let charged = restored.noting(entry("charged")).charge(&charge).await;
    assert!(matches!(charged, Err(StoreError::NotReady(_))), "{charged:?}");
    assert_eq!(restored.charges(wallet, [1; 32]).await.unwrap(), 0);
    let chains = restored.audit_chains().await.unwrap();
    assert_eq!((chains.len(), chains[0].closed, chains[0].head.sequence), (1, true, 1));
    // A lock waits for no record; the next chain begins with it.
    restored.noting(entry("locked")).lock_paillier_key(&lock(key, SESSION, b"", 1)).await.unwrap();
    restored.begin_audit(new, &entry("genesis"), Some(old)).await.unwrap();
    let second = restored.audit_records(new, 1, 10).await.unwrap();
    let found = Event::KeysFoundLocked { paillier_keys: vec![key] };
    let event = |record: &Record| serde_json::from_slice::<Body>(&record.body).unwrap().event;
    assert_eq!(second.iter().map(event).collect::<Vec<_>>(), [found]);
    restored.append_audit(&[entry("after the restore")]).await.unwrap();
    let heads: Vec<_> = restored.audit_chains().await.unwrap().iter().map(|chain| chain.head).collect();
    assert_eq!(
        heads.iter().map(|head| (head.chain, head.sequence)).collect::<Vec<_>>(),
        [(old, 1), (new, 3)]
    );
}

/// How many transactions the write-ahead log holds: the frames that end one name the database's
/// size. Under `synchronous = FULL` each of them is one flush of the disk
/// (https://sqlite.org/fileformat2.html#walformat).
fn commits(store: &SqliteStore) -> usize {
    let wal = std::fs::read(store.path().with_file_name("store.db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let frame = 24 + usize::try_from(number(8)).unwrap();
    let frames = (32..).step_by(frame).take_while(|at| at + frame <= wal.len());
    // Frames of an earlier round of the log carry other salts.
    frames.filter(|at| wal[at + 8..at + 16] == wal[16..24] && number(at + 4) != 0).count()
}

#[tokio::test]
async fn a_record_and_a_limit_cost_no_further_flush() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let entry = |text: &str| Draft::new(1, Event::WorkerStarted { instance: text.to_owned() });
    store.begin_audit(ChainId([1; 16]), &entry("genesis"), None).await.unwrap();
    let wallet = WalletId([1; 32]);
    let charge = |session: u8| Charge {
        session: SessionId([session; 16]),
        wallet,
        digest: [session; 32],
        charged_at_ms: 1,
    };
    let before = commits(&store);
    assert!(store.charge(&charge(1)).await.unwrap());
    assert_eq!(commits(&store), before + 1, "a plain charge");
    assert!(store.noting(entry("charged")).charge(&charge(2)).await.unwrap());
    assert_eq!(commits(&store), before + 2, "one that is recorded");
    let spending = crate::store::conformance::spending(wallet, 3);
    assert!(store.noting(entry("charged")).spending(spending).charge(&charge(3)).await.unwrap());
    assert_eq!(commits(&store), before + 3, "one that is recorded and limited");
    assert!(store.noting(entry("claimed")).claim_session(SESSION, wallet, 2, 1).await.unwrap());
    assert_eq!(commits(&store), before + 4, "a claim");
}

#[tokio::test]
async fn old_charges_are_removed_a_part_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&options(directory.path())).await.unwrap();
    let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) INSERT INTO";
    for into in [
        "job_digests (job, signs, charged_at_ms, expires_at_ms) SELECT unhex(format('%032x', i)), x'01', i, i FROM n",
        "charges (session, wallet, digest, charged_at_ms) SELECT unhex(format('%032x', i)), x'01', x'01', i FROM n",
        "policy_digests (wallet, digest, charged_at_ms) SELECT x'01', unhex(format('%064x', i)), i FROM n",
    ] {
        sqlx::query(AssertSqlSafe(format!("{rows} {into}"))).execute(&store.writer).await.unwrap();
    }
    let left = async || {
        let mut left = Vec::new();
        for table in ["job_digests", "charges", "policy_digests"] {
            let count = format!("SELECT COUNT(*), MIN(charged_at_ms) FROM {table}");
            let (count, oldest): (i64, i64) =
                sqlx::query_as(AssertSqlSafe(count)).fetch_one(&store.writer).await.unwrap();
            left.push((count, oldest));
        }
        left
    };
    let kept_ms = 400 * 24 * 3_600_000;
    store.expire_prepared(kept_ms).await.unwrap();
    assert_eq!(left().await, [(2500, 1); 3]);
    for expected in [(500, 2001), (50, 2451), (50, 2451)] {
        store.expire_prepared(kept_ms + 2450).await.unwrap();
        assert_eq!(left().await, [expected; 3]);
    }
}

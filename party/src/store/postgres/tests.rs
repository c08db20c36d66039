use duet_protocol::ids::{PaillierKeyId, SessionId, WalletId};
use duet_test_postgres::{Database, PostgresServer};
use duet_wire::audit::{Body, ChainId, Draft, Event, Record};
use sqlx::{Connection as _, Executor as _};
use zeroize::Zeroizing;

use super::{connection::number_of, *};
use crate::{
    at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord},
    store::{
        AuditStore as _, Charge, Gate, KeyStore as _, LockOutcome, PaillierScope, PaillierState,
        PolicyStore as _, Readiness, RecordStore as _, SessionStore as _, StoreError,
        conformance::{self, lock},
        connection::NamedLock,
    },
};

const SESSION: SessionId = SessionId([1; 16]);
const CHAIN: ChainId = ChainId([1; 16]);

fn entry(text: &str) -> Draft {
    Draft::new(1, Event::WorkerStarted { instance: text.to_owned() })
}

/// How many records the newest chain has.
async fn recorded(store: &PostgresStore) -> u64 {
    store.audit_chains().await.unwrap().last().unwrap().head.sequence
}

fn options(database: &Database) -> PostgresOptions {
    let password = Zeroizing::new(database.password.clone());
    PostgresOptions::at(&database.url).unwrap().with_password(&password)
}

async fn new_database() -> Database {
    PostgresServer::shared().await.unwrap().database().await.unwrap()
}

async fn create(database: &Database) -> PostgresStore {
    PostgresStore::create(&options(database)).await.unwrap()
}

async fn open(database: &Database) -> PostgresStore {
    PostgresStore::open(&options(database)).await.unwrap()
}

async fn put_key(store: &PostgresStore, id: u8) -> PaillierKeyId {
    let id = PaillierKeyId([id; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
    let key = KeyEncryptionKey::from_bytes([1; 32].into());
    let record = SealedRecord::seal(&key, &label, b"key").unwrap();
    let scope = PaillierScope::Wallet(WalletId([9; 32]));
    store.put_paillier_key(id, &scope, &record, PaillierState::Ready, 1).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::all(|| async {
        let database = new_database().await;
        [create(&database).await, open(&database).await]
    })
    .await;
}

#[tokio::test]
async fn a_store_is_opened_only_if_it_is_there() {
    let database = new_database().await;
    let missing = PostgresStore::open(&options(&database)).await;
    assert!(matches!(missing, Err(StoreError::Exists(_))), "{missing:?}");
    let store = create(&database).await;
    store.put_setting("a", b"b").await.unwrap();
    // What was interrupted can be repeated.
    create(&database).await;
    let store = open(&database).await;
    assert_eq!(store.setting("a").await.unwrap(), Some(b"b".to_vec()));
    assert!(!store.was_restored().await.unwrap());
    assert_eq!(store.readiness(), Readiness::Ready);
    let wrong = options(&database).with_password(&Zeroizing::new("wrong".to_owned()));
    assert!(matches!(PostgresStore::open(&wrong).await, Err(StoreError::Unavailable { .. })));
}

#[test]
fn an_address_holds_no_password_and_nothing_that_weakens_the_store() {
    let refused = |url| PostgresOptions::at(url).unwrap_err();
    assert_eq!(refused("postgresql://duet:secret@db/duet"), AddressError::Password);
    assert_eq!(refused("postgresql://duet@db/duet?password=secret"), AddressError::Password);
    assert_eq!(refused("postgresql://duet@db/duet?options=-c%20fsync%3Doff"), AddressError::Parameter);
    assert_eq!(refused("postgresql://duet@db/"), AddressError::NoDatabase);
    assert_eq!(refused("postgresql://duet@db:port/duet"), AddressError::Malformed);
    let options = PostgresOptions::at("postgresql://duet@db/duet").unwrap();
    let options = options.with_password(&Zeroizing::new("secret".to_owned()));
    assert!(!format!("{options:?} {options}").contains("secret"));
}

#[tokio::test]
async fn a_lock_and_a_charge_survive_a_kill_of_the_server() {
    let mut server = PostgresServer::start(&[]).await.unwrap();
    let database = server.database().await.unwrap();
    let store = create(&database).await;
    let key = put_key(&store, 1).await;
    let charge = Charge { session: SESSION, wallet: WalletId([1; 32]), digest: [1; 32], charged_at_ms: 1 };
    store.begin_audit(CHAIN, &entry("genesis"), None).await.unwrap();
    assert!(store.noting(entry("charged")).charge(&charge).await.unwrap());
    let noting = store.noting(entry("locked"));
    assert_eq!(
        noting.lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.unwrap(),
        LockOutcome::Locked
    );
    server.kill().unwrap();
    assert!(store.release_verdict(key, SessionId([0; 16])).await.is_err(), "no server, no verdict");
    server.resume().unwrap();
    server.ready().await.unwrap();
    // The same worker goes on; it is still the same store.
    store.recover().await.unwrap();
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    assert!(!store.charge(&charge).await.unwrap());
    let store = open(&database).await;
    assert!(!store.was_restored().await.unwrap());
    assert_eq!(recorded(&store).await, 3, "what was decided is recorded");
}

#[tokio::test]
async fn a_charge_and_its_audit_record_are_written_together_or_not_at_all() {
    let database = new_database().await;
    let store = create(&database).await;
    store.begin_audit(CHAIN, &entry("genesis"), None).await.unwrap();
    let charge = Charge { session: SESSION, wallet: WalletId([1; 32]), digest: [1; 32], charged_at_ms: 1 };
    assert!(store.noting(entry("charged")).charge(&charge).await.unwrap());
    database.run("DROP TABLE audit_records").await.unwrap();
    let other = Charge { session: SessionId([2; 16]), ..charge };
    assert!(store.noting(entry("charged")).charge(&other).await.is_err());
    assert!(store.noting(entry("claimed")).claim_session(SESSION, charge.wallet, 2, 1).await.is_err());
    assert_eq!(store.charges(charge.wallet, charge.digest).await.unwrap(), 1);
    assert!(store.claim_session(SESSION, charge.wallet, 2, 1).await.unwrap(), "it was not claimed");
}

#[tokio::test]
async fn a_lock_that_cannot_be_written_closes_every_workers_gate_until_it_is() {
    let database = new_database().await;
    let workers = [create(&database).await, open(&database).await];
    let (key, other) = (put_key(&workers[0], 1).await, put_key(&workers[0], 2).await);
    workers[0].begin_audit(CHAIN, &entry("genesis"), None).await.unwrap();
    database.refuse_writes(true).await.unwrap();

    let noting = workers[0].noting(entry("locked"));
    assert!(noting.lock_paillier_key(&lock(key, SESSION, b"evidence", 1)).await.is_err());
    assert!(matches!(workers[0].readiness(), Readiness::Unready(_)));
    assert!(matches!(
        workers[0].release_verdict(other, SessionId([0; 16])).await,
        Err(StoreError::NotReady(_))
    ));
    // The other worker has had no bad signature, and must not be told apart from the one that had.
    let gate = workers[1].release_verdict(key, SessionId([0; 16])).await;
    assert!(matches!(gate, Err(StoreError::Unavailable { .. })), "{gate:?}");
    assert!(workers[0].recover().await.is_err());
    let late = PostgresStore::open(&options(&database)).await;
    assert!(matches!(late, Err(StoreError::Unavailable { .. })), "a worker does not start now: {late:?}");

    // It cannot serve either, and leaves the work to others.
    workers[1].until_ready(false).await;

    database.refuse_writes(false).await.unwrap();
    workers[0].recover().await.unwrap();
    for worker in &workers {
        worker.recover().await.unwrap();
        worker.until_ready(true).await;
        assert_eq!(
            worker.release_verdict(key, SessionId([0; 16])).await.unwrap(),
            Gate::Closed(PaillierState::Locked)
        );
        assert_eq!(worker.release_verdict(other, SessionId([0; 16])).await.unwrap(), Gate::Open);
    }
    assert_eq!(recorded(&workers[1]).await, 2, "a lock that is written late is recorded with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_waits_for_a_lock_that_is_being_written() {
    let database = new_database().await;
    let store = create(&database).await;
    let key = put_key(&store, 1).await;
    let mut locking = database.administer().await.unwrap();
    let mut transaction = locking.begin().await.unwrap();
    transaction.execute("UPDATE paillier_keys SET state = 1").await.unwrap();
    let gate = tokio::spawn(async move { store.release_verdict(key, SessionId([0; 16])).await });
    let mut looking = database.administer().await.unwrap();
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%SET verdicts%'",
        )
        .fetch_one(&mut looking)
        .await
        .unwrap();
        assert!(!gate.is_finished(), "a verdict left while a lock was being written");
        if waiting == 1 {
            break;
        }
    }
    transaction.commit().await.unwrap();
    assert_eq!(gate.await.unwrap().unwrap(), Gate::Closed(PaillierState::Locked));
}

#[tokio::test]
async fn a_lock_is_written_even_if_its_caller_is_cancelled() {
    let database = new_database().await;
    let store = create(&database).await;
    let key = put_key(&store, 1).await;
    {
        let wanted = lock(key, SESSION, b"evidence", 1);
        let lock = store.lock_paillier_key(&wanted);
        // Polled once, so that it has started, then dropped.
        assert!(futures::FutureExt::now_or_never(lock).is_none());
    }
    while store.release_verdict(key, SessionId([0; 16])).await.unwrap() == Gate::Open {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_may_forget_is_refused() {
    let server = PostgresServer::start(&["fsync=off"]).await.unwrap();
    let database = server.database().await.unwrap();
    let refused = PostgresStore::create(&options(&database)).await;
    assert!(matches!(&refused, Err(StoreError::Unsafe(reason)) if reason.contains("fsync")), "{refused:?}");

    // What a session may set is set.
    let database = new_database().await;
    let name = database.name();
    database.run(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await.unwrap();
    let store = create(&database).await;
    let key = put_key(&store, 1).await;
    // The gate's own setting ends with it.
    store.release_verdict(key, SessionId([0; 16])).await.unwrap();
    for _ in 0..2 {
        let value: String =
            sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&store.pool).await.unwrap();
        assert_eq!(value, "on");
    }
    database.run(&format!("ALTER DATABASE {name} SET synchronous_commit = remote_apply")).await.unwrap();
    let store = open(&database).await;
    let value: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&store.pool).await.unwrap();
    assert_eq!(value, "remote_apply", "more is left as it is");
}

/// Whether the key needs rotation after the store was opened as `options` say.
async fn needs_rotation(options: &PostgresOptions, key: PaillierKeyId) -> bool {
    let store = PostgresStore::open(options).await.unwrap();
    let needs = store.release_verdict(key, SessionId([0; 16])).await.unwrap()
        == Gate::Closed(PaillierState::NeedsRotation);
    assert_eq!(store.was_restored().await.unwrap(), needs);
    store.close().await;
    needs
}

#[tokio::test]
async fn a_database_that_was_put_back_from_a_copy_initiates_nothing() {
    let database = new_database().await;
    let store = create(&database).await;
    let (key, locked) = (put_key(&store, 1).await, put_key(&store, 2).await);
    store.lock_paillier_key(&lock(locked, SESSION, b"evidence", 1)).await.unwrap();
    store.begin_audit(CHAIN, &entry("genesis"), None).await.unwrap();
    store.close().await;
    assert!(!needs_rotation(&options(&database), key).await);

    // As from a dump that is loaded into another database.
    let name = database.name();
    let copy = format!("{name}_copy");
    let mut maintenance = PostgresServer::shared().await.unwrap().maintenance().await.unwrap();
    let statement = format!("CREATE DATABASE {copy} OWNER duet TEMPLATE {name}");
    maintenance.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    let mut elsewhere = database.clone();
    elsewhere.url = database.url.replace(name, &copy);
    assert!(needs_rotation(&options(&elsewhere), key).await);
    let store = open(&elsewhere).await;
    assert_eq!(
        store.release_verdict(locked, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::Locked)
    );
    let early = store.append_audit(&[entry("too early")]).await;
    assert!(matches!(early, Err(StoreError::NotReady(_))), "{early:?}");
    assert_eq!(recorded(&store).await, 1);
    store.begin_audit(ChainId([2; 16]), &entry("genesis"), Some(CHAIN)).await.unwrap();
    store.append_audit(&[entry("after the restore")]).await.unwrap();
    // The genesis, the locked key, and that.
    assert_eq!(recorded(&store).await, 3);
    // A key made after the restore is a rotation, and works.
    let fresh = put_key(&store, 3).await;
    store.close().await;
    let store = open(&elsewhere).await;
    assert_eq!(store.release_verdict(fresh, SessionId([0; 16])).await.unwrap(), Gate::Open);
    assert_eq!(
        store.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::NeedsRotation)
    );

    // As from a dump that is loaded over the tables that were there.
    database
        .run("ALTER TABLE paillier_keys RENAME TO dropped; CREATE TABLE paillier_keys (LIKE dropped INCLUDING ALL);
              INSERT INTO paillier_keys TABLE dropped; ALTER TABLE paillier_keys OWNER TO duet")
        .await
        .unwrap();
    assert!(needs_rotation(&options(&database), key).await);
}

#[tokio::test]
async fn a_failover_counts_as_a_restore_unless_commits_wait_for_a_standby() {
    let server = PostgresServer::start(&[]).await.unwrap();
    let database = server.database().await.unwrap();
    let running = create(&database).await;
    let key = put_key(&running, 1).await;
    // The timeline that was left, as a promoted standby finds it.
    const FAILOVER: &str = "UPDATE settings SET value =
        convert_to(regexp_replace(convert_from(value, 'UTF8'), '\\S+$', 'FFFFFFFF'), 'UTF8') WHERE name = 'place'";
    let lossless = options(&database).with_lossless_failover(true);
    database.run(FAILOVER).await.unwrap();
    let refused = PostgresStore::open(&lossless).await;
    assert!(matches!(refused, Err(StoreError::Unsafe(_))), "no commit waits for a standby here: {refused:?}");
    // The setting names a standby that does not exist. Commits would wait for it, so the test
    // commits only locally.
    database.run("ALTER SYSTEM SET synchronous_standby_names = 'absent'").await.unwrap();
    database.run("SELECT pg_reload_conf()").await.unwrap();
    let mut connection = lossless.connect().await.unwrap();
    loop {
        let names: String =
            sqlx::query_scalar("SHOW synchronous_standby_names").fetch_one(&mut connection).await.unwrap();
        if names == "absent" {
            break;
        }
    }
    super::home::require_synchronous_standby(&mut connection).await.unwrap();
    database.run("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    database.run("SELECT pg_reload_conf()").await.unwrap();

    // A worker that runs notices when it connects again, and is ready again as the restored store
    // it is.
    assert_eq!(running.release_verdict(key, SessionId([0; 16])).await.unwrap(), Gate::Open);
    assert!(needs_rotation(&options(&database), key).await);
    running.recover().await.unwrap();
    assert_eq!(
        running.release_verdict(key, SessionId([0; 16])).await.unwrap(),
        Gate::Closed(PaillierState::NeedsRotation)
    );
}

#[tokio::test]
async fn a_key_that_was_locked_without_a_chain_is_in_the_next_one() {
    let database = new_database().await;
    let store = create(&database).await;
    let (key, next) = (put_key(&store, 1).await, ChainId([2; 16]));
    store.begin_audit(CHAIN, &entry("genesis"), None).await.unwrap();
    database.run("UPDATE audit_chains SET closed = 1").await.unwrap();
    store.noting(entry("locked")).lock_paillier_key(&lock(key, SESSION, b"", 1)).await.unwrap();
    assert_eq!(recorded(&store).await, 1);
    store.begin_audit(next, &entry("genesis"), Some(CHAIN)).await.unwrap();
    let second = store.audit_records(next, 1, 10).await.unwrap();
    let found = Event::KeysFoundLocked { paillier_keys: vec![key] };
    let event = |record: &Record| serde_json::from_slice::<Body>(&record.body).unwrap().event;
    assert_eq!(second.iter().map(event).collect::<Vec<_>>(), [found]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_spends_waits_for_the_policys_lock_and_others_share_it() {
    let database = new_database().await;
    let store = create(&database).await;
    let (wallet, number) = (WalletId([1; 32]), number_of(&[1; 32]));
    let mut other = options(&database).connect().await.unwrap();
    let charge = |session: u8, spends: bool| {
        let mut spending = conformance::spending(wallet, session);
        if !spends {
            spending.spends.clear();
        }
        let charge =
            Charge { session: SessionId([session; 16]), wallet, digest: [session; 32], charged_at_ms: 1 };
        let store = store.spending(spending);
        tokio::spawn(async move { store.charge(&charge).await })
    };
    for (held, session, spends) in [("_shared", 1, true), ("", 2, true), ("", 3, false)] {
        let mut holder = other.begin().await.unwrap();
        let hold = format!("SELECT pg_advisory_xact_lock{held}({}, {number})", NamedLock::Policy as i32);
        holder.execute(sqlx::AssertSqlSafe(hold)).await.unwrap();
        let charged = charge(session, spends);
        loop {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .fetch_one(&mut *holder)
            .await
            .unwrap();
            assert!(!charged.is_finished(), "{held} {spends}: it does not wait");
            if waiting == 1 {
                break;
            }
        }
        holder.rollback().await.unwrap();
        assert!(charged.await.unwrap().unwrap());
    }
    let mut holder = other.begin().await.unwrap();
    let hold = format!("SELECT pg_advisory_xact_lock_shared({}, {number})", NamedLock::Policy as i32);
    holder.execute(sqlx::AssertSqlSafe(hold)).await.unwrap();
    assert!(charge(4, false).await.unwrap().unwrap());
}

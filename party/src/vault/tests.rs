use std::sync::atomic::{AtomicU64, Ordering};

use duet_test_postgres::PostgresServer;
use duet_wire::Code;
use tempfile::TempDir;

use super::*;
use crate::{
    at_rest::{
        Argon2Cost,
        key_file::{self, Origin},
    },
    compute::Compute,
    key_encryption::{KeyFile, Passphrase},
    store::{
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
};

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned()), CHEAP, Compute::limited(1))
}

fn key_file(directory: &TempDir, name: &str) -> KeyFile {
    KeyFile::at(directory.path().join(name))
}

async fn store(directory: &TempDir) -> Arc<dyn ShareStore> {
    let options = SqliteOptions::at(directory.path().join("store.db"));
    Arc::new(SqliteStore::create(&options).await.unwrap())
}

/// A new store of each kind, opened twice, as two workers of a party would.
async fn stores(directory: &TempDir) -> [[Arc<dyn ShareStore>; 2]; 2] {
    let options = SqliteOptions::at(directory.path().join("store.db"));
    let first = SqliteStore::create(&options).await.unwrap();
    let second = SqliteStore::open(&options).await.unwrap();
    let database = PostgresServer::shared().await.unwrap().database().await.unwrap();
    let password = Zeroizing::new(database.password.clone());
    let options = PostgresOptions::at(&database.url).unwrap().with_password(&password);
    let third = PostgresStore::create(&options).await.unwrap();
    let fourth = PostgresStore::open(&options).await.unwrap();
    [[Arc::new(first), Arc::new(second)], [Arc::new(third), Arc::new(fourth)]]
}

/// A clock that the test sets.
fn clock(at: u64) -> (Clock, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(at));
    let time = Arc::clone(&now);
    (Clock::new(move || time.load(Ordering::Relaxed)), now)
}

fn label(item: &[u8]) -> RecordLabel {
    RecordLabel::of_party(RecordKind::Card, item)
}

async fn content(vault: &Vault, item: &[u8]) -> Vec<u8> {
    vault.read(&label(item)).await.unwrap().unwrap().to_vec()
}

async fn open(store: &Arc<dyn ShareStore>, source: &dyn KeyEncryption) -> Result<Vault, UnlockError> {
    Vault::open(Arc::clone(store), source, &Clock::system()).await
}

#[tokio::test]
async fn a_wrong_passphrase_is_refused_counted_and_slowed_down() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let (clock, now) = clock(1_000_000);
    let open = |text| {
        let (store, clock) = (Arc::clone(&store), clock.clone());
        async move { Vault::open(store, &passphrase(text), &clock).await }
    };
    assert!(matches!(open("right").await, Err(UnlockError::Empty)));
    let vault = Vault::create(Arc::clone(&store), &passphrase("right")).await.unwrap();
    assert!(Vault::create(Arc::clone(&store), &passphrase("x")).await.is_err());
    vault.write(&label(b"x"), b"secret").await.unwrap();

    for attempt in 1..=4 {
        let refused = open("wrong").await;
        assert!(matches!(refused, Err(UnlockError::WrongPassphrase { failures }) if failures == attempt));
    }
    // Even the right passphrase waits now, so that an attacker cannot hide guesses among successes.
    assert!(matches!(open("right").await, Err(UnlockError::TooEarly { wait_ms: 1_000, .. })));
    now.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(content(&open("right").await.unwrap(), b"x").await, b"secret");
    assert!(matches!(open("wrong").await, Err(UnlockError::WrongPassphrase { failures: 1 })));
}

#[tokio::test]
async fn a_key_file_of_another_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, source) = (store(&directory).await, key_file(&directory, "key"));
    Vault::create(Arc::clone(&store), &source).await.unwrap();
    open(&store, &source).await.unwrap();
    std::fs::remove_file(source.path()).unwrap();
    key_file::create(source.path()).unwrap();
    assert!(matches!(open(&store, &source).await, Err(UnlockError::WrongKeyFile)));
    assert!(matches!(
        open(&store, &passphrase("x")).await,
        Err(UnlockError::KeyEncryption(KeyEncryptionError::Source { .. }))
    ));
}

#[tokio::test]
async fn of_two_processes_that_set_a_store_up_at_once_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for [first, second] in stores(&directory).await {
        let (one, other) = (passphrase("one"), passphrase("other"));
        let made = tokio::join!(Vault::create(first, &one), Vault::create(Arc::clone(&second), &other));
        let (winner, lost) = match made {
            (Ok(_), Err(error)) => (one, error),
            (Err(error), Ok(_)) => (other, error),
            made => panic!("both or neither: {made:?}"),
        };
        assert!(matches!(lost, UnlockError::Store(StoreError::Exists(_))), "{lost}");
        open(&second, &winner).await.unwrap();
    }
}

#[tokio::test]
async fn a_rewrapped_store_opens_with_the_new_source_only_and_workers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    for (which, [store, at_worker]) in stores(&directory).await.into_iter().enumerate() {
        let (first, second) =
            (key_file(&directory, &format!("a{which}")), key_file(&directory, &format!("b{which}")));
        let (third, fourth) = (passphrase("third"), passphrase("fourth"));
        let sources: [&dyn KeyEncryption; 4] = [&first, &second, &third, &fourth];
        let vault = Vault::create(Arc::clone(&store), sources[0]).await.unwrap();
        vault.write(&label(b"x"), b"secret").await.unwrap();
        let sealed = store.record(&label(b"x")).await.unwrap();
        let worker = open(&at_worker, sources[0]).await.unwrap();
        for (old, new) in sources.iter().zip(&sources[1..]) {
            open(&store, *old).await.unwrap().rewrap(*new, &Clock::system()).await.unwrap();
            let refused = open(&store, *old).await.unwrap_err();
            assert_eq!(
                refused.code(),
                if old.source() == new.source() { Code::WrongPassphrase } else { Code::StorageUnavailable }
            );
            let opened = open(&store, *new).await.unwrap();
            assert_eq!(opened.source().await.unwrap(), new.source());
            // The worker still has the key, which is unchanged.
            worker.write(&label(b"y"), b"more").await.unwrap();
            assert_eq!(content(&opened, b"y").await, b"more");
            assert_eq!(content(&worker, b"x").await, b"secret");
        }
        assert_eq!(store.record(&label(b"x")).await.unwrap(), sealed, "records stay as they are");
    }
}

#[tokio::test]
async fn another_key_reaches_every_process_that_has_the_store_open() {
    let directory = tempfile::tempdir().unwrap();
    for (which, [store, at_worker]) in stores(&directory).await.into_iter().enumerate() {
        let (old, new) =
            (key_file(&directory, &format!("a{which}")), key_file(&directory, &format!("b{which}")));
        let (clock, now) = clock(1_000_000);
        let vault = Vault::create(Arc::clone(&store), &old).await.unwrap();
        vault.write(&label(b"x"), b"secret").await.unwrap();
        let [reader, writer, late] = [
            open(&at_worker, &old).await.unwrap(),
            open(&at_worker, &old).await.unwrap(),
            open(&at_worker, &old).await.unwrap(),
        ];
        // Sealed before the change of the key, and stored after it.
        let stale = writer.seal(&label(b"stale"), b"?").await.unwrap();
        let before = vault.key();

        assert_eq!(vault.change_key(&new, &clock).await.unwrap(), 2, "the check and the record");
        assert!(matches!(open(&store, &old).await, Err(UnlockError::WrongKeyFile)));
        let refused = at_worker.put_records(&[(label(b"stale"), stale)]).await;
        assert!(matches!(refused, Err(StoreError::KeyChanged)), "{refused:?}");
        for item in [b"x".as_slice(), b""] {
            let label = if item.is_empty() { check_label() } else { label(item) };
            let record = store.record(&label).await.unwrap().unwrap();
            assert!(record.open(&before, &label).is_err(), "the old key opens nothing");
        }

        assert_eq!(content(&reader, b"x").await, b"secret");
        writer.write(&label(b"y"), b"more").await.unwrap();
        for vault in [&vault, &reader, &open(&store, &new).await.unwrap()] {
            assert_eq!(content(vault, b"y").await, b"more");
        }

        // One change at a time, so that every worker takes each new key.
        let again = vault.change_key(&new, &clock).await;
        assert!(matches!(again, Err(UnlockError::InSuccession { wait_ms: SUCCESSION_MS })), "{again:?}");
        now.fetch_add(SUCCESSION_MS + 1, Ordering::Relaxed);
        reader.keep_up(&clock).await.unwrap();
        assert_eq!(store.setting(KEY_SUCCESSION).await.unwrap(), None, "the old key leads nowhere now");
        let missed = late.keep_up(&clock).await;
        assert!(matches!(missed, Err(UnlockError::Store(StoreError::KeyChanged))), "{missed:?}");
        assert!(late.read(&label(b"x")).await.is_err());
        assert!(late.write(&label(b"z"), b"lost").await.is_err());
        vault.change_key(&passphrase("third"), &clock).await.unwrap();
        assert_eq!(content(&reader, b"y").await, b"more");
    }
}

/// A store from when the source itself was the key.
async fn make_old(store: &Arc<dyn ShareStore>, descriptor: &str, key: &KeyEncryptionKey) {
    store.put_setting(KEY_DESCRIPTOR, descriptor.as_bytes()).await.unwrap();
    for (label, content) in [(check_label(), CHECK), (label(b"x"), b"secret")] {
        // From bytes, as a build without key ids would store it.
        let sealed = SealedRecord::seal(key, &label, content).unwrap();
        let record = SealedRecord::from_bytes(sealed.as_bytes().to_vec());
        store.put_records(&[(label, record)]).await.unwrap();
    }
}

#[tokio::test]
async fn an_old_store_opens_as_before_until_it_is_given_a_key_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    for (which, [store, at_worker]) in stores(&directory).await.into_iter().enumerate() {
        let old = key_file(&directory, &format!("a{which}"));
        let key = key_file::create(old.path()).unwrap();
        make_old(&store, r#"{"source":"file"}"#, &key).await;
        let worker = open(&at_worker, &old).await.unwrap();
        worker.write(&label(b"y"), b"more").await.unwrap();
        assert!(worker.key_is_the_source().await.unwrap());
        assert!(
            worker.rewrap(&passphrase("new"), &Clock::system()).await.is_err(),
            "the old file would still open it"
        );

        let vault = open(&store, &old).await.unwrap();
        assert_eq!(vault.change_key(&passphrase("new"), &Clock::system()).await.unwrap(), 3);
        assert!(open(&store, &old).await.is_err());
        let record = store.record(&label(b"x")).await.unwrap().unwrap();
        let key = key_file::read(old.path(), Origin::Owner).unwrap();
        assert!(record.open(&key, &label(b"x")).is_err());
        assert_eq!(content(&worker, b"x").await, b"secret");
        let opened = open(&store, &passphrase("new")).await.unwrap();
        assert_eq!(content(&opened, b"y").await, b"more");
        assert!(!opened.key_is_the_source().await.unwrap());
    }
}

#[tokio::test]
async fn an_old_store_with_a_passphrase_opens_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let key = KeyEncryptionKey::from_passphrase("right", &[7; 16], CHEAP).unwrap();
    let descriptor = format!(
        r#"{{"source":"argon2id","salt":"{}","cost":{{"memory_kib":8,"passes":1,"lanes":1}}}}"#,
        "07".repeat(16)
    );
    make_old(&store, &descriptor, &key).await;
    assert_eq!(content(&open(&store, &passphrase("right")).await.unwrap(), b"x").await, b"secret");
    assert!(matches!(
        open(&store, &passphrase("wrong")).await,
        Err(UnlockError::WrongPassphrase { failures: 1 })
    ));
}

/// A source that decrypts another key than it encrypted.
#[derive(Debug)]
struct Forgetful(Passphrase);

#[async_trait::async_trait]
impl KeyEncryption for Forgetful {
    fn source(&self) -> Source {
        Source::Passphrase
    }
    async fn wrap(&self, _: &KeyEncryptionKey) -> Result<WrappedKey, KeyEncryptionError> {
        self.0.wrap(&KeyEncryptionKey::generate()?).await
    }
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<KeyEncryptionKey, KeyEncryptionError> {
        self.0.unwrap(wrapped).await
    }
}

#[tokio::test]
async fn a_source_that_does_not_give_the_key_back_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let vault = Vault::create(Arc::clone(&store), &passphrase("right")).await.unwrap();
    let forgetful = Forgetful(passphrase("new"));
    assert!(matches!(vault.rewrap(&forgetful, &Clock::system()).await, Err(UnlockError::Untrue)));
    assert!(matches!(vault.change_key(&forgetful, &Clock::system()).await, Err(UnlockError::Untrue)));
    open(&store, &passphrase("right")).await.unwrap();
}

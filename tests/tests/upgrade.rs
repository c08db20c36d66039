//! Stores that the version before the newest migrations wrote, read by this one.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use duet_chaos::{databases, signers};
use duet_harness::{
    broker::Broker,
    duet::{Duet, text},
    folders::make_private_folder,
    http::Api,
    parties::{Database, PartyFolder},
    programs,
    stack::{ALL_KINDS, Pair, Stack, TENANT, Wallet},
};
use duet_party::{
    at_rest::{RecordKind, RecordLabel},
    clock::Clock,
    key_encryption::KeyFile,
    store::{
        Charge, KeyStore as _, Lock, NewWallet, PaillierState, PendingStore as _, PolicyRow, PrepareOutcome,
        RecordStore as _, Revoked, RevokedRequest, ShareStore, Spending, StoreError, WalletStore as _,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::ids::{Epoch, PaillierKeyId, SessionId, ShareIndex, WalletId};
use duet_test_postgres::PostgresServer as Postgres;
use duet_wire::{
    JobId,
    policy::{Bound, Limit, Spend, SpendLimit, SpendOption},
};
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tempfile::TempDir;

/// The policy of the signing wallets permits so many messages within 30 days.
const PERMITTED: u64 = 5;

/// Stores that another version wrote, and what it knew of them.
struct Fixture {
    folder: PathBuf,
    /// The folder, if it was unpacked for this test.
    _unpacked: Option<TempDir>,
    /// The cards of service and partner.
    fingerprints: [String; 2],
    signing: Facts,
    /// The wallet of a device whose key is locked.
    locked: Facts,
    /// When the stores were written, in milliseconds since 1970.
    written_at_ms: u64,
    /// How many starts of the service will find a verdict that was left behind.
    unclean_starts: u64,
}

#[derive(Clone)]
struct Facts {
    id: String,
    address: String,
    /// The root public key, in hexadecimal.
    key: String,
}

impl Facts {
    fn of(id: &str, address: &str, key: &str) -> Self {
        Self { id: id.to_owned(), address: address.to_owned(), key: key.to_owned() }
    }
}

impl Fixture {
    fn before_lost_locks() -> Self {
        let signing_key = "02bf0c88c415df971eec6e007862a2a1be89e1b044e4cab58abacf4c472257708d";
        Self {
            folder: programs::repository().join("tests/fixtures/before-lost-locks"),
            _unpacked: None,
            fingerprints: [
                "a68e1b507c1eb057d439d963dad57daaadb48ec3b1e70a2153e0501bf1f729cc",
                "735ca69b4f08ae88db781466b7ee08b1f62077bf2d839c8e57b8d4680a963cb7",
            ]
            .map(str::to_owned),
            signing: Facts::of(
                "b8290f3eaf598c4d540504be17763ca4360e2996f76bc2c856b96a3a36c342ee",
                "0x664055C82E19E976E1686d3718E33a36d355b210",
                signing_key,
            ),
            locked: Facts::of(
                "94833ad24090c6202708767275b5762608f92393a33be7ff63427172537a8c1f",
                "0x594996400dA0B2d481af69e869E0Aa061552F104",
                "",
            ),
            written_at_ms: 1_796_024_048_000,
            unclean_starts: 0,
        }
    }

    /// What [`a_version__should_write_fixtures`] had the program of this commit write.
    fn packed(commit: &str) -> Self {
        let unpacked = tempfile::tempdir().unwrap();
        let archive = programs::repository().join(format!("tests/fixtures/{commit}/stores.tar.xz"));
        let unpacking = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(unpacked.path()).status();
        assert!(unpacking.unwrap().success());
        let facts = fs::read(unpacked.path().join("facts.json")).unwrap();
        let facts: Value = serde_json::from_slice(&facts).unwrap();
        let fact = |pointer: &str| text(&facts, pointer).unwrap().to_owned();
        let wallet = |name: &str| {
            let fact = |member: &str| fact(&format!("/{name}/{member}"));
            Facts { id: fact("id"), address: fact("address"), key: fact("key") }
        };
        Self {
            fingerprints: [fact("/fingerprints/0"), fact("/fingerprints/1")],
            signing: wallet("signing"),
            locked: wallet("locked"),
            written_at_ms: facts.get("written_at_ms").and_then(Value::as_u64).unwrap(),
            unclean_starts: 1,
            folder: unpacked.path().to_path_buf(),
            _unpacked: Some(unpacked),
        }
    }

    fn wallet(&self, stack: &Stack, name: &str) -> Wallet {
        let facts = if name == "signing" { &self.signing } else { &self.locked };
        Wallet {
            duet: stack.device(name).unwrap(),
            id: facts.id.clone(),
            address: facts.address.clone(),
            requester_key: stack.directory().join(format!("{name}.requester")),
            created: Value::Null,
        }
    }
}

/// Copies files for their owner's eyes only, as stores and keys have to be.
fn copy(from: &Path, to: &Path, names: &[&str]) {
    make_private_folder(to).unwrap();
    for name in names {
        fs::copy(from.join(name), to.join(name)).unwrap();
        fs::set_permissions(to.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Runs this version's programs on copies of the stores, the service's in `server` if there is one.
async fn run(fixture: &Fixture, server: Option<&Postgres>) -> Stack {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let here = directory.path();
    for name in ["service", "partner"] {
        let files = ["shares.db", "shares.db.generation", "seal.key", "demo.token"];
        copy(&fixture.folder.join(name), &here.join(name), &files);
    }
    for name in ["signing", "locked"] {
        copy(&fixture.folder.join(name), &here.join(name), &["device.db", "device.db.generation"]);
        copy(&fixture.folder.join(name), here, &["requester.key", "seal.key"]);
        fs::rename(here.join("seal.key"), here.join(format!("{name}.key"))).unwrap();
        fs::rename(here.join("requester.key"), here.join(format!("{name}.requester"))).unwrap();
    }
    let mut service = PartyFolder::new(here, "service");
    if let Some(server) = server {
        fs::remove_file(service.store()).unwrap();
        service = service.in_database(load(fixture, server).await);
    }
    let folders = [service, PartyFolder::new(here, "partner")];
    let tokens = ["service", "partner"].map(|name| here.join(name).join("demo.token"));
    let broker = Broker::start().await.unwrap();
    let duet = Duet::new(broker.credentials()).with("DUET_NATS_URL", &broker.url());
    let fingerprints = fixture.fingerprints.clone();
    Box::pin(Stack::run(Arc::clone(&directory), broker, &duet, &folders, fingerprints, tokens)).await.unwrap()
}

/// The dump of the service's store in a database of its own.
async fn load(fixture: &Fixture, server: &Postgres) -> Database {
    let database = server.database().await.unwrap();
    let dump = fs::read_to_string(fixture.folder.join("service/service.sql")).unwrap();
    database.run(&format!("SET ROLE duet;\n{dump}")).await.unwrap();
    Database { url: database.url, password: database.password }
}

fn options(database: &Database) -> PostgresOptions {
    let password = database.password.clone().into();
    PostgresOptions::at(&database.url).unwrap().with_password(&password)
}

/// A stack whose service has a wallet with a locked key in its database, and that wallet.
pub(crate) async fn stack_with_a_locked_key() -> (Stack, Wallet) {
    let fixture = Fixture::before_lost_locks();
    let stack = run(&fixture, Some(Postgres::shared().await.unwrap())).await;
    let wallet = fixture.wallet(&stack, "signing");
    (stack, wallet)
}

fn is_by(wallet: &Wallet, message: &str, signed: &Value) {
    let signature = text(signed, "/signature").unwrap();
    let signer = signers::message_signer(message.as_bytes(), signature).unwrap();
    assert_eq!(signer.to_string(), wallet.address, "{message}");
}

async fn signs_with(wallet: &Wallet, other: &str) {
    let message = format!("after, with {other}");
    is_by(wallet, &message, &wallet.sign(&["message", &message], other).await.unwrap());
}

async fn signs_without_the_device(stack: &Stack, wallet: &Wallet) {
    stack.all_pairs_ready(&wallet.id).await.unwrap();
    let queued = wallet.queue(&["message", "after, queued"]).await.unwrap();
    is_by(wallet, "after, queued", queued.pointer("/job").unwrap());
}

/// That the newest migrations did their work in a store whose worker has run.
async fn is_up_to_date(fixture: &Fixture, store: &dyn ShareStore) {
    let id: WalletId = fixture.signing.id.parse().unwrap();
    let mut public_key = [0; 33];
    hex::decode_to_slice(&fixture.signing.key, &mut public_key).unwrap();
    assert!(store.wallets_without_public_key(10).await.unwrap().is_empty());
    let second = NewWallet {
        id: WalletId([7; 32]),
        epoch: Epoch(0),
        index: ShareIndex::Service,
        tenant: TENANT.to_owned(),
        public_key,
        package_hash: [7; 32],
        receipt: vec![7],
        admission: None,
        prepared_at_ms: 1,
        expires_at_ms: 2,
        records: Vec::new(),
        enrolments: Vec::new(),
    };
    assert_eq!(store.prepare_wallet(&second).await.unwrap(), PrepareOutcome::SameKey);
    let other = NewWallet { public_key: [2; 33], ..second };
    assert_eq!(store.prepare_wallet(&other).await.unwrap(), PrepareOutcome::Prepared);

    let request = [9; 32];
    assert!(!store.request_facts(id, request, JobId([1; 16])).await.unwrap().is_revoked);
    let revoked =
        RevokedRequest { wallet: id, request, by: [1; 32], expires_at_ms: fixture.written_at_ms + 1_000 };
    assert_eq!(store.revoke_request(&revoked, fixture.written_at_ms).await.unwrap(), Revoked::Now);
    assert!(store.request_facts(id, request, JobId([1; 16])).await.unwrap().is_revoked);
}

/// Charges a signature by the rule of the wallet's policy, right after the store was written.
async fn charge(fixture: &Fixture, store: &dyn ShareStore, number: u8) -> Result<bool, StoreError> {
    let (wallet, session, digest) =
        (fixture.signing.id.parse().unwrap(), SessionId([number; 16]), [number; 32]);
    let limit = Limit { within_s: 30 * 24 * 60 * 60, value: Bound::None, signatures: Some(PERMITTED) };
    let limits = vec![SpendLimit { scope: "rule/messages".to_owned(), limit }];
    let spending = Spending {
        wallet,
        request: digest,
        spent: digest,
        decided_by: store.policies(wallet).await?.first().map(PolicyRow::mark),
        at_ms: fixture.written_at_ms,
        spends: vec![Spend {
            wallet,
            value: [0; 32],
            options: vec![SpendOption { rule: "messages".to_owned(), limits }],
        }],
    };
    let charge = Charge { session, wallet, digest, charged_at_ms: fixture.written_at_ms };
    store.spending(spending).charge(&charge).await
}

async fn sqlite_stores_lock_limit_and_sign_on(fixture: &Fixture, without_public_key: usize) {
    // What was spent counts: two of five.
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture.folder.join("service"), folder.path(), &["shares.db", "shares.db.generation"]);
    let options = SqliteOptions::at(folder.path().join("shares.db"));
    let store = SqliteStore::open(&options).await.unwrap();
    let unread = store.wallets_without_public_key(10).await.unwrap();
    assert_eq!(unread.len(), without_public_key, "no worker has run");
    for number in 1..=3 {
        assert!(charge(fixture, &store, number).await.unwrap(), "{number}");
    }
    let full = charge(fixture, &store, 4).await;
    assert!(matches!(&full, Err(StoreError::LimitExceeded(_))), "{full:?}");
    store.close().await;

    let mut stack = run(fixture, None).await;
    let signing = fixture.wallet(&stack, "signing");
    signs_with(&signing, "service").await;
    signs_with(&signing, "partner").await;
    signs_without_the_device(&stack, &signing).await;
    let locked = fixture.wallet(&stack, "locked");
    for other in ["service", "partner"] {
        let sign = ["sign", "message", "no", "--wallet", &locked.id, "--with", other];
        assert_eq!(locked.duet.refused(&sign).await.unwrap().code, "locked", "{other}");
        let shown = locked.duet.json(&["wallet", "show"]).await.unwrap();
        let signs_with = shown.pointer("/wallet/signs_with").and_then(Value::as_array).unwrap();
        let entry = json!({"party": other, "state": "locked"});
        assert!(signs_with.contains(&entry), "{shown}");
    }
    // The other pair goes on.
    signs_without_the_device(&stack, &locked).await;

    stack.service.stop().await.unwrap();
    stack.partner.stop().await.unwrap();
    for name in ["service", "partner"] {
        let party = stack.party(name);
        log_verifies(&party, &stack.duet()).await;
        let store = SqliteStore::open(&SqliteOptions::at(party.store())).await.unwrap();
        let unclean = if name == "service" { fixture.unclean_starts } else { 0 };
        assert_eq!(store.unclean_starts().await.unwrap(), unclean, "{name}");
        is_up_to_date(fixture, &store).await;
        store.close().await;
    }
    let device = stack.directory().join("locked/device.db");
    let store = SqliteStore::open(&SqliteOptions::at(device)).await.unwrap();
    let keys = store.all_paillier_keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [PaillierState::Locked]);
    let wallet = store.wallet(locked.id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(wallet.failures, 1, "the lock counts as the wallet's");
    store.close().await;
}

/// That the party's audit log is whole, from its first record to the newest.
async fn log_verifies(party: &PartyFolder, duet: &Duet) {
    let duet = party.command(duet);
    let card = duet.json(&["party", "card"]).await.unwrap();
    let key = format!("{}={}", party.name(), text(&card, "/ed25519").unwrap());
    let store = duet.variables().iter().rev().find(|(name, _)| name == "DUET_STORE").unwrap();
    let report = duet.json(&["audit", "verify", "--store", &store.1, "--key", &key]).await.unwrap();
    assert_eq!(report.get("valid"), Some(&Value::Bool(true)), "{report}");
}

async fn a_postgres_store_locks_and_signs_on(fixture: &Fixture) {
    let mut stack = run(fixture, Some(Postgres::shared().await.unwrap())).await;
    let party = stack.party("service");
    let signing = fixture.wallet(&stack, "signing");
    signs_with(&signing, "partner").await;
    let key = signing.requester_key.to_string_lossy().into_owned();
    let queue = ["job", "submit", "message", "later", "--wallet", &signing.id, "--requester-key", &key];
    let job = signing.duet.json(&queue).await.unwrap();
    let job = text(&job, "/job/id").unwrap().to_owned();
    let api = Api::new(&stack, &signing).unwrap();
    api.waits(&job, "locked").await.unwrap();

    // The operator's word and a new key end the lock; a dump in another database is a restored
    // store, whose limits count as used up.
    stack.service.stop().await.unwrap();
    let operator = party.command(&stack.duet());
    let [_, card] = &fixture.fingerprints;
    operator.json(&["party", "accept-culprit", card]).await.unwrap();
    operator.json(&["party", "limits", "--reset"]).await.unwrap();
    operator.json(&["party", "rotate"]).await.unwrap();
    stack.service.start().await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "signed", "the job that waited for the new key");
    signs_without_the_device(&stack, &signing).await;
    signs_with(&signing, "service").await;

    stack.service.stop().await.unwrap();
    log_verifies(&party, &stack.duet()).await;
    let store = PostgresStore::open(&options(party.database().unwrap())).await.unwrap();
    is_up_to_date(fixture, &store).await;
    let keys = store.all_paillier_keys().await.unwrap();
    let count = |state| keys.iter().filter(|key| key.state == state).count();
    assert_eq!(
        [count(PaillierState::Locked), count(PaillierState::Ready)],
        [1, 1],
        "an old lock stays: {keys:?}"
    );
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_stores_from_before_lost_locks__should_lock_limit_and_sign_on() {
    Box::pin(sqlite_stores_lock_limit_and_sign_on(&Fixture::before_lost_locks(), 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_store_from_before_lost_locks__should_lock_and_sign_on() {
    Box::pin(a_postgres_store_locks_and_signs_on(&Fixture::before_lost_locks())).await;
}

/// The version before this one.
const BEFORE: &str = "71c7f6f";

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_stores_of_the_version_before__should_lock_limit_and_sign_on() {
    Box::pin(sqlite_stores_lock_limit_and_sign_on(&Fixture::packed(BEFORE), 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_store_of_the_version_before__should_lock_and_sign_on() {
    Box::pin(a_postgres_store_locks_and_signs_on(&Fixture::packed(BEFORE))).await;
}

/// Opens every share of both wallets, which only the party's own key opens.
async fn shares_open(fixture: &Fixture, store: Arc<dyn ShareStore>) {
    let source = KeyFile::at(fixture.folder.join("service/seal.key"));
    let vault = Vault::open(Arc::clone(&store), &source, &Clock::system()).await.unwrap();
    for wallet in [&fixture.signing, &fixture.locked] {
        let id: WalletId = wallet.id.parse().unwrap();
        let row = store.wallet(id).await.unwrap().unwrap();
        let label = RecordLabel::of_wallet(RecordKind::Share, id, ShareIndex::Service, row.epoch, &[]);
        assert!(vault.read(&label).await.unwrap().is_some(), "{}", wallet.id);
    }
    assert!(store.was_restored().await.unwrap());
    assert!(!store.audit_chains().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_the_version_before__should_restore_as_either_kind_of_store() {
    let (fixture, folder) = (Fixture::packed(BEFORE), tempfile::tempdir().unwrap());
    let server = Postgres::shared().await.unwrap();
    let key = fixture.folder.join("service/seal.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["sqlite", "postgres"] {
        let backup = fixture.folder.join(format!("service/{name}.backup"));
        let file = SqliteOptions::at(folder.path().join(format!("{name}.db")));
        let store = SqliteStore::restore(&backup, &file).await.unwrap();
        shares_open(&fixture, Arc::new(store)).await;
        let database = options(&databases::one(server).await.unwrap());
        let store = PostgresStore::restore(&backup, &database).await.unwrap();
        // And back: what this version writes of it.
        let again = folder.path().join(format!("{name}.again"));
        store.back_up(&again).await.unwrap();
        shares_open(&fixture, Arc::new(store)).await;
        let file = SqliteOptions::at(folder.path().join(format!("{name}-again.db")));
        shares_open(&fixture, Arc::new(SqliteStore::restore(&again, &file).await.unwrap())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate__should_check_expand_and_contract_stores_of_either_kind() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::shared().await.unwrap();
    for (fixture, name) in [(Fixture::before_lost_locks(), "earlier"), (Fixture::packed(BEFORE), "before")] {
        let here = folder.path().join(name);
        copy(&fixture.folder.join("service"), &here.join("service"), &["shares.db", "shares.db.generation"]);
        let file = PartyFolder::new(&here, "service");
        let database = PartyFolder::new(&here, "service").in_database(load(&fixture, server).await);
        for party in [file, database] {
            let duet = party.command(&Duet::new(&here));
            let migrate = async |step: &str| duet.json(&["party", "migrate", step]).await;
            let check = duet.refused(&["party", "migrate", "--check"]).await.unwrap();
            assert_eq!((check.code.as_str(), check.exit_code), ("store-not-expanded", 6), "{check:?}");
            // Nothing was changed, and nothing is unless the operator says so.
            let early = duet.refused(&["party", "migrate", "--contract"]).await.unwrap();
            assert_eq!(early.code, "store-not-expanded", "{early:?}");
            let unchanged = duet.clone().with("DUET_NO_MIGRATE", "true");
            let started = unchanged.refused(&["party", "status"]).await.unwrap();
            assert_eq!(started.code, "store-not-expanded", "{started:?}");
            for step in ["--expand", "--check", "--contract", "--check"] {
                let report = migrate(step).await.unwrap();
                assert_eq!(report["missing"], json!([]), "{step}: {report}");
            }
        }
    }
}

/// The lock of a key after a bad answer, of which nothing else is stored.
fn lock(key: PaillierKeyId) -> Lock {
    let session = SessionId([1; 16]);
    Lock { key, session, wallet: None, card: None, evidence: Vec::new(), at_ms: now_ms() }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

async fn sqlite(file: &Path) -> SqliteConnection {
    SqliteConnection::connect(&file.to_string_lossy()).await.unwrap()
}

/// Kills the service when it has written a pending verdict, and before it releases the verdict.
/// Both take the write lock, which this process has in between.
async fn is_killed_before_the_gate(stack: &mut Stack, wallet: &Wallet) {
    let mut store = sqlite(&stack.party("service").store()).await;
    for number in 0.. {
        let pending = async {
            loop {
                sqlx::query("BEGIN IMMEDIATE").execute(&mut store).await.unwrap();
                let count = sqlx::query("SELECT COUNT(*) AS count FROM pending_verdicts");
                if count.fetch_one(&mut store).await.unwrap().get::<i64, _>("count") > 0 {
                    break;
                }
                sqlx::query("ROLLBACK").execute(&mut store).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let message = format!("lost {number}");
        let payload = ["message", message.as_str()];
        tokio::select! {
            () = pending => {
                stack.service.kill().await.unwrap();
                sqlx::query("ROLLBACK").execute(&mut store).await.unwrap();
                return;
            }
            // The verdict was quicker.
            signed = wallet.queue(&payload) => drop(signed.unwrap()),
        }
        sqlx::query("ROLLBACK").execute(&mut store).await.ok();
    }
}

/// Copies a store whose processes have ended, as one file.
async fn keep(file: &Path, to: &Path) {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    make_private_folder(to).unwrap();
    let mut store = sqlite(file).await;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut store).await.unwrap();
    store.close().await.unwrap();
    for name in [name.clone(), format!("{name}.generation")] {
        fs::copy(file.with_file_name(&name), to.join(&name)).unwrap();
    }
}

fn dump(database: &Database) -> String {
    let output = Command::new("pg_dump")
        .args(["--inserts", "--no-owner", "--no-privileges", "--no-comments", "--schema=public"])
        .args(["--dbname", &database.url])
        .env("PGPASSWORD", &database.password)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let is_kept = |line: &&str| {
        !(line.is_empty()
            || line.starts_with("--")
            || line.starts_with('\\')
            || line.contains("SCHEMA public"))
    };
    text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

/// Writes `tests/fixtures/NAME/stores.tar.xz` by the program in `DUET_PROGRAM`, which is of the
/// commit in `DUET_FIXTURES`. The program writes everything but two locks, each of which is
/// written by this test's own build as it locks a key.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes fixtures: DUET_PROGRAM=… DUET_FIXTURES=COMMIT"]
async fn a_version__should_write_fixtures() {
    let commit = env::var("DUET_FIXTURES").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let mut stack = Stack::start().await.unwrap();
    let signing = stack.create_wallet("signing", ALL_KINDS).await.unwrap();
    let locked = stack.create_wallet("locked", ALL_KINDS).await.unwrap();
    let limits = json!([{"within": "30d", "signatures": PERMITTED}]);
    let rules = json!([{"name": "messages", "payloads": ["personal_message"], "limits": limits}]);
    let policy =
        json!({"version": 1, "wallet": signing.id, "revision": 1, "delay": "1h", "rules": rules}).to_string();
    let file = stack.directory().join("policy.json");
    fs::write(&file, policy).unwrap();
    signing.duet.json(&["policy", "set", &file.to_string_lossy()]).await.unwrap();
    // Each party counts two.
    for pair in Pair::ALL {
        signing.sign_by(pair, &["message", &format!("{pair:?}")]).await.unwrap();
    }
    locked.sign(&["message", "before the lock"], "service").await.unwrap();
    let device = stack.directory().join("locked/device.db");
    let store = SqliteStore::open(&SqliteOptions::at(&device)).await.unwrap();
    for key in store.all_paillier_keys().await.unwrap() {
        store.lock_paillier_key(&lock(key.id)).await.unwrap();
    }
    store.close().await;

    // Service and partner still sign for it.
    is_killed_before_the_gate(&mut stack, &locked).await;
    let backup = out.join("service/sqlite.backup");
    make_private_folder(&out.join("service")).unwrap();
    let mut service = stack.party("service");
    let duet = stack.duet();
    let operator = service.command(&duet);
    operator.json(&["party", "backup", "--out", &backup.to_string_lossy()]).await.unwrap();
    keep(&service.store(), &out.join("service")).await;
    let mut store = sqlite(&service.store()).await;
    let key = async |store: &mut SqliteConnection, wallet: &Wallet| {
        let find = sqlx::query("SELECT public_key FROM wallets WHERE id = ?");
        let row = find.bind(hex::decode(&wallet.id).unwrap()).fetch_one(store).await.unwrap();
        hex::encode(row.get::<Vec<u8>, _>("public_key"))
    };
    let keys = [key(&mut store, &signing).await, key(&mut store, &locked).await];
    store.close().await.unwrap();

    // The same store in a database, where it gets a new key towards the partner, which is locked.
    service.move_to(&duet, databases::one(Postgres::shared().await.unwrap()).await.unwrap()).await.unwrap();
    let operator = service.command(&duet);
    operator.json(&["party", "limits", "--reset"]).await.unwrap();
    operator.json(&["party", "rotate"]).await.unwrap();
    let database = service.database().unwrap().clone();
    let store = PostgresStore::open(&options(&database)).await.unwrap();
    let ready: Vec<_> = store.all_paillier_keys().await.unwrap();
    for key in ready.iter().filter(|key| key.state == PaillierState::Ready) {
        store.lock_paillier_key(&lock(key.id)).await.unwrap();
    }
    store.close().await;
    let backup = out.join("service/postgres.backup");
    operator.json(&["party", "backup", "--out", &backup.to_string_lossy()]).await.unwrap();
    fs::write(out.join("service/service.sql"), dump(&database)).unwrap();

    stack.partner.stop().await.unwrap();
    keep(&stack.party("partner").store(), &out.join("partner")).await;
    for name in ["service", "partner"] {
        for file in ["seal.key", "demo.token"] {
            fs::copy(stack.party(name).path().join(file), out.join(name).join(file)).unwrap();
        }
    }
    for name in ["signing", "locked"] {
        let here = stack.directory();
        keep(&here.join(name).join("device.db"), &out.join(name)).await;
        fs::copy(here.join(format!("{name}.key")), out.join(name).join("seal.key")).unwrap();
        fs::copy(here.join(format!("{name}.requester")), out.join(name).join("requester.key")).unwrap();
    }
    let mut fingerprints = Vec::new();
    for name in ["service", "partner"] {
        fingerprints.push(stack.party(name).fingerprint(&duet).await.unwrap());
    }
    let facts = |wallet: &Wallet, key: &str| json!({"id": wallet.id, "address": wallet.address, "key": key});
    let [signing_key, locked_key] = keys;
    let facts = json!({
        "fingerprints": fingerprints, "written_at_ms": now_ms(),
        "signing": facts(&signing, &signing_key), "locked": facts(&locked, &locked_key),
    });
    fs::write(out.join("facts.json"), facts.to_string()).unwrap();

    let to = programs::repository().join("tests/fixtures").join(commit);
    fs::create_dir_all(&to).unwrap();
    let names = ["facts.json", "service", "partner", "signing", "locked"];
    let packing = Command::new("tar")
        .args(["--owner=0", "--group=0", "--sort=name", "-I", "xz -9e", "-cf"])
        .arg(to.join("stores.tar.xz"))
        .arg("-C")
        .arg(out)
        .args(names)
        .status();
    assert!(packing.unwrap().success());
}

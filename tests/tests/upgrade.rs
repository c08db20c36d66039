//! Stores that the version before the newest migrations wrote, read by this one.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use duet_chaos::signers;
use duet_harness::{
    broker::Broker,
    duet::{Duet, text},
    parties::{Database, PartyFolder, make_private_folder},
    programs,
    stack::{Stack, TENANT, Wallet},
};
use duet_party::store::{
    Charge, KeyStore as _, NewWallet, PaillierState, PolicyRow, PrepareOutcome, RecordStore as _, Revoked,
    RevokedRequest, ShareStore, Spending, StoreError, WalletStore as _,
    postgres::{PostgresOptions, PostgresStore},
    sqlite::{SqliteOptions, SqliteStore},
};
use duet_protocol::ids::{Epoch, SessionId, ShareIndex, WalletId};
use duet_test_postgres::PostgresServer as Postgres;
use duet_wire::policy::{Bound, Limit, Spend, SpendLimit, SpendOption};
use serde_json::Value;

/// The cards of service and partner.
const FINGERPRINTS: [&str; 2] = [
    "a68e1b507c1eb057d439d963dad57daaadb48ec3b1e70a2153e0501bf1f729cc",
    "735ca69b4f08ae88db781466b7ee08b1f62077bf2d839c8e57b8d4680a963cb7",
];
const SIGNING: &str = "b8290f3eaf598c4d540504be17763ca4360e2996f76bc2c856b96a3a36c342ee";
const SIGNING_KEY: &str = "02bf0c88c415df971eec6e007862a2a1be89e1b044e4cab58abacf4c472257708d";
const SIGNING_ADDRESS: &str = "0x664055C82E19E976E1686d3718E33a36d355b210";
const LOCKED: &str = "94833ad24090c6202708767275b5762608f92393a33be7ff63427172537a8c1f";
const LOCKED_ADDRESS: &str = "0x594996400dA0B2d481af69e869E0Aa061552F104";
/// When the stores were written, in milliseconds since 1970.
const WRITTEN_AT_MS: u64 = 1_796_024_048_000;

fn fixtures() -> PathBuf {
    programs::repository().join("tests/fixtures/before-lost-locks")
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
pub(crate) async fn run(server: Option<&Postgres>) -> Stack {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let here = directory.path();
    for name in ["service", "partner"] {
        let files = ["shares.db", "shares.db.generation", "seal.key", "demo.token"];
        copy(&fixtures().join(name), &here.join(name), &files);
    }
    for name in ["signing", "locked"] {
        copy(&fixtures().join(name), &here.join(name), &["device.db", "device.db.generation"]);
        copy(&fixtures().join(name), here, &["requester.key", "seal.key"]);
        fs::rename(here.join("seal.key"), here.join(format!("{name}.key"))).unwrap();
        fs::rename(here.join("requester.key"), here.join(format!("{name}.requester"))).unwrap();
    }
    let mut service = PartyFolder::new(here, "service");
    if let Some(server) = server {
        fs::remove_file(service.store()).unwrap();
        let database = server.database().await.unwrap();
        let dump = fs::read_to_string(fixtures().join("service/service.sql")).unwrap();
        database.run(&format!("SET ROLE duet;\n{dump}")).await.unwrap();
        service = service.in_database(Database { url: database.url, password: database.password });
    }
    let folders = [service, PartyFolder::new(here, "partner")];
    let tokens = ["service", "partner"].map(|name| here.join(name).join("demo.token"));
    let broker = Broker::start().await.unwrap();
    let duet = Duet::new(broker.credentials()).with("DUET_NATS_URL", &broker.url());
    let fingerprints = FINGERPRINTS.map(str::to_owned);
    Box::pin(Stack::run(Arc::clone(&directory), broker, &duet, &folders, fingerprints, tokens)).await.unwrap()
}

fn wallet(stack: &Stack, name: &str, id: &str, address: &str) -> Wallet {
    Wallet {
        duet: stack.device(name).unwrap(),
        id: id.to_owned(),
        address: address.to_owned(),
        requester_key: stack.directory().join(format!("{name}.requester")),
        created: Value::Null,
    }
}

/// The wallet whose service's key is locked in the dump of the database.
pub(crate) fn signing_wallet(stack: &Stack) -> Wallet {
    wallet(stack, "signing", SIGNING, SIGNING_ADDRESS)
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

fn public_key() -> [u8; 33] {
    let mut key = [0; 33];
    hex::decode_to_slice(SIGNING_KEY, &mut key).unwrap();
    key
}

/// That the newest migrations did their work in a store whose worker has run.
async fn is_up_to_date(store: &dyn ShareStore) {
    let id: WalletId = SIGNING.parse().unwrap();
    assert!(store.wallets_without_public_key(10).await.unwrap().is_empty());
    let second = NewWallet {
        id: WalletId([7; 32]),
        epoch: Epoch(0),
        index: ShareIndex::Service,
        tenant: TENANT.to_owned(),
        public_key: public_key(),
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
    assert!(!store.request_facts(id, request).await.unwrap().is_revoked);
    let revoked = RevokedRequest { wallet: id, request, by: [1; 32], expires_at_ms: WRITTEN_AT_MS + 1_000 };
    assert_eq!(store.revoke_request(&revoked, WRITTEN_AT_MS).await.unwrap(), Revoked::Now);
    assert!(store.request_facts(id, request).await.unwrap().is_revoked);
}

/// Charges a signature by the rule of the wallet's policy, right after the store was written.
async fn charge(store: &dyn ShareStore, number: u8) -> Result<bool, StoreError> {
    let (wallet, session, digest) = (SIGNING.parse().unwrap(), SessionId([number; 16]), [number; 32]);
    let limit = Limit { within_s: 30 * 24 * 60 * 60, value: Bound::None, signatures: Some(5) };
    let limits = vec![SpendLimit { scope: "rule/messages".to_owned(), limit }];
    let spending = Spending {
        wallet,
        request: digest,
        spent: digest,
        decided_by: store.policies(wallet).await?.first().map(PolicyRow::mark),
        at_ms: WRITTEN_AT_MS,
        spends: vec![Spend {
            wallet,
            value: [0; 32],
            options: vec![SpendOption { rule: "messages".to_owned(), limits }],
        }],
    };
    let charge = Charge { session, wallet, digest, charged_at_ms: WRITTEN_AT_MS };
    store.spending(spending).charge(&charge).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_stores_of_the_version_before__should_lock_limit_and_sign_on() {
    // What was spent counts: two of five.
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures().join("service"), folder.path(), &["shares.db", "shares.db.generation"]);
    let options = SqliteOptions::at(folder.path().join("shares.db"));
    let store = SqliteStore::open(&options).await.unwrap();
    assert_eq!(store.wallets_without_public_key(10).await.unwrap().len(), 2, "no worker has run");
    for number in 1..=3 {
        assert!(charge(&store, number).await.unwrap(), "{number}");
    }
    let full = charge(&store, 4).await;
    assert!(matches!(&full, Err(StoreError::LimitExceeded(_))), "{full:?}");
    store.close().await;

    let mut stack = run(None).await;
    let signing = signing_wallet(&stack);
    signs_with(&signing, "service").await;
    signs_with(&signing, "partner").await;
    signs_without_the_device(&stack, &signing).await;
    let locked = wallet(&stack, "locked", LOCKED, LOCKED_ADDRESS);
    for other in ["service", "partner"] {
        let sign = ["sign", "message", "no", "--wallet", LOCKED, "--with", other];
        assert_eq!(locked.duet.refused(&sign).await.unwrap().code, "locked", "{other}");
    }
    // The other pair goes on.
    signs_without_the_device(&stack, &locked).await;

    stack.service.stop().await.unwrap();
    stack.partner.stop().await.unwrap();
    for name in ["service", "partner"] {
        let store = SqliteStore::open(&SqliteOptions::at(stack.party(name).store())).await.unwrap();
        is_up_to_date(&store).await;
        store.close().await;
    }
    let device = stack.directory().join("locked/device.db");
    let store = SqliteStore::open(&SqliteOptions::at(device)).await.unwrap();
    let keys = store.all_paillier_keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [PaillierState::Locked]);
    let wallet = store.wallet(LOCKED.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(wallet.failures, 1, "the lock counts as the wallet's");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_store_of_the_version_before__should_lock_and_sign_on() {
    let mut stack = run(Some(Postgres::shared().await.unwrap())).await;
    let party = stack.party("service");
    let signing = signing_wallet(&stack);
    signs_with(&signing, "partner").await;
    let key = signing.requester_key.to_string_lossy().into_owned();
    let queue = ["job", "submit", "message", "no", "--wallet", SIGNING, "--requester-key", &key, "--wait"];
    assert_eq!(signing.duet.refused(&queue).await.unwrap().code, "locked");

    // The operator's word and a new key end the lock; a dump in another database is a restored
    // store, whose limits count as used up.
    stack.service.stop().await.unwrap();
    let operator = party.command(&stack.duet());
    let card = FINGERPRINTS[1];
    operator.json(&["party", "accept-culprit", card]).await.unwrap();
    operator.json(&["party", "limits", "--reset"]).await.unwrap();
    operator.json(&["party", "rotate"]).await.unwrap();
    stack.service.start().await.unwrap();
    signs_without_the_device(&stack, &signing).await;
    signs_with(&signing, "service").await;

    stack.service.stop().await.unwrap();
    let database = party.database().unwrap();
    let password = database.password.clone().into();
    let options = PostgresOptions::at(&database.url).unwrap().with_password(&password);
    let store = PostgresStore::open(&options).await.unwrap();
    is_up_to_date(&store).await;
    let keys = store.all_paillier_keys().await.unwrap();
    let count = |state| keys.iter().filter(|key| key.state == state).count();
    assert_eq!(
        [count(PaillierState::Locked), count(PaillierState::Ready)],
        [1, 1],
        "an old lock stays: {keys:?}"
    );
    store.close().await;
}

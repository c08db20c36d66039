//! Measures how long a lookup of one wallet and its share takes in a full store, in SQLite and in
//! PostgreSQL. Also measures the memory of the process that looks it up.
//!
//! Prints one flat JSON object for `cargo xtask bench`. It seals every record, and writes the rows
//! of many wallets in one transaction: the worker's own statements take one transaction for each.
//! A lookup is the worker's before a session: it reads the wallet's row and its share's record, and
//! opens the record.
//! `DUET_BENCH_WALLETS` sets the number of wallets; the default is a million.
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use duet_harness::process::resident_bytes;
use duet_party::{
    at_rest::{RecordKind, RecordLabel, SealedRecord},
    clock::Clock,
    key_encryption::KeyFile,
    store::{
        EnrolmentRow, NewWallet, ShareStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::{
    ids::{Epoch, PaillierKeyId, ShareIndex, WalletId},
    transcript::sha256,
};
use duet_test_postgres::PostgresServer as Postgres;
use serde_json::{Map, Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

const WALLETS: u32 = 1_000_000;
/// Wallets written in one transaction.
const BATCH: u32 = 1000;
/// Lookups before counting begins.
const WARM_UP: u32 = 2_000;
const COUNTED: u32 = 20_000;
const PASSWORD: &str = "DUET_STORE_PASSWORD";
/// A partner's data of a wallet: its share, and an initiator's enrolment with a 2048-bit modulus.
const SHARE_SIZE_BYTES: usize = 700;
const ENROLMENT_SIZE_BYTES: usize = 900;

/// One of the two databases.
enum Store {
    Sqlite(SqliteStore),
    Postgres(Box<PostgresStore>),
}

impl Store {
    /// Opens the store at a path, or at an address whose password is in the environment.
    async fn open(place: &str) -> Result<Self> {
        if !place.starts_with("postgresql:") {
            return Ok(Self::Sqlite(SqliteStore::open(&SqliteOptions::at(place)).await?));
        }
        let options = PostgresOptions::at(place)?.with_password(&env::var(PASSWORD)?.into());
        Ok(Self::Postgres(Box::new(PostgresStore::open(&options).await?)))
    }

    fn shared(&self) -> Arc<dyn ShareStore> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(PostgresStore::clone(store)),
        }
    }
}

/// A connection beside the store's own, which writes rows as the store's statements do. Both
/// databases read `$1`.
enum Loader {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

const WALLET: &str = "INSERT INTO wallets (id, epoch, share_index, tenant, public_key, package_hash,
    receipt, prepared_at_ms, expires_at_ms, commit_ack, committed_at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $8)";
const RECORD: &str = "INSERT INTO records (kind, wallet, share_index, epoch, item, sealed)
    VALUES ($1, $2, $3, $4, $5, $6)";
const ENROLMENT: &str = "INSERT INTO enrolments (wallet, initiator, paillier_key, epoch, sequence,
    added_at_ms) VALUES ($1, $2, $3, $4, $5, $5)";

/// Writes committed wallets, each with its acknowledgement, in one transaction.
macro_rules! load {
    ($connection:expr, $wallets:expr) => {{
        let mut transaction = $connection.begin().await?;
        for (wallet, commit_ack) in $wallets {
            let now_ms = i64::try_from(wallet.prepared_at_ms)?;
            sqlx::query(WALLET)
                .bind(wallet.id.as_bytes().as_slice())
                .bind(i64::from(wallet.epoch.0))
                .bind(i64::from(u8::from(wallet.index)))
                .bind(wallet.tenant.as_str())
                .bind(wallet.public_key.as_slice())
                .bind(wallet.package_hash.as_slice())
                .bind(wallet.receipt.as_slice())
                .bind(now_ms)
                .bind(i64::try_from(wallet.expires_at_ms)?)
                .bind(commit_ack.as_slice())
                .execute(&mut *transaction)
                .await?;
            for (label, record) in &wallet.records {
                sqlx::query(RECORD)
                    .bind(label.kind as i64)
                    .bind(wallet.id.as_bytes().as_slice())
                    .bind(label.index.map_or(0, |index| i64::from(u8::from(index))))
                    .bind(i64::from(label.epoch.0))
                    .bind(label.item.as_slice())
                    .bind(record.as_bytes())
                    .execute(&mut *transaction)
                    .await?;
            }
            for enrolment in &wallet.enrolments {
                sqlx::query(ENROLMENT)
                    .bind(enrolment.wallet.as_bytes().as_slice())
                    .bind(i64::from(u8::from(enrolment.initiator)))
                    .bind(enrolment.paillier_key.as_bytes().as_slice())
                    .bind(i64::from(enrolment.epoch.0))
                    .bind(now_ms)
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        transaction.commit().await?;
    }};
}

impl Loader {
    async fn load(&mut self, wallets: &[(NewWallet, Vec<u8>)]) -> Result<()> {
        match self {
            Self::Sqlite(connection) => load!(connection, wallets),
            Self::Postgres(connection) => load!(connection, wallets),
        }
        Ok(())
    }
}

fn wallet_id(number: u32) -> WalletId {
    WalletId(sha256(&number.to_be_bytes()))
}

fn share_label(wallet: WalletId) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::Share, wallet, ShareIndex::Partner, Epoch(0), &[])
}

fn wallet(vault: &Vault, number: u32) -> Result<(NewWallet, Vec<u8>)> {
    let id = wallet_id(number);
    let key = PaillierKeyId(id.0.first_chunk().copied().context("an id has 32 bytes")?);
    let enrolment =
        RecordLabel::of_wallet(RecordKind::Enrolment, id, ShareIndex::Service, Epoch(0), key.as_bytes());
    let records = [(share_label(id), SHARE_SIZE_BYTES), (enrolment, ENROLMENT_SIZE_BYTES)]
        .into_iter()
        .map(|(label, size)| {
            let content: Vec<u8> = id.0.iter().copied().cycle().take(size).collect();
            let record = vault.seal_now(&label, &content)?;
            Ok((label, record))
        })
        .collect::<Result<Vec<(RecordLabel, SealedRecord)>>>()?;
    let wallet = NewWallet {
        id,
        epoch: Epoch(0),
        index: ShareIndex::Partner,
        tenant: "demo".to_owned(),
        // Like a compressed point: one byte, and 32 bytes that differ for each wallet.
        public_key: std::array::from_fn(|at| {
            at.checked_sub(1).map_or(2, |at| id.0.get(at).copied().unwrap_or_default())
        }),
        package_hash: id.0,
        receipt: vec![1; 200],
        admission: None,
        prepared_at_ms: u64::from(number),
        expires_at_ms: u64::from(number) + 1,
        records,
        enrolments: vec![EnrolmentRow {
            wallet: id,
            initiator: ShareIndex::Service,
            paillier_key: key,
            epoch: Epoch(0),
        }],
    };
    Ok((wallet, vec![2; 200]))
}

async fn fill(store: &Store, mut loader: Loader, vault: &Vault, wallets: u32) -> Result<()> {
    for first in (0..wallets).step_by(usize::try_from(BATCH)?) {
        let batch: Vec<_> =
            (first..wallets.min(first + BATCH)).map(|number| wallet(vault, number)).collect::<Result<_>>()?;
        loader.load(&batch).await?;
        if first % (100 * BATCH) == 0 {
            eprintln!("{first} of {wallets}");
        }
    }
    ensure!(store.shared().count_wallets().await? == u64::from(wallets), "not every wallet was stored");
    Ok(())
}

/// Looks up random wallets one after the other, as an otherwise idle worker does.
async fn look_up(vault: &Vault, wallets: u32) -> Result<Vec<Duration>> {
    let store = vault.store();
    let mut times = Vec::with_capacity(usize::try_from(COUNTED)?);
    for number in 0..WARM_UP + COUNTED {
        let mut random = [0; 4];
        getrandom::fill(&mut random)?;
        let id = wallet_id(u32::from_be_bytes(random) % wallets);
        let started = Instant::now();
        let row = store.wallet(id).await?.context("a wallet is missing")?;
        let share = vault.read(&share_label(row.id)).await?.context("a share is missing")?;
        let took = started.elapsed();
        ensure!(share.starts_with(&id.0), "another wallet's share");
        if number >= WARM_UP {
            times.push(took);
        }
    }
    times.sort_unstable();
    Ok(times)
}

/// The measurements of a process that only looks up wallets: `{"p50_ms", "p99_ms", "min_ms",
/// "bytes"}`.
async fn look(place: &str, key: &Path, wallets: u32) -> Result<Value> {
    let store = Store::open(place).await?;
    let source = KeyFile::at(key);
    let vault = Vault::open(store.shared(), &source, &Clock::system()).await?;
    let times = look_up(&vault, wallets).await?;
    let quantile = |per_cent: usize| -> Result<f64> {
        let index = (times.len() * per_cent).div_ceil(100).saturating_sub(1);
        let time = times.get(index).context("there are times")?;
        Ok((time.as_secs_f64() * 1e6).round() / 1e3)
    };
    let bytes = resident_bytes(std::process::id())?;
    store.shared().close().await;
    Ok(json!({"p50_ms": quantile(50)?, "p99_ms": quantile(99)?, "min_ms": quantile(0)?, "bytes": bytes}))
}

/// Fills a store, and starts another process that looks up wallets.
async fn measure(
    name: &str,
    (store, loader): (Store, Loader),
    place: &str,
    password: &str,
    key: &Path,
    wallets: u32,
) -> Result<Map<String, Value>> {
    let source = KeyFile::at(key);
    let vault = Vault::create(store.shared(), &source).await?;
    let started = Instant::now();
    fill(&store, loader, &vault, wallets).await?;
    store.shared().close().await;
    eprintln!("{name}: {wallets} wallets in {:.0} s", started.elapsed().as_secs_f64());
    let output = Command::new(env::current_exe()?)
        .args(["look", place])
        .arg(key)
        .env(PASSWORD, password)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "looking failed");
    let found: Value = serde_json::from_slice(&output.stdout)?;
    // Print these figures now, because the next store takes as long again.
    eprintln!("{name}: {found}");
    let number = |name: &str| found.get(name).cloned().unwrap_or_default();
    let figure =
        |median: &str| json!({"median_ms": number(median), "min_ms": number("min_ms"), "n": COUNTED});
    Ok(Map::from_iter([
        (format!("store.{name}.lookup.p50"), figure("p50_ms")),
        (format!("store.{name}.lookup.p99"), figure("p99_ms")),
        (format!("store.{name}.memory"), json!({"bytes": number("bytes")})),
    ]))
}

#[tokio::main]
async fn main() -> Result<()> {
    let wallets = match env::var("DUET_BENCH_WALLETS") {
        Ok(number) => number.parse().context("DUET_BENCH_WALLETS")?,
        Err(_) => WALLETS,
    };
    ensure!(wallets > 0, "DUET_BENCH_WALLETS: at least one");
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [command, place, key] = arguments.as_slice()
        && command == "look"
    {
        println!("{}", look(place, Path::new(key), wallets).await?);
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (file, key) = (folder.path().join("store.db"), |name: &str| folder.path().join(name));
    let sqlite = Store::Sqlite(SqliteStore::create(&SqliteOptions::at(&file)).await?);
    let loader = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&file)).await?;
    let sqlite = (sqlite, Loader::Sqlite(loader));
    let place = file.to_string_lossy();
    let mut figures = measure("sqlite", sqlite, &place, "", &key("sqlite.key"), wallets).await?;
    let server = Postgres::start(&["shared_buffers=256MB", "max_wal_size=2GB"]).await?;
    let database = server.database().await?;
    let options = PostgresOptions::at(&database.url)?.with_password(&database.password.clone().into());
    let postgres = Store::Postgres(Box::new(PostgresStore::create(&options).await?));
    let postgres = (postgres, Loader::Postgres(database.administer().await?));
    let (place, password) = (&database.url, &database.password);
    figures.append(&mut measure("postgres", postgres, place, password, &key("postgres.key"), wallets).await?);
    println!("{}", Value::Object(figures));
    Ok(())
}

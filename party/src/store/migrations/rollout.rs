//! A store between two builds. The later one has an expansion and a contraction that this build
//! does not know, so this build plays the one before.

use std::fs::File;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, SqliteConnection};

use super::{
    Contraction, OF_POSTGRES, OF_SQLITE, POSTGRES, POSTGRES_EXPANSIONS, SQLITE, SQLITE_EXPANSIONS, Schema,
    Script, migrator,
};
use crate::store::{
    RecordStore as _, SchemaReport, ShareStore, StoreError,
    connection::NamedLock,
    postgres::{self, PostgresOptions, PostgresStore},
    sqlite::{self, SqliteOptions, SqliteStore},
};

/// A table, and a column in a table that this build writes to.
const LATER: Script = (
    100,
    "later things",
    "CREATE TABLE later (id INTEGER); ALTER TABLE settings ADD COLUMN later INTEGER; CREATE INDEX later_settings ON settings (later)",
);
const CONTRACTIONS: &[Contraction] =
    &[Contraction { script: (101, "no suspects", "DROP TABLE suspects"), after: LATER.0 }];

const LATER_OF_SQLITE: Schema = Schema {
    expansions: &[SQLITE_EXPANSIONS[0], SQLITE_EXPANSIONS[1], LATER],
    contractions: CONTRACTIONS,
    ..OF_SQLITE
};
const LATER_OF_POSTGRES: Schema = Schema {
    expansions: &[POSTGRES_EXPANSIONS[0], POSTGRES_EXPANSIONS[1], LATER],
    contractions: CONTRACTIONS,
    ..OF_POSTGRES
};

/// How the later build sees the store once it is expanded.
fn expanded() -> SchemaReport {
    SchemaReport { removable: vec!["101 (no suspects)".to_owned()], ..SchemaReport::default() }
}

async fn works(store: &impl ShareStore) {
    store.put_setting("before", b"the build").await.unwrap();
    assert_eq!(store.setting("before").await.unwrap().unwrap(), b"the build");
    store.recover().await.unwrap();
}

#[track_caller]
fn is_contracted<T: std::fmt::Debug>(opened: Result<T, StoreError>) {
    assert!(matches!(&opened, Err(StoreError::Contracted(by)) if by == "101"), "{opened:?}");
}

async fn connect(options: &SqliteOptions) -> SqliteConnection {
    let connect = sqlx::sqlite::SqliteConnectOptions::new().filename(&options.path);
    connect.create_if_missing(true).connect().await.unwrap()
}

#[tokio::test]
async fn a_sqlite_store_is_rolled_back_until_it_is_contracted() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::at(folder.path().join("store.db"));
    let (before, later) = (SqliteStore::create(&options).await.unwrap(), LATER_OF_SQLITE);
    let mut connection = connect(&options).await;
    sqlite::schema::expand(&later, &mut connection).await.unwrap();
    assert_eq!(later.look(&mut connection).await.unwrap(), expanded());
    // The build before goes on, and starts again.
    works(&before).await;
    let again = SqliteStore::open(&options).await.unwrap();
    works(&again).await;
    let newer = SchemaReport { newer: vec![100], ..SchemaReport::default() };
    assert_eq!(SqliteStore::look_at_schema(&options).await.unwrap(), newer);
    assert_eq!(SqliteStore::contract(&options).await.unwrap(), newer, "it removes nothing that it has not");

    let refused = sqlite::schema::contract(&later, &options).await;
    assert!(matches!(refused, Err(StoreError::OlderBuilds(2))), "{refused:?}");
    before.close().await;
    again.close().await;
    // A build from before there were levels leaves its file empty.
    let path = folder.path().join(format!("store.db.instance-{}", hex::encode([7; 16])));
    let oldest = File::create(&path).unwrap();
    oldest.lock().unwrap();
    let refused = sqlite::schema::contract(&later, &options).await;
    assert!(matches!(refused, Err(StoreError::OlderBuilds(1))), "{refused:?}");
    drop(oldest);
    assert_eq!(sqlite::schema::contract(&later, &options).await.unwrap(), SchemaReport::default());
    is_contracted(SqliteStore::open(&options).await);
    is_contracted(SqliteStore::look_at_schema(&options).await);
    is_contracted(SqliteStore::expand(&options).await);
}

#[tokio::test]
async fn a_sqlite_store_is_contracted_beside_a_build_that_needs_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::at(folder.path().join("store.db"));
    let store = SqliteStore::create(&options).await.unwrap();
    const UNUSED: &[Contraction] =
        &[Contraction { script: (19, "unused", "DROP INDEX suspects_by_card"), after: 18 }];
    let schema = Schema { contractions: UNUSED, ..OF_SQLITE };
    assert_eq!(sqlite::schema::contract(&schema, &options).await.unwrap(), SchemaReport::default());
    works(&store).await;
}

#[tokio::test]
async fn a_sqlite_store_that_lacks_something_is_expanded_unless_that_is_forbidden() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::at(folder.path().join("store.db"));
    let mut old = connect(&options).await;
    migrator(SQLITE[..8].iter()).run(&mut old).await.unwrap();
    let as_it_is = SqliteOptions { expands: false, ..options.clone() };
    let refused = SqliteStore::open(&as_it_is).await;
    assert!(
        matches!(&refused, Err(StoreError::NotExpanded(missing)) if missing == "16 (suspects); 17 (job digests); 18 (broker)"),
        "{refused:?}"
    );
    let refused = sqlite::schema::contract(&OF_SQLITE, &options).await;
    assert!(matches!(refused, Err(StoreError::NotExpanded(_))), "{refused:?}");
    let missing = ["16 (suspects)", "17 (job digests)", "18 (broker)"].map(str::to_owned).to_vec();
    let missing = SchemaReport { missing, ..SchemaReport::default() };
    assert_eq!(SqliteStore::look_at_schema(&options).await.unwrap(), missing);
    // Two processes at once: one expands, the other finds it expanded.
    let (one, other) = tokio::join!(SqliteStore::expand(&options), SqliteStore::expand(&options));
    assert_eq!([one.unwrap(), other.unwrap()], [SchemaReport::default(), SchemaReport::default()]);
    works(&SqliteStore::open(&as_it_is).await.unwrap()).await;
}

#[tokio::test]
async fn a_migration_with_other_statements_is_no_migration_of_this_build() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::at(folder.path().join("store.db"));
    SqliteStore::create(&options).await.unwrap().close().await;
    connect(&options)
        .await
        .execute("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 2")
        .await
        .unwrap();
    let refused = SqliteStore::look_at_schema(&options).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
}

async fn database() -> PostgresOptions {
    let database = duet_test_postgres::PostgresServer::shared().await.unwrap().database().await.unwrap();
    let password = database.password.clone().into();
    PostgresOptions::at(&database.url).unwrap().with_password(&password)
}

#[tokio::test]
async fn a_postgres_store_is_rolled_back_until_it_is_contracted() {
    let options = database().await;
    let (before, later) = (PostgresStore::create(&options).await.unwrap(), LATER_OF_POSTGRES);
    assert_eq!(postgres::schema::expand(&later, &options).await.unwrap(), expanded());
    works(&before).await;
    let again = PostgresStore::open(&options).await.unwrap();
    works(&again).await;
    let newer = SchemaReport { newer: vec![100], ..SchemaReport::default() };
    assert_eq!(PostgresStore::look_at_schema(&options).await.unwrap(), newer);
    assert_eq!(PostgresStore::contract(&options).await.unwrap(), newer, "it removes nothing that it has not");

    let refused = postgres::schema::contract(&later, &options).await;
    assert!(matches!(refused, Err(StoreError::OlderBuilds(2))), "{refused:?}");
    before.close().await;
    again.close().await;
    // A build from before there were levels shows its presence alone.
    let mut oldest = options.connect_for_long().await.unwrap();
    let show = format!("SELECT pg_advisory_lock_shared({}, 7)", NamedLock::Presence as i32);
    oldest.execute(AssertSqlSafe(show)).await.unwrap();
    let refused = postgres::schema::contract(&later, &options).await;
    assert!(matches!(refused, Err(StoreError::OlderBuilds(1))), "{refused:?}");
    oldest.execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    assert_eq!(postgres::schema::contract(&later, &options).await.unwrap(), SchemaReport::default());
    is_contracted(PostgresStore::open(&options).await);
    is_contracted(PostgresStore::look_at_schema(&options).await);
    is_contracted(PostgresStore::expand(&options).await);
}

#[tokio::test]
async fn a_postgres_store_is_contracted_beside_a_build_that_needs_nothing_of_it() {
    let options = database().await;
    let store = PostgresStore::create(&options).await.unwrap();
    const UNUSED: &[Contraction] =
        &[Contraction { script: (9, "unused", "DROP INDEX suspects_by_card"), after: 8 }];
    let schema = Schema { contractions: UNUSED, ..OF_POSTGRES };
    assert_eq!(postgres::schema::contract(&schema, &options).await.unwrap(), SchemaReport::default());
    works(&store).await;
}

#[tokio::test]
async fn a_postgres_store_that_lacks_something_is_expanded_unless_that_is_forbidden() {
    let options = database().await;
    let mut old = options.connect_for_long().await.unwrap();
    migrator(POSTGRES[..5].iter()).run(&mut old).await.unwrap();
    let as_it_is = options.clone().without_expansion(true);
    let refused = PostgresStore::open(&as_it_is).await;
    assert!(
        matches!(&refused, Err(StoreError::NotExpanded(missing)) if missing == "6 (suspects); 7 (job digests); 8 (broker)"),
        "{refused:?}"
    );
    let refused = PostgresStore::contract(&options).await;
    assert!(matches!(refused, Err(StoreError::NotExpanded(_))), "{refused:?}");
    let missing = ["6 (suspects)", "7 (job digests)", "8 (broker)"].map(str::to_owned).to_vec();
    let missing = SchemaReport { missing, ..SchemaReport::default() };
    assert_eq!(PostgresStore::look_at_schema(&options).await.unwrap(), missing);
    let (one, other) = tokio::join!(PostgresStore::expand(&options), PostgresStore::expand(&options));
    assert_eq!([one.unwrap(), other.unwrap()], [SchemaReport::default(), SchemaReport::default()]);
    works(&PostgresStore::open(&as_it_is).await.unwrap()).await;
}

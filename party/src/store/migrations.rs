//! The schemas' migrations, which are part of the program. They are listed by hand: sqlx's
//! `migrate!` would do it, but makes every build compile sqlx and both databases a second time, for
//! the macro.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// A migration's version, what it brings, and its statements.
type Script = (i64, &'static str, &'static str);

const SQLITE: &[Script] = &[
    (1, "share store", include_str!("../../migrations/sqlite/0001_share_store.sql")),
    (2, "superseded keys", include_str!("../../migrations/sqlite/0002_superseded_keys.sql")),
    (10, "audit", include_str!("../../migrations/sqlite/0010_audit.sql")),
    (11, "policy", include_str!("../../migrations/sqlite/0011_policy.sql")),
    (12, "enrolled wallets", include_str!("../../migrations/sqlite/0012_enrolled_wallets.sql")),
    (13, "lost locks", include_str!("../../migrations/sqlite/0013_lost_locks.sql")),
    (14, "witness", include_str!("../../migrations/sqlite/0014_witness.sql")),
    (15, "time", include_str!("../../migrations/sqlite/0015_time.sql")),
    (16, "suspects", include_str!("../../migrations/sqlite/0016_suspects.sql")),
];

#[cfg(feature = "postgres")]
const POSTGRES: &[Script] = &[
    (1, "share store", include_str!("../../migrations/postgres/0001_share_store.sql")),
    (2, "audit and policy", include_str!("../../migrations/postgres/0002_audit_and_policy.sql")),
    (3, "lost locks", include_str!("../../migrations/postgres/0003_lost_locks.sql")),
    (4, "witness", include_str!("../../migrations/postgres/0004_witness.sql")),
    (5, "time", include_str!("../../migrations/postgres/0005_time.sql")),
    (6, "suspects", include_str!("../../migrations/postgres/0006_suspects.sql")),
];

pub(super) fn of_sqlite() -> Migrator {
    migrator(SQLITE)
}

#[cfg(feature = "postgres")]
pub(super) fn of_postgres() -> Migrator {
    migrator(POSTGRES)
}

fn migrator(scripts: &[Script]) -> Migrator {
    let migration = |&(version, what, statements): &Script| {
        Migration::new(version, what.into(), MigrationType::Simple, statements.into_sql_str(), false)
    };
    Migrator::with_migrations(scripts.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use duet_protocol::ids::{CardFingerprint, PaillierKeyId, WalletId};
    use sqlx::{
        AssertSqlSafe, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions,
    };

    use super::{POSTGRES, SQLITE, Script, migrator};
    use crate::{
        at_rest::{RecordKind, RecordLabel},
        store::{
            PaillierState, ShareStore, Standing, UnblamedLock,
            postgres::{PostgresOptions, PostgresStore},
            sqlite::{SqliteOptions, SqliteStore},
        },
    };

    /// A store of version 0.1 with two locked keys, of which one was replaced by a rotation, a key
    /// that is not locked, and a device's locked key. `bytes` writes a number's bytes as the
    /// database does.
    fn old_store(bytes: impl Fn(u8, usize) -> String) -> String {
        let scope = |card: u8| format!("responder/{}/acme", hex::encode([card; 32]));
        let wallet = |id: u8, tenant: &str| {
            format!(
                "INSERT INTO wallets (id, epoch, share_index, tenant, package_hash, receipt, prepared_at_ms, expires_at_ms,
                   commit_ack, committed_at_ms, enrolled) VALUES ({}, 0, 2, '{tenant}', {}, {}, 1, 2, {}, 10, 1);",
                bytes(id, 32), bytes(1, 32), bytes(1, 1), bytes(1, 1)
            )
        };
        let key = |id: u8, scope: &str, locked: bool| {
            let (state, at) = if locked { (1, "20") } else { (0, "NULL") };
            format!(
                "INSERT INTO paillier_keys (id, scope, state, sequence, created_at_ms, locked_at_ms)
                   VALUES ({}, '{scope}', {state}, {id}, 5, {at});
                 INSERT INTO records (kind, wallet, share_index, epoch, item, sealed)
                   VALUES (4, {}, 0, 0, {}, {});",
                bytes(id, 16),
                bytes(0, 0),
                bytes(id, 16),
                bytes(9, 80)
            )
        };
        let enrolled = |wallet: u8, responder: &str, key: u8| {
            format!(
                "INSERT INTO own_enrolments (wallet, responder, agreed) VALUES ({}, '{responder}', {});",
                bytes(wallet, 32),
                bytes(key, 16)
            )
        };
        [
            wallet(1, "acme"),
            wallet(2, "other"),
            key(1, &scope(7), true),
            key(2, &scope(8), true),
            key(3, &scope(8), false),
            key(4, &format!("wallet/{}", WalletId([2; 32])), true),
            enrolled(1, "partner", 3),
            enrolled(2, "partner", 3),
        ]
        .concat()
    }

    async fn is_brought_up_to_date(store: &impl ShareStore) {
        let key = |id: u8| PaillierKeyId([id; 16]);
        let sealed = async |id: u8| {
            let label = RecordLabel::of_party(RecordKind::PaillierKey, key(id).as_bytes());
            store.record(&label).await.unwrap().is_some()
        };
        assert_eq!([sealed(1).await, sealed(2).await, sealed(3).await], [false, false, true]);
        for id in [1, 2, 4] {
            assert_eq!(store.paillier_key(key(id)).await.unwrap().unwrap().state, PaillierState::Locked);
        }
        let failures = async |id: u8| store.wallet(WalletId([id; 32])).await.unwrap().unwrap().failures;
        assert_eq!([failures(1).await, failures(2).await], [2, 1]);
        // Whom a device's lock blames is told when its records can be read.
        let unblamed = UnblamedLock { key: key(4), wallet: WalletId([2; 32]), evidence: None };
        assert_eq!(store.unblamed_locks().await.unwrap(), [unblamed]);
        // A lock that no rotation followed is a quarantine. The other lock was accepted by its
        // rotation.
        let standing = async |card: u8| store.standing(CardFingerprint([card; 32])).await.unwrap();
        assert_eq!(standing(7).await, Standing { locks: 1, is_accepted: false });
        assert_eq!(standing(8).await, Standing { locks: 1, is_accepted: true });
        assert_eq!(store.losses(WalletId([1; 32])).await.unwrap(), [u64::from(u32::MAX); 2]);
    }

    #[tokio::test]
    async fn a_sqlite_store_from_before_locks_destroyed_keys_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut old = SqliteConnection::connect_with(&options).await.unwrap();
        migrator(&SQLITE[..5]).run(&mut old).await.unwrap();
        let rows = old_store(|byte, length| format!("x'{}'", hex::encode(vec![byte; length])));
        let identity = format!(
            "INSERT INTO settings (name, value) VALUES ('store-id', x'{}'), ('generation', x'0000000000000001');",
            hex::encode([5; 16])
        );
        old.execute(AssertSqlSafe(rows + &identity)).await.unwrap();
        old.close().await.unwrap();
        fs::write(folder.path().join("store.db.generation"), format!("{} 1\n", hex::encode([5; 16])))
            .unwrap();
        let store = SqliteStore::open(&SqliteOptions::at(&path)).await.unwrap();
        is_brought_up_to_date(&store).await;
    }

    #[tokio::test]
    async fn a_postgres_store_from_before_locks_destroyed_keys_opens() {
        let database = duet_test_postgres::PostgresServer::shared().await.unwrap().database().await.unwrap();
        let password = database.password.clone().into();
        let options = PostgresOptions::at(&database.url).unwrap().with_password(&password);
        let mut old = options.connect_for_long().await.unwrap();
        migrator(&POSTGRES[..2]).run(&mut old).await.unwrap();
        let rows = old_store(|byte, length| format!("'\\x{}'::bytea", hex::encode(vec![byte; length])));
        old.execute(sqlx::raw_sql(AssertSqlSafe(rows))).await.unwrap();
        old.close().await.unwrap();
        is_brought_up_to_date(&PostgresStore::open(&options).await.unwrap()).await;
    }

    #[test]
    fn every_file_is_a_migration() {
        let listed = |scripts: &[Script]| -> BTreeMap<String, String> {
            let name = |&(version, what, _): &Script| format!("{version:04}_{}.sql", what.replace(' ', "_"));
            scripts.iter().map(|script| (name(script), script.2.to_owned())).collect()
        };
        let in_folder = |folder: &str| -> BTreeMap<String, String> {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
            files
                .map(|file| {
                    (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap())
                })
                .collect()
        };
        assert_eq!(in_folder("sqlite"), listed(SQLITE));
        assert_eq!(in_folder("postgres"), listed(POSTGRES));
    }

    /// A store keeps the checksum of each migration that it applied, comments included. It does not
    /// open when a later build has another text.
    #[test]
    fn a_published_migration_never_changes() {
        const OF_SQLITE: [&str; 9] = [
            "c5f37003e7fc0952",
            "b6314c4475e1d366",
            "c4f16040bac80007",
            "03532909f366cc49",
            "51dccdd2877885f3",
            "0d4c6ccfe419f3de",
            "ed93fb01b6e85285",
            "3bc84b5d13073a87",
            "66a75fb7bc82da30",
        ];
        const OF_POSTGRES: [&str; 6] = [
            "b8cce33afc0c7a7c",
            "cfa2362710bcf5d0",
            "a910e406c47cf503",
            "ea5d4e93dc9a2557",
            "6d9169800e358c24",
            "ea020583b644c369",
        ];
        for (scripts, pinned) in [(SQLITE, &OF_SQLITE[..]), (POSTGRES, &OF_POSTGRES[..])] {
            let migrator = migrator(scripts);
            let checksums: Vec<String> =
                migrator.iter().map(|migration| hex::encode(&migration.checksum[..8])).collect();
            assert_eq!(checksums, pinned);
        }
    }
}

//! The schemas' migrations, which are part of the program. They are listed by hand: sqlx's
//! `migrate!` would do it, but makes every build compile sqlx and both databases a second time, for
//! the macro.
//!
//! # Expansions and contractions
//! A store is shared by builds of two versions while its workers are upgraded, and is opened by the
//! older one again after a rollback. So a change of the schema has two halves:
//!
//! - An *expansion* adds what a build needs: tables, indexes, and columns that may be null or have
//!   a default. The builds before it go on, because they name the columns that they read and write.
//!   A table of its own lists the expansions of a store ([`EXPANSIONS`]), so that a build passes
//!   over those that it does not know.
//! - A *contraction* removes what only builds before an expansion read. The table of all earlier
//!   migrations lists it ([`MIGRATIONS`]). A build refuses a store in which that table has an entry
//!   that it does not know.
//!
//! Expansions run by themselves unless the operator says otherwise. A contraction runs by the
//! operator's word alone, and not while a build serves that it would break.
//!
//! Both kinds count on in one sequence. An expansion works whether or not earlier contractions have
//! run. Older builds leave its columns empty in the rows that they write. A worker fills them in,
//! as it does with `wallets.public_key`.

#[cfg(test)]
mod rollout;

use std::collections::BTreeMap;

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    StoreError,
    columns::unavailable,
    connection::{Connection, values},
};

/// The table of the migrations that every build has to know which opens the store.
const MIGRATIONS: &str = "_sqlx_migrations";
/// The table of expansions.
const EXPANSIONS: &str = "_sqlx_expansions";

/// A migration's version, what it brings, and its statements.
type Script = (i64, &'static str, &'static str);

/// A script that removes what only builds before an expansion read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contraction {
    script: Script,
    /// The expansion. A build that knows it reads nothing of what is removed.
    after: i64,
}

/// The migrations of one kind of database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// Migrations from before there were expansions. Nothing is added to them.
    first: &'static [Script],
    expansions: &'static [Script],
    contractions: &'static [Contraction],
}

/// How a store's schema stands to this build. Each step is named by its version and what it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchemaReport {
    /// What this build needs and the store lacks: what an expansion adds.
    pub missing: Vec<String>,
    /// What this build does not need any more: what a contraction removes.
    pub removable: Vec<String>,
    /// Versions of the expansions by a newer build, which this build passes over.
    pub newer: Vec<i64>,
}

impl SchemaReport {
    /// Fails unless this build can use the store as it is.
    ///
    /// # Errors
    /// [`StoreError::NotExpanded`].
    pub(super) fn require_expanded(&self) -> Result<(), StoreError> {
        match self.missing.as_slice() {
            [] => Ok(()),
            missing => Err(StoreError::NotExpanded(missing.join("; "))),
        }
    }
}

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

const SQLITE_EXPANSIONS: &[Script] = &[
    (17, "job digests", include_str!("../../migrations/sqlite/0017_job_digests.sql")),
    (18, "broker", include_str!("../../migrations/sqlite/0018_broker.sql")),
];

#[cfg(feature = "postgres")]
const POSTGRES_EXPANSIONS: &[Script] = &[
    (7, "job digests", include_str!("../../migrations/postgres/0007_job_digests.sql")),
    (8, "broker", include_str!("../../migrations/postgres/0008_broker.sql")),
];

pub(super) const OF_SQLITE: Schema =
    Schema { first: SQLITE, expansions: SQLITE_EXPANSIONS, contractions: &[] };

#[cfg(feature = "postgres")]
pub(super) const OF_POSTGRES: Schema =
    Schema { first: POSTGRES, expansions: POSTGRES_EXPANSIONS, contractions: &[] };

impl Schema {
    /// The newest expansion that this build knows, or the newest migration from before there were
    /// any: how this build shows itself to others that have the store open.
    pub(super) fn level(&self) -> i64 {
        let scripts = self.first.iter().chain(self.expansions);
        scripts.map(|&(version, ..)| version).max().unwrap_or_default()
    }

    /// The migrators that expand a store, each with the version up to which it is to run.
    pub(super) fn expanding(&self) -> Vec<(Migrator, i64)> {
        let last = self.first.iter().map(|&(version, ..)| version).max().unwrap_or_default();
        let mut migrators = vec![(self.known(), last)];
        if !self.expansions.is_empty() {
            migrators.push((self.expansions(), i64::MAX));
        }
        migrators
    }

    /// The migrator that contracts a store.
    pub(super) fn contracting(&self) -> (Migrator, i64) {
        (self.known(), i64::MAX)
    }

    /// The level that a build needs whose store is contracted. `None`: nothing of this store is to
    /// be removed.
    pub(super) fn level_after(&self, report: &SchemaReport) -> Option<i64> {
        let removable = self
            .contractions
            .iter()
            .filter(|contraction| report.removable.contains(&name(&contraction.script)));
        removable.map(|contraction| contraction.after).max()
    }

    /// Compares a store with this build, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Contracted`] when a newer build removed what this build reads. When the
    /// database cannot be read, or was made by statements that this build has in another form.
    pub(super) async fn look<C: Connection + Migrate>(
        &self,
        connection: &mut C,
    ) -> Result<SchemaReport, StoreError> {
        let run = applied(connection, MIGRATIONS, &self.known()).await?;
        if !run.unknown.is_empty() {
            return Err(StoreError::Contracted(versions(&run.unknown)));
        }
        let expanded = applied(connection, EXPANSIONS, &self.expansions()).await?;
        let missing = |scripts: &[Script], run: &Applied| -> Vec<String> {
            scripts.iter().filter(|(version, ..)| !run.known.contains(version)).map(name).collect()
        };
        let contractions: Vec<Script> =
            self.contractions.iter().map(|contraction| contraction.script).collect();
        Ok(SchemaReport {
            missing: [missing(self.first, &run), missing(self.expansions, &expanded)].concat(),
            removable: missing(&contractions, &run),
            newer: expanded.unknown,
        })
    }

    fn known(&self) -> Migrator {
        let contractions = self.contractions.iter().map(|contraction| &contraction.script);
        migrator(self.first.iter().chain(contractions))
    }

    fn expansions(&self) -> Migrator {
        let mut migrator = migrator(self.expansions.iter());
        migrator.dangerous_set_table_name(EXPANSIONS);
        migrator.set_ignore_missing(true);
        migrator
    }
}

/// What a table of migrations lists.
struct Applied {
    known: Vec<i64>,
    /// Versions that this build does not have.
    unknown: Vec<i64>,
}

async fn applied<C: Connection + Migrate>(
    connection: &mut C,
    table: &str,
    migrator: &Migrator,
) -> Result<Applied, StoreError> {
    let failed = unavailable("look at its schema");
    let mut applied = Applied { known: Vec::new(), unknown: Vec::new() };
    if connection.count(&[C::COUNT_TABLES], values![table]).await.map_err(&failed)? == 0 {
        return Ok(applied);
    }
    let checksums: BTreeMap<i64, &[u8]> =
        migrator.iter().map(|migration| (migration.version, &*migration.checksum)).collect();
    let failed = |error| failed(sqlx::Error::Migrate(Box::new(error)));
    for migration in connection.list_applied_migrations(table).await.map_err(failed)? {
        match checksums.get(&migration.version) {
            None => applied.unknown.push(migration.version),
            Some(checksum) if **checksum == *migration.checksum => applied.known.push(migration.version),
            Some(_) => return Err(failed(MigrateError::VersionMismatch(migration.version))),
        }
    }
    Ok(applied)
}

fn name(&(version, what, _): &Script) -> String {
    format!("{version} ({what})")
}

fn versions(versions: &[i64]) -> String {
    versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

fn migrator<'a>(scripts: impl Iterator<Item = &'a Script>) -> Migrator {
    let migration = |&(version, what, statements): &Script| {
        Migration::new(version, what.into(), MigrationType::Simple, statements.into_sql_str(), false)
    };
    Migrator::with_migrations(scripts.map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use duet_protocol::ids::{CardFingerprint, PaillierKeyId, WalletId};
    use sqlx::{
        AssertSqlSafe, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions,
    };

    use super::{OF_POSTGRES, OF_SQLITE, POSTGRES, SQLITE, Schema, Script, migrator};
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
        migrator(SQLITE[..5].iter()).run(&mut old).await.unwrap();
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
        migrator(POSTGRES[..2].iter()).run(&mut old).await.unwrap();
        let rows = old_store(|byte, length| format!("'\\x{}'::bytea", hex::encode(vec![byte; length])));
        old.execute(sqlx::raw_sql(AssertSqlSafe(rows))).await.unwrap();
        old.close().await.unwrap();
        is_brought_up_to_date(&PostgresStore::open(&options).await.unwrap()).await;
    }

    fn scripts(schema: &Schema) -> impl Iterator<Item = &'static Script> {
        schema.first.iter().chain(schema.expansions)
    }

    #[test]
    fn every_file_is_a_migration() {
        let listed = |schema: Schema| -> BTreeMap<String, String> {
            let name = |&(version, what, _): &Script| format!("{version:04}_{}.sql", what.replace(' ', "_"));
            scripts(&schema).map(|script| (name(script), script.2.to_owned())).collect()
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
        assert_eq!(in_folder("sqlite"), listed(OF_SQLITE));
        assert_eq!(in_folder("postgres"), listed(OF_POSTGRES));
    }

    /// A store keeps the checksum of each migration that it applied, comments included. It does not
    /// open when a later build has another text.
    #[test]
    fn a_published_migration_never_changes() {
        const PINNED_OF_SQLITE: [&str; 11] = [
            "c5f37003e7fc0952",
            "b6314c4475e1d366",
            "c4f16040bac80007",
            "03532909f366cc49",
            "51dccdd2877885f3",
            "0d4c6ccfe419f3de",
            "ed93fb01b6e85285",
            "3bc84b5d13073a87",
            "66a75fb7bc82da30",
            "7d6dcc786f92a8dd",
            "a48c0459d764be44",
        ];
        const PINNED_OF_POSTGRES: [&str; 8] = [
            "b8cce33afc0c7a7c",
            "cfa2362710bcf5d0",
            "a910e406c47cf503",
            "ea5d4e93dc9a2557",
            "6d9169800e358c24",
            "ea020583b644c369",
            "708a4fc86df8beaf",
            "ac34736fed79ab96",
        ];
        for (schema, pinned) in [(OF_SQLITE, &PINNED_OF_SQLITE[..]), (OF_POSTGRES, &PINNED_OF_POSTGRES[..])] {
            let migrator = migrator(scripts(&schema));
            let checksums: Vec<String> =
                migrator.iter().map(|migration| hex::encode(&migration.checksum[..8])).collect();
            assert_eq!(checksums, pinned);
        }
    }
}

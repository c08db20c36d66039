//! The schemas' migrations, which are part of the program. They are listed by hand: sqlx's `migrate!` would do it, but makes
//! everybody compile sqlx and both databases a second time, for the macro.

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
    (14, "witness", include_str!("../../migrations/sqlite/0014_witness.sql")),
];

const POSTGRES: &[Script] = &[
    (1, "share store", include_str!("../../migrations/postgres/0001_share_store.sql")),
    (2, "audit and policy", include_str!("../../migrations/postgres/0002_audit_and_policy.sql")),
    (4, "witness", include_str!("../../migrations/postgres/0004_witness.sql")),
];

pub(super) fn of_sqlite() -> Migrator {
    migrator(SQLITE)
}

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

    use super::{POSTGRES, SQLITE, Script};

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
}

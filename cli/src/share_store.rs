//! Opens the share store that the options name.

#[cfg_attr(not(feature = "postgres"), path = "share_store/without_postgres.rs")]
mod postgres;
mod schema_step;
#[cfg(all(test, feature = "postgres"))]
#[path = "share_store/without_postgres.rs"]
#[expect(dead_code, reason = "only its refusal is tested")]
mod without_postgres;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use duet_party::{
    Context,
    clock::Clock,
    key_encryption::KeyEncryption,
    store::{
        SchemaReport, ShareStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::{UnlockError, Vault},
};

use self::postgres::Postgres;
pub(crate) use self::schema_step::SchemaStep;
use crate::{
    config::{DatabaseOptions, SealOptions, StoreOptions, StorePlace},
    error::CliError,
    secrets::PassphraseUse,
    store_location::StoreLocation,
};

/// An open store with its key.
pub(crate) struct OpenStore {
    /// What a party's operations need.
    pub(crate) context: Context,
    database: Database,
}

/// Operations of one kind of database only.
#[derive(Clone)]
enum Database {
    Sqlite(SqliteStore),
    Postgres(Postgres),
}

impl Database {
    async fn open(location: &StoreLocation, options: &DatabaseOptions) -> Result<Self, CliError> {
        Ok(match location {
            StoreLocation::File(path) => {
                let expands = !options.no_migrate;
                Self::Sqlite(SqliteStore::open(&SqliteOptions { expands, ..SqliteOptions::at(path) }).await?)
            }
            StoreLocation::Database(address) => Self::Postgres(Postgres::open(address, options).await?),
        })
    }

    fn store(&self) -> Arc<dyn ShareStore> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => store.store(),
        }
    }
}

/// Takes a step of a store's schema; how it stands afterwards.
///
/// # Errors
/// When there is no store, or when the step is not possible now.
pub(crate) async fn migrate(place: &StorePlace, step: SchemaStep) -> Result<SchemaReport, CliError> {
    let path = match &place.store {
        StoreLocation::File(path) => SqliteOptions::at(path),
        StoreLocation::Database(address) => return Postgres::migrate(address, &place.database, step).await,
    };
    Ok(match step {
        SchemaStep::Check => SqliteStore::look_at_schema(&path).await?,
        SchemaStep::Expand => SqliteStore::expand(&path).await?,
        SchemaStep::Contract => SqliteStore::contract(&path).await?,
    })
}

/// Opens an existing store without its key: its sealed records stay unreadable.
///
/// # Errors
/// When there is no store.
pub(crate) async fn open_sealed(
    location: &StoreLocation,
    options: &DatabaseOptions,
) -> Result<Arc<dyn ShareStore>, CliError> {
    Ok(Database::open(location, options).await?.store())
}

impl OpenStore {
    /// Opens an existing store.
    ///
    /// # Errors
    /// When there is no store, or when the key does not open it.
    pub(crate) async fn open(options: &StoreOptions) -> Result<Self, CliError> {
        let source = options.seal.source(PassphraseUse::Enter)?;
        Self::open_with(options, source.as_ref()).await
    }

    /// Opens an existing store with the key source `source`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_with(
        options: &StoreOptions,
        source: &dyn KeyEncryption,
    ) -> Result<Self, CliError> {
        let StorePlace { store, database } = &options.place;
        Self::unlock(Database::open(store, database).await?, source).await
    }

    /// Opens the store in a file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_file(path: PathBuf, seal: &SealOptions) -> Result<Self, CliError> {
        let place = StorePlace { store: StoreLocation::File(path), database: DatabaseOptions::default() };
        Self::open(&StoreOptions { place, seal: seal.clone() }).await
    }

    /// Restores a backup into a store that does not exist yet. Without a backup, marks a database
    /// that other tools restored.
    ///
    /// # Errors
    /// When the store exists already, or when the key does not open it.
    pub(crate) async fn restore(options: &StoreOptions, from: Option<&Path>) -> Result<Self, CliError> {
        let source = options.seal.source(PassphraseUse::Enter)?;
        let database = match (&options.place.store, from) {
            (StoreLocation::File(path), Some(backup)) => {
                Database::Sqlite(SqliteStore::restore(backup, &SqliteOptions::at(path)).await?)
            }
            (StoreLocation::File(_), None) => {
                return Err(CliError::usage("no backup file to restore is given").remedy("Give --from FILE."));
            }
            (StoreLocation::Database(address), Some(backup)) => {
                Database::Postgres(Postgres::restore(address, &options.place.database, backup).await?)
            }
            (StoreLocation::Database(address), None) => {
                Database::Postgres(Postgres::open_restored(address, &options.place.database).await?)
            }
        };
        Self::unlock(database, source.as_ref()).await
    }

    async fn unlock(database: Database, source: &dyn KeyEncryption) -> Result<Self, CliError> {
        let vault = Vault::open(database.store(), source, &Clock::system()).await?;
        Ok(Self { context: Context::new(vault), database })
    }

    /// Creates a store with its key. Also opens a store that was created but never set up, so that
    /// an interrupted creation can be repeated.
    ///
    /// # Errors
    /// When the store cannot be written, or exists under another key.
    pub(crate) async fn create(options: &StoreOptions, source: &dyn KeyEncryption) -> Result<Self, CliError> {
        let database = match &options.place.store {
            StoreLocation::File(path) => return Self::create_file(path, source).await,
            StoreLocation::Database(address) => {
                Database::Postgres(Postgres::create(address, &options.place.database).await?)
            }
        };
        Self::set_key(database, source).await
    }

    /// Creates a store in a file, as [`Self::create`] does.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) async fn create_file(path: &Path, source: &dyn KeyEncryption) -> Result<Self, CliError> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)
                .map_err(|error| CliError::io(&directory.display().to_string(), &error))?;
        }
        let options = SqliteOptions::at(path);
        let sqlite = if path.exists() {
            SqliteStore::open(&options).await?
        } else {
            SqliteStore::create(&options).await?
        };
        Self::set_key(Database::Sqlite(sqlite), source).await
    }

    async fn set_key(database: Database, source: &dyn KeyEncryption) -> Result<Self, CliError> {
        let vault = match Vault::open(database.store(), source, &Clock::system()).await {
            Err(UnlockError::Empty) => Vault::create(database.store(), source).await?,
            opened => opened?,
        };
        Ok(Self { context: Context::new(vault), database })
    }

    /// Writes a copy of the store to a file that must not exist.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) async fn back_up(&self, path: &Path) -> Result<(), CliError> {
        match &self.database {
            Database::Sqlite(store) => store.back_up(path).await?,
            Database::Postgres(store) => store.back_up(path).await?,
        }
        Ok(())
    }

    /// The store itself.
    pub(crate) fn store(&self) -> Arc<dyn ShareStore> {
        self.database.store()
    }

    /// Closes the connections of the store.
    pub(crate) async fn close(&self) {
        self.store().close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_shown_before_it_is_parsed() {
        let location: StoreLocation = "postgresql://duet:secret@db/duet".parse().unwrap();
        assert!(!format!("{location:?}").contains("secret"));
        assert!(matches!("store.db".parse(), Ok(StoreLocation::File(_))));
    }
}

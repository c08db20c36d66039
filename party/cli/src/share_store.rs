//! Opening the share store that the options name.

use std::{path::Path, sync::Arc};

use duet_party::{
    Context,
    at_rest::{Argon2Cost, KeySource},
    clock::Clock,
    compute::Compute,
    store::{
        ShareStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::{UnlockError, Vault},
};

use crate::{
    config::StoreOptions,
    error::CliError,
    secrets::{self, PassphraseUse},
};

/// A store with its key, and SQLite's own side of it.
pub(crate) struct OpenStore {
    /// What a party works with.
    pub(crate) context: Context,
    /// For backups.
    pub(crate) sqlite: Arc<SqliteStore>,
}

impl OpenStore {
    /// Opens a store that exists.
    ///
    /// # Errors
    /// When there is none, or the key is another one.
    pub(crate) async fn open(options: &StoreOptions) -> Result<Self, CliError> {
        let source = secrets::key_source(&options.seal, PassphraseUse::Enter)?;
        let sqlite = SqliteStore::open(&SqliteOptions::at(&options.store)).await?;
        Self::unlock(sqlite, &source).await
    }

    /// Unlocks an open store.
    ///
    /// # Errors
    /// When the key is another one.
    pub(crate) async fn unlock(sqlite: SqliteStore, source: &KeySource) -> Result<Self, CliError> {
        let sqlite = Arc::new(sqlite);
        let store: Arc<dyn ShareStore> = Arc::clone(&sqlite) as _;
        let vault = Vault::open(store, source, &Compute::per_core(), &Clock::system()).await?;
        Ok(Self { context: Context::new(vault), sqlite })
    }

    /// Creates a store with its key, or opens one that was created and never set up: a creation that
    /// was interrupted can be repeated.
    ///
    /// # Errors
    /// When it cannot be written, or exists under another key.
    pub(crate) async fn create(path: &Path, source: &KeySource) -> Result<Self, CliError> {
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
        let sqlite = Arc::new(sqlite);
        let store: Arc<dyn ShareStore> = Arc::clone(&sqlite) as _;
        let compute = Compute::per_core();
        let vault = match Vault::open(Arc::clone(&store), source, &compute, &Clock::system()).await {
            Err(UnlockError::Empty) => {
                Vault::create(store, source, Argon2Cost::RECOMMENDED, &compute).await?
            }
            opened => opened?,
        };
        Ok(Self { context: Context::new(vault), sqlite })
    }
}

//! Share stores in PostgreSQL databases. `without_postgres.rs` takes this module's place in a
//! program that was built without the feature `postgres`.

use std::{path::Path, sync::Arc};

use duet_party::store::{
    SchemaReport, ShareStore,
    postgres::{PostgresOptions, PostgresStore},
};

use super::schema_step::SchemaStep;
use crate::{config::DatabaseOptions, error::CliError, secrets};

/// An open store in a database.
#[derive(Clone)]
pub(super) struct Postgres(Box<PostgresStore>);

impl Postgres {
    /// Opens the store at `address`.
    ///
    /// # Errors
    /// When there is none, or when the address is invalid.
    pub(super) async fn open(address: &str, options: &DatabaseOptions) -> Result<Self, CliError> {
        let store = PostgresStore::open(&options.at(address)?).await?;
        Ok(Self(Box::new(store)))
    }

    /// Creates a store at `address`, without a key.
    ///
    /// # Errors
    /// When the database cannot be written, or when the address is invalid.
    pub(super) async fn create(address: &str, options: &DatabaseOptions) -> Result<Self, CliError> {
        let store = PostgresStore::create(&options.at(address)?).await?;
        Ok(Self(Box::new(store)))
    }

    /// Restores a backup into the empty database at `address`.
    ///
    /// # Errors
    /// When there is a store already, or when the address is invalid.
    pub(super) async fn restore(
        address: &str,
        options: &DatabaseOptions,
        backup: &Path,
    ) -> Result<Self, CliError> {
        let store = PostgresStore::restore(backup, &options.at(address)?).await?;
        Ok(Self(Box::new(store)))
    }

    /// Opens the store at `address`, which other tools restored, and marks it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn open_restored(address: &str, options: &DatabaseOptions) -> Result<Self, CliError> {
        let store = PostgresStore::open_restored(&options.at(address)?).await?;
        Ok(Self(Box::new(store)))
    }

    /// Takes a step of the schema at `address`.
    ///
    /// # Errors
    /// When there is no store, when the step is not possible now, or when the address is invalid.
    pub(super) async fn migrate(
        address: &str,
        options: &DatabaseOptions,
        step: SchemaStep,
    ) -> Result<SchemaReport, CliError> {
        let options = options.at(address)?;
        Ok(match step {
            SchemaStep::Check => PostgresStore::look_at_schema(&options).await?,
            SchemaStep::Expand => PostgresStore::expand(&options).await?,
            SchemaStep::Contract => PostgresStore::contract(&options).await?,
        })
    }

    /// The store itself.
    pub(super) fn store(&self) -> Arc<dyn ShareStore> {
        Arc::new(PostgresStore::clone(&self.0))
    }

    /// Writes a copy of the store to a file that must not exist.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) async fn back_up(&self, path: &Path) -> Result<(), CliError> {
        Ok(self.0.back_up(path).await?)
    }
}

impl DatabaseOptions {
    /// The options of the database at `address`, with the password that these options name.
    fn at(&self, address: &str) -> Result<PostgresOptions, CliError> {
        let options = PostgresOptions::at(address).map_err(|error| {
            CliError::usage(format!("--store: {error}"))
                .remedy("Write --store postgresql://USER@HOST/DATABASE, and give --store-password-file or set DUET_STORE_PASSWORD.")
        })?;
        let password = secrets::file_or_variable(self.store_password_file.as_ref(), "DUET_STORE_PASSWORD")?;
        let options = match &password {
            Some(password) => options.with_password(password),
            None => options,
        };
        Ok(options.with_lossless_failover(self.store_lossless_failover).without_expansion(self.no_migrate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_password_is_refused_and_never_shown() {
        let refused = DatabaseOptions::default().at("postgresql://duet:secret@db/duet").unwrap_err();
        assert!(!refused.text().contains("secret"), "{}", refused.text());
    }
}

//! Takes the place of `postgres.rs` in a program that was built without the feature `postgres`. It
//! refuses every address of a database.

use std::{path::Path, sync::Arc};

use duet_party::store::{SchemaReport, ShareStore};

use super::schema_step::SchemaStep;
use crate::{config::DatabaseOptions, error::CliError};

/// There is no such store.
#[derive(Clone)]
pub(super) enum Postgres {}

impl Postgres {
    pub(super) async fn open(_address: &str, _options: &DatabaseOptions) -> Result<Self, CliError> {
        Err(CliError::built_without("PostgreSQL", "postgres"))
    }

    pub(super) async fn create(address: &str, options: &DatabaseOptions) -> Result<Self, CliError> {
        Self::open(address, options).await
    }

    pub(super) async fn restore(
        address: &str,
        options: &DatabaseOptions,
        _backup: &Path,
    ) -> Result<Self, CliError> {
        Self::open(address, options).await
    }

    pub(super) async fn open_restored(address: &str, options: &DatabaseOptions) -> Result<Self, CliError> {
        Self::open(address, options).await
    }

    pub(super) async fn migrate(
        _address: &str,
        _options: &DatabaseOptions,
        _step: SchemaStep,
    ) -> Result<SchemaReport, CliError> {
        Err(CliError::built_without("PostgreSQL", "postgres"))
    }

    pub(super) fn store(&self) -> Arc<dyn ShareStore> {
        match *self {}
    }

    pub(super) async fn back_up(&self, _path: &Path) -> Result<(), CliError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_a_database_is_refused_and_never_shown() {
        let address = "postgresql://duet:secret@db/duet";
        let Err(refused) = Postgres::open(address, &DatabaseOptions::default()).await;
        let text = refused.text();
        assert!(text.contains("this program was built without PostgreSQL"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

//! Looking at the schema of a store, expanding and contracting it.

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, migrate::Migrator};

use super::{SqliteOptions, SqliteStore, file::expect_store, presence::Presence};
use crate::store::{
    StoreError,
    columns::unavailable,
    migrations::{OF_SQLITE, Schema, SchemaReport},
};

/// The write lock from the beginning: of two processes that expand a store, the second finds it
/// expanded.
const BEGIN: &str = "BEGIN IMMEDIATE";

impl SqliteStore {
    /// Compares a store's schema with this build, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Contracted`] when a newer build removed what this build reads; when there is
    /// no store.
    pub async fn look_at_schema(options: &SqliteOptions) -> Result<SchemaReport, StoreError> {
        let mut connection = connect(options).await?;
        OF_SQLITE.look(&mut connection).await
    }

    /// Adds to a store's schema what this build needs.
    ///
    /// # Errors
    /// As [`Self::look_at_schema`], and when the file cannot be written.
    pub async fn expand(options: &SqliteOptions) -> Result<SchemaReport, StoreError> {
        let mut connection = connect(options).await?;
        OF_SQLITE.look(&mut connection).await?;
        expand(&OF_SQLITE, &mut connection).await?;
        OF_SQLITE.look(&mut connection).await
    }

    /// Removes from a store's schema what this build does not need.
    ///
    /// # Errors
    /// As [`Self::expand`]; [`StoreError::OlderBuilds`] while a process has the store open that
    /// needs it, [`StoreError::NotExpanded`] before an expansion.
    pub async fn contract(options: &SqliteOptions) -> Result<SchemaReport, StoreError> {
        contract(&OF_SQLITE, options).await
    }
}

/// What opening a store does about its schema.
pub(super) async fn prepare(connection: &mut SqliteConnection, expands: bool) -> Result<(), StoreError> {
    let report = OF_SQLITE.look(connection).await?;
    if expands { expand(&OF_SQLITE, connection).await } else { report.require_expanded() }
}

async fn connect(options: &SqliteOptions) -> Result<SqliteConnection, StoreError> {
    expect_store(&options.path, "the share store").await?;
    options.connect().connect().await.map_err(unavailable("open"))
}

pub(in crate::store) async fn expand(
    schema: &Schema,
    connection: &mut SqliteConnection,
) -> Result<(), StoreError> {
    let failed = unavailable("expand its schema");
    let mut transaction = connection.begin_with(BEGIN).await.map_err(&failed)?;
    for step in schema.expanding() {
        run(step, &mut transaction).await.map_err(&failed)?;
    }
    transaction.commit().await.map_err(&failed)
}

pub(in crate::store) async fn contract(
    schema: &Schema,
    options: &SqliteOptions,
) -> Result<SchemaReport, StoreError> {
    let failed = unavailable("contract its schema");
    let mut connection = connect(options).await?;
    let mut transaction = connection.begin_with(BEGIN).await.map_err(&failed)?;
    let report = schema.look(&mut *transaction).await?;
    report.require_expanded()?;
    if let Some(level) = schema.level_after(&report) {
        match Presence::count_below(&options.path, level)? {
            0 => run(schema.contracting(), &mut transaction).await.map_err(&failed)?,
            older => return Err(StoreError::OlderBuilds(older)),
        }
    }
    transaction.commit().await.map_err(&failed)?;
    schema.look(&mut connection).await
}

async fn run(
    (migrator, last): (Migrator, i64),
    connection: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    migrator.run_to(last, connection).await.map_err(|error| sqlx::Error::Migrate(Box::new(error)))
}

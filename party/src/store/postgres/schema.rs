//! Looking at the schema of a store, expanding and contracting it.

use std::time::Duration;

use sqlx::{
    Connection as _, PgConnection,
    migrate::{Migrate as _, Migrator},
};

use super::{PostgresOptions, PostgresStore, presence::Presence};
use crate::store::{
    StoreError,
    columns::unavailable,
    migrations::{OF_POSTGRES, Schema, SchemaReport},
};

/// A migration may rebuild an index over all wallets.
const DEADLINE: Duration = Duration::from_secs(3600);

impl PostgresStore {
    /// Compares a store's schema with this build, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Contracted`] when a newer build removed what this build reads; when there is
    /// no store, or the server cannot be reached.
    pub async fn look_at_schema(options: &PostgresOptions) -> Result<SchemaReport, StoreError> {
        Self::require_store(options).await?;
        let mut connection = options.connect().await?;
        OF_POSTGRES.look(&mut connection).await
    }

    /// Adds to a store's schema what this build needs. Of two processes that do it at once, the
    /// second waits for the first.
    ///
    /// # Errors
    /// As [`Self::look_at_schema`], and when the database's role may not change tables.
    pub async fn expand(options: &PostgresOptions) -> Result<SchemaReport, StoreError> {
        Self::require_store(options).await?;
        expand(&OF_POSTGRES, options).await
    }

    /// Removes from a store's schema what this build does not need.
    ///
    /// # Errors
    /// As [`Self::expand`]; [`StoreError::OlderBuilds`] while a process has the store open that
    /// needs it, [`StoreError::NotExpanded`] before an expansion.
    pub async fn contract(options: &PostgresOptions) -> Result<SchemaReport, StoreError> {
        Self::require_store(options).await?;
        contract(&OF_POSTGRES, options).await
    }

    pub(super) async fn require_store(options: &PostgresOptions) -> Result<(), StoreError> {
        let failed = unavailable("look for it");
        let mut connection = options.connect().await?;
        let there: bool = sqlx::query_scalar("SELECT to_regclass('paillier_keys') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .map_err(&failed)?;
        connection.close().await.map_err(&failed)?;
        match there {
            true => Ok(()),
            false => Err(StoreError::Exists(format!("there is no share store at {options}"))),
        }
    }
}

/// What opening a store does about its schema.
pub(super) async fn prepare(options: &PostgresOptions) -> Result<(), StoreError> {
    if options.expands {
        return expand(&OF_POSTGRES, options).await.map(drop);
    }
    let mut connection = options.connect().await?;
    OF_POSTGRES.look(&mut connection).await?.require_expanded()
}

pub(in crate::store) async fn expand(
    schema: &Schema,
    options: &PostgresOptions,
) -> Result<SchemaReport, StoreError> {
    let failed = unavailable("expand its schema");
    let mut connection = options.connect_for_long().await?;
    schema.look(&mut connection).await?;
    for step in schema.expanding() {
        run(step, &mut connection).await.map_err(&failed)?;
    }
    let report = schema.look(&mut connection).await?;
    connection.close().await.map_err(&failed)?;
    Ok(report)
}

pub(in crate::store) async fn contract(
    schema: &Schema,
    options: &PostgresOptions,
) -> Result<SchemaReport, StoreError> {
    let failed = unavailable("contract its schema");
    let mut connection = options.connect_for_long().await?;
    // The lock of every migration: a build that opens the store meanwhile waits, and then finds it
    // contracted. A session may take it twice, and the end of this one gives it back.
    let locked = connection.lock().await;
    locked.map_err(|error| failed(sqlx::Error::Migrate(Box::new(error))))?;
    let report = schema.look(&mut connection).await?;
    report.require_expanded()?;
    if let Some(level) = schema.level_after(&report) {
        match Presence::count_below(&mut connection, level).await? {
            0 => run(schema.contracting(), &mut connection).await.map_err(&failed)?,
            older => return Err(StoreError::OlderBuilds(older)),
        }
    }
    let report = schema.look(&mut connection).await?;
    connection.close().await.map_err(&failed)?;
    Ok(report)
}

async fn run((migrator, last): (Migrator, i64), connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Boxed: the future of a caller that opens a store need not hold this step.
    let running = Box::pin(migrator.run_to(last, connection));
    let ended = tokio::time::timeout(DEADLINE, running).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
    ended.map_err(|error| sqlx::Error::Migrate(Box::new(error)))
}

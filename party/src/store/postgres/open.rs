//! Creating and opening a store.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;

use super::{PostgresOptions, PostgresStore, place::Home, presence::Presence, schema};
use crate::store::{
    RecordStore as _, StoreError, backend::Attached, health::Health, migrations::OF_POSTGRES,
};

/// Connections of one worker: more than that many of its sessions talking to the store at the same
/// moment wait for each other, a millisecond or so. A server takes a hundred as it is installed.
const MAX_CONNECTIONS: u32 = 12;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

impl PostgresStore {
    /// Makes the tables in an empty database, or opens the store that is there.
    ///
    /// # Errors
    /// When the server cannot be reached, may forget what it commits, or refuses to make tables.
    pub async fn create(options: &PostgresOptions) -> Result<Self, StoreError> {
        schema::expand(&OF_POSTGRES, options).await?;
        Self::open_with(options, false).await
    }

    /// Opens a store, adds to its schema what this build needs, looks whether it was moved, and
    /// tries a write. When that fails the store opens, but is not ready.
    ///
    /// # Errors
    /// When there is no store in the database, when a newer build removed what this one reads, when
    /// something is missing that the options forbid to add, when the server cannot be reached,
    /// takes no writes or may forget what it commits.
    pub async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        Self::require_store(options).await?;
        Self::open_with(options, false).await
    }

    /// Opens a database that was put back from a backup by PostgreSQL's own means: whatever it says
    /// of itself, it initiates nothing until its Paillier keys are rotated. No worker may be
    /// running.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_restored(options: &PostgresOptions) -> Result<Self, StoreError> {
        Self::require_store(options).await?;
        Self::open_with(options, true).await
    }

    async fn open_with(options: &PostgresOptions, restored: bool) -> Result<Self, StoreError> {
        schema::prepare(options).await?;
        let (home, health) = (Home::default(), Health::untried());
        let (place, unwell) = (home.clone(), health.clone());
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                let (place, unwell) = (place.clone(), unwell.clone());
                Box::pin(async move {
                    place.receive(connection).await.map_err(|error| {
                        // A connection that broke says nothing about the server.
                        if !matches!(error, StoreError::Unavailable { .. }) {
                            unwell.fail(None, &error);
                        }
                        sqlx::Error::Configuration(error.into())
                    })
                })
            })
            .connect_lazy_with(options.connect.clone());
        let store = Self {
            pool,
            options: options.clone(),
            home,
            presence: Presence::new()?,
            health,
            attached: Attached::default(),
        };
        store.enter_as(restored).await?;
        if let Err(error) = store.recover().await {
            tracing::error!(%error, "the share store's test write failed; nothing is initiated");
        }
        Ok(store)
    }
}

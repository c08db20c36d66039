//! Share stores in databases of a throw-away PostgreSQL server.

use anyhow::{Context as _, Result};
use duet_harness::parties::{Database, PartyFolder};
use duet_test_postgres::{Database as TestDatabase, PostgresServer};

/// A new database of `server`.
///
/// # Errors
/// When it cannot be created.
pub async fn one(server: &PostgresServer) -> Result<Database> {
    let TestDatabase { url, password, .. } = server.database().await?;
    Ok(Database { url, password })
}

/// New databases of `server` for service and partner.
///
/// # Errors
/// When they cannot be created.
pub async fn two(server: &PostgresServer) -> Result<[Database; 2]> {
    Ok([one(server).await?, one(server).await?])
}

/// The database of a party's share store, for its server's superuser.
///
/// # Errors
/// When the store is in a file.
pub fn administered(party: &PartyFolder) -> Result<TestDatabase> {
    let database = party.database().context("the share store is in a file")?;
    TestDatabase::at(&database.url, &database.password)
}

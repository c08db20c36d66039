//! Where a PostgreSQL store is at home, and noticing that it was moved.
//!
//! A lock that was committed can be forgotten only if the database is another one than before: put
//! back from a dump, from a base backup, or taken over by a standby that had not received
//! everything. Each of these leaves a mark: a dump is loaded into tables with other numbers (or
//! into another database, or another server); recovery from a base backup and the promotion of a
//! standby begin a new timeline. So the store notes server, database, table and timeline, compares
//! them whenever a connection is made, and counts as restored when they differ: all its Paillier
//! keys need rotation.
//!
//! An operator who replicates synchronously loses nothing in a failover, and says so when opening
//! the store. Then a new timeline alone does not matter. The store cannot notice a copy of the
//! server's disk that is put back without recovery.

use sqlx::PgConnection;

use super::{
    PostgresStore,
    place::{Place, find_place, make_durable},
    within,
};
use crate::store::{
    StoreError,
    columns::unavailable,
    connection::{Connection as _, NamedLock},
    shared::records::{mark_restored, read_setting, write_setting},
};

/// The setting that holds the store's place.
const PLACE: &str = "place";

impl PostgresStore {
    /// Enters the store, or enters it again: looks where it is, and marks it as restored when it
    /// was moved. On a connection of its own, because those of the pool lead nowhere until the
    /// place is known.
    pub(super) async fn enter(&self) -> Result<(), StoreError> {
        self.enter_as(false).await
    }

    /// Enters the store; `restored`: as one that was put back from a copy, whatever it says of
    /// itself.
    pub(super) async fn enter_as(&self, restored: bool) -> Result<(), StoreError> {
        const OPERATION: &str = "enter it";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut connection = self.options.connect().await?;
            make_durable(&mut connection).await?;
            if self.options.lossless_failover {
                require_synchronous_standby(&mut connection).await?;
            }
            let place = find_place(&mut connection).await?;
            let mut transaction = sqlx::Connection::begin(&mut connection).await.map_err(&failed)?;
            transaction.take(NamedLock::Home, &[]).await.map_err(&failed)?;
            let stored = read_setting(&mut *transaction, PLACE).await.map_err(&failed)?;
            let before = stored.as_deref().and_then(Place::parse);
            // A store without a place was never entered: it is new, and holds nothing.
            let moved = match &before {
                Some(before) => !place.continues(before, self.options.lossless_failover),
                None => stored.is_some(),
            };
            if moved || restored {
                tracing::warn!(
                    store = %self.options,
                    "this share store was put back from a copy, or its server was replaced by one that may lack something: \
                     it initiates nothing until its Paillier keys are rotated"
                );
                mark_restored(&mut *transaction).await.map_err(&failed)?;
            }
            if moved || restored || before.as_ref() != Some(&place) {
                let setting = place.to_setting();
                write_setting(&mut *transaction, PLACE, setting.as_bytes()).await.map_err(&failed)?;
            }
            transaction.commit().await.map_err(&failed)?;
            sqlx::Connection::close(connection).await.map_err(&failed)?;
            self.home.settle(place);
            Ok(())
        })
        .await
    }
}

/// An operator who says that failovers lose nothing must have a standby that commits wait for.
pub(super) async fn require_synchronous_standby(connection: &mut PgConnection) -> Result<(), StoreError> {
    let standbys: String = sqlx::query_scalar("SELECT current_setting('synchronous_standby_names')")
        .fetch_one(connection)
        .await
        .map_err(unavailable("look at the server's settings"))?;
    if standbys.trim().is_empty() {
        return Err(StoreError::Unsafe(
            "failovers are said to lose nothing, but the server's synchronous_standby_names is empty"
                .to_owned(),
        ));
    }
    Ok(())
}

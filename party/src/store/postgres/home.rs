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

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{PgConnection, Row as _};

use super::{PostgresStore, within};
use crate::store::{
    StoreError,
    columns::unavailable,
    connection::{Connection as _, Turn},
    shared::records::{mark_restored, read_setting, write_setting},
};

/// The setting that holds the store's place.
const PLACE: &str = "place";
/// The oldest server version that is tested.
const MINIMUM_VERSION: i64 = 13;

/// Which server, database, table and timeline a store is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Server, database and table.
    site: String,
    timeline: String,
}

impl Place {
    fn to_setting(&self) -> String {
        format!("{} {}", self.site, self.timeline)
    }

    fn parse(setting: &[u8]) -> Option<Self> {
        let (site, timeline) = str::from_utf8(setting).ok()?.rsplit_once(' ')?;
        Some(Self { site: site.to_owned(), timeline: timeline.to_owned() })
    }

    /// Whether everything that was committed in `before` is here.
    fn continues(&self, before: &Self, lossless_failover: bool) -> bool {
        self.site == before.site && (lossless_failover || self.timeline == before.timeline)
    }
}

/// The place that this process has entered the store in; none at first.
#[derive(Debug, Clone, Default)]
pub(super) struct Home(Arc<Mutex<Option<Place>>>);

impl Home {
    fn place(&self) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settle(&self, place: Place) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// Prepares a new connection, and looks whether it leads where the others lead.
    pub(super) async fn receive(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        make_durable(connection).await?;
        let place = find_place(connection).await?;
        match self.place() {
            Some(home) if home != place => Err(StoreError::NotReady(
                "the database server was replaced by another one, or its data was".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Makes sure that what this connection commits stays committed.
///
/// # Errors
/// [`StoreError::Unsafe`] when the server is set up to forget, or does not take writes.
pub(super) async fn make_durable(connection: &mut PgConnection) -> Result<(), StoreError> {
    let failed = unavailable("look at the server's settings");
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::bigint AS version, pg_is_in_recovery() AS standby,
                current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
                current_setting('synchronous_commit') AS synchronous_commit",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(&failed)?;
    let version: i64 = row.try_get("version").map_err(&failed)?;
    if version / 10_000 < MINIMUM_VERSION {
        return Err(StoreError::Unsafe(format!("PostgreSQL {MINIMUM_VERSION} or newer is needed")));
    }
    if row.try_get("standby").map_err(&failed)? {
        return Err(StoreError::Unsafe("the database server is a standby; name the primary".to_owned()));
    }
    for name in ["fsync", "full_page_writes"] {
        let value: String = row.try_get(name).map_err(&failed)?;
        if value != "on" {
            return Err(StoreError::Unsafe(format!(
                "the database server runs with {name} = {value} and may forget a lock; set it to on"
            )));
        }
    }
    let commit: String = row.try_get("synchronous_commit").map_err(&failed)?;
    if !["on", "remote_apply"].contains(&commit.as_str()) {
        let set: String = sqlx::query_scalar("SELECT set_config('synchronous_commit', 'on', false)")
            .fetch_one(connection)
            .await
            .map_err(&failed)?;
        if set != "on" {
            return Err(StoreError::Unsafe("the database server does not commit synchronously".to_owned()));
        }
    }
    Ok(())
}

/// Where a connection leads.
async fn find_place(connection: &mut PgConnection) -> Result<Place, StoreError> {
    let failed = unavailable("find out where it is");
    let row = sqlx::query(
        "SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
                (SELECT oid FROM pg_database WHERE datname = current_database()),
                to_regclass('paillier_keys')::oid) AS site,
                left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline",
    )
    .fetch_one(connection)
    .await
    .map_err(&failed)?;
    Ok(Place {
        site: row.try_get("site").map_err(&failed)?,
        timeline: row.try_get("timeline").map_err(&failed)?,
    })
}

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
            transaction.take(Turn::Home, &[]).await.map_err(&failed)?;
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

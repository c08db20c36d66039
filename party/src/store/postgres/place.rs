//! Which server, database, table and timeline a store is in.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{PgConnection, Row as _};

use crate::store::{StoreError, columns::unavailable};

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
    pub(super) fn to_setting(&self) -> String {
        format!("{} {}", self.site, self.timeline)
    }

    pub(super) fn parse(setting: &[u8]) -> Option<Self> {
        let (site, timeline) = str::from_utf8(setting).ok()?.rsplit_once(' ')?;
        Some(Self { site: site.to_owned(), timeline: timeline.to_owned() })
    }

    /// Whether everything that was committed in `before` is here.
    pub(super) fn continues(&self, before: &Self, lossless_failover: bool) -> bool {
        self.site == before.site && (lossless_failover || self.timeline == before.timeline)
    }
}

/// The place that this process has entered the store in; none at first.
#[derive(Debug, Clone, Default)]
pub(super) struct Home(Arc<Mutex<Option<Place>>>);

impl Home {
    pub(super) fn place(&self) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn settle(&self, place: Place) {
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
pub(super) async fn find_place(connection: &mut PgConnection) -> Result<Place, StoreError> {
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

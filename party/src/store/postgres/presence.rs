//! Which openings of the store are still there.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::Mutex;

use super::{PostgresOptions, connection::number_of, within};
use crate::store::{
    StoreError,
    columns::unavailable,
    connection::{Connection as _, NamedLock, values},
    migrations::OF_POSTGRES,
};

/// One opening of a store, as the others see it: a connection of its own that holds two advisory
/// locks, of its id and of the level of the schema that it knows. The server gives them back
/// however this process ends.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    id: [u8; 16],
    connection: Arc<Mutex<Option<PgConnection>>>,
}

impl Presence {
    pub(super) fn new() -> Result<Self, StoreError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| StoreError::Corrupt("no randomness"))?;
        Ok(Self { id, connection: Arc::default() })
    }

    pub(super) const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Takes the advisory locks, again if the connection that held it broke.
    pub(super) async fn show(&self, options: &PostgresOptions) -> Result<(), StoreError> {
        within("show that it is open", async {
            let mut held = self.connection.lock().await;
            self.hold(&mut held, options).await
        })
        .await
    }

    async fn hold(
        &self,
        held: &mut Option<PgConnection>,
        options: &PostgresOptions,
    ) -> Result<(), StoreError> {
        let failed = unavailable("show that it is open");
        if let Some(connection) = held
            && sqlx::query("SELECT 1").execute(connection).await.is_ok()
        {
            return Ok(());
        }
        *held = None;
        let mut connection = options.connect_for_long().await?;
        // The level first: what is seen to be here has named it.
        sqlx::query("SELECT pg_advisory_lock_shared($1, $2), pg_advisory_lock_shared($3, $4)")
            .bind(NamedLock::Level as i32)
            .bind(i32::try_from(OF_POSTGRES.level()).unwrap_or(i32::MAX))
            .bind(NamedLock::Presence as i32)
            .bind(number_of(&self.id))
            .execute(&mut connection)
            .await
            .map_err(&failed)?;
        *held = Some(connection);
        Ok(())
    }

    /// Which of these openings have ended. One that lost its connection for a while may be among
    /// them: what it left behind is judged, which does no harm to one that lives.
    pub(super) async fn ended(
        &self,
        options: &PostgresOptions,
        others: Vec<[u8; 16]>,
    ) -> Result<Vec<[u8; 16]>, StoreError> {
        let failed = unavailable("look for its siblings");
        let mut held = self.connection.lock().await;
        self.hold(&mut held, options).await?;
        let Some(connection) = held.as_mut() else { return Ok(Vec::new()) };
        let mut ended = Vec::new();
        for id in others {
            let is_free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
                .bind(NamedLock::Presence as i32)
                .bind(number_of(&id))
                .fetch_one(&mut *connection)
                .await
                .map_err(&failed)?;
            if is_free {
                sqlx::query("SELECT pg_advisory_unlock($1, $2)")
                    .bind(NamedLock::Presence as i32)
                    .bind(number_of(&id))
                    .execute(&mut *connection)
                    .await
                    .map_err(&failed)?;
                ended.push(id);
            }
        }
        Ok(ended)
    }

    /// How many openings live that do not know this level of the schema. One without a level is of
    /// a build from before there were any.
    pub(super) async fn count_below(connection: &mut PgConnection, level: i64) -> Result<u64, StoreError> {
        let statement = "SELECT COUNT(*) AS count FROM pg_locks AS p
             WHERE p.locktype = 'advisory' AND p.classid::BIGINT = $1 AND p.objsubid = 2
               AND p.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND NOT EXISTS (
                 SELECT 1 FROM pg_locks AS l
                 WHERE l.pid = p.pid AND l.locktype = 'advisory' AND l.database = p.database
                   AND l.classid::BIGINT = $2 AND l.objsubid = 2 AND l.objid::BIGINT >= $3)";
        let values = values![NamedLock::Presence as u32, NamedLock::Level as u32, level];
        let count = connection.count(&[statement], values).await;
        let count = count.map_err(unavailable("look which builds have it open"))?;
        u64::try_from(count).map_err(|_| StoreError::Corrupt("a number out of range"))
    }

    pub(super) async fn close(&self) {
        if let Some(mut connection) = self.connection.lock().await.take() {
            // By its own word: the server notices the end of a connection a little later.
            let ended = sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut connection).await;
            if ended.is_ok() {
                sqlx::Connection::close(connection).await.ok();
            }
        }
    }
}

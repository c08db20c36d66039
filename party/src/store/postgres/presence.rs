//! Which openings of the store are still there.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::Mutex;

use super::{PostgresOptions, connection::number_of, within};
use crate::store::{StoreError, columns::unavailable, connection::NamedLock};

/// One opening of a store, as the others see it: a connection of its own that holds an advisory
/// lock. The server gives the lock back however this process ends.
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

    /// Takes the advisory lock, again if the connection that held it broke.
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
        sqlx::query("SELECT pg_advisory_lock_shared($1, $2)")
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

//! Pending verdicts, the count of answers, and which openings of the store are still there.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, SessionId};
use sqlx::{PgConnection, Row as _};
use tokio::sync::Mutex;

use super::{
    PostgresOptions, PostgresStore, Turn, keys::standing_of, number_of, read_setting, remove_record, within,
    write_record, write_setting,
};
use crate::store::{
    AnswersOf, MAX_ANSWERS_PER_REQUEST, NewPending, PendingRow, PendingStore, ShareStore, StoreError,
    columns::{bytes, integer, pending_row, unavailable},
    pending::{OWN_PENDING_FOR_MS, UNCLEAN_STARTS, unclean_starts},
    pending_label,
};

/// Forgets what was pending of a session.
pub(super) async fn remove_pending(
    connection: &mut PgConnection,
    session: SessionId,
) -> Result<(), sqlx::Error> {
    remove_record(connection, &pending_label(session)).await?;
    sqlx::query("DELETE FROM pending_verdicts WHERE session = $1")
        .bind(session.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets everything that was pending under a key, which is locked by now.
pub(super) async fn remove_pending_of_key(
    connection: &mut PgConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    let sessions: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT session FROM pending_verdicts WHERE paillier_key = $1 ORDER BY session")
            .bind(key.as_bytes().as_slice())
            .fetch_all(&mut *connection)
            .await?;
    for session in sessions {
        if let Ok(session) = session.try_into() {
            remove_pending(connection, SessionId(session)).await?;
        }
    }
    Ok(())
}

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
            .bind(Turn::Presence as i32)
            .bind(number_of(&self.id))
            .execute(&mut connection)
            .await
            .map_err(&failed)?;
        *held = Some(connection);
        Ok(())
    }

    /// Which of these openings have ended. One that lost its connection for a while may be among
    /// them: what it left behind is judged, which does no harm to one that lives.
    async fn ended(
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
                .bind(Turn::Presence as i32)
                .bind(number_of(&id))
                .fetch_one(&mut *connection)
                .await
                .map_err(&failed)?;
            if is_free {
                sqlx::query("SELECT pg_advisory_unlock($1, $2)")
                    .bind(Turn::Presence as i32)
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

impl PostgresStore {
    /// Counts the answer that [`PendingStore::answering`] was given, if anything.
    pub(super) async fn count_answer(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let Some(of) = &self.answering else { return Ok(()) };
        let counted = sqlx::query(
            "INSERT INTO answers AS a (request, role, answers, expires_at_ms) VALUES ($1, $2, 1, $3)
             ON CONFLICT (request, role) DO UPDATE SET answers = a.answers + 1 WHERE a.answers < $4",
        )
        .bind(of.request.as_slice())
        .bind(of.role as i64)
        .bind(integer(of.expires_at_ms))
        .bind(i64::from(MAX_ANSWERS_PER_REQUEST))
        .execute(connection)
        .await
        .map_err(unavailable("count an answer"))?;
        if counted.rows_affected() == 0 { Err(StoreError::TooManyAnswers) } else { Ok(()) }
    }
}

#[async_trait]
impl PendingStore for PostgresStore {
    fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore> {
        Arc::new(Self { answering: Some(Arc::new(of)), ..self.clone() })
    }

    async fn put_pending(&self, pending: &NewPending) -> Result<(), StoreError> {
        const OPERATION: &str = "write a pending verdict";
        self.health.require_ready()?;
        let failed = unavailable(OPERATION);
        let written = within(OPERATION, async {
            // The server has it when this returns, and on the disk with whatever is committed next:
            // a worker that is killed takes nothing with it, and no disk is waited for. The setting
            // is this transaction's own.
            let beginning = "BEGIN; SET LOCAL synchronous_commit = off";
            let mut transaction = self.pool.begin_with(beginning).await.map_err(&failed)?;
            if !standing_of(&mut transaction, pending.card).await?.is_trusted() {
                return Err(StoreError::Quarantined(pending.card));
            }
            self.count_answer(&mut transaction).await?;
            write_record(&mut transaction, &pending_label(pending.session), &pending.record)
                .await
                .map_err(&failed)?;
            sqlx::query(
                "INSERT INTO pending_verdicts (session, paillier_key, instance, written_at_ms)
                 VALUES ($1, $2, $3, $4)",
            )
            .bind(pending.session.as_bytes().as_slice())
            .bind(pending.key.as_bytes().as_slice())
            .bind(self.presence.id.as_slice())
            .bind(integer(pending.at_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await;
        self.health.judge(written)
    }

    async fn abandoned(&self, now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        const OPERATION: &str = "look for what was left behind";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let rows = sqlx::query(
                "SELECT session, paillier_key, instance, written_at_ms FROM pending_verdicts
                 ORDER BY written_at_ms LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
            let mut others = Vec::new();
            for row in &rows {
                let instance: [u8; 16] = bytes(row, "instance")?;
                if instance != self.presence.id && !others.contains(&instance) {
                    others.push(instance);
                }
            }
            let ended = self.presence.ended(&self.options, others).await?;
            let own_before = integer(now_ms).saturating_sub(OWN_PENDING_FOR_MS);
            let mut abandoned = Vec::new();
            for row in &rows {
                let instance: [u8; 16] = bytes(row, "instance")?;
                let written_at_ms: i64 = row.try_get("written_at_ms").map_err(&failed)?;
                let is_own_and_old = instance == self.presence.id && written_at_ms <= own_before;
                if is_own_and_old || ended.contains(&instance) {
                    abandoned.push(pending_row(row)?);
                }
            }
            Ok(abandoned)
        })
        .await
    }

    async fn count_unclean_start(&self) -> Result<u64, StoreError> {
        const OPERATION: &str = "count an unclean start";
        let failed = unavailable(OPERATION);
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            Turn::Home.take(&mut transaction, &[]).await.map_err(&failed)?;
            let before = read_setting(&mut transaction, UNCLEAN_STARTS).await.map_err(&failed)?;
            let count = unclean_starts(before.as_deref()).saturating_add(1);
            write_setting(&mut transaction, UNCLEAN_STARTS, &count.to_be_bytes()).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            Ok(count)
        })
        .await
    }

    async fn unclean_starts(&self) -> Result<u64, StoreError> {
        const OPERATION: &str = "count unclean starts";
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            let value =
                read_setting(&mut connection, UNCLEAN_STARTS).await.map_err(unavailable(OPERATION))?;
            Ok(unclean_starts(value.as_deref()))
        })
        .await
    }
}

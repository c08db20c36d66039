//! Pending verdicts, and the count of answers.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _};

use super::{
    AdvisoryLock, PostgresStore, keys::standing_of, read_setting, within, write_record, write_setting,
};
use crate::store::{
    AnswersOf, MAX_ANSWERS_PER_REQUEST, NewPending, PendingRow, PendingStore, ShareStore, StoreError,
    columns::{bytes, integer, pending_row, unavailable},
    pending::{OWN_PENDING_FOR_MS, UNCLEAN_STARTS, unclean_starts},
    pending_label,
};

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
            AdvisoryLock::Home.take(&mut transaction, &[]).await.map_err(&failed)?;
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

//! Pending verdicts, and the count of answers.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};

use super::{SqliteStore, keys::standing_of, presence::Presence, read_setting, write_record, write_setting};
use crate::store::{
    AnswersOf, MAX_ANSWERS_PER_REQUEST, NewPending, PendingRow, PendingStore, ShareStore, StoreError,
    columns::{integer, pending_row, unavailable},
    pending::{OWN_PENDING_FOR_MS, UNCLEAN_STARTS, unclean_starts},
    pending_label,
};

impl SqliteStore {
    /// Counts the answer that [`PendingStore::answering`] was given, if anything.
    pub(super) async fn count_answer(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let Some(of) = &self.answering else { return Ok(()) };
        let counted = sqlx::query(
            "INSERT INTO answers AS a (request, role, answers, expires_at_ms) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (request, role) DO UPDATE SET answers = a.answers + 1 WHERE a.answers < ?4",
        )
        .bind(of.request.as_slice())
        .bind(of.role as u8)
        .bind(integer(of.expires_at_ms))
        .bind(MAX_ANSWERS_PER_REQUEST)
        .execute(connection)
        .await
        .map_err(unavailable("count an answer"))?;
        if counted.rows_affected() == 0 { Err(StoreError::TooManyAnswers) } else { Ok(()) }
    }
}

#[async_trait]
impl PendingStore for SqliteStore {
    fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore> {
        Arc::new(Self { answering: Some(Arc::new(of)), ..self.clone() })
    }

    async fn put_pending(&self, pending: &NewPending) -> Result<(), StoreError> {
        self.health.require_ready()?;
        if !self.presence.is_shown() {
            return Err(StoreError::NotReady("it is not known beside its siblings yet".to_owned()));
        }
        let failed = unavailable("write a pending verdict");
        let written = async {
            // The writer's turn among all of this process: SQLite's own lock is not fair.
            let _turn = self.writer.acquire().await.map_err(&failed)?;
            let mut transaction = self.unflushed.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
            if !standing_of(&mut transaction, pending.card).await?.is_trusted() {
                return Err(StoreError::Quarantined(pending.card));
            }
            self.count_answer(&mut transaction).await?;
            write_record(&mut transaction, &pending_label(pending.session), &pending.record)
                .await
                .map_err(&failed)?;
            sqlx::query(
                "INSERT INTO pending_verdicts (session, paillier_key, instance, written_at_ms)
                 VALUES (?, ?, ?, ?)",
            )
            .bind(pending.session.as_bytes().as_slice())
            .bind(pending.key.as_bytes().as_slice())
            .bind(self.presence.id.as_slice())
            .bind(integer(pending.at_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        };
        self.health.judge(written.await)
    }

    async fn abandoned(&self, now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        let failed = unavailable("look for what was left behind");
        let rows = sqlx::query(
            "SELECT session, paillier_key, instance, written_at_ms FROM pending_verdicts
             ORDER BY written_at_ms LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .map_err(&failed)?;
        let own_before = integer(now_ms).saturating_sub(OWN_PENDING_FOR_MS);
        let (mut abandoned, mut known): (Vec<PendingRow>, Vec<(Vec<u8>, bool)>) = Default::default();
        for row in &rows {
            let instance: Vec<u8> = row.try_get("instance").map_err(&failed)?;
            let written_at_ms: i64 = row.try_get("written_at_ms").map_err(&failed)?;
            let is_left = if instance == self.presence.id {
                written_at_ms <= own_before
            } else if let Some((_, ended)) = known.iter().find(|(id, _)| *id == instance) {
                *ended
            } else {
                let ended = Presence::has_ended(&self.path, &instance);
                known.push((instance, ended));
                ended
            };
            if is_left {
                abandoned.push(pending_row(row)?);
            }
        }
        Ok(abandoned)
    }

    async fn count_unclean_start(&self) -> Result<u64, StoreError> {
        let failed = unavailable("count an unclean start");
        let mut transaction = self.write("count an unclean start").await?;
        let before = read_setting(&mut transaction, UNCLEAN_STARTS).await.map_err(&failed)?;
        let count = unclean_starts(before.as_deref()).saturating_add(1);
        write_setting(&mut transaction, UNCLEAN_STARTS, &count.to_be_bytes()).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(count)
    }

    async fn unclean_starts(&self) -> Result<u64, StoreError> {
        let failed = unavailable("count unclean starts");
        let mut connection = self.reader.acquire().await.map_err(&failed)?;
        let value = read_setting(&mut connection, UNCLEAN_STARTS).await.map_err(&failed)?;
        Ok(unclean_starts(value.as_deref()))
    }
}

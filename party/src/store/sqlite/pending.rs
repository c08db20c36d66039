//! Pending verdicts, the count of answers, and which openings of the store are still there.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, SessionId};
use sqlx::{Row as _, SqliteConnection};

use super::{
    SqliteStore,
    keys::standing_of,
    open::{read_setting, write_setting},
    remove_record, write_record,
};
use crate::store::{
    AnswersOf, MAX_ANSWERS_PER_REQUEST, NewPending, PendingRow, PendingStore, ShareStore, StoreError,
    columns::{integer, pending_row, unavailable},
    pending::{OWN_PENDING_FOR_MS, UNCLEAN_STARTS, unclean_starts},
    pending_label,
};

/// Forgets what was pending of a session.
pub(super) async fn remove_pending(
    connection: &mut SqliteConnection,
    session: SessionId,
) -> Result<(), sqlx::Error> {
    remove_record(connection, &pending_label(session)).await?;
    sqlx::query("DELETE FROM pending_verdicts WHERE session = ?")
        .bind(session.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets everything that was pending under a key, which is locked by now.
pub(super) async fn remove_pending_of_key(
    connection: &mut SqliteConnection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    let sessions = sqlx::query("SELECT session FROM pending_verdicts WHERE paillier_key = ?")
        .bind(key.as_bytes().as_slice())
        .fetch_all(&mut *connection)
        .await?;
    for row in &sessions {
        let session: Vec<u8> = row.try_get(0)?;
        if let Ok(session) = session.try_into() {
            remove_pending(connection, SessionId(session)).await?;
        }
    }
    Ok(())
}

/// One opening of a store, as the others see it: a file beside the database that is locked while
/// this process lives. The operating system gives the lock back however the process ends.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    id: [u8; 16],
    held: Arc<Mutex<Option<Held>>>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be removed is removed by the next one that looks.
        std::fs::remove_file(&self.path).ok();
    }
}

impl Presence {
    pub(super) fn new() -> Result<Self, StoreError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| StoreError::Corrupt("no randomness"))?;
        Ok(Self { id, held: Arc::default() })
    }

    fn path_of(database: &Path, id: &str) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push(format!(".instance-{id}"));
        name.into()
    }

    /// Makes the file, if it is not there yet.
    pub(super) fn show(&self, database: &Path) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(());
        }
        let path = Self::path_of(database, &hex::encode(self.id));
        let failed = |source| StoreError::File { path: path.clone(), source };
        let file = File::create(&path).map_err(failed)?;
        file.try_lock().map_err(|error| failed(error.into()))?;
        *held = Some(Held { path: path.clone(), _file: file });
        Ok(())
    }

    /// Ends this opening.
    pub(super) fn hide(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_shown(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether the opening with this id has ended. When that cannot be told, it has: what it left
    /// behind is judged, which does no harm to one that lives.
    fn has_ended(database: &Path, id: &[u8]) -> bool {
        let path = Self::path_of(database, &hex::encode(id));
        let Ok(file) = File::open(&path) else { return true };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => false,
            Ok(()) | Err(TryLockError::Error(_)) => {
                std::fs::remove_file(&path).ok();
                true
            }
        }
    }

    /// Removes the files of openings that have ended.
    pub(super) fn tidy(database: &Path) {
        let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else { return };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let start = format!("{}.instance-", name.to_string_lossy());
        for entry in entries.flatten() {
            let file = entry.file_name();
            let id =
                file.to_str().and_then(|file| file.strip_prefix(&start)).and_then(|id| hex::decode(id).ok());
            if let Some(id) = id {
                Self::has_ended(database, &id);
            }
        }
    }
}

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

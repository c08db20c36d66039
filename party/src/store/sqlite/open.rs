//! Creating, opening, backing up and restoring the SQLite store, and noticing that a database file
//! is an older copy of itself.
//!
//! Beside `store.db` lies `store.db.generation`: the store's random id and a counter that the
//! database holds too. The counter rises whenever the store is opened and whenever a lock or a
//! Paillier key is written; the database commits first, the file follows. A database whose counter
//! is behind the file's, or that has no file or another store's, was put back from a copy, and may
//! have forgotten a lock: all Paillier keys it holds are marked as needing rotation.
//!
//! A copy of both files put back together (a snapshot of the whole disk or virtual machine) does
//! not show here. It shows by what others know of the party's audit log (`crate::witness`).

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Connection as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    SqliteOptions, SqliteStore,
    connection::{raise_generation_above, read_generation},
    file::{check_whole, expect_store},
    presence::Presence,
    schema,
};
use crate::store::{
    RecordStore as _, StoreError,
    backend::Attached,
    columns::unavailable,
    health::Health,
    shared::records::{mark_restored, read_setting, write_setting},
};

/// Readers at once; writes are serialised by SQLite, so one connection writes.
const MAX_READERS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

impl SqliteStore {
    /// Creates a store.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub async fn create(options: &SqliteOptions) -> Result<Self, StoreError> {
        let mut open = std::fs::OpenOptions::new();
        open.write(true).create_new(true);
        // SQLite gives the files beside it the same permissions.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        open.open(&options.path).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => {
                StoreError::Exists(format!("{} exists already", options.path.display()))
            }
            _ => StoreError::File { path: options.path.clone(), source },
        })?;
        Self::open_with(options, Expect::New).await
    }

    /// Opens a store, adds to its schema what this build needs, looks whether it was put back from
    /// a copy, and tries a write. When that fails the store opens, but is not ready.
    ///
    /// # Errors
    /// When there is no store, when the file is something else, when a newer build removed what
    /// this one reads, when something is missing that the options forbid to add, or when the file
    /// cannot be written at all.
    pub async fn open(options: &SqliteOptions) -> Result<Self, StoreError> {
        expect_store(&options.path, "the share store").await?;
        Self::open_with(options, Expect::Existing).await
    }

    async fn open_with(options: &SqliteOptions, expect: Expect) -> Result<Self, StoreError> {
        let failed = unavailable("open");
        let connect = options.connect().journal_mode(SqliteJournalMode::Wal);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A connection is a thread of this process: to ask it whether it is there costs as much
            // as to ask it for something.
            .test_before_acquire(false)
            // A full disk makes SQLite roll back by itself. sqlx then fails to do it once more,
            // takes the connection for one that is in a transaction for ever, and begins none on
            // it.
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            .connect_with(connect.clone())
            .await
            .map_err(&failed)?;
        // A store that is made here is shared with no other build yet.
        let expands = options.expands || !matches!(expect, Expect::Existing);
        // Boxed: the future of a caller that opens a store need not hold this step.
        Box::pin(async { schema::prepare(&mut *writer.acquire().await.map_err(&failed)?, expands).await })
            .await?;
        // In the write-ahead log a commit of this one is in the system's hands when it returns, and
        // on the disk with the writer's next: a process that is killed takes nothing with it, and
        // no disk is waited for.
        let unflushed = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            .connect_with(connect.clone().synchronous(SqliteSynchronous::Normal))
            .await
            .map_err(&failed)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_with(connect.pragma("query_only", "ON"))
            .await
            .map_err(&failed)?;
        let store = Self {
            path: options.path.clone(),
            writer,
            unflushed,
            reader,
            presence: Presence::new()?,
            health: Health::untried(),
            attached: Attached::default(),
        };
        Presence::tidy(&store.path);
        store.enter_generation(expect).await?;
        if let Err(error) = store.recover().await {
            tracing::error!(%error, "the share store's test write failed; nothing is initiated");
        }
        Ok(store)
    }

    /// Writes a copy of the whole store to `path`, which must not exist, while the store is used.
    /// The copy carries the restored marker: what is restored from it initiates nothing until its
    /// Paillier keys are rotated. Its records are sealed like the store's own.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub async fn back_up(&self, path: &Path) -> Result<(), StoreError> {
        let failed = unavailable("back up");
        if path.exists() {
            return Err(StoreError::Exists(format!("{} exists already", path.display())));
        }
        let text = path.to_str().ok_or_else(|| StoreError::Exists("the path is not UTF-8".to_owned()))?;
        sqlx::query("VACUUM INTO ?").bind(text).execute(&self.writer).await.map_err(&failed)?;
        #[cfg(unix)]
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        let copy = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(SqliteConnectOptions::new().filename(path).synchronous(SqliteSynchronous::Full))
            .await
            .map_err(&failed)?;
        let marked = mark_restored(&mut *copy.acquire().await.map_err(&failed)?).await;
        copy.close().await;
        marked.map_err(&failed)
    }

    /// Puts a backup back as the store at `options.path`, which must not exist, and opens it.
    ///
    /// # Errors
    /// When there is a store at that path, when the backup is missing, empty or cut short, or when
    /// the copy cannot be written.
    pub async fn restore(backup: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        if options.path.exists() {
            return Err(StoreError::Exists(format!("{} exists already", options.path.display())));
        }
        expect_store(backup, "the backup").await?;
        let failed = |source| StoreError::File { path: backup.to_owned(), source };
        check_whole(backup).await?;
        let partial = options.path.with_extension("restoring");
        std::fs::copy(backup, &partial).map_err(failed)?;
        #[cfg(unix)]
        std::fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(failed)?;
        std::fs::File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
        std::fs::rename(&partial, &options.path).map_err(failed)?;
        // Whatever the backup says of itself, and whatever file lies beside it: this is a restore.
        Self::open_with(options, Expect::Restored).await
    }

    async fn enter_generation(&self, expect: Expect) -> Result<(), StoreError> {
        let failed = unavailable("open");
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let stored = read_setting(&mut *transaction, "store-id").await.map_err(&failed)?;
        let recorded = GenerationFile::beside(&self.path).read()?;
        let restored = match (expect, &stored, &recorded) {
            (Expect::New, ..) => false,
            (Expect::Restored, ..) | (Expect::Existing, None, _) | (Expect::Existing, _, None) => true,
            (Expect::Existing, Some(id), Some(recorded)) => {
                let generation = read_generation(&mut transaction).await.map_err(&failed)?;
                *id != recorded.store || generation < recorded.generation
            }
        };
        if restored {
            tracing::warn!(
                path = %self.path.display(),
                "this share store was put back from a copy: it initiates nothing until its Paillier keys are rotated"
            );
            mark_restored(&mut *transaction).await.map_err(&failed)?;
        }
        if stored.is_none() || restored {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(|_| StoreError::Corrupt("no randomness"))?;
            write_setting(&mut *transaction, "store-id", &id).await.map_err(&failed)?;
        }
        // Past whatever the file says, so that the copy's own future copies are noticed too.
        let floor = recorded.map_or(0, |recorded| recorded.generation);
        raise_generation_above(&mut transaction, floor).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        self.write_generation_file().await
    }

    /// Writes the database's generation to the file beside it, under the database's write lock so
    /// that the file never goes back.
    pub(super) async fn write_generation_file(&self) -> Result<(), StoreError> {
        let failed = unavailable("record its generation");
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let store = read_setting(&mut *transaction, "store-id").await.map_err(&failed)?;
        let generation = read_generation(&mut transaction).await.map_err(&failed)?;
        let record = Generation { store: store.ok_or(StoreError::Corrupt("no store id"))?, generation };
        GenerationFile::beside(&self.path).write(&record)?;
        transaction.commit().await.map_err(&failed)
    }
}

#[derive(Clone, Copy)]
enum Expect {
    New,
    Existing,
    Restored,
}

struct Generation {
    store: Vec<u8>,
    generation: u64,
}

struct GenerationFile(PathBuf);

impl GenerationFile {
    fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push(".generation");
        Self(name.into())
    }

    fn failed(&self, source: std::io::Error) -> StoreError {
        StoreError::File { path: self.0.clone(), source }
    }

    /// `None` when there is no file, or nothing that could be one: both mean "restored".
    fn read(&self) -> Result<Option<Generation>, StoreError> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let parsed = text.trim_end().split_once(' ').and_then(|(store, generation)| {
            Some(Generation { store: hex::decode(store).ok()?, generation: generation.parse().ok()? })
        });
        Ok(parsed)
    }

    fn write(&self, record: &Generation) -> Result<(), StoreError> {
        let partial = self.0.with_extension("generation.new");
        let write = || {
            let mut file = std::fs::File::create(&partial)?;
            writeln!(file, "{} {}", hex::encode(&record.store), record.generation)?;
            file.sync_all()?;
            std::fs::rename(&partial, &self.0)?;
            // The rename itself must survive a power cut.
            match self.0.parent() {
                Some(directory) if !directory.as_os_str().is_empty() => {
                    std::fs::File::open(directory)?.sync_all()
                }
                _ => Ok(()),
            }
        };
        write().map_err(|source| self.failed(source))
    }
}

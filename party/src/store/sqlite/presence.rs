//! Which openings of the store are still there.

use std::{
    fs::{File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::store::{StoreError, migrations::OF_SQLITE};

/// One opening of a store, as the others see it: a file beside the database that is locked while
/// this process lives, and names the level of the schema that it knows. The operating system gives
/// the lock back however the process ends.
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

    pub(super) const fn id(&self) -> [u8; 16] {
        self.id
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
        let mut file = File::create(&path).map_err(failed)?;
        file.try_lock().map_err(|error| failed(error.into()))?;
        writeln!(file, "{}", OF_SQLITE.level()).map_err(failed)?;
        *held = Some(Held { path: path.clone(), _file: file });
        Ok(())
    }

    /// Ends this opening.
    pub(super) fn hide(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn is_shown(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether the opening with this id has ended. When that cannot be told, it has: what it left
    /// behind is judged, which does no harm to one that lives.
    pub(super) fn has_ended(database: &Path, id: &[u8]) -> bool {
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
        for id in Self::all(database).unwrap_or_default() {
            Self::has_ended(database, &id);
        }
    }

    /// How many openings live that do not know this level of the schema. One that does not name its
    /// level is of a build from before there were any.
    ///
    /// # Errors
    /// When the database's folder cannot be read.
    pub(super) fn count_below(database: &Path, level: i64) -> Result<u64, StoreError> {
        let failed = |source| StoreError::File { path: database.to_owned(), source };
        let mut count = 0;
        for id in Self::all(database).map_err(failed)? {
            let named = std::fs::read_to_string(Self::path_of(database, &hex::encode(&id)));
            let knows = named.ok().and_then(|named| named.trim_end().parse::<i64>().ok());
            if !Self::has_ended(database, &id) && knows.is_none_or(|knows| knows < level) {
                count += 1;
            }
        }
        Ok(count)
    }

    /// The ids of all openings that left a file, whether they live or not.
    fn all(database: &Path) -> std::io::Result<Vec<Vec<u8>>> {
        let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else {
            return Ok(Vec::new());
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let start = format!("{}.instance-", name.to_string_lossy());
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let file = entry?.file_name();
            let id = file.to_str().and_then(|file| file.strip_prefix(&start));
            ids.extend(id.and_then(|id| hex::decode(id).ok()));
        }
        Ok(ids)
    }
}

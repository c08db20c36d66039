//! Which openings of the store are still there.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::store::StoreError;

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
        let file = File::create(&path).map_err(failed)?;
        file.try_lock().map_err(|error| failed(error.into()))?;
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

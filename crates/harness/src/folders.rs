//! Private folders, copies of them, and folders that are kept from test to test.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The kept folder `name` for the present build of `program`. If there is none, `make` fills an
/// empty one, while other processes wait. Tests copy it: making it takes seconds of a core, and
/// repeating that would test nothing new.
///
/// # Errors
/// When it cannot be made.
pub async fn kept_folder(
    program: &Path,
    name: &str,
    make: impl AsyncFnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let parent = program.parent().context("a program lies in a folder")?.join("duet-test-kept").join(name);
    fs::create_dir_all(&parent)?;
    let lock = File::create(parent.join("lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    let built = fs::metadata(program)?;
    let kept = parent.join(format!("{}-{}-{}", built.ino(), built.mtime(), built.mtime_nsec()));
    if !kept.exists() {
        // Those of earlier builds, and what was left unfinished.
        for entry in fs::read_dir(&parent)?.flatten().filter(|entry| entry.path().is_dir()) {
            fs::remove_dir_all(entry.path())?;
        }
        let unfinished = parent.join("unfinished");
        make_private_folder(&unfinished)?;
        make(&unfinished).await.with_context(|| format!("{name} cannot be made"))?;
        fs::rename(&unfinished, &kept)?;
    }
    drop(lock);
    Ok(kept)
}

/// Copies the files of a folder and of the folders in it. Permissions stay, because stores check
/// them.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    make_private_folder(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// Creates a folder that only its owner can read.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(())
}

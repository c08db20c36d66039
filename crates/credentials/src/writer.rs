//! Writes files that only their owner may read.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use duet_bus::nkey::NoEntropy;
use zeroize::Zeroizing;

use crate::{layout::TOKEN_MARK, reader::ReadError};

/// The files that [`crate::initialise()`] found missing and made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The new files, in the order in which they were made.
    pub files: Vec<PathBuf>,
}

/// Why not everything was made. Another run continues from there.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file or directory cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An existing file cannot be read.
    #[error(transparent)]
    Existing(#[from] ReadError),
    /// The operating system has no entropy.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The certificates cannot be made with these names.
    #[error("no certificate for these names: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The path cannot be passed to the broker.
    #[error("{} cannot be passed to the broker: use a path without quotes, backslashes and line breaks", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
}

/// A value quoted twice: in single quotes for the shell, and inside them in double quotes for
/// `nats-server`. The server parses a variable's value like a piece of its configuration, and would
/// end an unquoted one at a space, a comma or a `#`.
pub(crate) fn quoted(path: &Path) -> Result<String, InitError> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\'', '\\', '\n', '\r', '$']) => Ok(format!("'\"{text}\"'")),
        _ => Err(InitError::Path { path: path.to_owned() }),
    }
}

/// A new token.
pub(crate) fn random_token() -> Result<Zeroizing<String>, InitError> {
    Ok(format!("{TOKEN_MARK}{}", random_hex()?.as_str()).into())
}

/// 32 random bytes in hexadecimal.
pub(crate) fn random_hex() -> Result<Zeroizing<String>, InitError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| NoEntropy)?;
    Ok(hex::encode(bytes.as_ref()).into())
}

pub(crate) fn make_directory(path: &Path) -> Result<(), InitError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| InitError::Io { path: path.to_owned(), source })
}

/// Writes the file unless it exists.
pub(crate) fn make_secret(
    path: &Path,
    made: &mut Made,
    content: impl FnOnce() -> Result<Zeroizing<String>, InitError>,
) -> Result<(), InitError> {
    if !path.exists() {
        write_secret(path, content()?.as_bytes())?;
        made.files.push(path.to_owned());
    }
    Ok(())
}

/// Writes a file whole, flushed to disk, and readable only by its owner.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> Result<(), InitError> {
    let io = |source| InitError::Io { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // A file left by an interrupted run may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io)?;
    file.write_all(content).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, path).map_err(io)
}

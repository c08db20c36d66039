//! Reads small files that only their owner may read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::{Zeroize as _, Zeroizing};

use crate::secret_file::SecretFile;

/// Reads an environment as pairs, with values as `nats-server` wants them.
pub(crate) fn read_environment(path: PathBuf) -> Result<Vec<(String, String)>, ReadError> {
    let text = read_secret(&path)?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.split_once('=').ok_or_else(|| ReadError::Malformed {
                path: path.clone(),
                expected: "lines of NAME=value",
            })?;
            // The outer quotes are the shell's, the inner ones the broker's.
            let value = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Why a credential was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}; `duet init` makes it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Others than the owner may read the file.
    #[error("{} can be read by others; run `chmod 600` on it, and replace what it holds if they did", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file with one secret, or with two during an exchange.
pub(crate) fn read_secret_file(path: PathBuf, expected: &'static str) -> Result<SecretFile, ReadError> {
    SecretFile::parse(&read_secret(&path)?).map_err(|_| ReadError::Malformed { path, expected })
}

/// Reads a small text file that only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, ReadError> {
    use std::os::unix::fs::PermissionsExt as _;
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(ReadError::Exposed { path: path.to_owned() });
    }
    let mut bytes = fs::read(path).map_err(io)?;
    match core::str::from_utf8(&bytes) {
        Ok(text) => {
            // Some editors put a byte order mark before a text.
            let text = Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned());
            bytes.zeroize();
            Ok(text)
        }
        Err(_) => {
            bytes.zeroize();
            Err(ReadError::Malformed { path: path.to_owned(), expected: "UTF-8 text" })
        }
    }
}

//! Where a share store is.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use serde::{Serialize, Serializer};

/// Where a share store is.
#[derive(Clone)]
pub(crate) enum StoreLocation {
    /// In a SQLite file.
    File(PathBuf),
    /// In a PostgreSQL database, at this address. The address is not parsed yet.
    Database(String),
}

impl FromStr for StoreLocation {
    // A bad address is reported when it is used. Clap would repeat it in its own message, with a
    // password that it should not contain.
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_address = text.starts_with("postgres://") || text.starts_with("postgresql://");
        Ok(if is_address { Self::Database(text.to_owned()) } else { Self::File(text.into()) })
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            // Shown only after its use has proved that it contains no password.
            Self::Database(address) => f.write_str(address),
        }
    }
}

/// Omits an address that was not parsed yet, since it may contain a password.
impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Database(_) => f.debug_struct("Database").finish_non_exhaustive(),
        }
    }
}

impl Serialize for StoreLocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

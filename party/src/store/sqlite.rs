//! The share store in a SQLite file: write-ahead log, `synchronous = FULL`, one writer.
//!
//! A transaction takes the write lock when it begins: nothing moves that it reads, and decisions
//! are made one after the other. [`backend`] holds the decisions that rest on that, [`connection`]
//! the words that only SQLite reads, [`presence`] how an opening of the store shows that it lives.

mod backend;
mod connection;
mod open;
mod presence;
#[cfg(test)]
mod tests;
mod wallets;

use std::path::{Path, PathBuf};

use sqlx::SqlitePool;

pub use self::open::SqliteOptions;
use self::presence::Presence;
use super::{backend::Attached, health::Health};

/// A share store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    writer: SqlitePool,
    /// Writes what need not be flushed by itself (see [`backend`]); only in the writer's turn.
    unflushed: SqlitePool,
    reader: SqlitePool,
    presence: Presence,
    health: Health,
    /// What goes with the next decision.
    attached: Attached,
}

impl SqliteStore {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

//! The store's connections, and what belongs to the next decision.

use std::path::{Path, PathBuf};

use sqlx::SqlitePool;

use super::presence::Presence;
use crate::store::{backend::Attached, health::Health};

/// A share store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(super) path: PathBuf,
    pub(super) writer: SqlitePool,
    /// Writes what need not be flushed by itself (see [`backend`](super::backend)); only under the
    /// writer's lock.
    pub(super) unflushed: SqlitePool,
    pub(super) reader: SqlitePool,
    pub(super) presence: Presence,
    pub(super) health: Health,
    /// What goes with the next decision.
    pub(super) attached: Attached,
}

impl SqliteStore {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

//! The store's connections, and what belongs to the next decision.

use std::{path::PathBuf, sync::Arc};

use duet_wire::audit::Draft;
use sqlx::SqlitePool;

use super::presence::Presence;
use crate::store::{AnswersOf, Spending, health::Health};

/// A share store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(super) path: PathBuf,
    pub(super) writer: SqlitePool,
    /// Writes what need not be flushed by itself (see [`pending`]); only in the writer's turn.
    pub(super) unflushed: SqlitePool,
    pub(super) reader: SqlitePool,
    pub(super) presence: Presence,
    pub(super) health: Health,
    /// What is appended to the audit log with the next decision.
    pub(super) noted: Option<Arc<Draft>>,
    /// What is charged to limits with the next decision.
    pub(super) spending: Option<Arc<Spending>>,
    /// Which request the next decision's answer is counted for.
    pub(super) answering: Option<Arc<AnswersOf>>,
}

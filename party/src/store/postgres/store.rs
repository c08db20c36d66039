//! The store's connections, and what belongs to the next decision.

use std::sync::Arc;

use duet_wire::audit::Draft;
use sqlx::PgPool;

use super::{options::PostgresOptions, place::Home, presence::Presence};
use crate::store::{AnswersOf, Spending, health::Health};

/// A share store in a PostgreSQL database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(super) pool: PgPool,
    pub(super) options: PostgresOptions,
    pub(super) home: Home,
    pub(super) presence: Presence,
    pub(super) health: Health,
    /// What is appended to the audit log with the next decision.
    pub(super) noted: Option<Arc<Draft>>,
    /// What is charged to limits with the next decision.
    pub(super) spending: Option<Arc<Spending>>,
    /// Which request the next decision's answer is counted for.
    pub(super) answering: Option<Arc<AnswersOf>>,
}

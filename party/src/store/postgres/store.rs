//! The store's connections, and what belongs to the next decision.

use sqlx::PgPool;

use super::{options::PostgresOptions, place::Home, presence::Presence};
use crate::store::{backend::Attached, health::Health};

/// A share store in a PostgreSQL database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(super) pool: PgPool,
    pub(super) options: PostgresOptions,
    pub(super) home: Home,
    pub(super) presence: Presence,
    pub(super) health: Health,
    /// What goes with the next decision.
    pub(super) attached: Attached,
}

impl PostgresStore {
    pub(in crate::store) const fn options(&self) -> &PostgresOptions {
        &self.options
    }
}

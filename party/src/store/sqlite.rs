//! The share store in a SQLite file: write-ahead log, `synchronous = FULL`, one writer.
//!
//! A transaction takes the write lock when it begins: nothing moves that it reads, and decisions
//! are made one after the other. [`backend`] holds the decisions that rest on that, [`connection`]
//! the words that only SQLite reads, [`presence`] how an opening of the store shows that it lives.

mod backend;
mod connection;
mod file;
mod open;
mod presence;
pub(super) mod schema;
mod store;
#[cfg(test)]
mod tests;

pub use self::{file::SqliteOptions, store::SqliteStore};

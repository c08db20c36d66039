//! The share store in a PostgreSQL database, shared by the workers of a party wherever they run.
//!
//! [`backend`] holds the decisions that are made in PostgreSQL's own way, [`connection`] the words
//! that only PostgreSQL reads, [`presence`] how an opening of the store shows that it lives.
//!
//! # How decisions are serialised
//! SQLite has one writer, so a transaction there sees nothing move. Here transactions run side by
//! side at `READ COMMITTED`, and each decision names what it depends on:
//!
//! - *Once, ever* (a session, a charge, a pin, a key): `INSERT … ON CONFLICT DO NOTHING`. The
//!   second of two at once waits for the first at the unique index and then inserts nothing.
//! - *A row's state* (the lock, a commit): the row is locked, `FOR UPDATE` or by the `UPDATE`
//!   itself. At `READ COMMITTED` a transaction that waited for it goes on with the version that was
//!   committed meanwhile.
//! - *A count or a newest one* (a token's quota, the enrolments of a wallet, the first key of a
//!   scope, what was spent of a wallet's limits): an advisory lock that ends with the transaction
//!   ([`NamedLock`](super::connection::NamedLock)). Names that share a number by accident merely
//!   wait for each other.
//! - *Which key records are sealed under*: a transaction that writes one reads the key's id
//!   `FOR SHARE`; a change of the key updates it first ([`key_change`]).
//! - *The place in the audit chain*: the chain's row is locked, last of all, until the transaction
//!   ends. So transactions that are recorded are committed one after the other, as on SQLite.
//!
//! `SERIALIZABLE` would decide the same things, at the price of transactions that fail and have to
//! be repeated, and it orders transactions without regard to real time, which is just what the gate
//! must not do.
//!
//! # The gate
//! [`release_verdict`](crate::store::KeyStore::release_verdict) counts the verdict in the key's row
//! and reads its state by the same `UPDATE`. A lock (an `UPDATE` of that row too) that was
//! committed before is seen; one that is being written is waited for, because the two exclude each
//! other, and then seen; so no verdict leaves after a lock. Both commit alike, with a flush: on a
//! standby, on a server without room, on a disk that fails, neither a good verdict nor a bad one
//! leaves. Otherwise a bad verdict, which has to stay silent there, could be told from a good one.
//!
//! # Deadlines
//! The server ends a statement, a wait for a lock and an abandoned transaction by itself;
//! [`within`](deadline::within) bounds what a server or network that says nothing at all can take.
//! The caller does not know then whether a commit took place, which every method allows for.

mod backend;
mod connection;
#[cfg(test)]
mod cut;
mod deadline;
mod home;
mod key_change;
mod open;
mod options;
mod place;
mod presence;
pub(super) mod schema;
mod store;
#[cfg(test)]
mod tests;

use self::deadline::within;
pub use self::{
    options::{AddressError, PostgresOptions},
    store::PostgresStore,
};

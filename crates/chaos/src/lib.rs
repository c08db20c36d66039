//! The fault suite: it breaks a whole Duet from a seed, and judges the run.
//!
//! The central types:
//!
//! - [`fleet::Fleet`] starts several of each process, on a [`cluster::Cluster`].
//! - [`suite`] breaks them while jobs run, and collects a [`history::History`].
//! - [`checker`] judges that history.

pub mod capture;
pub mod checker;
pub mod cluster;
pub mod databases;
pub mod fleet;
pub mod history;
pub mod network;
pub mod signers;
pub mod suite;

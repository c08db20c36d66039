//! What only the end-to-end tests need beyond [`duet_harness`].
//!
//! The central types:
//!
//! - [`fleet::Fleet`] starts several of each process, on a [`cluster::Cluster`].
//! - [`stage::Stage`] runs the parties inside the test's process instead. [`malicious`] plays
//!   cheating parties, and [`browser`] a browser's party.
//! - [`checker`] judges a whole run from its [`history`].

pub mod browser;
pub mod capture;
pub mod chaos;
pub mod checker;
pub mod cluster;
pub mod databases;
pub mod fleet;
pub mod held_gate;
pub mod history;
pub mod lying_gateway;
pub mod malicious;
pub mod metrics;
pub mod network;
pub mod proxy;
pub mod refused_writes;
pub mod signers;
pub mod stage;
pub mod traffic;
pub mod tries;
pub mod vault_transit;

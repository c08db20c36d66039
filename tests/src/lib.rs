//! A whole Duet on this machine, for tests and the demonstration. Broker, orchestrator, parties and
//! an Ethereum node are real processes. Tests drive them through the `duet` command as users do.
//! Dropping them kills the processes.
//!
//! The central types:
//!
//! - [`stack::Stack`] starts all processes together, and [`fleet::Fleet`] several of each.
//! - [`duet::Duet`] runs the command, and [`http::Api`] the HTTP interface.
//! - [`stage::Stage`] runs the parties inside the test's process instead. [`malicious`] plays
//!   cheating parties, and [`browser`] a browser's party.
//! - [`judges`] verifies signatures with libraries that took no part in making them. [`checker`]
//!   judges a whole run from its [`history`].

pub mod anvil;
pub mod broker;
pub mod browser;
pub mod capture;
pub mod chaos;
pub mod checker;
pub mod clocks;
pub mod cluster;
pub mod duet;
pub mod fleet;
pub mod history;
pub mod http;
pub mod judges;
pub mod lying_gateway;
pub mod malicious;
pub mod metrics;
pub mod nats_server;
pub mod network;
pub mod nginx;
pub mod parties;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod signers;
pub mod stack;
pub mod stage;
pub mod traffic;
pub mod vault_transit;

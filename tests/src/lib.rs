//! A whole Duet on this machine: broker, orchestrator, parties and an Ethereum node as real processes, driven through
//! the `duet` command as its users drive it, and killed when dropped.
//!
//! [`stage::Stage`] is parties in the test's own process instead, and [`malicious`] what sits in their places; [`browser`]
//! is a browser's party in it.
//! [`stack::Stack`] is all of it together, [`duet::Duet`] the command, [`judges`] the libraries that had no part in making
//! the signatures.

pub mod anvil;
pub mod broker;
pub mod browser;
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
pub mod recovery;
pub mod stack;
pub mod stage;
pub mod traffic;
pub mod transit;
pub mod wire;

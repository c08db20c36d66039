//! A whole Duet on this machine. Broker, orchestrator, parties, gateway and an Ethereum node are
//! real processes. The caller drives them through the `duet` command as users do. Dropping them
//! kills the processes.
//!
//! The central types:
//!
//! - [`stack::Stack`] starts all processes together.
//! - [`duet::Duet`] runs the command, and [`http::Api`] calls the HTTP interface.
//!
//! [`judges`] verifies signatures with libraries that took no part in making them.

pub mod anvil;
pub mod broker;
pub mod clocks;
pub mod duet;
pub mod folders;
pub mod http;
pub mod judges;
pub mod nats_server;
pub mod parties;
pub mod process;
pub mod programs;
pub mod stack;

//! Parties and gateways that a test plays in its own process.
//!
//! - [`stage::Stage`] runs a wallet's parties over a real broker. The test is their orchestrator.
//! - [`malicious`] plays the cheating parties, and [`lying_gateway`] a gateway of an attacker.
//! - [`browser`] plays a browser's party.
//! - [`held_gate`] and [`refused_writes`] hold up or refuse what a party's store does.

pub mod browser;
pub mod held_gate;
pub mod lying_gateway;
pub mod malicious;
pub mod refused_writes;
pub mod stage;
pub mod tries;

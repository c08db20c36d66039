//! The parties that cheat, for tests. No program depends on this crate.
//!
//! - [`world`] sets parties and wallets up in one process, on the published keys of
//!   [`test_fixtures`]. [`dealing`] deals a wallet of a given key.
//! - [`initiator`] and [`responder`] play a session against its rules. [`oracle`] makes answers
//!   whose verdicts tell bits of the initiator's share.
//! - [`cloned_worker`] computes keys from the messages of a worker whose random numbers repeat.
//!
//! Everything that needs private access to the protocol goes through
//! [`Door`](duet_protocol::door::Door). Clippy refuses that name in all other crates.

#![expect(clippy::disallowed_types, reason = "this crate is what the door is for")]

pub mod cloned_worker;
pub mod dealing;
pub mod initiator;
pub mod oracle;
pub mod responder;
pub mod test_fixtures;
pub mod world;

//! A party: it holds one share of each wallet, checks signing requests, and signs.
//!
//! The two central types are [`Party`], a backend party with an open share store, and [`Worker`],
//! which serves requests on the broker. An owner's device is a party too, with share 1: [`Device`].
//!
//! An invitation to a signing session takes this path:
//!
//! 1. [`worker`] receives it from the broker, and reserves one of the places for sessions.
//! 2. [`session`] checks the manifest, the signed request, the wallet's record and its [`policy`].
//! 3. The party accepts, and [`session`] drives the initiator's or the responder's side.
//! 4. The [`store`] decides in transactions: it claims the session, charges the limits, and
//!    releases or locks at the verdict.
//! 5. [`session`] reports the signed outcome until an orchestrator acknowledges it.
//!
//! | module | what |
//! |---|---|
//! | [`at_rest`] | sealed records, and the keys that encrypt them |
//! | [`key_encryption`] | encrypts a store's key: key file, passphrase, Vault |
//! | [`store`] | durable state and its transactions: the trait, SQLite, PostgreSQL |
//! | [`vault`] | an unlocked store |
//! | [`audit`] | audit records outside a signature's path, and publication of the log |
//! | [`context`], [`identity`], [`clock`], [`compute`] | what all operations need |
//! | [`party`] | a backend party's keys, card, wallets and admission tokens |
//! | [`policy`] | the policies of wallets' owners |
//! | [`device`] | the owner's device: deals wallets, signs as initiator |
//! | [`culprits`] | responders whose answers locked a key, and the possible loss |
//! | [`enrolment`] | offers and accepts encrypted shares; rotation |
//! | [`session`] | checks before a session, its two drivers, the gate, the report |
//! | [`randomizers`] | `r̃^N` for answers, and tables of them |
//! | [`resumption`] | notices that a machine was resumed or copied |
//! | [`worker`] | serves share packages, questions and invitations |

pub mod audit;
pub mod clock;
pub mod compute;
pub mod context;
pub mod culprits;
pub mod device;
pub mod enrolment;
pub mod error;
pub mod identity;
pub mod key_encryption;
mod metrics;
pub mod party;
pub mod policy;
pub mod randomizers;
pub mod resumption;
mod revocation;
pub mod session;
pub mod store;
pub mod vault;
mod witness;
pub mod worker;
#[cfg(test)]
mod world;

pub use context::Context;
pub use device::Device;
/// Sealed records, and the keys that encrypt them.
pub use duet_at_rest as at_rest;
pub use error::PartyError;
pub use identity::Identity;
pub use party::{Party, PartySettings, SetUpProgress};
pub use randomizers::RandomizerSettings;
pub use resumption::ResumptionSettings;
pub use session::SessionLimits;
pub use worker::{Worker, WorkerSettings};

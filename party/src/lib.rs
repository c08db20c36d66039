//! A party: whoever holds one share of wallets, checks what it is asked to sign, and signs.
//!
//! The two central types are [`Party`], a backend party with its share store open, and
//! [`Worker`], which serves the broker with it. An owner's device is a party as well,
//! with share 1: [`Device`].
//!
//! | module | what |
//! |---|---|
//! | [`at_rest`] | sealed records, and the key that wraps their keys |
//! | [`key_encryption`] | what encrypts a store's key: a file, a passphrase, Vault |
//! | [`store`] | what must not be forgotten: the trait, and SQLite |
//! | [`vault`] | a store that is unlocked |
//! | [`audit`] | what is recorded off the path, and how the log is published |
//! | [`context`], [`clock`], [`compute`] | what everything works with |
//! | [`party`] | keys, card, wallets, tokens |
//! | [`policy`] | what wallets' owners allow |
//! | [`device`] | the owner's device: dealing wallets, signing as initiator |
//! | [`culprits`] | responders whose answers locked a key, and what that may have cost |
//! | [`enrolment`] | offering and taking encrypted shares; rotation |
//! | [`session`] | the checks before a session, its two drivers, the gate, the report |
//! | [`randomizers`] | `r̃^N` for answers, and tables of them |
//! | [`resumption`] | noticing that a machine was resumed or copied |
//! | [`worker`] | serving share packages, questions and invitations |

pub mod audit;
pub mod clock;
pub mod compute;
pub mod context;
pub mod culprits;
pub mod device;
pub mod enrolment;
pub mod error;
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

pub use context::{Context, Identity};
pub use device::Device;
/// Sealed records, and the key that wraps their keys.
pub use duet_at_rest as at_rest;
pub use error::PartyError;
pub use party::{Party, PartySettings, SetUpProgress};
pub use randomizers::RandomizerSettings;
pub use resumption::ResumptionSettings;
pub use session::SessionLimits;
pub use worker::{Worker, WorkerSettings};

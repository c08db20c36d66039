//! One module for each group of commands. Each has a `run` that takes the parsed options and
//! returns when its command ends.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod card;
pub(crate) mod credentials;
pub(crate) mod culprit;
pub(crate) mod doctor;
pub(crate) mod exit_codes;
pub(crate) mod gateway;
pub(crate) mod init;
pub(crate) mod job;
#[cfg_attr(not(feature = "load"), path = "commands/without_load.rs")]
pub(crate) mod load;
pub(crate) mod orchestrator;
pub(crate) mod party;
pub(crate) mod policy;
pub(crate) mod requester;
mod rewrap;
pub(crate) mod sign;
pub(crate) mod verify;
pub(crate) mod wallet;
pub(crate) mod webhook;
#[cfg(all(test, feature = "load"))]
#[path = "commands/without_load.rs"]
mod without_load;

//! The owner's device. It deals wallets, holds share 1 of each, and signs as the initiator.
//!
//! It is a party with the same store and the same session driver as the others. It has no worker:
//! no orchestrator invites it, because its owner decides when it signs.

mod answers;
mod backup;
mod keygen;
mod owner;
mod policy;
mod sign;

pub use self::{
    keygen::{BackendChoice, CreateProgress, CreateWallet, OnProgress},
    owner::Device,
    sign::DeviceSignature,
};

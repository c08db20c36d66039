//! Two-party ECDSA after Lindell 2017 over the shares of a 2-of-3 wallet, without I/O.

pub mod admission;
mod bytes;
mod channel;
pub mod codec;
mod hash;
pub mod identity;
pub mod ids;
pub mod public_key;
pub mod signature;

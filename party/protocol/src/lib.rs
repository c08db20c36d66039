//! Two-party ECDSA after Lindell 2017 over the shares of a 2-of-3 wallet, without I/O.

pub mod admission;
pub mod arithmetic;
mod bytes;
mod channel;
pub mod codec;
pub mod curve;
mod hash;
pub mod identity;
pub mod ids;
pub mod natural;
pub mod paillier;
pub mod public_key;
pub mod signature;
pub mod transcript;

//! Two-party ECDSA after Lindell 2017 over the shares of a 2-of-3 wallet, without I/O.

mod bytes;
pub mod codec;
pub mod ids;
pub mod public_key;
pub mod signature;

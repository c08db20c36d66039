//! Two-party ECDSA after Lindell 2017 over the shares of a 2-of-3 wallet, without I/O.

pub mod codec;
pub mod ids;

//! Two-party ECDSA after Lindell 2017 over the shares of a 2-of-3 wallet, without I/O.
//!
//! Randomness and time are handed in; there is no clock, no network and no global state, so that the
//! same code runs in a browser.

pub mod admission;
pub mod arithmetic;
mod bytes;
mod channel;
pub mod codec;
pub mod curve;
pub mod identity;
pub mod ids;
pub mod natural;
mod nonce;
pub mod paillier;
pub mod paillier_key;
pub mod proofs;
pub mod public_key;
pub mod ring_pedersen;
mod seal;
pub mod share;
pub mod signature;
#[cfg(any(test, feature = "test-hooks"))]
pub mod test_fixtures;
pub mod transcript;

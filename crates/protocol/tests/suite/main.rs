//! Key generation, signing and attacks with whole wallets, in one program: it is built and
//! linked once, and its tests run side by side.
#![allow(
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    non_snake_case,
    reason = "tests, with the names of end-to-end tests"
)]

#[cfg(feature = "gmp")]
mod abort_oracle;
mod cards;
#[cfg(feature = "gmp")]
mod cloned_worker;
mod decoders;
mod keygen;
#[cfg(feature = "gmp")]
mod pending_verdicts;
#[cfg(feature = "gmp")]
mod signing;
mod vectors;

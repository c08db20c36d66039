//! The browser party: bindings of the protocol, with no cryptographic logic of its own.
//!
//! The two central types are [`wallet::DeviceWallet`], the device's share of a wallet, and
//! [`session::InitiatorSession`], one signature under way. What can fail returns a union, described
//! in `types.ts`: `{ ok: true, value }` or `{ ok: false, error }`, the error told apart by its
//! `kind`. States that may be used once are consumed by their methods, as in Rust: a second call on
//! the same object throws.
//!
//! Secrets stay in the module's memory, which JavaScript cannot wipe copies of: wallets go in and
//! out sealed, and `free` wipes what an object holds. The exceptions are the primes that helpers
//! search and the tasks of proving with them: the helpers share no memory with the one that deals.
//!
//! Everything here computes on the thread it is called on. Dealing a wallet takes seconds: call it
//! in a worker.

pub mod backup;
mod convert;
pub mod dealing;
pub mod dealt;
mod failure;
pub mod gateway;
pub mod keygen;
pub mod keys;
mod listener;
pub mod messages;
mod object;
pub mod opened_backup;
pub mod primes;
pub mod responder;
pub mod session;
#[cfg(feature = "test-exports")]
pub mod test_exports;
#[cfg(feature = "test-exports")]
pub mod test_secrets;
pub mod verify;
pub mod wallet;

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.ts");

/// The version of this module.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

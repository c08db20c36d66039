//! Published attacks, played by malicious initiators (P1*), responders (P2*) and networks (N*)
//! against real processes. There is one module for each row of `xtask/src/attack/rows.rs`. Only
//! tests that do nothing but attack are here. That table also names the attacks in the crates' own
//! tests, and `cargo xtask attack` runs all of them.
//!
//! Each attack prints what it counted in a line `evidence: what = number; …`, which that command
//! collects. Where more tries prove more, the test makes a few, and many under `cargo xtask attack
//! --long`.
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

mod abort_oracle;
mod blind_signing;
mod cancelled_in_name_only;
mod cloned_worker;
mod forgotten_key;
mod lock_as_denial;
mod lost_lock;
mod lying_gateway;
mod lying_initiator;
mod mask;
mod nonce_reuse;
mod proxy;
mod replay;
mod rollback;
mod stolen_disk;
mod threshold_queries;
mod throwaway_wallets;

//! The parties' own session code in a seeded world: two parties with two processes each, on a small
//! executor, stores in memory and a hostile network. A seed is a whole run. `cargo xtask world`
//! runs it; `docs/world.md` says what must hold.
#![allow(
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a helper that fails fails its test, and a seed alone is shown"
)]

mod engines;
mod executor;
mod fixture;
mod host;
mod judge;
mod network;
mod process;
mod run;
mod symbolic;
mod trace;

use std::env;

use self::{run::Run, symbolic::Symbolic};
use crate::session::Protocol;

/// How many seeds the test command runs by symbols.
const SEEDS: u64 = 2_000;
/// How many seeds it runs by the protocol itself.
const REAL_SEEDS: u64 = 50;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn each_nonce_and_answer_is_used_once_and_each_job_signs_one_payload() {
    if let Some(seed) = number("DUET_WORLD_SEED") {
        println!("seed {seed}: trace {:016x}", Run::<Symbolic>::of_seed(seed, 4, true));
        return;
    }
    for seed in 0..number("DUET_WORLD_SEEDS").unwrap_or(SEEDS) {
        if std::panic::catch_unwind(|| Run::<Symbolic>::of_seed(seed, 4, false)).is_err() {
            panic!("seed {seed} fails: cargo xtask world --world parties --seed {seed}");
        }
    }
}

#[test]
fn the_protocol_itself_signs_in_the_same_world() {
    for seed in 0..REAL_SEEDS {
        if std::panic::catch_unwind(|| Run::<Protocol>::of_seed(seed, 2, false)).is_err() {
            panic!("seed {seed} fails with the protocol itself");
        }
    }
}

#[test]
fn a_seed_run_twice_leaves_the_same_trace() {
    let symbolic = |seed| Run::<Symbolic>::of_seed(seed, 4, false);
    let real = |seed| Run::<Protocol>::of_seed(seed, 1, false);
    for seed in 0..20 {
        assert_eq!(symbolic(seed), symbolic(seed), "seed {seed}");
    }
    assert_eq!(real(0), real(0));
    assert_ne!(symbolic(0), symbolic(1));
}

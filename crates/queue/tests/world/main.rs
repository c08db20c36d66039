//! The core of the queue in a seeded world: several cores, a model of the broker's key-value store
//! and streams, and symbolic parties. A seed is a whole run. `cargo xtask world` runs it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper that fails fails its test, and a seed alone is shown"
)]

mod broker;
mod clients;
mod jobs;
mod parties;
mod process;
mod timing;
mod trace;
mod world;

use std::{
    env,
    panic::catch_unwind,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::{timing::Timing, world::World};

/// How many seeds the test command runs.
const SEEDS: u64 = 8_000;

/// How many seeds run at once. None knows of another.
const THREADS: usize = 2;

/// Runs one seed. Returns the hash of its trace.
fn run(seed: u64, is_shown: bool) -> u64 {
    let mut world = World::new(seed, is_shown);
    world.run();
    world.trace_hash()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_accepted_job_ends_once_whatever_the_broker_and_the_parties_do() {
    if let Some(seed) = number("DUET_WORLD_SEED") {
        println!("seed {seed}: trace {:016x}", run(seed, true));
        return;
    }
    let seeds = number("DUET_WORLD_SEEDS").unwrap_or(SEEDS);
    let failed = AtomicU64::new(u64::MAX);
    thread::scope(|scope| {
        for first in 0..THREADS as u64 {
            let (seeds, failed) = (first..seeds, &failed);
            scope.spawn(move || {
                for seed in seeds.step_by(THREADS) {
                    if seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    if catch_unwind(|| run(seed, false)).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = failed.into_inner();
    if seed < seeds {
        panic!("seed {seed} fails: cargo xtask world --world queue --seed {seed}");
    }
}

#[test]
fn a_seed_run_twice_leaves_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
    assert_ne!(run(0, false), run(1, false));
}

/// `cargo xtask world --timing` runs it. It asserts nothing: how long an event takes is the
/// machine's matter.
#[test]
#[ignore = "it measures"]
fn how_long_the_core_takes_for_an_event() {
    let mut timing = Timing::default();
    for seed in 0..number("DUET_WORLD_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, false);
        world.run();
        timing.add(world.timing());
    }
    println!("{timing}");
}

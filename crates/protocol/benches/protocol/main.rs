//! Benchmarks of the protocol: `cargo bench --package duet-protocol --bench protocol [FILTER]`.
//!
//! Names are `native.<arithmetic>.<subject>/<operation>` with `gmp` or `ct` for the arithmetic. One
//! thread unless it says `all-cores`, 2048-bit moduli, all checks on; 50 samples each, but for safe
//! primes.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up stops")]

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main, measurement::WallTime};
use duet_adversary::test_fixtures::{self, Seeded};
use duet_protocol::arithmetic::{Arithmetic, constant_time, default_arithmetic};

mod keygen;
mod paillier;
mod proofs;
mod signing;

/// Every arithmetic that is built in, with its name in the results.
fn arithmetics() -> Vec<(&'static str, &'static dyn Arithmetic)> {
    let mut all = vec![("ct", constant_time())];
    if default_arithmetic().name() != constant_time().name() {
        all.push(("gmp", default_arithmetic()));
    }
    all
}

fn rng() -> Seeded {
    test_fixtures::rng(1)
}

/// How long the samples of one benchmark take together.
const ONE_OPERATION: Duration = Duration::from_secs(1);

/// A group of benchmarks that take milliseconds: 50 samples of few runs each.
fn group<'a>(
    criterion: &'a mut Criterion,
    arithmetic: &str,
    subject: &str,
) -> criterion::BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("native.{arithmetic}.{subject}"));
    group
        .sample_size(50)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(ONE_OPERATION);
    group
}

criterion_group!(benches, paillier::benches, proofs::benches, keygen::benches, signing::benches);
criterion_main!(benches);

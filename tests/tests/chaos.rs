//! The short form of the fault suite. Random faults happen for a minute, and nothing is lost,
//! doubled or reused. `cargo xtask chaos` is the long form.
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::time::Duration;

use duet_chaos::{
    fleet::Shape,
    suite::{self, Load, Settings},
};

/// The load while faults happen.
const LOAD: Load = Load { jobs: 120, at_a_time: 8, ends_in_time: false };

/// For how long faults happen at most.
const LONGEST: Duration = Duration::from_secs(45);

/// The seed of the faults. It is the same in every run, so that a new failure points to a change.
/// `cargo xtask chaos` draws another seed each time.
const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn jobs__should_each_be_signed_once_while_everything_breaks() {
    // DUET_CHAOS_SEED repeats the faults of an earlier run.
    let given = std::env::var("DUET_CHAOS_SEED").ok().map(|seed| seed.parse().unwrap());
    // The service's store is in PostgreSQL, the partner's is a file. Both kinds fail.
    let shape = Shape { on_postgres: &["service"], ..Shape::default() };
    let settings = Settings { seed: given.unwrap_or(SEED), load: LOAD, longest: LONGEST, shape };
    let report = suite::run(settings, &|line| println!("{line}")).await.unwrap();
    let ([jobs, signed], [by_device, failed, interrupted]) = (report.jobs, report.by_device);
    println!("{jobs} jobs, {signed} signed, others {:?}; {} faults", report.unsigned, report.faults.len());
    println!("{by_device} by the device: {failed} attempts failed, {interrupted} in the middle of a session");
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "seed {}:\n{}", settings.seed, findings.join("\n"));
    assert!(!report.faults.is_empty());
    assert!(jobs >= LOAD.jobs && signed > 0, "{jobs} jobs, {signed} signed");
    assert!(by_device > 0, "none of the jobs was the device's");
}

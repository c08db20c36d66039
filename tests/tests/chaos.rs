//! The short form of the fault suite. Random faults happen for a minute, and nothing is lost,
//! doubled or reused. `cargo xtask chaos` is the long form.
//!
//! Then scenarios that operators have met, each smaller than with `cargo xtask chaos --scenario`.
//! Every job has to be signed: nothing in them is a cause of a dead letter. `busy.rs` has the one
//! without faults.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::time::Duration;

use duet_chaos::{
    fleet::Shape,
    suite::{self, Load, Scenario, Settings},
};

/// The load while faults happen.
const LOAD: Load = Load { jobs: 120, at_a_time: 8, ends_in_time: false, backlog: 30 };

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
    // Orchestrators start more sessions than the workers have seats for.
    let shape = Shape { on_postgres: &["service"], seats: 4, ..Shape::default() };
    let seed = given.unwrap_or(SEED);
    let settings = Settings { seed, scenario: None, load: LOAD, longest: LONGEST, shape };
    let report = suite::run(settings, &|line| println!("{line}")).await.unwrap();
    let ([jobs, signed], [by_device, failed, interrupted]) = (report.jobs, report.by_device);
    let faults = report.history.faults.len();
    println!("{jobs} jobs, {signed} signed, others {:?}; {faults} faults", report.unsigned);
    println!("{by_device} by the device: {failed} attempts failed, {interrupted} in the middle of a session");
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "seed {}:\n{}", settings.seed, findings.join("\n"));
    assert!(faults > 0);
    assert!(jobs >= LOAD.jobs && signed > 0, "{jobs} jobs, {signed} signed");
    assert!(by_device > 0, "none of the jobs was the device's");
}

/// Runs a scenario in which no job has a cause to end without a signature, except for one that
/// earns its refusal.
async fn signs_every_job(scenario: Scenario, backlog: usize) {
    let settings = Settings::of(scenario, SEED, backlog);
    let report = suite::run(settings, &|line| println!("{line}")).await.unwrap();
    let [jobs, signed] = report.jobs;
    println!("{jobs} jobs, {signed} signed, others {:?}", report.unsigned);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{scenario:?}:\n{}", findings.join("\n"));
    let earned = report.unsigned.get("failed valid-too-long").copied().unwrap_or_default();
    assert_eq!(signed + earned, jobs, "others {:?}", report.unsigned);
    assert!(jobs > backlog);
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_under_a_backlog__should_leave_every_job_signed() {
    signs_every_job(Scenario::RollingRestart, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_that_refuses__should_get_every_result_when_it_comes_back() {
    signs_every_job(Scenario::Receivers(Duration::from_secs(4)), 0).await;
}

//! `cargo xtask soak`: runs the orchestrator's soak test with more jobs than the test command does.

use anyhow::Result;
use clap::Args;

use crate::{
    install::{self, Need},
    run::{cargo, visibly},
};

/// What the soak requires.
const NEEDS: &[Need] = &[Need::Compiler, Need::NatsServer];

/// The test, in `orchestrator/tests/suite/soak.rs`.
const TEST: &str = "soak::jobs_that_come_and_go__should_leave_nothing_at_the_broker";

#[derive(Args)]
pub(crate) struct Options {
    /// How many jobs to submit, end and remove.
    #[arg(long, default_value_t = 200_000)]
    jobs: usize,
    /// Only list what is missing instead of installing it.
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn soak(options: &Options) -> Result<()> {
    install::ensure(NEEDS, options.no_install)?;
    // nextest would end a test that takes this long.
    let mut test = cargo();
    test.args([
        "test",
        "--locked",
        "--workspace",
        "--test",
        "orchestrator",
        "--",
        "--exact",
        TEST,
        "--nocapture",
    ]);
    visibly(test.env("DUET_SOAK_JOBS", options.jobs.to_string()))
}

//! The fault suite as a program. `cargo xtask chaos` builds and runs it; [`duet_chaos::suite`]
//! describes it.
#![expect(clippy::print_stdout, reason = "what goes wrong, and the result, is its output")]

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use duet_chaos::{
    fleet::Shape,
    suite::{self, Load, Report, Settings},
};

#[derive(Parser)]
struct Arguments {
    /// The seed of everything random; drawn from the clock by default
    #[arg(long)]
    seed: Option<u64>,
    /// How many jobs; by default as many as time permits
    #[arg(long)]
    jobs: Option<usize>,
    /// For how long faults happen at most
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// How many jobs at a time
    #[arg(long, default_value_t = 96)]
    at_a_time: usize,
    /// How many orchestrators
    #[arg(long, default_value_t = 2)]
    orchestrators: usize,
    /// How many workers of each party
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How many gateways
    #[arg(long, default_value_t = 2)]
    gateways: usize,
    /// The parties whose share stores are files; the others use PostgreSQL
    #[arg(long, value_enum, default_value_t = Files::Neither)]
    files: Files,
}

/// The parties with a SQLite store.
#[derive(Clone, Copy, ValueEnum)]
enum Files {
    Neither,
    Partner,
    Both,
}

impl Files {
    const fn on_postgres(self) -> &'static [&'static str] {
        match self {
            Self::Neither => &["service", "partner"],
            Self::Partner => &["service"],
            Self::Both => &[],
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let settings = Settings {
        seed: arguments.seed.unwrap_or(now),
        load: Load {
            jobs: arguments.jobs.unwrap_or(usize::MAX),
            at_a_time: arguments.at_a_time,
            ends_in_time: arguments.jobs.is_none(),
        },
        longest: Duration::from_secs(60 * arguments.minutes),
        shape: Shape {
            orchestrators: arguments.orchestrators,
            workers: arguments.workers,
            gateways: arguments.gateways,
            on_postgres: arguments.files.on_postgres(),
        },
    };
    let report = suite::run(settings, &|line| println!("{line}")).await?;
    Ok(conclude(settings.seed, &report))
}

fn conclude(seed: u64, report: &Report) -> ExitCode {
    let [jobs, signed] = report.jobs;
    println!(
        "\nseed {seed}: {jobs} jobs, {signed} signed; {} faults in {:.0?}; {} messages overheard, {} charges",
        report.faults.len(),
        report.took,
        report.history.captured.len(),
        report.history.charges.len(),
    );
    let [by_device, failed, interrupted] = report.by_device;
    println!(
        "{by_device} jobs by the device: {failed} attempts failed, {interrupted} in the middle of a session"
    );
    for (end, count) in &report.unsigned {
        println!("{count} ended without a signature: {end}");
    }
    for what in &report.skipped {
        println!("SKIPPED: {what}");
    }
    for finding in &report.findings {
        println!("FOUND: {finding}");
    }
    if report.findings.is_empty() {
        println!("every job signed once; nothing lost, doubled or reused; everything recovered");
        ExitCode::SUCCESS
    } else {
        println!(
            "{} findings; `cargo xtask chaos --seed {seed}` draws the same faults",
            report.findings.len()
        );
        ExitCode::FAILURE
    }
}

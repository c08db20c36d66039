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
    suite::{self, Load, Report, Scenario, Seed, Settings},
};

#[derive(Parser)]
struct Arguments {
    /// The seed of everything random; drawn from the clock by default
    #[arg(long)]
    seed: Option<u64>,
    /// What operators have met, instead of drawn faults. Then the shape is the scenario's
    #[arg(long, value_enum)]
    scenario: Option<Named>,
    /// How many jobs; by default as many as time permits
    #[arg(long)]
    jobs: Option<usize>,
    /// For how long faults happen at most, 30 by default; in a scenario, how long each one lasts
    #[arg(long)]
    minutes: Option<u64>,
    /// How many jobs at a time
    #[arg(long, default_value_t = 96)]
    at_a_time: usize,
    /// How many jobs wait in a backlog beside those; drawn by default, or as the scenario has them
    #[arg(long)]
    backlog: Option<usize>,
    /// How many orchestrators; drawn by default
    #[arg(long)]
    orchestrators: Option<usize>,
    /// How many workers of each party; drawn by default
    #[arg(long)]
    workers: Option<usize>,
    /// How many sessions each worker runs at a time; drawn by default
    #[arg(long)]
    seats: Option<usize>,
    /// How many gateways
    #[arg(long, default_value_t = 2)]
    gateways: usize,
    /// The parties whose share stores are files; the others use PostgreSQL
    #[arg(long, value_enum, default_value_t = Files::Neither)]
    files: Files,
}

/// What operators have met, at full size.
#[derive(Clone, Copy, ValueEnum)]
enum Named {
    /// Four orchestrators and one worker a party with few seats: 600 jobs in a backlog
    Busy,
    /// Rolling restarts as `deploy/README.md` documents them, under a backlog of 1,500 jobs
    RollingRestart,
    /// A worker's and an orchestrator's clock, a minute and five off, each way, for three minutes
    Clocks,
    /// A receiver of webhooks that answers 500, hangs and resets, for a minute each
    Receivers,
}

impl Named {
    /// The scenario, and the number of jobs in its backlog. Each of its faults lasts for `minutes`,
    /// or as long as operators had it.
    fn scenario(self, minutes: Option<u64>) -> (Scenario, usize) {
        let lasts = |usual| Duration::from_secs(60 * minutes.unwrap_or(usual));
        match self {
            Self::Busy => (Scenario::Busy, 600),
            Self::RollingRestart => (Scenario::RollingRestart, 1500),
            Self::Clocks => (Scenario::Clocks(lasts(3)), 60),
            Self::Receivers => (Scenario::Receivers(lasts(1)), 60),
        }
    }
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
    let seed = arguments.seed.unwrap_or(now);
    let settings = match arguments.scenario {
        Some(named) => {
            let (scenario, backlog) = named.scenario(arguments.minutes);
            Settings::of(scenario, seed, arguments.backlog.unwrap_or(backlog))
        }
        None => drawn(&arguments, seed),
    };
    println!("{:?}, {:?}", settings.shape, settings.load);
    let report = suite::run(settings, &|line| println!("{line}")).await?;
    Ok(conclude(&arguments, seed, &report))
}

/// The settings of a run whose faults are drawn. The orchestrators always start more sessions than
/// the workers have seats for.
fn drawn(arguments: &Arguments, seed: u64) -> Settings {
    let mut draw = Seed::new(seed);
    let (orchestrators, workers) = (2 + draw.below(3), 1 + draw.below(2));
    let seats = draw.one_of(&[4, 8, 16]).unwrap_or(8);
    let backlog = 150 * (1 + draw.below(2));
    Settings {
        seed,
        scenario: None,
        load: Load {
            jobs: arguments.jobs.unwrap_or(usize::MAX),
            at_a_time: arguments.at_a_time,
            ends_in_time: arguments.jobs.is_none(),
            backlog: arguments.backlog.unwrap_or(backlog),
        },
        longest: Duration::from_secs(60 * arguments.minutes.unwrap_or(30)),
        shape: Shape {
            orchestrators: arguments.orchestrators.unwrap_or(orchestrators),
            workers: arguments.workers.unwrap_or(workers),
            seats: arguments.seats.unwrap_or(seats),
            gateways: arguments.gateways,
            on_postgres: arguments.files.on_postgres(),
            ..Shape::default()
        },
    }
}

fn conclude(arguments: &Arguments, seed: u64, report: &Report) -> ExitCode {
    let [jobs, signed] = report.jobs;
    println!(
        "\nseed {seed}: {jobs} jobs, {signed} signed; {} faults in {:.0?}; {} messages overheard, {} charges, \
         {} deliveries",
        report.history.faults.len(),
        report.took,
        report.history.captured.len(),
        report.history.charges.len(),
        report.history.deliveries.len(),
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
        println!("every healthy job signed once; nothing lost, doubled or reused; everything recovered");
        ExitCode::SUCCESS
    } else {
        let named = arguments.scenario.and_then(|named| named.to_possible_value());
        let named = named.map_or_else(String::new, |named| format!("--scenario {} ", named.get_name()));
        println!(
            "{} findings; `cargo xtask chaos {named}--seed {seed}` draws the same faults",
            report.findings.len()
        );
        ExitCode::FAILURE
    }
}

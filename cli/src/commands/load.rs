//! `duet load`: measures how many signatures a deployment makes, and how long each takes.
//!
//! [`drive`] submits jobs over HTTP as a team's program would, and waits for each on its event
//! stream. [`measure`] counts outcomes and times. [`report`] is the JSON document of a run, and
//! [`plot`] draws curves from such documents.

mod drive;
mod measure;
mod plot;
mod processes;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use clap::{Args, Subcommand};
use duet_protocol::public_key::DerivationPath;
use duet_wire::Pair;

use self::{
    drive::{Account, Target},
    processes::NamedProcess,
    report::{LoadReport, Machine, Offered, Settings, Timing},
};
use crate::{
    api::ApiClient,
    commands::requester,
    config::{ApiOptions, CredentialsOptions, TenantOptions},
    duration,
    error::CliError,
    output::Output,
    request::{self, WalletName},
};

/// The most jobs that one run keeps open. Each job has an event stream, and an orchestrator permits
/// 256 streams a tenant. Without a stream the client would learn of a job's end late, and the
/// deployment would seem slower than it is.
const MAX_OPEN_JOBS: usize = 250;

/// A command about load.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum LoadCommand {
    /// Queue signatures at given rates, or a given number at a time, and measure
    Run(Box<RunOptions>),
    /// Draw curves from what runs reported
    Plot(PlotOptions),
}

/// One run.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// The wallets, each by its id, an unambiguous head of it, or its address; used in turn
    /// [default: the only one]
    #[arg(long = "wallet", value_name = "WALLET")]
    wallets: Vec<WalletName>,
    /// Files with request keys: one for all wallets, or one for each in their order
    #[arg(long = "requester-key", env = "DUET_REQUESTER_KEY", value_name = "FILE", required = true)]
    requester_keys: Vec<PathBuf>,
    /// Open loop: jobs arriving per second, even while earlier ones are unfinished; several rates
    /// run one after the other
    #[arg(
        long,
        value_name = "PER_SECOND",
        value_delimiter = ',',
        value_parser = rate,
        required_unless_present = "in_flight",
        conflicts_with = "in_flight"
    )]
    rate: Vec<f64>,
    /// Closed loop: jobs open at a time, each followed by the next; several numbers run one after
    /// the other
    #[arg(long, value_name = "JOBS", value_delimiter = ',', value_parser = open_jobs)]
    in_flight: Vec<usize>,
    /// How long each rate is measured
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = step_duration)]
    duration: Duration,
    /// How long each rate runs before that, uncounted
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = step_duration)]
    warm_up: Duration,
    /// How long a job may take from its due time; a slower one counts as failed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = step_duration)]
    job_timeout: Duration,
    /// The most jobs open at once in an open loop; further ones wait, and their waiting time counts
    #[arg(long, value_name = "JOBS", default_value_t = MAX_OPEN_JOBS, value_parser = open_jobs)]
    max_open: usize,
    /// The pairs that may sign, in order of preference
    #[arg(long, value_name = "PAIR", value_delimiter = ',', default_value = "service+partner")]
    pairs: Vec<Pair>,
    /// Which of the wallets' keys signs
    #[arg(long, value_name = "PATH", default_value = "m")]
    path: DerivationPath,
    /// The size of each message
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(48..=65_536))]
    message_bytes: u32,
    /// The share of the signatures to verify, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    verify: f64,
    /// A process of this machine whose processor time per signature is reported
    #[arg(long = "process", value_name = "NAME=PID")]
    processes: Vec<NamedProcess>,
    /// How many workers each party has, for the report and the scaling curve
    #[arg(long, value_name = "NUMBER")]
    workers: Option<u32>,
    /// A name for the run in the report and in plots
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// Also write the report here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    tenant: TenantOptions,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

/// Plots.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlotOptions {
    /// Reports that `duet load run` wrote
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// Draw latency against offered load here (SVG)
    #[arg(long, value_name = "FILE", required_unless_present = "scaling")]
    latency: Option<PathBuf>,
    /// Draw the most signatures per second against workers per party here (SVG)
    #[arg(long, value_name = "FILE")]
    scaling: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number of jobs per second".to_owned())?;
    if (0.01..=10_000.0).contains(&rate) { Ok(rate) } else { Err("a rate is 0.01 to 10000".to_owned()) }
}

fn open_jobs(text: &str) -> Result<usize, String> {
    let jobs: usize = text.parse().map_err(|_| "expected a number of jobs".to_owned())?;
    if (1..=MAX_OPEN_JOBS).contains(&jobs) { Ok(jobs) } else { Err(format!("1 to {MAX_OPEN_JOBS} jobs")) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is 0 to 1".to_owned()) }
}

fn step_duration(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text)?;
    if duration <= Duration::from_secs(24 * 3600) { Ok(duration) } else { Err("at most a day".to_owned()) }
}

/// Runs the command.
///
/// # Errors
/// When the wallets are not found, no job is signed, a signature is invalid, or a file cannot be
/// written.
pub(crate) async fn run(command: LoadCommand, output: Output) -> Result<(), CliError> {
    match command {
        LoadCommand::Run(options) => measure(*options, output).await,
        LoadCommand::Plot(options) => draw(&options, output),
    }
}

async fn measure(options: RunOptions, output: Output) -> Result<(), CliError> {
    let timing = Timing::new(options.warm_up, options.duration, options.job_timeout);
    let offered: Vec<Offered> = options
        .rate
        .iter()
        .map(|per_second| Offered::Open { per_second: *per_second })
        .chain(options.in_flight.iter().map(|in_flight| Offered::Closed { in_flight: *in_flight }))
        .collect();
    let steps = u32::try_from(offered.len()).unwrap_or(u32::MAX);
    // Every step ends by itself. This deadline bounds only the calls before and between steps.
    let whole = timing.longest().saturating_mul(steps).saturating_add(Duration::from_secs(60));
    let api = ApiClient::new(&options.api, &options.credentials, &options.tenant.tenant, whole)?;
    let target = Arc::new(Target {
        accounts: accounts(&api, &options).await?,
        api,
        tenant: options.tenant.tenant.clone(),
        pairs: options.pairs.clone(),
        path: options.path.clone(),
        message_bytes: usize::try_from(options.message_bytes).unwrap_or_default(),
        verify: options.verify,
        run: drive::random_name()?,
        begun: AtomicU64::new(0),
    });
    let mut report = LoadReport::new(
        options.label.clone(),
        Machine::read(),
        Settings {
            api_url: options.api.api_url.clone(),
            wallets: target.accounts.len(),
            workers_per_party: options.workers,
            pairs: options.pairs.clone(),
            message_bytes: options.message_bytes,
            verified_share: options.verify,
            max_open_jobs: options.max_open,
            timing,
        },
    );
    for offered in offered {
        let step = drive::step(&target, offered, &timing, options.max_open, &options.processes).await?;
        if output.draws_progress() {
            eprintln!("{step}");
        }
        report.steps.push(step);
    }
    if let Some(file) = &options.out {
        write(file, &report.to_json()?)?;
    }
    output.emit(&report)?;
    report.result()
}

async fn accounts(api: &ApiClient, options: &RunOptions) -> Result<Vec<Account>, CliError> {
    let names: Vec<Option<&WalletName>> = match options.wallets.as_slice() {
        [] => vec![None],
        named => named.iter().map(Some).collect(),
    };
    let keys = &options.requester_keys;
    if keys.len() != 1 && keys.len() != names.len() {
        return Err(CliError::usage("give --requester-key once, or as often as --wallet"));
    }
    let mut accounts = Vec::with_capacity(names.len());
    for (name, file) in names.into_iter().zip(keys.iter().cycle()) {
        let wallet = request::find_wallet(api, name).await?;
        accounts.push(Account {
            wallet: wallet.id,
            address: request::account(&wallet.public_key, wallet.chain_code, &options.path)?,
            key: requester::read_key(file)?,
        });
    }
    Ok(accounts)
}

fn draw(options: &PlotOptions, output: Output) -> Result<(), CliError> {
    let reports = options.reports.iter().map(|file| LoadReport::read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut drawn = Vec::new();
    if let Some(file) = &options.latency {
        write(file, plot::latency(&reports)?.as_bytes())?;
        drawn.push(file.clone());
    }
    if let Some(file) = &options.scaling {
        write(file, plot::scaling(&reports)?.as_bytes())?;
        drawn.push(file.clone());
    }
    output.emit(&plot::Drawn { files: drawn })
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    fs::write(file, bytes).map_err(|error| CliError::io(&file.display().to_string(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded() {
        assert!(rate("60").is_ok() && rate("0.5").is_ok());
        for bad in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(open_jobs("0").is_err() && open_jobs("251").is_err() && open_jobs("32") == Ok(32));
        assert!(share("1.1").is_err() && share("NaN").is_err() && share("0.1").is_ok());
    }
}

//! `duet job dead`: dead letters, one or many.

use std::{collections::BTreeMap, fmt, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use duet_orchestrator::api::JobView;
use duet_protocol::ids::WalletId;
use duet_wire::{Code, JobId};
use futures::StreamExt as _;
use serde::Serialize;

use super::{
    access::{Access, BRIEF, LONG, Page},
    report::{JobReport, JobsReport},
};
use crate::{
    api::{ApiClient, DeadFilter},
    duration,
    error::{CliError, ErrorCode},
    output::Output,
    progress,
    request::{self, WalletName},
};

/// How many dead letters are read at a time: as many as the orchestrator gives.
const PAGE: u16 = 200;

/// How many are put back at the same time. The orchestrator answers 429 when its queue has no room,
/// and each of them then waits as long as it says.
const AT_ONCE: usize = 8;

/// How many jobs a dry run shows.
const SHOWN: usize = 5;

/// A command about dead letters.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        access: Access,
    },
    /// Show a dead letter with all attempts at it
    Show {
        /// The job
        job: JobId,
        #[command(flatten)]
        access: Access,
    },
    /// Put dead letters back into the queue, after their cause was repaired: one, those that a
    /// filter selects, or all
    #[command(group = ArgGroup::new("which").args(["job", "code", "wallet", "ended_after", "ended_before", "all"]).multiple(true).required(true))]
    Redrive {
        /// The job
        #[arg(conflicts_with_all = ["code", "wallet", "ended_after", "ended_before", "all", "limit", "dry_run"])]
        job: Option<JobId>,
        #[command(flatten)]
        filter: Filter,
        /// All of the tenant's dead letters
        #[arg(long, conflicts_with_all = ["code", "wallet", "ended_after", "ended_before"])]
        all: bool,
        /// At most this many, newest first [default: no limit]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Put none back: count them by code, and show the first ones
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        access: Access,
    },
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// Only those that failed with this code; may be given several times
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    code: Vec<Code>,
    /// Only those of this wallet: its id, an unambiguous head of it, or its address
    #[arg(long, value_name = "WALLET")]
    wallet: Option<WalletName>,
    /// Only those that ended at this moment or later: a time ago, for example 2h, or
    /// 2026-11-30T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = duration::parse_moment)]
    ended_after: Option<Duration>,
    /// Only those that ended before this moment
    #[arg(long, value_name = "TIME", value_parser = duration::parse_moment)]
    ended_before: Option<Duration>,
}

impl Filter {
    async fn resolve(self, api: &ApiClient) -> Result<DeadFilter, CliError> {
        let millis = |moment: Duration| u64::try_from(moment.as_millis()).unwrap_or(u64::MAX);
        let wallet: Option<WalletId> = match self.wallet {
            Some(name) => Some(request::find_wallet(api, Some(&name)).await?.id),
            None => None,
        };
        Ok(DeadFilter {
            codes: self.code,
            wallet,
            ended_after_ms: self.ended_after.map(millis),
            ended_before_ms: self.ended_before.map(millis),
        })
    }
}

/// A dead letter that was not put back.
#[derive(Debug, Serialize)]
struct Refused {
    job: JobId,
    code: ErrorCode,
    message: String,
}

/// The outcome of a command over many dead letters.
#[derive(Debug, Default, Serialize)]
struct RedriveReport {
    dry_run: bool,
    /// How many dead letters were selected, by the code of their failure.
    selected: BTreeMap<Code, u32>,
    /// How many were put back.
    put_back: u32,
    /// Those that were no dead letters any more, because another command put them back.
    already_back: Vec<JobId>,
    /// Those whose requests have expired.
    expired: Vec<JobId>,
    /// Those that the orchestrator refuses to put back for another reason.
    refused: Vec<Refused>,
    /// The first of them, in a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    first: Vec<JobView>,
}

fn write_ids(f: &mut fmt::Formatter<'_>, what: &str, jobs: &[JobId]) -> fmt::Result {
    if jobs.is_empty() {
        return Ok(());
    }
    write!(f, "\n{what}: {}", jobs.len())?;
    jobs.iter().try_for_each(|job| write!(f, "\n  {job}"))
}

impl fmt::Display for RedriveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u32 = self.selected.values().sum();
        if self.dry_run {
            write!(f, "{all} dead letters would be put back")?;
        } else {
            write!(f, "{} of {all} dead letters put back", self.put_back)?;
        }
        for (code, count) in &self.selected {
            write!(f, "\n  {count}  {code}")?;
        }
        write_ids(f, "already back", &self.already_back)?;
        write_ids(f, "expired", &self.expired)?;
        if !self.refused.is_empty() {
            write!(f, "\nrefused: {}", self.refused.len())?;
        }
        for Refused { job, code, message } in &self.refused {
            write!(f, "\n  {job}  {}: {message}", code.as_str())?;
        }
        for job in &self.first {
            let failure = job.ending.failure.as_ref().map(ToString::to_string).unwrap_or_default();
            write!(f, "\n{}  {}  {failure}", job.id, job.idempotency_key)?;
        }
        Ok(())
    }
}

impl RedriveReport {
    /// Notes how the attempt to put a job back ended.
    ///
    /// # Errors
    /// When it is a reason to end the command.
    fn note(&mut self, job: JobId, outcome: Result<JobView, CliError>) -> Result<(), CliError> {
        let error = match outcome {
            Ok(_) => {
                self.put_back += 1;
                return Ok(());
            }
            Err(error) => error,
        };
        match error.code() {
            ErrorCode::Shared(Code::Conflict) => self.already_back.push(job),
            ErrorCode::Shared(Code::JobExpired) => self.expired.push(job),
            code @ ErrorCode::Shared(
                Code::DuplicateDigest | Code::RejectedByOwner | Code::Cancelled | Code::NotFound,
            ) => {
                self.refused.push(Refused { job, code, message: error.to_string() });
            }
            _ => return Err(error),
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// The orchestrator's problem, or that it cannot be reached.
pub(super) async fn run(command: DeadCommand, output: Output) -> Result<(), CliError> {
    match command {
        DeadCommand::List { filter, page, access } => {
            let api = access.client(BRIEF)?;
            let filter = filter.resolve(&api).await?;
            output.emit(&JobsReport::new(api.dead_letters(&filter, page.after, page.limit).await?))
        }
        DeadCommand::Show { job, access } => {
            output.emit(&JobReport::new(access.client(BRIEF)?.dead_letter(job).await?))
        }
        DeadCommand::Redrive { job: Some(job), access, .. } => {
            output.emit(&JobReport::new(access.client(BRIEF)?.redrive(job).await?))
        }
        DeadCommand::Redrive { job: None, filter, all: _, limit, dry_run, access } => {
            let api = access.client(LONG)?;
            let filter = filter.resolve(&api).await?;
            let mut report = RedriveReport { dry_run, ..RedriveReport::default() };
            let ended = redrive(&api, &filter, limit, &mut report, output).await;
            let Err(error) = ended else { return output.emit(&report) };
            // What was done is reported even though the rest failed; as JSON it is one document.
            let error = error.remedy("What was put back stays so. The same command goes on with the others.");
            if output.is_json() {
                let report = serde_json::to_value(&report);
                return Err(error.details(report.unwrap_or_default()));
            }
            output.emit(&report)?;
            Err(error)
        }
    }
}

async fn redrive(
    api: &ApiClient,
    filter: &DeadFilter,
    limit: Option<u32>,
    report: &mut RedriveReport,
    output: Output,
) -> Result<(), CliError> {
    let bar = progress::bar(output, 0, "dead letters");
    let mut left = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut after = None;
    while left > 0 {
        let page = api.dead_letters(filter, after, PAGE).await?;
        let mut jobs = page.jobs;
        jobs.truncate(left);
        left -= jobs.len();
        bar.inc_length(u64::try_from(jobs.len()).unwrap_or(u64::MAX));
        for job in &jobs {
            let code = job.ending.failure.as_ref().map_or(Code::Internal, |failure| failure.code);
            *report.selected.entry(code).or_default() += 1;
        }
        if report.dry_run {
            let room = SHOWN.saturating_sub(report.first.len());
            report.first.extend(jobs.into_iter().take(room));
        } else {
            let mut outcomes = futures::stream::iter(jobs)
                .map(|job| async move { (job.id, api.redrive(job.id).await) })
                .buffer_unordered(AT_ONCE);
            while let Some((job, outcome)) = outcomes.next().await {
                report.note(job, outcome)?;
                bar.inc(1);
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

//! Jobs as the commands print them.

use std::fmt;

use duet_orchestrator::api::{EndPage, JobPage, JobView};
use duet_protocol::ids::PartyId;
use duet_wire::{
    JobId, JobStateName, PayloadKindTag,
    job::{AttemptOutcome, Evidence, JobRevocation, Waiting},
};
use serde::Serialize;

use crate::rpc::Receipt;

/// A job as the command prints it: signatures in the form of Ethereum's tools, addresses with
/// checksums.
#[derive(Debug, Serialize)]
pub(super) struct JobReport {
    pub(super) job: JobView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<Receipt>,
}

#[derive(Debug, Serialize)]
pub(super) struct JobsReport {
    pub(super) jobs: Vec<JobView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<JobId>,
}

/// A page of ended jobs.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct ResultsReport(pub(super) EndPage);

impl fmt::Display for ResultsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for end in &self.0.results {
            writeln!(f, "{}  {}  {}", end.cursor, end.job, end.state)?;
        }
        write!(f, "what follows: --after {}", self.0.next)
    }
}

impl JobReport {
    pub(super) fn new(job: JobView) -> Self {
        Self { job, receipt: None }
    }
}

impl JobsReport {
    pub(super) fn new(page: JobPage) -> Self {
        let JobPage { jobs, next } = page;
        Self { jobs, next }
    }
}

fn kind(tag: PayloadKindTag) -> &'static str {
    match tag {
        PayloadKindTag::Transaction => "transaction",
        PayloadKindTag::PersonalMessage => "message",
        PayloadKindTag::TypedData => "typed data",
        PayloadKindTag::Digest => "digest",
    }
}

/// The evidence of a failure, in words.
fn known_by(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Refusal { by } => format!("{by} refused the invitation"),
        Evidence::Nonsense { by, .. } => format!("the answer of {by} makes no sense"),
        Evidence::Report { by, .. } => format!("by the signed report of {by}"),
        Evidence::InvalidSignature { by, .. } => format!("by the signature that {by} reported"),
        Evidence::Silence { of, .. } => format!("{of} was not heard of"),
        Evidence::Unknown => "by evidence that this version does not know".to_owned(),
    }
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = &self.job;
        write!(f, "job {}: {} ({})", job.id, job.state, kind(job.kind))?;
        if let Some(pair) = job.pair {
            write!(f, ", attempt {} by {pair}", job.attempts)?;
        }
        if let Some(revocation) = &job.revocation {
            write_revocation(f, revocation)?;
        }
        if let Some(Waiting { code, message, .. }) = &job.waiting {
            write!(f, "\nwaits: {code}: {message}")?;
        } else if job.state == JobStateName::Queued
            && let Some(AttemptOutcome::Failed { code, message, .. }) =
                job.history.last().and_then(|attempt| attempt.outcome.as_ref())
        {
            write!(f, "\nwill be tried again after {code}: {message}")?;
        }
        if let Some(failure) = &job.ending.failure {
            write!(f, "\nfailed: {failure}")?;
            for attempt in &job.history {
                write!(f, "\nattempt {} by {}", attempt.attempt, attempt.pair)?;
                if let Some(earlier) = attempt.earlier {
                    write!(f, " and {} before it", earlier.attempts)?;
                }
                if let Some(AttemptOutcome::Failed { code, message, culprit, evidence }) = &attempt.outcome {
                    write!(f, ": {code}: {message}")?;
                    if let Some(culprit) = culprit {
                        write!(f, "; the fault of {culprit}")?;
                    }
                    if let Some(evidence) = evidence {
                        write!(f, " ({})", known_by(evidence))?;
                    }
                }
            }
        }
        let members = [
            ("address", &job.ending.address),
            ("signature", &job.ending.signature),
            ("transaction", &job.ending.transaction_hash),
            ("signed transaction", &job.ending.signed_transaction),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                write!(f, "\n{name} {value}")?;
            }
        }
        if let Some(receipt) = &self.receipt {
            write!(f, "\n{receipt}")?;
        }
        Ok(())
    }
}

fn write_revocation(f: &mut fmt::Formatter<'_>, revocation: &JobRevocation) -> fmt::Result {
    let names =
        |parties: &[PartyId]| parties.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    if !revocation.kept_by.is_empty() {
        write!(f, "\nrevoked: {} will not sign it", names(&revocation.kept_by))?;
    }
    if !revocation.waits_for.is_empty() {
        write!(f, "\nrevoked: {} will be told", names(&revocation.waits_for))?;
    }
    for refused in &revocation.refused_by {
        write!(f, "\nrevoked: {} does not keep it: {}", refused.party, refused.refusal)?;
    }
    Ok(())
}

impl fmt::Display for JobsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.jobs.is_empty() {
            return f.write_str("no jobs");
        }
        for job in &self.jobs {
            writeln!(
                f,
                "{}  {:<14}  {:<11}  {}",
                job.id,
                job.state.to_string(),
                kind(job.kind),
                job.idempotency_key
            )?;
        }
        match self.next {
            Some(next) => write!(f, "more with --after {next}"),
            None => Ok(()),
        }
    }
}

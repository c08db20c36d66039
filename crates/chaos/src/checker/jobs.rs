//! Checks that every accepted job ended once, with a signature over its payload or as a dead
//! letter.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::eip191_hash_message;
use duet_wire::{JobEnded, JobResult, SignedResult};
use serde_json::Value;

use super::{Finding, causes};
use crate::{
    history::{Asked, History, Submission},
    signers,
};

/// The digest that a signature for `payload` covers.
pub(super) fn digest(payload: &Asked) -> [u8; 32] {
    match payload {
        Asked::Message(text) => eip191_hash_message(text).0,
        Asked::Digest(digest) => *digest,
    }
}

/// Whether `signature` is over the requested payload, by the wallet that was asked.
pub(super) fn is_by_the_wallet(asked: &Submission, signature: &str) -> bool {
    let digest = format!("0x{}", hex::encode(digest(&asked.payload)));
    let signer = signers::digest_signer(&digest, signature);
    signer.is_ok_and(|signer| signer.to_string().eq_ignore_ascii_case(&asked.address))
}

/// The request of each job.
pub(super) fn asked(history: &History) -> BTreeMap<&str, &Submission> {
    history
        .submissions
        .iter()
        .flat_map(|submission| submission.accepted.iter().map(move |job| (job.as_str(), submission)))
        .collect()
}

fn state(job: &Value) -> &str {
    job.get("state").and_then(Value::as_str).unwrap_or("without a state")
}

pub(super) fn check(history: &History) -> Vec<Finding> {
    let mut findings = Vec::new();
    let published = Published {
        signed: history.results.iter().filter_map(signed_job).collect(),
        unsigned: history.results.iter().filter_map(end_of).map(|end| (end.job.to_string(), end)).collect(),
    };
    for submission in &history.submissions {
        check_submission(history, &published, submission, &mut findings);
    }
    check_dead_letters(history, &mut findings);
    check_results(history, &mut findings);
    findings
}

/// The jobs in the stream of results.
struct Published {
    /// Those with a signed result.
    signed: BTreeSet<String>,
    /// Those that ended without a signature.
    unsigned: BTreeMap<String, JobEnded>,
}

fn check_submission(
    history: &History,
    published: &Published,
    submission: &Submission,
    findings: &mut Vec<Finding>,
) {
    let jobs: BTreeSet<&String> = submission.accepted.iter().collect();
    let key = || submission.key.clone();
    if jobs.len() > 1 {
        findings.push(Finding::TwoJobs { key: key(), jobs: jobs.iter().map(|&job| job.clone()).collect() });
    }
    // The other payload was refused, or not judged at all.
    for &status in submission.with_another_payload.iter().filter(|status| (200..300).contains(*status)) {
        findings.push(Finding::KeyReused { key: key(), status });
    }
    for job in jobs {
        let Some(document) = history.jobs.get(job) else {
            findings.push(Finding::Lost { key: key(), state: "gone".to_owned() });
            continue;
        };
        let is_published = published.signed.contains(job);
        match state(document) {
            "signed" => {
                let signature = document.get("signature").and_then(Value::as_str).unwrap_or_default();
                if !is_by_the_wallet(submission, signature) {
                    findings.push(Finding::BadSignature { job: job.clone(), seen: "the API".to_owned() });
                }
                if let Some(earned) = submission.earns {
                    findings.push(Finding::Undeserved { job: job.clone(), earns: earned.to_string() });
                }
                if !is_published {
                    findings.push(Finding::Unpublished { job: job.clone() });
                }
                if let Some(end) = published.unsigned.get(job) {
                    let ends = vec!["signed".to_owned(), end.state.as_str().to_owned()];
                    findings.push(Finding::EndedTwice { job: job.clone(), ends });
                }
            }
            end @ ("failed" | "expired" | "cancelled") => {
                if let Err(why) = causes::check(history, submission, document) {
                    findings.push(unsigned(job, document, why));
                }
                if is_published {
                    let ends = vec![end.to_owned(), "signed".to_owned()];
                    findings.push(Finding::EndedTwice { job: job.clone(), ends });
                }
                let is_buried =
                    end != "failed" || history.dead.iter().any(|dead| dead_job(dead) == Some(job));
                if !is_buried || !published.unsigned.contains_key(job) {
                    findings.push(Finding::Unpublished { job: job.clone() });
                }
            }
            open => findings.push(Finding::Lost { key: key(), state: open.to_owned() }),
        }
    }
}

/// Checks that every dead letter is a job that a client submitted, and that failed.
fn check_dead_letters(history: &History, findings: &mut Vec<Finding>) {
    let asked = asked(history);
    for dead in &history.dead {
        let job = dead_job(dead).unwrap_or("unknown");
        match history.jobs.get(job).map(state) {
            _ if !asked.contains_key(job) => findings.push(Finding::Unasked { job: job.to_owned() }),
            Some("failed") | None => {}
            Some(other) => {
                let ends = vec!["failed".to_owned(), other.to_owned()];
                findings.push(Finding::EndedTwice { job: job.to_owned(), ends });
            }
        }
    }
}

fn dead_job(dead: &Value) -> Option<&str> {
    dead.get("id").and_then(Value::as_str)
}

fn unsigned(job: &str, document: &Value, why: String) -> Finding {
    let code = document.pointer("/failure/code").and_then(Value::as_str).unwrap_or_default();
    let end = format!("{} {code}", state(document)).trim().to_owned();
    Finding::Unsigned { job: job.to_owned(), end, why }
}

/// The end without a signature in a message of the stream of results.
fn end_of(result: &Value) -> Option<JobEnded> {
    serde_json::from_value(result.clone()).ok()
}

/// The job that a published, signed result names. `None` for an end without a signature.
#[must_use]
pub fn signed_job(result: &Value) -> Option<String> {
    let body = result.get("body")?.as_str()?;
    let body: Value = serde_json::from_str(body).ok()?;
    Some(body.get("job")?.as_str()?.to_owned())
}

fn check_results(history: &History, findings: &mut Vec<Finding>) {
    let asked = asked(history);
    let mut first: BTreeMap<String, &Value> = BTreeMap::new();
    for result in history.results.iter().filter(|result| end_of(result).is_none()) {
        let Some(job) = signed_job(result) else {
            findings
                .push(Finding::BadResult { job: "unknown".to_owned(), why: "it names no job".to_owned() });
            continue;
        };
        // After a crash the same result may be published again, and the broker may repeat it.
        // Another result for the job must never appear.
        match first.get(&job) {
            Some(earlier) if *earlier != result => findings.push(Finding::TwoResults { job: job.clone() }),
            Some(_) => continue,
            None => drop(first.insert(job.clone(), result)),
        }
        let Some(submission) = asked.get(job.as_str()) else {
            findings.push(Finding::Unasked { job });
            continue;
        };
        match verified(history, result) {
            Err(why) => findings.push(Finding::BadResult { job, why }),
            Ok(result) => {
                let signature = result.signature.to_string();
                if !is_by_the_wallet(submission, &signature) {
                    findings.push(Finding::BadSignature { job: job.clone(), seen: "its result".to_owned() });
                }
                let shown = history.jobs.get(&job).and_then(|shown| shown.get("result"));
                if shown.is_some_and(|shown| shown.get("body") != first.get(&job).and_then(|r| r.get("body")))
                {
                    findings.push(Finding::TwoResults { job });
                }
            }
        }
    }
}

/// The content of a published result, if the orchestrators signed it.
pub(super) fn verified(history: &History, result: &Value) -> Result<JobResult, String> {
    let signed: SignedResult = serde_json::from_value(result.clone()).map_err(|error| error.to_string())?;
    let mut key = [0; 32];
    hex::decode_to_slice(&history.orchestrator_key, &mut key).map_err(|error| error.to_string())?;
    signed.verify(&key).map_err(|error| error.to_string())
}

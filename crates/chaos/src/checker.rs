//! Judges a run from its evidence alone. It shares only the decoding of documents with the code
//! under test. Independent libraries compute digests and recover signers.

mod causes;
mod deliveries;
mod finding;
mod growth;
mod jobs;
mod sessions;
#[cfg(test)]
mod tests;

pub use self::{finding::Finding, jobs::signed_job};
use crate::history::History;

/// All violations in a run. A good run has none.
#[must_use]
pub fn check(history: &History) -> Vec<Finding> {
    let mut findings = jobs::check(history);
    findings.extend(deliveries::check(history));
    findings.extend(sessions::check(history));
    findings.extend(growth::check(history));
    findings.extend(history.unrecovered.iter().map(|what| Finding::Unrecovered { what: what.clone() }));
    findings.sort();
    findings.dedup();
    findings
}

//! Checks that every receiver of webhooks took each published result at least once, and nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Finding, jobs};
use crate::history::History;

pub(super) fn check(history: &History) -> Vec<Finding> {
    let mut published: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for result in &history.results {
        if let Some(job) = jobs::signed_job(result) {
            published.entry(job).or_default().push(result);
        }
    }
    let mut taken: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut findings = Vec::new();
    for delivery in &history.deliveries {
        let (receiver, job) = (delivery.receiver.clone(), delivery.job.clone());
        if published.get(&job).is_some_and(|all| all.contains(&&delivery.body)) {
            taken.insert((&delivery.receiver, &delivery.job));
        } else {
            findings.push(Finding::WrongDelivery { job, receiver });
        }
    }
    for receiver in &history.receivers {
        let missing = published.keys().filter(|job| !taken.contains(&(receiver, job.as_str())));
        findings
            .extend(missing.map(|job| Finding::Undelivered { job: job.clone(), receiver: receiver.clone() }));
    }
    findings
}

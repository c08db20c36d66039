//! Checks that resources did not grow over the run, neither in a process nor in the broker.

use super::Finding;
use crate::history::{Footprint, History};

/// How much the memory of a process may grow: bounded caches, and the allocator's reserve.
const MEMORY_SLACK_KIB: u64 = 48 * 1024;

/// How much the number of threads may grow: those of the blocking pool come and go.
const THREAD_SLACK: u64 = 16;

/// How much the number of files and sockets may grow: closing connections, a pool's readers.
const FILE_SLACK: u64 = 16;

/// How much the number of subscriptions may grow: a session that is ending, an event stream that
/// its reader has not closed yet.
const SUBSCRIPTION_SLACK: u64 = 8;

/// A resource, and the bound on its growth.
type Bound = (&'static str, fn(&Footprint) -> u64, u64);

const BOUNDS: [Bound; 4] = [
    ("memory in KiB", |footprint| footprint.memory_kib, MEMORY_SLACK_KIB),
    ("threads", |footprint| footprint.threads, THREAD_SLACK),
    ("open files", |footprint| footprint.files, FILE_SLACK),
    ("subscriptions", |footprint| footprint.subscriptions, SUBSCRIPTION_SLACK),
];

pub(super) fn check(history: &History) -> Vec<Finding> {
    let mut findings = Vec::new();
    for growth in &history.growth {
        for (what, measure, slack) in BOUNDS {
            let (before, after) = (measure(&growth.before), measure(&growth.after));
            if after > before + slack {
                findings.push(Finding::Grew { process: growth.process.clone(), what, before, after });
            }
        }
    }
    let [before, after] = &history.streams;
    for (name, &count) in after {
        let earlier = before.get(name).copied().unwrap_or_default();
        if !before.contains_key(name) || count > earlier + SUBSCRIPTION_SLACK {
            let (before, after) = (earlier, count);
            findings.push(Finding::Grew { process: name.clone(), what: "consumers", before, after });
        }
    }
    findings
}

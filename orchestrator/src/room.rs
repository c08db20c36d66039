//! Checks whether the broker has room for everything that an accepted job will still write.
//!
//! An accepted job writes several times more: its attempts, its result, its announcements. A full
//! stream or bucket would refuse those as well, so new jobs are refused a little earlier.

use core::time::Duration;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use duet_bus::{kv, streams};
use duet_queue::room::Fill;
use duet_wire::TenantId;
use tokio::time::timeout;

use crate::orchestrator::Orchestrator;

/// How full a stream may be, in percent of its bytes, while new jobs are accepted.
const FULL_PERCENT: u64 = 90;

/// How long the broker may take to say how full a stream is.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Which store is nearly full, as of the last check.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: Mutex<Option<String>>,
    /// Whether the audit log's stream is nearly full. Jobs are accepted all the same, because the
    /// parties keep their records.
    audit: AtomicBool,
}

impl Room {
    /// The store that is nearly full, if one is.
    fn nearly_full(&self) -> Option<String> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that the stream `name` refused a message for want of room.
    pub(crate) fn mark_full(&self, name: &str) {
        self.set(Some(name.to_owned()));
    }

    fn set(&self, name: Option<String>) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if *full != name {
            match &name {
                Some(name) => tracing::error!(stream = name, "nearly full: no new jobs are taken"),
                None => tracing::info!("the broker has room again: new jobs are taken"),
            }
            *full = name;
        }
    }
}

const fn is_nearly_full(bytes: u64, max_bytes: i64) -> bool {
    max_bytes > 0 && bytes / FULL_PERCENT >= max_bytes.unsigned_abs() / 100
}

impl Orchestrator {
    /// How full the queue is for `tenant`, by the last check and by this process's own count.
    pub(crate) fn fill(&self, tenant: &TenantId) -> Fill {
        let (all, own) = self.board.load(tenant);
        Fill { nearly_full: self.room.nearly_full(), own, all }
    }

    /// Checks how full the broker's streams and buckets are, and whether they still exist.
    pub(crate) async fn look_for_room(&self) {
        let needed = [
            streams::JOBS.to_owned(),
            streams::RESULTS.to_owned(),
            format!("KV_{}", kv::JOBS),
            format!("KV_{}", kv::SESSIONS),
        ];
        // A store that does not answer is not full. The next write to it reports the failure.
        if let Ok(looks) = timeout(LOOK_DEADLINE, self.look_at_stores()).await {
            let full =
                |name: &str| looks.get(name).is_some_and(|look| is_nearly_full(look.bytes, look.max_bytes));
            self.room.set(needed.into_iter().find(|name| full(name)));
            let audit = full(streams::AUDIT);
            if self.room.audit.swap(audit, Ordering::Relaxed) != audit && audit {
                tracing::error!(
                    stream = streams::AUDIT,
                    "nearly full: parties will keep their records, orchestrators and gateways lose theirs; export it, \
                     and give it more room with --audit-mib or less time with --audit-age"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_are_nearly_full() {
        assert!(!is_nearly_full(899_999, 1_000_000));
        assert!(is_nearly_full(900_000, 1_000_000));
        assert!(!is_nearly_full(u64::MAX, -1));
    }
}

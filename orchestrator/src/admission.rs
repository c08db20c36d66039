//! Whether there is room for one more job, and if not, when there may be.

use core::time::Duration;

use duet_wire::TenantId;

use crate::{board::Load, orchestrator::Orchestrator};

/// There is no room for one more job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Full {
    /// What is full, as text for the submitting client.
    pub(crate) detail: String,
    /// When to try again: by then enough jobs are settled, at the rate of the last half minute.
    pub(crate) retry_after: Duration,
}

/// Whether `load` leaves room for one more of `limit`.
fn room(load: Load, limit: usize, whose: &str, now_ms: u64) -> Result<(), Full> {
    let Some(too_many) = (load.open + 1).checked_sub(limit).filter(|too_many| *too_many > 0) else {
        return Ok(());
    };
    Err(Full {
        detail: format!("{whose} has {} open jobs, as many as it may have; submit it again later", load.open),
        retry_after: load.ended.time_for(too_many, now_ms),
    })
}

impl Orchestrator {
    /// Whether `tenant` may have one more job accepted now, by this orchestrator's own count.
    pub(crate) fn admit(&self, tenant: &TenantId) -> Result<(), Full> {
        if let Some(full) = self.room.full() {
            return Err(full);
        }
        let (all, own) = self.board.load(tenant);
        let now_ms = self.clock.now_ms();
        room(own, self.queue.max_open_jobs_per_tenant, "the tenant", now_ms)?;
        room(all, self.queue.max_open_jobs, "the queue", now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_given_away_and_no_more() {
        let load = |open| Load { open, ..Load::default() };
        assert_eq!(room(load(1), 2, "the queue", 0), Ok(()));
        let full = room(load(2), 2, "the queue", 0).unwrap_err();
        assert!(full.detail.starts_with("the queue has 2 open jobs"), "{}", full.detail);
        assert!(full.retry_after >= Duration::from_secs(1));
    }
}

//! Whether there is room for one more job, and if not, when there may be.

use core::time::Duration;

use crate::{meter::Meter, settings::QueueSettings};

/// When a client should try again while a store is nearly full. It empties by age or by an
/// operator, which takes longer than a second.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// How many jobs are open, and how fast they end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// How many are open.
    pub open: usize,
    /// How many ended lately.
    pub ended: Meter,
}

/// How full a process knows the queue to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fill {
    /// The broker's store that is nearly full, if one is.
    pub nearly_full: Option<String>,
    /// The load of the tenant that asks.
    pub own: Load,
    /// The load of all tenants.
    pub all: Load,
}

/// There is no room for one more job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// What is full, as text for the submitting client.
    pub detail: String,
    /// When to try again: by then enough jobs are settled, at the rate of the last half minute.
    pub retry_after: Duration,
}

impl Fill {
    /// Whether the tenant may have one more job accepted at `now_ms`.
    ///
    /// # Errors
    /// What is full, and when there may be room.
    pub fn admit(&self, queue: &QueueSettings, now_ms: u64) -> Result<(), Full> {
        if let Some(store) = &self.nearly_full {
            return Err(Full {
                detail: format!("the broker's store {store} is nearly full; submit it again later"),
                retry_after: RETRY_AFTER,
            });
        }
        admit(self.own, queue.max_open_jobs_per_tenant, "the tenant", now_ms)?;
        admit(self.all, queue.max_open_jobs, "the queue", now_ms)
    }
}

/// Whether `load` leaves room for one more of `limit`.
fn admit(load: Load, limit: usize, whose: &str, now_ms: u64) -> Result<(), Full> {
    let Some(too_many) = (load.open + 1).checked_sub(limit).filter(|too_many| *too_many > 0) else {
        return Ok(());
    };
    Err(Full {
        detail: format!("{whose} has {} open jobs, as many as it may have; submit it again later", load.open),
        retry_after: load.ended.time_for(too_many, now_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_given_away_and_no_more() {
        let load = |open| Load { open, ..Load::default() };
        assert_eq!(admit(load(1), 2, "the queue", 0), Ok(()));
        let full = admit(load(2), 2, "the queue", 0).unwrap_err();
        assert!(full.detail.starts_with("the queue has 2 open jobs"), "{}", full.detail);
        assert!(full.retry_after >= Duration::from_secs(1));
    }

    #[test]
    fn a_store_without_room_comes_before_every_count() {
        let fill = Fill { nearly_full: Some("JOBS".to_owned()), ..Fill::default() };
        let full = fill.admit(&QueueSettings::default(), 0).unwrap_err();
        assert_eq!((full.detail.contains("JOBS"), full.retry_after), (true, RETRY_AFTER));
        assert_eq!(Fill::default().admit(&QueueSettings::default(), 0), Ok(()));
    }
}

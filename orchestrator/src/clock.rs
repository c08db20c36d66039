//! The wall clock, for deadlines that several processes share.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use duet_queue::time::{until, whole_millis};

/// Milliseconds since 1970; 0 on a clock set before that.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, whole_millis)
}

//! How long clients wait before they try again.

use std::time::Duration;

/// The pause before a team asks an orchestrator again.
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// The longest pause between two questions about a job. A hundred waiting jobs must not keep the
/// orchestrators busy.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

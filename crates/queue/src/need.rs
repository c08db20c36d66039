//! What a job needs that no process works on.

use duet_wire::JobStateName;

use crate::{settings::QueueSettings, summary::Summary, time::whole_millis};

/// What a job found by the sweeper needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its time has passed.
    Expire,
    /// Its session is long over and no party reported an outcome.
    EndSession,
    /// Its end was never published.
    Publish,
    /// No orchestrator seems to have its announcement.
    Announce,
    /// It was kept long enough.
    Remove,
}

impl Need {
    /// How many needs there are.
    pub const COUNT: usize = 5;
}

/// The state of the announcements that are not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Some are not delivered yet: a resting job may just wait its turn.
    Waiting,
    /// All are delivered, for jobs in work or between attempts: a resting job may be among them.
    InWork,
    /// There are none: a resting job has lost its announcement.
    Empty,
}

/// What `job` needs at `now_ms`, if anything.
#[must_use]
pub fn need(queue: &QueueSettings, job: &Summary, now_ms: u64) -> Option<Need> {
    let patience = whole_millis(queue.announce_after);
    let resting = |since: u64| now_ms >= since.saturating_add(patience);
    match job.state {
        JobStateName::Queued | JobStateName::AwaitingOwner if now_ms >= job.expires_at_ms => {
            Some(Need::Expire)
        }
        JobStateName::Queued => {
            resting(job.updated_at_ms.max(job.next_attempt_at_ms)).then_some(Need::Announce)
        }
        // The orchestrator that runs a session ends it once its time and the grace have passed.
        // This is for sessions that none runs: the owner's, and those of orchestrators that died
        // after their announcement was gone. The clock that noted the session's times may differ
        // from this one by more than a session lasts, so it counts since when this process saw it.
        JobStateName::Running => {
            let session = whole_millis(queue.session_timeout + queue.outcome_grace);
            resting(job.seen_at_ms.saturating_add(session)).then_some(Need::EndSession)
        }
        _ if job.is_settled() && !job.end_published => resting(job.updated_at_ms).then_some(Need::Publish),
        // The record is kept until then, so that parties can be told of the revocation.
        _ if job.is_settled() && job.revocation_waits && now_ms < job.expires_at_ms => None,
        JobStateName::Signed | JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => {
            let kept = whole_millis(queue.keep_settled);
            (now_ms >= job.updated_at_ms.saturating_add(kept)).then_some(Need::Remove)
        }
        // Orchestrators of the release that added the state see to it.
        JobStateName::AwaitingOwner | JobStateName::Unknown(_) => None,
    }
}

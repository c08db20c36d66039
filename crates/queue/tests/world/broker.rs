//! A model of the broker: the buckets of jobs and sessions, the stream of announcements, and that
//! of ends.

use std::{collections::BTreeMap, sync::Arc};

use duet_protocol::ids::SessionId;
use duet_queue::store::{JobKey, Version, Written};
use duet_wire::{JobRecord, JobState, session_state::SessionRecord};

/// An announcement that is not acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    pub(crate) job: JobKey,
    pub(crate) at_ms: u64,
    pub(crate) deliveries: i64,
}

#[derive(Default)]
pub(crate) struct Broker {
    /// Every version of each job, the newest last.
    pub(crate) jobs: BTreeMap<JobKey, Vec<Version>>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
    pub(crate) announcements: Vec<Announcement>,
    /// By message id, how often each end was published.
    pub(crate) ends: BTreeMap<String, u32>,
    revision: u64,
}

impl Broker {
    pub(crate) fn create(&mut self, record: JobRecord) -> Version {
        self.revision += 1;
        let version = Version { record: Arc::new(record), revision: self.revision };
        self.jobs.insert(JobKey::of(&version.record), vec![version.clone()]);
        version
    }

    /// Compare-and-swap. Judges every change that is stored.
    pub(crate) fn write(&mut self, job: &JobKey, revision: u64, record: &Arc<JobRecord>) -> Written {
        let Some(versions) = self.jobs.get_mut(job) else { return Written::Conflict };
        let before = versions.last().unwrap();
        if before.revision != revision {
            return Written::Conflict;
        }
        judge(&before.record, record);
        self.revision += 1;
        versions.push(Version { record: Arc::clone(record), revision: self.revision });
        Written::Stored(self.revision)
    }
}

/// What holds of every change, by any process.
fn judge(before: &JobRecord, after: &JobRecord) {
    assert!(after.fence >= before.fence, "a fence went back");
    assert_eq!(u64::from(after.attempts_started), after.fence);
    if before.state.is_final() {
        assert_eq!(after.state, before.state, "a job that had ended went on");
    }
    if let (JobState::Running { session, .. }, JobState::Running { session: next, .. }) =
        (&before.state, &after.state)
    {
        assert_eq!(session, next, "a session began while another one ran");
    }
    if let JobState::Signed { result } = &after.state {
        let last = after.attempts.last().unwrap().session;
        let signed_in = result.parse_unverified().unwrap().session;
        assert_eq!(signed_in, last, "a late session's signature was taken");
    }
}

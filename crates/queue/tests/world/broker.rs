//! A model of the broker: the buckets of jobs and sessions, the stream of announcements, and that
//! of ends.

use std::{collections::BTreeMap, sync::Arc};

use duet_protocol::ids::SessionId;
use duet_queue::{
    intake::{DigestKey, Holder},
    store::{JobKey, Version, Written},
};
use duet_wire::{JobRecord, JobState, session_state::SessionRecord};

/// An announcement that is not acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    pub(crate) job: JobKey,
    pub(crate) at_ms: u64,
    pub(crate) deliveries: i64,
}

#[derive(Clone, Default)]
pub(crate) struct Broker {
    /// Every version of each job, the newest last.
    pub(crate) jobs: BTreeMap<JobKey, Vec<Version>>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
    pub(crate) announcements: Vec<Announcement>,
    /// By message id and kind, how often each end was published.
    pub(crate) ends: BTreeMap<String, u32>,
    /// Which job has each digest, and the entry's revision.
    pub(crate) claims: BTreeMap<DigestKey, (Holder, u64)>,
    /// When each announcement's message id came last.
    pub(crate) wake_ups: BTreeMap<String, u64>,
    revision: u64,
}

impl Broker {
    pub(crate) fn create(&mut self, record: &Arc<JobRecord>) -> Written {
        let job = JobKey::of(record);
        if self.jobs.contains_key(&job) {
            return Written::Conflict;
        }
        self.revision += 1;
        let version = Version { record: Arc::clone(record), revision: self.revision };
        self.jobs.insert(job, vec![version]);
        Written::Stored(self.revision)
    }

    /// Notes which job has a digest, unless the entry is another one than that which it follows.
    pub(crate) fn claim(&mut self, digest: &DigestKey, holder: Holder, follows: Option<u64>) -> Written {
        if self.claims.get(digest).map(|(_, revision)| *revision) != follows {
            return Written::Conflict;
        }
        self.revision += 1;
        self.claims.insert(digest.clone(), (holder, self.revision));
        Written::Stored(self.revision)
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
    if before.state.is_final() && after.put_back == before.put_back {
        assert_eq!(after.state, before.state, "a job that had ended went on");
    }
    if matches!((&before.state, &after.state), (JobState::Running { .. }, JobState::Cancelled)) {
        assert!(after.revocation.is_some(), "a job was cancelled while it ran");
    }
    if after.put_back != before.put_back {
        assert!(matches!(before.state, JobState::Failed { .. }), "no dead letter was put back");
    }
    if after.revocation.is_some() {
        let runs_on = matches!(after.state, JobState::Running { .. });
        assert!(after.state.is_final() || runs_on, "a revoked job waits for another session");
        assert!(before.state == after.state || after.state.is_final(), "a revoked job was started");
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

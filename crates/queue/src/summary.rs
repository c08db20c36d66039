//! The facts that a process keeps of each job.

use duet_protocol::ids::WalletId;
use duet_wire::{Code, JobId, JobRecord, JobState, JobStateName, SigningRequest, TenantId};

use crate::{plan, reasons, store::JobKey};

/// The kept facts of each job: some 200 bytes, so that the whole bucket fits in memory.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// Its state.
    pub state: JobStateName,
    /// When it was accepted, in milliseconds since 1970, as all times here.
    pub created_at_ms: u64,
    /// When it last changed.
    pub updated_at_ms: u64,
    /// When this process first saw the entry as it is. The other times are by the clocks of the
    /// processes that wrote them.
    pub seen_at_ms: u64,
    /// When its next attempt may begin.
    pub next_attempt_at_ms: u64,
    /// When it expires.
    pub expires_at_ms: u64,
    /// Whether its end was published.
    pub end_published: bool,
    /// Whether some parties still have to be told that the request was revoked.
    pub revocation_waits: bool,
    /// The wallet whose owner the job waits for. Known only while it waits.
    pub waits_for: Option<WalletId>,
    /// Whether it waits for its owner only until a preferred pair can sign. Known only while it
    /// waits.
    pub prefers_backends: bool,
    /// Why it waits, if it does and is not in work.
    pub waiting: Option<Code>,
    /// The entry's revision.
    pub revision: u64,
}

impl Summary {
    /// The facts of `record` at `revision`, which this process first saw at `seen_at_ms`.
    #[must_use]
    pub fn new(record: &JobRecord, revision: u64, seen_at_ms: u64) -> Self {
        let waiting = matches!(record.state, JobState::AwaitingOwner)
            .then(|| SigningRequest::from_json(&record.request.body).ok())
            .flatten();
        let prefers_backends = waiting.as_ref().is_some_and(|request| plan::prefers_backends(&request.pairs));
        Self {
            tenant: record.tenant.clone(),
            job: record.id,
            state: record.state.name(),
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            seen_at_ms,
            next_attempt_at_ms: record.next_attempt_at_ms,
            expires_at_ms: record.expires_at_ms,
            end_published: record.end_published_at_ms.is_some(),
            revocation_waits: record.revocation.as_ref().is_some_and(|known| !known.waits_for.is_empty()),
            waits_for: waiting.map(|request| request.wallet),
            prefers_backends,
            waiting: reasons::of(record),
            revision,
        }
    }

    /// The key of its entry.
    #[must_use]
    pub fn key(&self) -> JobKey {
        JobKey { tenant: self.tenant.clone(), job: self.job }
    }

    /// Whether it may still be signed.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        match self.state {
            JobStateName::Queued
            | JobStateName::AwaitingOwner
            | JobStateName::Running
            // Another release may still sign it.
            | JobStateName::Unknown(_) => true,
            JobStateName::Signed | JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => {
                false
            }
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        !self.is_open()
    }
}

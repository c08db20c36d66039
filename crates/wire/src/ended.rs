//! A job that ended without a signature, as published to readers of the tenant's results.

use serde::{Deserialize, Serialize};

use crate::{
    JobId, TenantId,
    error::{Code, Refusal},
    job::{JobRecord, JobState, JobStateName},
};

/// How a job ended. It is not signed: before acting on it, a reader fetches the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnded {
    /// The job.
    pub job: JobId,
    /// The tenant that owned it.
    pub tenant: TenantId,
    /// `failed`, `expired` or `cancelled`.
    pub state: JobStateName,
    /// Why there is no signature.
    pub failure: Refusal,
    /// When it ended, in milliseconds since 1970.
    pub ended_at_ms: u64,
}

impl JobEnded {
    /// How `record` ended. `None` unless it ended without a signature.
    #[must_use]
    pub fn of(record: &JobRecord) -> Option<Self> {
        let failure = match &record.state {
            JobState::Failed { code, message } => Refusal::new(*code, message.clone()),
            JobState::Expired => Refusal::new(Code::JobExpired, expired(record)),
            JobState::Cancelled => Refusal::new(Code::Cancelled, "The job was cancelled."),
            JobState::Queued
            | JobState::AwaitingOwner
            | JobState::Running { .. }
            | JobState::Signed { .. }
            | JobState::Unknown(_) => {
                return None;
            }
        };
        Some(Self {
            job: record.id,
            tenant: record.tenant.clone(),
            state: record.state.name(),
            failure,
            ended_at_ms: record.updated_at_ms,
        })
    }
}

/// Why a job expired: what it waited for.
fn expired(record: &JobRecord) -> String {
    match &record.waiting {
        Some(waiting) => {
            format!("The job expired while it waited: {} [{}].", waiting.message, waiting.code)
        }
        None => "The job expired before it was signed.".to_owned(),
    }
}

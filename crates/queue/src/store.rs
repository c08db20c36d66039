//! A job's entry in the store, and the outcomes of reading and writing it.

use std::sync::Arc;

use duet_wire::{Code, JobId, JobRecord, Refusal, SigningRequest, TenantId, request::RequestError};

/// Names a job's entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
}

impl JobKey {
    /// The key of `record`.
    #[must_use]
    pub fn of(record: &JobRecord) -> Self {
        Self { tenant: record.tenant.clone(), job: record.id }
    }
}

/// A job's record as of some revision of its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The record.
    pub record: Arc<JobRecord>,
    /// The revision that a compare-and-swap names.
    pub revision: u64,
}

/// Why an entry was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// The store has no room left.
    #[error("the bucket is full")]
    Full,
    /// The store did not answer or confirm. A write may have happened.
    #[error("the job store does not answer: {0}")]
    Unknown(String),
    /// The entry was not written by this version.
    #[error("the stored entry cannot be read: {0}")]
    Corrupt(String),
    /// A later release wrote the entry for later readers. It is left to them.
    #[error("{0}")]
    Newer(String),
    /// Other writers kept changing the entry.
    #[error("the entry keeps changing")]
    Contended,
}

impl StoreFailure {
    /// The outcome of a question that was not answered in time.
    pub(crate) fn unanswered() -> Self {
        Self::Unknown("no answer in time".to_owned())
    }
}

impl From<StoreFailure> for Refusal {
    fn from(failure: StoreFailure) -> Self {
        match failure {
            StoreFailure::Full => Self::new(Code::QueueFull, "the job store is full; try again later"),
            StoreFailure::Unknown(_) | StoreFailure::Contended => {
                Self::new(Code::StorageUnavailable, "the job store does not answer; try again")
            }
            StoreFailure::Newer(_) => Self::new(
                Code::UnsupportedVersion,
                "a later release of Duet wrote the stored entry; its orchestrators go on with it",
            ),
            StoreFailure::Corrupt(_) => Self::new(Code::Internal, "the stored job cannot be read"),
        }
    }
}

/// The outcome of one compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The record is stored at this revision.
    Stored(u64),
    /// Another writer was first. Nothing is stored.
    Conflict,
    /// Nothing is stored, or with [`StoreFailure::Unknown`] perhaps.
    Failed(StoreFailure),
}

/// The request that `record` holds. It was verified when the job was accepted.
///
/// # Errors
/// When this version cannot read it.
pub fn request_of(record: &JobRecord) -> Result<SigningRequest, StoreFailure> {
    SigningRequest::from_json(&record.request.body).map_err(|error| match error {
        RequestError::UnsupportedVersion => StoreFailure::Newer(error.to_string()),
        _ => StoreFailure::Corrupt(error.to_string()),
    })
}

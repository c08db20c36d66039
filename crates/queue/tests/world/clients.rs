//! What clients want.

use crate::jobs::Variant;

/// What a client wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Submit(Variant),
    Cancel,
    Revoke,
    Approve,
    Reject,
    PutBack,
}

/// A client with one wish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// The job.
    pub(crate) number: u64,
    pub(crate) deed: Deed,
    /// How often it asks again after an answer that tells it nothing.
    pub(crate) left: u32,
}

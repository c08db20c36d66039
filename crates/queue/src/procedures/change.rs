//! Changes a job's record by compare-and-swap.

use std::sync::Arc;

use duet_wire::JobRecord;

use super::hand::Hand;
use crate::store::{JobKey, StoreFailure, Version, Written};

/// How often a change is decided anew because another process wrote first. Few orchestrators ever
/// meet at one entry; more than this means that some process writes in a loop.
pub(super) const MAX_CONFLICTS: usize = 16;

/// The result of a change.
pub(super) enum Changed<R> {
    /// The change is stored.
    Applied(Version),
    /// The record does not allow the change, for this reason.
    Declined(R),
    /// There is no such record.
    Missing,
}

/// Applies `edit` to the record under `job`, and again to the newest record whenever another writer
/// was first. `known` spares the first read.
///
/// After [`StoreFailure::Unknown`] the change may be stored; a retry sees it.
pub(super) async fn change<R>(
    hand: &Hand,
    job: &JobKey,
    known: Option<Version>,
    mut edit: impl FnMut(&mut JobRecord) -> Result<(), R>,
) -> Result<Changed<R>, StoreFailure> {
    let mut next = known;
    for _ in 0..MAX_CONFLICTS {
        let version = match next.take() {
            Some(version) => Some(version),
            None => hand.read(job, false).await?,
        };
        let Some(Version { mut record, revision }) = version else { return Ok(Changed::Missing) };
        if let Err(reason) = edit(Arc::make_mut(&mut record)) {
            return Ok(Changed::Declined(reason));
        }
        match hand.write(job, revision, Arc::clone(&record)).await {
            Written::Stored(revision) => return Ok(Changed::Applied(Version { record, revision })),
            Written::Conflict => {}
            Written::Failed(failure) => return Err(failure),
        }
    }
    Err(StoreFailure::Contended)
}

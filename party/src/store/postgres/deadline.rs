//! The deadline of everything that the store does.

use std::{future::Future, time::Duration};

use crate::store::StoreError;

/// Everything the store does ends by then, one way or the other: longer than the server's own
/// deadlines together.
const DEADLINE: Duration = Duration::from_secs(25);

/// What `work` comes to, unless the server says nothing at all.
pub(super) async fn within<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let silent =
        |_| StoreError::Unavailable { operation, source: "the database server does not answer".into() };
    tokio::time::timeout(DEADLINE, work).await.map_err(silent)?
}

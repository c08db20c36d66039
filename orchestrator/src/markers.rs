//! Removes what remains of removed entries: markers of earlier versions, which have no time to
//! live, and markers that a killed broker shows again (`duet_bus::markers`).
//!
//! Each orchestrator walks through the buckets when it starts, one round per sweep. After the end
//! it waits as long as a marker lives, and begins again.

use std::sync::Arc;

use duet_bus::{
    kv::WriteError,
    markers::{OldMarkers, Round, RoundError},
};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::orchestrator::Orchestrator;

/// The pause after a bucket had no room. It empties by an operator.
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// Walks through the buckets until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    // Of the other buckets' entries, no version removes any. They end by age, which leaves no
    // marker.
    let walks = async {
        tokio::join!(
            walk(&orchestrator, orchestrator.jobs.bucket().old_markers()),
            walk(&orchestrator, orchestrator.sessions.bucket().old_markers()),
            walk(&orchestrator, orchestrator.webhooks.bucket().old_markers()),
        )
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = walks => {}
    }
}

/// Walks through one bucket, again and again.
async fn walk<T>(orchestrator: &Orchestrator, mut markers: OldMarkers<T>) {
    let mut lost = orchestrator.stores.changes();
    let mut renewed = 0;
    loop {
        let pause = match markers.round().await {
            Ok(Round { renewed: more, is_last }) => {
                renewed += more;
                if is_last && renewed > 0 {
                    tracing::info!(
                        bucket = markers.bucket(),
                        markers = core::mem::take(&mut renewed),
                        "markers of removed entries had remained; they go now"
                    );
                }
                if is_last {
                    markers.restart();
                    orchestrator.storage.marker_ttl
                } else {
                    orchestrator.queue.sweep_interval
                }
            }
            Err(RoundError::Write(WriteError::Full { bucket })) => {
                tracing::error!(
                    bucket,
                    "full, also of markers of removed entries; they go once it has more room (--bucket-mib)"
                );
                FULL_PAUSE
            }
            Err(error) => {
                tracing::debug!(%error, "old markers are looked for again later");
                orchestrator.queue.sweep_interval
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = lost.changed() => markers.restart(),
        }
    }
}

//! Removes what remains of removed entries: markers of earlier versions, which have no time to
//! live, and markers that a killed broker shows again (`duet_bus::markers`).
//!
//! Each orchestrator walks through the buckets when it starts, one round per sweep. After the end
//! it waits as long as a marker lives, and begins again. Markers of a bucket that an earlier
//! version made stay until the operator says otherwise (`StorageSettings::expire_markers`).

use std::sync::Arc;

use duet_bus::{
    kv::{Bucket, WriteError},
    markers::{Round, RoundError},
};
use serde::{Serialize, de::DeserializeOwned};
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
            walk(&orchestrator, orchestrator.jobs.bucket()),
            walk(&orchestrator, orchestrator.sessions.bucket()),
            walk(&orchestrator, orchestrator.webhooks.bucket()),
        )
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = walks => {}
    }
}

/// Walks through one bucket, again and again.
async fn walk<T: Serialize + DeserializeOwned>(orchestrator: &Orchestrator, bucket: &Bucket<T>) {
    let mut markers = bucket.old_markers();
    if !bucket.markers_expire() {
        tracing::warn!(
            bucket = markers.bucket(),
            "an earlier version made this bucket, and each removed entry leaves some 200 bytes in it; start one \
             orchestrator with --expire-markers once you do not want to go back to that version"
        );
    }
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

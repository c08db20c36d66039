//! `duet.v1.seats.<party>.<instance>`: tells orchestrators how many seats this worker has free.

use std::{sync::Arc, time::Duration};

use duet_bus::Address;
use duet_protocol::codec;
use duet_wire::Offer;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::store::Readiness;

/// How long an offer stands before the next one, at least and at most.
const STANDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Publishes offers until `stop`, and then one that says that the worker takes no more sessions.
pub(super) async fn publish(shared: Arc<Shared>, stop: CancellationToken) {
    let (shortest, longest) = STANDS;
    let store = shared.party.context.store();
    let mut changes = shared.seats.changes();
    let mut number = 0_u64;
    loop {
        changes.mark_unchanged();
        let is_ready = matches!(store.readiness(), Readiness::Ready);
        number += 1;
        offer(&shared, number, is_ready).await;
        let stands = async {
            tokio::time::sleep(shortest).await;
            tokio::select! {
                _ = changes.changed() => {}
                () = store.until_ready(!is_ready) => {}
                () = tokio::time::sleep(longest - shortest) => {}
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = stands => {}
        }
    }
    offer(&shared, number + 1, false).await;
}

/// Publishes one offer. It may be lost: the next one follows soon.
async fn offer(shared: &Shared, number: u64, takes_sessions: bool) {
    let (all, free) = if takes_sessions { shared.seats.count() } else { (0, 0) };
    let offer = Offer {
        number,
        seats: all,
        free_seats: free,
        now_ms: shared.party.context.clock.now_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reader_level: codec::READER_LEVEL,
    };
    let address = Address::Seats { party: shared.party.id().clone(), instance: shared.instance.clone() };
    match codec::encode(&offer) {
        Ok(offer) => {
            if let Err(error) = shared.bus.publish(&address, offer).await {
                tracing::debug!(%error, "seats were not offered");
            }
        }
        Err(error) => tracing::error!(%error, "an offer does not encode"),
    }
}

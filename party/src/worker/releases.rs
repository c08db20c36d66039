//! `duet.v1.release.<party>.<instance>`: takes a seat back from a session that does not go on.

use std::sync::Arc;

use duet_bus::Incoming;
use duet_protocol::codec;
use duet_wire::Release;

use super::shared::Shared;

pub(super) async fn serve(shared: Arc<Shared>, message: Incoming) {
    match codec::decode::<Release>(&message.payload) {
        Ok(Release { session }) => {
            if shared.seats.release(session) {
                tracing::info!(%session, "the seat is released");
            } else {
                tracing::debug!(%session, "released a session that is not here");
            }
        }
        Err(error) => tracing::debug!(%error, "a release does not parse"),
    }
}

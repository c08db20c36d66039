//! Sends frames to a device.

use axum::extract::ws::Message;
use duet_protocol::codec;
use duet_wire::gateway::ServerFrame;
use tokio::sync::mpsc;

/// Sends frames to the device.
#[derive(Clone)]
pub(crate) struct Outbox(pub(crate) mpsc::Sender<Message>);

/// The socket is closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

impl Outbox {
    /// Sends a frame. Waits while there is no room.
    pub(crate) async fn frame(&self, frame: &ServerFrame) -> Result<(), Gone> {
        let bytes = codec::encode(frame).map_err(|error| {
            tracing::error!(%error, ?frame, "a frame does not encode");
            Gone
        })?;
        self.0.send(Message::Binary(bytes.into())).await.map_err(|_| Gone)
    }
}

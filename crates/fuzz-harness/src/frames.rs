//! Frames on a browser's socket.

use duet_wire::gateway::{ClientFrame, ServerFrame, WaitingAnswer, WaitingQuestion};

use crate::decoders::canonical;

/// Any bytes as a frame in either direction, and as the questions that the gateway asks for a
/// device.
pub fn run(bytes: &[u8]) {
    canonical::<ClientFrame>(bytes);
    canonical::<ServerFrame>(bytes);
    canonical::<WaitingQuestion>(bytes);
    canonical::<WaitingAnswer>(bytes);
}

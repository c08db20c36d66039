//! Invitations: `duet.v1.invite.<party>`, a request. The worker answers only after the broker has
//! registered its subscription to the session's rounds.

use duet_protocol::{
    codec::{self, DecodeError, Message},
    ids::SessionId,
};
use serde::{Deserialize, Serialize};

use crate::{error::Refusal, manifest::Manifest};

/// An invitation to a session. It is never sent again with the same session id, which could put two
/// workers into one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

impl Message for Invitation {
    const KIND: u8 = 0x41;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = Manifest::MAX_SIZE_BYTES + 16;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// A worker's answer to an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationReply {
    /// The worker takes part and already listens.
    Accepted {
        /// The worker process: an [`InstanceId`](crate::InstanceId), where it can be released.
        instance: String,
    },
    /// The worker refuses.
    Refused(Refusal),
}

impl Message for InvitationReply {
    const KIND: u8 = 0x42;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// Takes a seat back: `duet.v1.release.<party>.<instance>`, to the worker that accepted. The
/// session does not take place, because the other party refused, had no seat or was silent. The
/// worker wipes what it holds, frees the seat and reports nothing. It gets no answer.
///
/// # Security
/// It can only deny a session, which an orchestrator can do by inviting no party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The session.
    pub session: SessionId,
}

impl Message for Release {
    const KIND: u8 = 0x4d;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 64;
}

impl InvitationReply {
    /// Reads a party's answer: a reply, or a [`TimeRefusal`]. For the latter it also returns the
    /// party's time.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(bytes: &[u8]) -> Result<(Self, Option<u64>), DecodeError> {
        if bytes.first() == Some(&TimeRefusal::KIND) {
            let TimeRefusal { refusal, now_ms } = codec::decode(bytes)?;
            return Ok((Self::Refused(refusal), Some(now_ms)));
        }
        Ok((codec::decode(bytes)?, None))
    }
}

/// The answer of a party that refuses because of a time. It includes the party's own time, so that
/// the orchestrator can say which clock is off, and by how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRefusal {
    /// Why.
    pub refusal: Refusal,
    /// The party's time, in milliseconds since 1970.
    pub now_ms: u64,
}

impl Message for TimeRefusal {
    const KIND: u8 = 0x72;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

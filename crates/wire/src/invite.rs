//! Invitations: `duet.v1.invite.<party>`. A request; the answer comes only after the worker's
//! subscription to the session's rounds is registered at the broker.

use duet_protocol::codec::{self, DecodeError, Message};
use serde::{Deserialize, Serialize};

use crate::{error::Refusal, manifest::Manifest};

/// An invitation to a session. Never sent again with the same session id, or two workers would sit
/// in one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

impl Message for Invitation {
    const KIND: u8 = 0x41;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = Manifest::MAX_SIZE_BYTES + 16;
}

/// A worker's answer to an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationReply {
    /// It takes part, and listens already.
    Accepted {
        /// The worker process, for logs.
        instance: String,
    },
    /// It does not.
    Refused(Refusal),
}

impl Message for InvitationReply {
    const KIND: u8 = 0x42;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
}

impl InvitationReply {
    /// Reads a party's answer: a reply, or a [`TimeRefusal`], of which the party's time is told as
    /// well.
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

/// The answer of a party that does not take part because of a time: its own goes with the refusal,
/// so that the orchestrator can say whose clock is off, and by how much.
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
}

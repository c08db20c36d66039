//! Invitations: `duet.v1.invite.<party>`. A request; the answer comes only after the worker's
//! subscription to the session's rounds is registered at the broker.

use duet_protocol::codec::Message;
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

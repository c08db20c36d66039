//! How far a session has come: `duet.v1.event.<session>.<from>`. It is for observers: no decision
//! depends on it, and it may be lost.

use duet_protocol::ids::SessionId;
use serde::{Deserialize, Serialize};

use crate::error::Code;

/// The largest progress document in bytes.
pub const MAX_PROGRESS_SIZE_BYTES: usize = 1024;

/// A step of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The orchestrator is inviting the parties.
    Inviting,
    /// Both parties have accepted.
    Running,
    /// The speaker sent one of the four messages.
    Sent {
        /// The message's number, from 1.
        message: u8,
    },
    /// The speaker received one of the four messages, and all its checks passed.
    Received {
        /// The message's number, from 1.
        message: u8,
    },
    /// The session produced a signature that verifies.
    Signed,
    /// The session ended without a signature.
    Failed {
        /// Why.
        code: Code,
    },
    /// The session's deadline passed.
    Expired,
}

/// A speaker's report of how far a session has come, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The session.
    pub session: SessionId,
    /// What happened.
    #[serde(flatten)]
    pub step: Step,
    /// When it happened, in milliseconds since 1970 by the speaker's clock.
    pub at_ms: u64,
}

impl Progress {
    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Numbers and fixed text always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a report. `None` for a document that is too large or not a report.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_PROGRESS_SIZE_BYTES {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_round_trips() {
        for step in [Step::Sent { message: 3 }, Step::Failed { code: Code::Locked }, Step::Signed] {
            let progress = Progress { session: SessionId([7; 16]), step, at_ms: 5 };
            assert_eq!(Progress::from_json(&progress.to_json()), Some(progress));
        }
        assert_eq!(Progress::from_json(b"{}"), None);
        assert_eq!(Progress::from_json(&[b' '; 2000]), None);
    }
}

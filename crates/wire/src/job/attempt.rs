//! One attempt at a job, and how it ended.

use duet_protocol::ids::{PartyId, SessionId};
use serde::{Deserialize, Serialize};

use crate::{
    encoding::hex_array,
    error::{Class, Code},
    request::Pair,
};

/// The evidence for how an attempt ended and which party was at fault. It is the orchestrator's own
/// statement. Where it has a hash, the hash is of a message that a party sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// A party refused its invitation.
    Refusal {
        /// The party.
        by: PartyId,
    },
    /// A party's answer to its invitation does not parse.
    Nonsense {
        /// The party.
        by: PartyId,
        /// The SHA-256 of the answer.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party's signed report. If it blames the other party, only this party says so.
    Report {
        /// The party.
        by: PartyId,
        /// The SHA-256 of the report as it was sent, with its signature.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party's signed report of a signature that does not verify for the job's digest.
    InvalidSignature {
        /// The party.
        by: PartyId,
        /// The SHA-256 of the report as it was sent, with its signature.
        #[serde(with = "hex_array")]
        sha256: [u8; 32],
    },
    /// A party did not answer in time. It may have died or been cut off, or another process on the
    /// way may have withheld its answer. So this blames no party.
    Silence {
        /// The party.
        of: PartyId,
        /// Whether this orchestrator has not seen both parties accept the session: the party did
        /// not answer its invitation, or the orchestrator that sent it died. Then the silence says
        /// nothing about the job.
        #[serde(default, skip_serializing_if = "is_false")]
        before_acceptance: bool,
    },
    /// Evidence of a kind that a later release added.
    #[serde(other)]
    Unknown,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It ended with the signature.
    Signed,
    /// It ended without a signature.
    Failed {
        /// Why.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// The evidence for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Evidence>,
        /// An explanation for a person.
        message: String,
    },
    /// The job expired.
    Expired,
    /// In a way that a later release added.
    #[serde(other)]
    Unknown,
}

impl AttemptOutcome {
    /// What the outcome means for the job. `None` for an end with a signature, for an expired job,
    /// and for an outcome that a later release added.
    #[must_use]
    pub const fn class(&self) -> Option<Class> {
        match self {
            Self::Failed {
                code: Code::Deadline,
                evidence: Some(Evidence::Silence { before_acceptance: true, .. }),
                ..
            } => Some(Class::Wait),
            Self::Failed { code, .. } => Some(code.class()),
            Self::Signed | Self::Expired | Self::Unknown => None,
        }
    }
}

/// Earlier attempts that ended in the same way as the one listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// How many.
    pub attempts: u32,
    /// When the first of them began, in milliseconds since 1970.
    pub first_started_at_ms: u64,
}

/// One attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which, from 1.
    pub attempt: u32,
    /// Its session.
    pub session: SessionId,
    /// The pair that was to sign.
    pub pair: Pair,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
    /// Earlier attempts of the pair that ended with the same code. They are counted here and not
    /// listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
}

impl Attempt {
    /// How many attempts this entry stands for: itself, and those counted in `earlier`.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.earlier.map_or(1, |earlier| earlier.attempts.saturating_add(1))
    }

    /// When the first attempt began that this entry stands for, in milliseconds since 1970.
    #[must_use]
    pub fn first_started_at_ms(&self) -> u64 {
        self.earlier.map_or(self.started_at_ms, |earlier| earlier.first_started_at_ms)
    }

    /// Whether both failed, with the same pair and the same code, and mean the same for the job.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let end = |attempt: &Self| match &attempt.outcome {
            Some(outcome @ AttemptOutcome::Failed { code, .. }) => Some((*code, outcome.class())),
            _ => None,
        };
        self.pair == other.pair && end(self).is_some() && end(self) == end(other)
    }

    /// Whether it says nothing about the job.
    pub(super) fn says_nothing(&self) -> bool {
        self.outcome.as_ref().and_then(AttemptOutcome::class) == Some(Class::Wait)
    }
}

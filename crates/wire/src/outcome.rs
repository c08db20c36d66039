//! How a session ended for one party: `duet.v1.outcome.<session>.<from>`. The party signs it with
//! its card key and sends it until the orchestrator acknowledges.

use duet_protocol::{
    codec::{self, DecodeError, EncodeError, Message},
    ids::{PartyId, SessionId},
};
use serde::{Deserialize, Serialize};

use crate::{
    JobId, RecoverableSignature,
    encoding::hex_array,
    error::{Code, Refusal},
    signing::{self, Identity, Purpose},
};

/// How a session ended for one party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeResult {
    /// The session produced a signature that verifies. Only the initiator has it. The orchestrator
    /// verifies it again.
    Signed {
        /// The signature.
        signature: RecoverableSignature,
    },
    /// The responder did its part. It does not learn the signature.
    Answered,
    /// The session failed.
    Failed {
        /// Why.
        code: Code,
        /// The party demonstrably at fault.
        culprit: Option<PartyId>,
        /// An explanation for a person.
        message: String,
    },
}

/// A party's report on a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The session.
    pub session: SessionId,
    /// The job.
    pub job: JobId,
    /// Which attempt at the job.
    pub attempt: u32,
    /// The party that reports.
    pub from: PartyId,
    /// How it ended.
    pub result: OutcomeResult,
}

impl Outcome {
    /// A failure report; `refusal` says why.
    #[must_use]
    pub fn failed(
        session: SessionId,
        job: JobId,
        attempt: u32,
        from: PartyId,
        culprit: Option<PartyId>,
        refusal: Refusal,
    ) -> Self {
        let Refusal { code, message } = refusal;
        Self { session, job, attempt, from, result: OutcomeResult::Failed { code, culprit, message } }
    }
}

impl Message for Outcome {
    const KIND: u8 = 0x43;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// An outcome's exact bytes with its reporter's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOutcome {
    /// The encoded [`Outcome`].
    pub outcome: Vec<u8>,
    /// Ed25519, by the key of the reporter's card, over the tag `duet/v1/outcome` and the outcome.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl Message for SignedOutcome {
    const KIND: u8 = 0x44;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = Outcome::MAX_SIZE_BYTES + 128;
}

/// Why an outcome is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeError {
    /// The signature is not by the key.
    #[error("the outcome's signature is not by the party's card key")]
    BadSignature(#[from] signing::BadSignature),
    /// The bytes are no outcome.
    #[error("the outcome does not parse: {0}")]
    Malformed(#[from] DecodeError),
}

impl SignedOutcome {
    /// Signs `outcome` with the key of the reporter's card.
    ///
    /// # Errors
    /// When it has no encoding within its size.
    pub fn sign(outcome: &Outcome, key: &impl Identity) -> Result<Self, EncodeError> {
        let outcome = codec::encode(outcome)?;
        let signature = signing::sign(Purpose::Outcome, &outcome, key);
        Ok(Self { outcome, signature })
    }

    /// Checks the signature against the Ed25519 key of the card of the party that must have made
    /// it, then parses. The caller compares session, job, attempt and reporter with its own record.
    ///
    /// # Errors
    /// See [`OutcomeError`].
    pub fn verify(&self, card_key: &[u8; 32]) -> Result<Outcome, OutcomeError> {
        signing::verify(Purpose::Outcome, &self.outcome, card_key, &self.signature)?;
        Ok(codec::decode(&self.outcome)?)
    }
}

/// The orchestrator's answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeReply {
    /// The report is stored. The party need not send it again.
    Acknowledged,
    /// The report is refused. Sending it again changes nothing.
    Refused(Refusal),
}

impl Message for OutcomeReply {
    const KIND: u8 = 0x45;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

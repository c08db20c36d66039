//! Verdicts that are about to be reached, and how many answers a request has had.

use duet_protocol::ids::{CardFingerprint, PaillierKeyId, SessionId};
use duet_wire::{JobId, remembered::Remembered};

use crate::at_rest::{RecordKind, RecordLabel, SealedRecord};

/// How long the count of a request's answers stays after the request expired: workers' clocks may
/// differ by less.
pub(super) const ANSWERS_KEPT_FOR_MS: i64 = 3_600_000;

/// How long what this process itself has pending may take before it counts as left behind: far
/// longer than all deadlines of a store together.
pub(super) const OWN_PENDING_FOR_MS: i64 = 120_000;

/// The setting that counts starts which found verdicts left behind.
pub(super) const UNCLEAN_STARTS: &str = "unclean-starts";

/// What that setting says.
pub(super) fn unclean_starts(setting: Option<&[u8]>) -> u64 {
    setting.and_then(|value| <[u8; 8]>::try_from(value).ok()).map_or(0, u64::from_be_bytes)
}

/// Which side of a session counts the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerRole {
    /// It decrypts it.
    Initiator = 1,
    /// It gives it.
    Responder = 2,
}

/// The request that the next answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswersOf {
    /// The hash of the signed request.
    pub request: [u8; 32],
    /// Which side counts.
    pub role: AnswerRole,
    /// When the request expires, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// The request's job: the same for all requests under one idempotency key.
    pub job: JobId,
    /// What is signed, by which of the wallet's keys: a SHA-256 over wallet, path and digest.
    pub signs: [u8; 32],
    /// How far the broker's bucket of jobs went, as the orchestrator said.
    pub remembered: Option<Remembered>,
}

/// What an initiator is about to decrypt.
#[derive(Debug, Clone)]
pub struct NewPending {
    /// The session.
    pub session: SessionId,
    /// The Paillier key.
    pub key: PaillierKeyId,
    /// The card of the responder whose answer it is.
    pub card: CardFingerprint,
    /// Everything that decides the verdict, sealed under [`pending_label`].
    pub record: SealedRecord,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
}

/// A verdict that a process left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingRow {
    /// The session.
    pub session: SessionId,
    /// The Paillier key.
    pub key: PaillierKeyId,
}

/// The label of a pending verdict's record.
pub(crate) fn pending_label(session: SessionId) -> RecordLabel {
    RecordLabel::of_party(RecordKind::PendingVerdict, session.as_bytes())
}

//! Verdicts that are about to be reached, and how many answers a request has had.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PaillierKeyId, SessionId};

use super::{ShareStore, StoreError};
use crate::at_rest::{RecordKind, RecordLabel, SealedRecord};

/// How many answers an initiator decrypts, and a responder gives, for one signed request. A retry
/// takes one; an attacker learns the more about a share the more sessions one request is worth.
pub const MAX_ANSWERS_PER_REQUEST: u32 = 16;

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

/// Pending verdicts: a process that dies between a decryption and the lock must not take the lock
/// with it.
#[async_trait]
pub trait PendingStore: fmt::Debug + Send + Sync + 'static {
    /// The same store, which counts an answer for a request in the very transaction of the charge
    /// or the pending verdict that is asked of it, or does neither and fails with
    /// [`StoreError::TooManyAnswers`]. For one call.
    fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore>;
    /// Writes what is about to be decrypted, so that it survives this process. It is not flushed by
    /// itself: what releases the verdict or locks the key is, and whatever was written before goes
    /// to the disk with it. A power cut before that takes the verdict with the worker's memory, and
    /// no party has heard of either. [`StoreError::Quarantined`], and nothing is written, when a
    /// lock that was committed before blames the card: also of a session that had begun by then,
    /// under whichever key.
    async fn put_pending(&self, pending: &NewPending) -> Result<(), StoreError>;
    /// What processes that are gone left behind, oldest first: at most `limit`.
    async fn abandoned(&self, now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError>;
    /// Counts a start that found verdicts left behind; how many there were in this store's life.
    async fn count_unclean_start(&self) -> Result<u64, StoreError>;
    /// How many starts found verdicts left behind.
    async fn unclean_starts(&self) -> Result<u64, StoreError>;
}

/// The label of a pending verdict's record.
pub(crate) fn pending_label(session: SessionId) -> RecordLabel {
    RecordLabel::of_party(RecordKind::PendingVerdict, session.as_bytes())
}

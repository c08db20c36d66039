//! What happened once and must not happen again: sessions and charges. Also revocations.

use std::fmt;

use async_trait::async_trait;
use duet_protocol::ids::{SessionId, WalletId};
use duet_wire::JobId;

use super::StoreError;

/// How long a session is remembered after its manifest expired: workers' clocks may differ by less.
pub(super) const SESSIONS_KEPT_FOR_MS: i64 = 3_600_000;

/// How long a store keeps what a job signs after its newest request expired, and a charge after it
/// was made: 400 days. A queue that is put back to an older copy of itself finds out here that an
/// idempotency key was used. No limit looks back so far, and no session can be answered so late.
pub(super) const CHARGES_KEPT_FOR_MS: i64 = 400 * 24 * 3_600_000;
/// The most rows of each kind that one sweep removes for their age.
pub(super) const REMOVED_AT_ONCE: u32 = 2_000;

/// A charge against a wallet's limits, written before a signature ciphertext leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The session it was for; one charge, and so one ciphertext, per session ever.
    pub session: SessionId,
    /// The wallet that signs.
    pub wallet: WalletId,
    /// What it signs.
    pub digest: [u8; 32],
    /// When, in Unix milliseconds.
    pub charged_at_ms: u64,
}

/// A request that is not to be signed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedRequest {
    /// The wallet it was for.
    pub wallet: WalletId,
    /// Its content hash.
    pub request: [u8; 32],
    /// Who revoked it: its requester's key, or the owner's.
    pub by: [u8; 32],
    /// When the request expires, in Unix milliseconds: the revocation is kept until then.
    pub expires_at_ms: u64,
}

/// The most revocations that are kept of a wallet: some 200 bytes each.
pub(crate) const MAX_REVOCATIONS: i64 = 100_000;

/// Whether a revocation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It is, from now on.
    Now,
    /// The request was revoked before.
    Before,
    /// So many are kept of the wallet that no further one is.
    Full,
}

/// What a store remembers that bears on a request, apart from policies and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFacts {
    /// Whether the request was revoked.
    pub is_revoked: bool,
    /// When the store was restored last, in Unix milliseconds; `None` if it never was.
    pub restored_at_ms: Option<u64>,
    /// What its job was charged for before.
    pub charged: Option<ChargedJob>,
}

/// What a job was charged for: its idempotency key is for this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargedJob {
    /// As in [`AnswersOf`](super::AnswersOf).
    pub signs: [u8; 32],
    /// When the first was charged, in Unix milliseconds.
    pub charged_at_ms: u64,
}

impl ChargedJob {
    /// That the job was charged for this.
    ///
    /// # Errors
    /// [`StoreError::OtherPayload`].
    pub fn require(&self, signs: [u8; 32]) -> Result<(), StoreError> {
        if self.signs == signs {
            Ok(())
        } else {
            Err(StoreError::OtherPayload { charged_at_ms: self.charged_at_ms })
        }
    }
}

/// What happened once and must not happen again.
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// Claims a session id; `false` if it was claimed before.
    async fn claim_session(
        &self,
        session: SessionId,
        wallet: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError>;
    /// Writes a charge durably; `false` if the session was charged before.
    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError>;
    /// Keeps a revocation until its request has expired, durably, and forgets those whose requests
    /// have expired at `now_ms`. A charge that comes later finds it: the two never pass each other.
    async fn revoke_request(&self, revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError>;
    /// What bears on a request of `wallet` with this content hash, which is for `job`.
    async fn request_facts(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        job: JobId,
    ) -> Result<RequestFacts, StoreError>;
    /// How often signatures over `digest` were charged to `wallet`.
    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError>;
}

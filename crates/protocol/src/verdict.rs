//! The gate between a finished session and its callers. Nothing about a signature, good or bad,
//! leaves before the store has answered whether the key is locked.
//!
//! A responder that answers with a crafted ciphertext learns from whether the signature verifies
//! (CVE-2023-33242, ePrint 2023/1234). So the first bad signature durably locks the initiator's
//! Paillier key before the initiator reports anything. Every verdict under a key, in every session
//! and process, waits until the store finds the key unlocked. Each key therefore has at most one
//! visible failure. A responder can make it depend on any threshold, so with the `T` sessions
//! before it, it names one of `T + 1` intervals. A lock thus costs `log2(T + 1)` bits of one share,
//! for good.
//!
//! The types enforce the order. A [`GatedSignature`] shows its signature only for an [`Unlocked`],
//! a [`LockDemand`] its reason only for a [`LockWritten`]. Only the store makes these tokens.

use crate::{
    ids::{PaillierKeyId, PartyId, SessionId},
    session::CipherEvidence,
    signature::RecoverableSignature,
};

/// How a session ended. Handle both arms alike until the store has answered: send nothing before
/// that, and the same messages.
#[derive(Debug)]
#[must_use = "a verdict has to go through the gate of its Paillier key"]
pub enum Verdict {
    /// The signature verified. It is released for a token that shows the key unlocked.
    Good(GatedSignature),
    /// An authentic answer led to a signature that does not verify: the key must be locked.
    Bad(LockDemand),
}

impl Verdict {
    /// The key whose lock decides.
    #[must_use]
    pub const fn paillier_key(&self) -> PaillierKeyId {
        match self {
            Self::Good(gated) => gated.paillier_key,
            Self::Bad(demand) => demand.paillier_key,
        }
    }
}

/// A token that belongs to another key or session; the signature is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is for another Paillier key or session")]
pub struct ForeignToken;

/// The store's confirmation that it found a Paillier key unlocked **after** the session's verdict
/// was known. The read must be ordered with all writes of locks: a row lock, a serialisable
/// transaction, or a strict transaction in IndexedDB.
#[derive(Debug)]
pub struct Unlocked {
    paillier_key: PaillierKeyId,
    session: SessionId,
}

impl Unlocked {
    /// For implementations of a share store only. Call it inside the transaction that found
    /// `paillier_key` unlocked on behalf of `session`, or right after its commit.
    #[must_use]
    pub const fn found_by_linearisable_read(paillier_key: PaillierKeyId, session: SessionId) -> Self {
        Self { paillier_key, session }
    }
}

/// The store's confirmation that the lock of a Paillier key is on disk, and that this session
/// locked it.
#[derive(Debug)]
pub struct LockWritten {
    paillier_key: PaillierKeyId,
    session: SessionId,
}

impl LockWritten {
    /// For implementations of a share store only. Call it after the transaction is durable that
    /// locked the unlocked `paillier_key` because of `session`. If the key was locked before, the
    /// session answers `locked` like every other, without a verdict.
    #[must_use]
    pub const fn committed_durably(paillier_key: PaillierKeyId, session: SessionId) -> Self {
        Self { paillier_key, session }
    }
}

/// A verified signature behind the gate.
#[must_use = "release it with the store's token, or drop it"]
pub struct GatedSignature {
    pub(crate) paillier_key: PaillierKeyId,
    pub(crate) session: SessionId,
    pub(crate) signature: RecoverableSignature,
    pub(crate) evidence: CipherEvidence,
}

impl GatedSignature {
    /// The session that it came from.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The signature, which has been verified under the (child) public key, and the responder's
    /// signed answer.
    ///
    /// # Errors
    /// When the token is for another key or session. The signature is then lost.
    pub fn release(self, unlocked: Unlocked) -> Result<(RecoverableSignature, CipherEvidence), ForeignToken> {
        if unlocked.paillier_key == self.paillier_key && unlocked.session == self.session {
            Ok((self.signature, self.evidence))
        } else {
            Err(ForeignToken)
        }
    }
}

impl core::fmt::Debug for GatedSignature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "GatedSignature(session {}, key {})", self.session, self.paillier_key)
    }
}

/// The demand to lock a Paillier key durably, before any other step or message.
///
/// # Security
/// If the lock cannot be written, send nothing, start no session under any key, and start none
/// after a restart until a write has succeeded.
#[derive(Debug)]
#[must_use = "the Paillier key has to be locked before anything leaves this process"]
pub struct LockDemand {
    pub(crate) paillier_key: PaillierKeyId,
    pub(crate) session: SessionId,
    pub(crate) evidence: CipherEvidence,
}

impl LockDemand {
    /// The key to lock.
    #[must_use]
    pub const fn paillier_key(&self) -> PaillierKeyId {
        self.paillier_key
    }

    /// The session that demands it.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The party whose signed answer made the bad signature, for storage with the lock.
    #[must_use]
    pub const fn evidence(&self) -> &CipherEvidence {
        &self.evidence
    }

    /// The report that may leave after the lock is on disk.
    ///
    /// # Errors
    /// When the token is for another key or session.
    pub fn settle(self, written: LockWritten) -> Result<BadSignatureReport, ForeignToken> {
        if written.paillier_key == self.paillier_key && written.session == self.session {
            Ok(BadSignatureReport { evidence: self.evidence })
        } else {
            Err(ForeignToken)
        }
    }
}

/// Reports that a session ended in a bad signature, with the culprit and the proof. It exists only
/// after the lock does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSignatureReport {
    evidence: CipherEvidence,
}

impl BadSignatureReport {
    /// The responder.
    #[must_use]
    pub const fn culprit(&self) -> &PartyId {
        &self.evidence.responder
    }

    /// Its signed answer.
    #[must_use]
    pub const fn evidence(&self) -> &CipherEvidence {
        &self.evidence
    }
}

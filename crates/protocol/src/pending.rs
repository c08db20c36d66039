//! A pending verdict, which the initiator stores before it decrypts.
//!
//! A process that dies between the decryption and the lock must not take a bad verdict with it. So
//! the initiator writes a [`PendingVerdict`] to its share store first, and the transaction that
//! releases the verdict or locks the key removes it. [`PendingVerdict::judge`] later judges the
//! record of a dead process. It needs no nonce: with `d = Dec(c3)` and `R = k1·R2`, a signature
//! `s = k1⁻¹·d` verifies exactly when `s·R = ±(m·G + r·Q)`, that is when `d·R2 = ±(m·G + r·Q)`.

use k256::ProjectivePoint;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::{
    codec::Message,
    curve::{Point, reduce, scalar_from_bytes},
    hedge::Entropy,
    ids::{PaillierKeyId, PartyId, SessionId, WalletId},
    natural::Natural,
    paillier::Ciphertext,
    paillier_key::PaillierKey,
    public_key::DerivationPath,
    session::{CipherEvidence, ciphertext_hash},
    share::WalletPublic,
    verdict::LockDemand,
};

/// All values that decide whether an authentic answer leads to a signature that verifies. None of
/// them is secret. But an attacker who could write such a record could make the initiator decrypt,
/// so it is sealed at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingVerdict {
    pub(crate) paillier_key: PaillierKeyId,
    pub(crate) wallet: WalletId,
    pub(crate) path: DerivationPath,
    pub(crate) digest: [u8; 32],
    /// `R2`.
    pub(crate) responder_nonce: Point,
    /// `r`, big-endian.
    pub(crate) r: [u8; 32],
    /// `c3`.
    pub(crate) ciphertext: Natural,
    pub(crate) evidence: CipherEvidence,
}

impl Message for PendingVerdict {
    const KIND: u8 = 0x18;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048;
}

/// Why a pending verdict cannot be judged with this wallet and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pending verdict does not fit the wallet or the Paillier key")]
pub struct Unjudgeable;

/// The result of judging a pending verdict.
#[derive(Debug)]
#[must_use = "a bad verdict has to lock the Paillier key"]
pub enum Judged {
    /// The answer was honest. The signature itself is lost with the nonce.
    Good,
    /// The answer leads to a signature that does not verify: the key must be locked.
    Bad(LockDemand),
}

impl PendingVerdict {
    /// The session it belongs to.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.evidence.session
    }

    /// The key that a bad verdict locks.
    #[must_use]
    pub const fn paillier_key(&self) -> PaillierKeyId {
        self.paillier_key
    }

    /// The wallet that was to sign.
    #[must_use]
    pub const fn wallet(&self) -> WalletId {
        self.wallet
    }

    /// The party that answered.
    #[must_use]
    pub const fn responder(&self) -> &PartyId {
        &self.evidence.responder
    }

    /// The demand to lock the key without a judgement, for a record whose key is no longer usable.
    pub fn into_lock(self) -> LockDemand {
        let session = self.session();
        LockDemand { paillier_key: self.paillier_key, session, evidence: self.evidence }
    }

    /// Decrypts and decides. Randomness blinds the decryption.
    ///
    /// # Errors
    /// When `wallet` or `paillier` is another one, or the record contradicts itself. A caller that
    /// passed the right ones then locks the key.
    ///
    /// # Security
    /// Use it only for records that this party sealed itself: each judgement is a decryption.
    pub fn judge(
        self,
        wallet: &WalletPublic,
        paillier: &PaillierKey,
        entropy: &mut dyn Entropy,
    ) -> Result<Judged, Unjudgeable> {
        if wallet.id() != self.wallet
            || paillier.id() != self.paillier_key
            || ciphertext_hash(&self.ciphertext) != self.evidence.ciphertext_hash
        {
            return Err(Unjudgeable);
        }
        let (child, _) =
            wallet.public_key().child(wallet.chain_code(), &self.path).map_err(|_| Unjudgeable)?;
        let key = Point::from_bytes(&child.to_bytes()).map_err(|_| Unjudgeable)?;
        let r = scalar_from_bytes(&self.r).map_err(|_| Unjudgeable)?;
        let ciphertext = Ciphertext::parse(&self.ciphertext, paillier.decryption().encryption_key())
            .map_err(|_| Unjudgeable)?;
        let message = reduce(&Natural::from_be_bytes(&self.digest));
        let mut plaintext = reduce(&paillier.decryption().decrypt(&ciphertext, entropy));
        let answered = self.responder_nonce.to_projective() * plaintext;
        let owed = ProjectivePoint::GENERATOR * message + key.to_projective() * r;
        let is_good = !bool::from(plaintext.is_zero()) && (answered == owed || answered == -owed);
        plaintext.zeroize();
        Ok(if is_good { Judged::Good } else { Judged::Bad(self.into_lock()) })
    }
}

/// The store's confirmation that a [`PendingVerdict`] outlives this process.
#[derive(Debug)]
pub struct PendingWritten {
    session: SessionId,
}

impl PendingWritten {
    /// For implementations of a share store only. Call it after the operating system or the
    /// database server has the write, so that the process need not survive. The write need not be
    /// flushed.
    #[must_use]
    pub const fn survives_the_process(session: SessionId) -> Self {
        Self { session }
    }

    pub(crate) fn is_for(&self, session: SessionId) -> bool {
        self.session == session
    }
}

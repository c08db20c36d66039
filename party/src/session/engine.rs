//! What a session computes, apart from how it is driven: the protocol itself, or the seeded world's
//! symbols for it.

use std::{fmt, future::Future, sync::Arc};

use duet_protocol::{
    card::Card,
    codec::Message,
    hedge::Entropy,
    identity::PartyKeys,
    ids::{PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
    pending::{PendingWritten, Unjudgeable},
    public_key::DerivationPath,
    responder::Charged,
    session::{CipherEvidence, SessionError},
    share::{KeyShare, WalletPublic},
    signature::RecoverableSignature,
    verdict::{ForeignToken, LockWritten, Unlocked},
};

use super::trace::Trace;
use crate::{context::Context, error::PartyError, store::EnrolmentRow};

/// What both sides of a session begin with.
#[derive(Debug)]
pub(crate) struct Side {
    /// The manifest's bytes as they were received.
    pub(crate) manifest: Vec<u8>,
    pub(crate) session: SessionId,
    pub(crate) digest: [u8; 32],
    pub(crate) path: DerivationPath,
    pub(crate) share: Arc<KeyShare>,
    pub(crate) keys: Arc<PartyKeys>,
    pub(crate) card: Arc<Card>,
    pub(crate) peer_index: ShareIndex,
    pub(crate) peer: Arc<Card>,
}

/// The result of a decryption. Nothing of it leaves before the store has answered.
pub(crate) enum Verdict<E: Engine> {
    /// The signature verified.
    Good(E::Good),
    /// It did not: the key must be locked.
    Bad(E::Bad),
}

/// What a session computes. A step consumes the state before it, so no step can be repeated.
pub(crate) trait Engine: fmt::Debug + Sized + Send + Sync + 'static {
    /// The initiator's Paillier key.
    type Key: fmt::Debug + Send + Sync + 'static;
    /// The initiator's encrypted share, as the responder verified it.
    type Enrolment: fmt::Debug + Send + Sync + 'static;
    /// The initiator: message 1 is out.
    type Committed: Send + 'static;
    /// The initiator: message 3 is out.
    type Opened: Send + 'static;
    /// The initiator: message 4 is authentic, and not decrypted.
    type Answer: Send + 'static;
    /// A signature behind the gate.
    type Good: Send + 'static;
    /// The demand to lock the key.
    type Bad: Send + 'static;
    /// What is stored before a decryption.
    type Pending: Message + Send + Sync + 'static;
    /// The responder: message 2 is out.
    type Listening: Send + 'static;
    /// What the responder's answer is hidden with, as far as it was computed before message 3.
    type Randomizer: Send + 'static;
    /// The responder: message 4, which is not charged.
    type Uncharged: Send + 'static;

    /// Loads the key of `owner`.
    fn key(
        context: &Context,
        id: PaillierKeyId,
        owner: &PartyId,
    ) -> impl Future<Output = Result<Arc<Self::Key>, PartyError>> + Send;
    /// Loads an enrolment.
    fn enrolment(
        context: &Context,
        row: &EnrolmentRow,
    ) -> impl Future<Output = Result<Arc<Self::Enrolment>, PartyError>> + Send;

    /// Draws the initiator's nonce: message 1.
    fn start(
        side: Side,
        key: Arc<Self::Key>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self::Committed, Vec<u8>), SessionError>;
    /// The hash of the initiator's public nonce.
    fn nonce_hash(state: &Self::Committed) -> [u8; 32];
    /// Reads message 2: message 3.
    fn open(
        state: Self::Committed,
        message2: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(Self::Opened, Vec<u8>), SessionError>;
    /// Reads message 4, and decrypts nothing.
    fn authenticate(state: Self::Opened, message4: &[u8]) -> Result<Self::Answer, SessionError>;
    /// What has to be stored before the answer is decrypted.
    fn pending(answer: &Self::Answer) -> Self::Pending;
    /// Decrypts.
    fn decrypt(
        answer: Self::Answer,
        written: &PendingWritten,
        entropy: &mut dyn Entropy,
    ) -> Result<Verdict<Self>, SessionError>;
    /// The signature, and the hash of the answer that it was made from.
    fn release(
        good: Self::Good,
        unlocked: Unlocked,
    ) -> Result<(RecoverableSignature, [u8; 32]), ForeignToken>;
    /// The responder's signed answer.
    fn evidence(bad: &Self::Bad) -> &CipherEvidence;
    /// The culprit, which may be named once the lock is on the disk.
    fn settle(bad: Self::Bad, written: LockWritten) -> Result<PartyId, ForeignToken>;

    /// The session, key and wallet of a pending verdict.
    fn pending_of(pending: &Self::Pending) -> (SessionId, PaillierKeyId, WalletId);
    /// Judges what an earlier process left behind. `None`: it was good.
    fn judge(
        pending: Self::Pending,
        wallet: &WalletPublic,
        key: &Self::Key,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<Self::Bad>, Unjudgeable>;

    /// Reads message 1 and draws the responder's nonce: message 2.
    fn accept(
        side: Side,
        enrolment: Arc<Self::Enrolment>,
        message1: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(Self::Listening, Vec<u8>), SessionError>;
    /// Reads message 3 and computes message 4, which does not leave yet.
    fn answer(
        state: Self::Listening,
        message3: &[u8],
        randomizer: Self::Randomizer,
        entropy: &mut dyn Entropy,
    ) -> Result<Self::Uncharged, SessionError>;
    /// What has to be charged before the answer leaves: session, wallet and digest.
    fn charge(answer: &Self::Uncharged) -> (SessionId, WalletId, [u8; 32]);
    /// What the audit log keeps of the answer.
    fn trace(answer: &Self::Uncharged) -> Trace;
    /// Message 4.
    fn charged(answer: Self::Uncharged, charged: Charged) -> Result<Vec<u8>, SessionError>;
}

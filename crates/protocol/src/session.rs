//! The parts of a signing session that both sides share: the agreement, the session ids, the four
//! messages, and the reasons for an early end.
//!
//! | # | from | content |
//! |---|---|---|
//! | 1 | initiator | [`NonceCommitment`]: `C = H(commit, sid1, R1, π1, blinding)` |
//! | 2 | responder | [`ResponderNonce`]: `R2 = k2·G`, `π2` over `sid2` |
//! | 3 | initiator | [`NonceOpening`]: `R1`, `π1` over `sid1`, `blinding` |
//! | 4 | responder | [`SignedCipher`]: `c3`, the responder's Ed25519 signature over `(sid, H(c3))` |
//!
//! This is Lindell 2017, protocol 3.3, with the zero-knowledge proofs bound to the session. On the
//! wire these messages travel inside Noise messages.

use serde::{Deserialize, Serialize};
use udigest::Digestable;

use crate::{
    card::Card,
    channel::{HANDSHAKE_OVERHEAD_BYTES, NotAuthentic, TAG_SIZE_BYTES},
    codec::{self, DecodeError, Message},
    curve::{Point, Scalar, reduce},
    epoch::EpochRecord,
    identity::{IdentitySignature, PartyKeys, Statement},
    ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
    natural::Natural,
    paillier::InvalidCiphertext,
    proofs::schnorr::SchnorrProof,
    public_key::{DerivationPath, PublicKey},
    share::WalletPublic,
    transcript::{self, Binding, ProofContext},
};

/// Message 1. The initiator commits to its nonce point before it sees the responder's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NonceCommitment {
    pub(crate) commitment: [u8; 32],
}

impl Message for NonceCommitment {
    const KIND: u8 = 0x01;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2 + 32;
}

/// Message 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResponderNonce {
    pub(crate) point: Point,
    pub(crate) proof: SchnorrProof,
}

impl Message for ResponderNonce {
    const KIND: u8 = 0x02;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 128;
}

/// Message 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NonceOpening {
    pub(crate) point: Point,
    pub(crate) proof: SchnorrProof,
    pub(crate) blinding: [u8; 32],
}

impl Message for NonceOpening {
    const KIND: u8 = 0x03;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 160;
}

/// Message 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedCipher {
    pub(crate) ciphertext: Natural,
    pub(crate) signature: IdentitySignature,
}

impl Message for SignedCipher {
    const KIND: u8 = 0x04;
    const VERSION: u8 = 1;
    // A ciphertext under 3072 bits has up to 768 bytes and a length of 3.
    const MAX_SIZE_BYTES: usize = 2 + 3 + 768 + 64;
}

/// The longest message of a session as it travels, in bytes.
pub const MAX_ROUND_MESSAGE_SIZE_BYTES: usize = SignedCipher::MAX_SIZE_BYTES + TAG_SIZE_BYTES;

/// The longest handshake message with an `M` inside, in bytes.
pub(crate) const fn max_handshake_size_bytes<M: Message>() -> usize {
    M::MAX_SIZE_BYTES + HANDSHAKE_OVERHEAD_BYTES
}

/// Everything on which both sides must agree before either sends a message. It hashes the manifest
/// as received, and beside it the values that each side derived from it, the digest above all. Two
/// sides that read one manifest differently therefore get no channel, and cannot end in a bad
/// signature.
#[derive(Debug, Clone, udigest::Digestable)]
pub(crate) struct Agreement {
    #[udigest(as_bytes)]
    pub(crate) manifest: Vec<u8>,
    pub(crate) session: SessionId,
    pub(crate) wallet: WalletId,
    pub(crate) epoch: Epoch,
    pub(crate) public_key: PublicKey,
    pub(crate) paillier_key: PaillierKeyId,
    pub(crate) initiator: Seat,
    pub(crate) responder: Seat,
    pub(crate) path: DerivationPath,
    #[udigest(as_bytes)]
    pub(crate) digest: [u8; 32],
    /// The hash of the record in force, from epoch 1 on. Two holders of different records get no
    /// channel. It is hashed around the rest, so sessions of epoch 0 are as in all versions.
    #[udigest(skip)]
    pub(crate) record: Option<[u8; 32]>,
}

#[derive(udigest::Digestable)]
struct OnRecord<'a> {
    value: &'a dyn Digestable,
    #[udigest(as_bytes)]
    record: [u8; 32],
}

/// One side of a session.
#[derive(Debug, Clone, PartialEq, Eq, udigest::Digestable)]
pub(crate) struct Seat {
    pub(crate) party: PartyId,
    pub(crate) index: ShareIndex,
    pub(crate) card: CardFingerprint,
}

impl Seat {
    /// The seat of the holder of share `index`, if `card` belongs to that party.
    pub(crate) fn of(wallet: &WalletPublic, index: ShareIndex, card: &Card) -> Result<Self, ApiMisuse> {
        if wallet.holder(index).party() == Some(card.party()) {
            Ok(Self { party: card.party().clone(), index, card: card.fingerprint() })
        } else {
            Err(ApiMisuse::Card)
        }
    }
}

#[derive(udigest::Digestable)]
struct SessionIdInput<'a> {
    agreement: &'a Agreement,
    #[udigest(as_bytes)]
    handshake: &'a [u8],
}

/// The inputs of an [`Agreement`]. In each pair the initiator's comes before the responder's.
pub(crate) struct Terms<'a> {
    pub(crate) manifest: &'a [u8],
    pub(crate) session: SessionId,
    pub(crate) digest: [u8; 32],
    pub(crate) path: &'a DerivationPath,
    pub(crate) wallet: &'a WalletPublic,
    pub(crate) paillier_key: PaillierKeyId,
    /// The owner of the Paillier key.
    pub(crate) paillier_owner: &'a PartyId,
    pub(crate) initiator: (ShareIndex, &'a Card),
    pub(crate) responder: (ShareIndex, &'a Card),
}

impl Agreement {
    /// Makes the agreement. Checks that roles, cards and Paillier key fit the wallet's record, and
    /// that `own`, one of the two cards, belongs to `keys`.
    pub(crate) fn new(terms: &Terms<'_>, own: &Card, keys: &PartyKeys) -> Result<Self, ApiMisuse> {
        let (initiator_index, initiator) = terms.initiator;
        let (responder_index, responder) = terms.responder;
        if initiator_index >= responder_index {
            return Err(ApiMisuse::Roles);
        }
        if terms.paillier_owner != initiator.party() {
            return Err(ApiMisuse::PaillierKey);
        }
        if keys.identity() != *own.identity() {
            return Err(ApiMisuse::Card);
        }
        Ok(Self {
            manifest: terms.manifest.to_vec(),
            session: terms.session,
            wallet: terms.wallet.id(),
            epoch: terms.wallet.epoch(),
            public_key: *terms.wallet.public_key(),
            paillier_key: terms.paillier_key,
            initiator: Seat::of(terms.wallet, initiator_index, initiator)?,
            responder: Seat::of(terms.wallet, responder_index, responder)?,
            path: terms.path.clone(),
            digest: terms.digest,
            record: terms.wallet.epoch_record().map(EpochRecord::hash),
        })
    }

    /// Noise's prologue, `H(M)`.
    pub(crate) fn prologue(&self) -> [u8; 32] {
        self.hash("session-prologue", self)
    }

    /// `sid1 = H(M)`: known before any message.
    pub(crate) fn sid1(&self) -> [u8; 32] {
        self.hash("sid1", self)
    }

    /// `sid2 = H(M, handshake hash after message 1)`.
    pub(crate) fn sid2(&self, handshake: &[u8]) -> [u8; 32] {
        self.hash("sid2", &SessionIdInput { agreement: self, handshake })
    }

    /// `sid = H(M, final handshake hash)`.
    pub(crate) fn sid(&self, handshake: &[u8]) -> [u8; 32] {
        self.hash("sid", &SessionIdInput { agreement: self, handshake })
    }

    fn hash(&self, tag: &str, value: &dyn Digestable) -> [u8; 32] {
        match self.record {
            None => transcript::hash(tag, value),
            Some(record) => transcript::hash(tag, &OnRecord { value, record }),
        }
    }

    /// The context of the initiator's Schnorr proof.
    pub(crate) fn initiator_context(&self, sid1: [u8; 32]) -> ProofContext {
        self.context(&self.initiator, &self.responder, sid1)
    }

    /// The context of the responder's Schnorr proof.
    pub(crate) fn responder_context(&self, sid2: [u8; 32]) -> ProofContext {
        self.context(&self.responder, &self.initiator, sid2)
    }

    fn context(&self, prover: &Seat, verifier: &Seat, session: [u8; 32]) -> ProofContext {
        ProofContext {
            prover: prover.party.clone(),
            verifier: Some(verifier.party.clone()),
            wallet: Some(self.wallet),
            epoch: self.epoch,
            paillier_key: Some(self.paillier_key),
            binding: Binding::Session(session),
        }
    }
}

#[derive(udigest::Digestable)]
struct CommitmentInput<'a> {
    #[udigest(as_bytes)]
    sid1: &'a [u8; 32],
    point: &'a Point,
    proof: &'a SchnorrProof,
    #[udigest(as_bytes)]
    blinding: &'a [u8; 32],
}

/// `C = H(commit, sid1, R1, π1, blinding)`.
pub(crate) fn commit(sid1: &[u8; 32], point: &Point, proof: &SchnorrProof, blinding: &[u8; 32]) -> [u8; 32] {
    transcript::hash("nonce-commitment", &CommitmentInput { sid1, point, proof, blinding })
}

/// The statement that the responder's Ed25519 key signs in message 4. Noise is deniable, this
/// signature is not.
#[derive(udigest::Digestable)]
pub(crate) struct CipherStatement {
    #[udigest(as_bytes)]
    pub(crate) sid: [u8; 32],
    #[udigest(as_bytes)]
    pub(crate) ciphertext_hash: [u8; 32],
}

impl Statement for CipherStatement {
    const TAG: &'static str = "signed-cipher";
}

/// `H(c3)`.
pub(crate) fn ciphertext_hash(ciphertext: &Natural) -> [u8; 32] {
    transcript::hash("cipher", ciphertext)
}

/// Evidence of the responder's answer, for a later judgement. With the responder's card it proves
/// that this ciphertext was the answer in this session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CipherEvidence {
    /// The session the manifest named.
    pub session: SessionId,
    /// The party that answered.
    pub responder: PartyId,
    /// The hash of the manifest and the whole handshake.
    pub sid: [u8; 32],
    /// `H(c3)`.
    pub ciphertext_hash: [u8; 32],
    /// The responder's signature over `(sid, H(c3))`.
    pub signature: IdentitySignature,
}

impl Message for CipherEvidence {
    const KIND: u8 = 0x08;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

impl CipherEvidence {
    /// Checks the responder's signature.
    ///
    /// # Errors
    /// When the key did not sign this.
    pub fn verify(
        &self,
        responder: &crate::identity::IdentityKey,
    ) -> Result<(), crate::identity::BadSignature> {
        let statement = CipherStatement { sid: self.sid, ciphertext_hash: self.ciphertext_hash };
        responder.verify_statement(&statement, &self.signature)
    }
}

/// `r = R.x mod q` of the joint nonce point, with the parity of `R.y`. `None` when `R.x` is 0, or
/// not below the order: then the recovery id needs a second bit, which Ethereum does not have.
/// Either has probability below 2^-127.
pub(crate) fn signature_r(point: &Point) -> Option<(Scalar, bool)> {
    let x = point.x();
    let r = reduce(&Natural::from_be_bytes(&x));
    let reduced: [u8; 32] = r.to_bytes().into();
    (reduced == x && !bool::from(r.is_zero())).then(|| (r, point.is_y_odd()))
}

/// One of the four messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Message 1, from the initiator.
    Commitment,
    /// Message 2, from the responder.
    ResponderNonce,
    /// Message 3, from the initiator.
    Opening,
    /// Message 4, from the responder.
    Cipher,
}

impl core::fmt::Display for Round {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Commitment => "message 1",
            Self::ResponderNonce => "message 2",
            Self::Opening => "message 3",
            Self::Cipher => "message 4",
        })
    }
}

/// A breach of the protocol by an authenticated peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Authentic bytes that do not parse.
    #[error("sent a malformed {round}: {reason}")]
    Malformed {
        /// Which message.
        round: Round,
        /// What is wrong with it.
        reason: DecodeError,
    },
    /// The Schnorr proof of the nonce point does not hold.
    #[error("did not prove that it knows its nonce")]
    NonceProof,
    /// Message 3 does not open the commitment of message 1.
    #[error("opened another nonce than it had committed to")]
    Commitment,
    /// The joint nonce point has no usable `x`. A peer cannot cause that on purpose.
    #[error("the joint nonce has no usable x coordinate")]
    JointNonce,
    /// The answer is not signed by the key on the responder's card.
    #[error("did not sign its answer with the key on its card")]
    CipherSignature,
    /// The answer is no ciphertext under the initiator's key.
    #[error("answered with a number that is no ciphertext: {0}")]
    Cipher(#[from] InvalidCiphertext),
}

/// A caller's mistake; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiMisuse {
    /// The initiator is the pair's lower index; only it may start.
    #[error("the initiator is the lower share index of the pair")]
    Roles,
    /// The peer's card does not belong to the holder of the peer's share, or the own card not to
    /// the holder of the own share.
    #[error("the card is not that of the holder of this share")]
    Card,
    /// The enrolment is for another wallet, epoch or share.
    #[error("the enrolment is not for this wallet, epoch and share")]
    Enrolment,
    /// The Paillier key belongs to a party other than the initiator.
    #[error("the Paillier key is not the initiator's")]
    PaillierKey,
    /// The charge is for another session, wallet or digest.
    #[error("the charge is not for this session, wallet and digest")]
    Charge,
    /// The randomizer is another session's.
    #[error("the randomizer is not this session's")]
    Randomizer,
    /// The token for a stored pending verdict is for another session.
    #[error("the pending verdict that was stored is not this session's")]
    Pending,
    /// The path has no key (probability below 2^-127 per step).
    #[error("the derivation path has no key")]
    Path,
    /// A part of the library refused a value that only this crate passes to it.
    #[error("internal inconsistency while {0}")]
    Internal(&'static str),
}

/// Why a session ended without a verdict. None of these is a reason to lock a key. A peer or
/// attacker that causes one learns nothing about a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A message that the peer did not send in this session: forged, replayed, truncated, or from a
    /// peer that sees another session. No party can be blamed for it.
    #[error("{0} is not authentic in this session")]
    NotAuthentic(Round),
    /// The authenticated peer broke the protocol.
    #[error("{culprit} {fault}")]
    PeerMisbehaved {
        /// Who did.
        culprit: PartyId,
        /// What it did.
        fault: PeerFault,
    },
    /// The caller's mistake.
    #[error(transparent)]
    ApiMisuse(#[from] ApiMisuse),
}

impl SessionError {
    /// The party to blame, when it is known.
    #[must_use]
    pub const fn culprit(&self) -> Option<&PartyId> {
        match self {
            Self::PeerMisbehaved { culprit, .. } => Some(culprit),
            Self::NotAuthentic(_) | Self::ApiMisuse(_) => None,
        }
    }

    pub(crate) fn peer(culprit: &PartyId, fault: impl Into<PeerFault>) -> Self {
        Self::PeerMisbehaved { culprit: culprit.clone(), fault: fault.into() }
    }

    pub(crate) const fn not_authentic(round: Round) -> impl FnOnce(NotAuthentic) -> Self {
        move |NotAuthentic| Self::NotAuthentic(round)
    }
}

/// Parses an authentic message of `culprit`.
pub(crate) fn decode<M: Message>(bytes: &[u8], round: Round, culprit: &PartyId) -> Result<M, SessionError> {
    codec::decode(bytes).map_err(|reason| SessionError::peer(culprit, PeerFault::Malformed { round, reason }))
}

/// Encodes one of this crate's own messages, which always fit.
pub(crate) fn encode<M: Message>(message: &M) -> Result<Vec<u8>, SessionError> {
    codec::encode(message).map_err(|_| ApiMisuse::Internal("encoding a message").into())
}

#[cfg(test)]
mod tests;

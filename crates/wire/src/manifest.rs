//! The manifest of a session: everything both parties must agree on before they sign. Its bytes as
//! received are what the session's channel and proofs are bound to; nobody encodes it again.

use duet_protocol::{
    codec::{self, DecodeError, EncodeError, Message},
    ids::{Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
};
use serde::{Deserialize, Serialize};

use crate::{
    JobId,
    error::{Code, Refusal},
    request::{MAX_REQUEST_SIZE_BYTES, Pair, RequestError, SignedRequest, SigningRequest},
    validity::{self, TimeError},
};

/// A party's place in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who sits there.
    pub party: PartyId,
    /// With which share.
    pub index: ShareIndex,
}

/// A session's terms, made by the orchestrator and checked by both parties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The session, drawn at random for this attempt.
    pub session: SessionId,
    /// The job it is for.
    pub job: JobId,
    /// Which attempt at the job, from 1.
    pub attempt: u32,
    /// The wallet.
    pub wallet: WalletId,
    /// The epoch of its shares.
    pub epoch: Epoch,
    /// The initiator's Paillier key.
    pub paillier_key: PaillierKeyId,
    /// Who starts, and learns the signature first.
    pub initiator: Seat,
    /// Who answers.
    pub responder: Seat,
    /// What the requester signed.
    pub request: SignedRequest,
    /// When the session ends, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl Message for Manifest {
    const KIND: u8 = 0x40;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_REQUEST_SIZE_BYTES + 1024;
}

/// Why a manifest is refused before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are no manifest.
    #[error("the manifest does not parse: {0}")]
    Malformed(#[from] DecodeError),
    /// The request inside is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The manifest says something else than the request.
    #[error("the manifest contradicts the request: {0}")]
    Contradiction(&'static str),
    /// The request's own times do not allow it.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The session is over by the clock of the party that was asked, its request is not.
    #[error(
        "by this party's clock the session ended {} ago: its clock is ahead of the orchestrator's, or the \
         invitation is an old one",
        validity::span(*.by_ms)
    )]
    SessionOver {
        /// By how much, in milliseconds.
        by_ms: u64,
    },
}

impl ManifestError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Malformed(DecodeError::TooLarge { .. }) => Code::TooLarge,
            Self::Malformed(DecodeError::Version { .. }) => Code::UnsupportedVersion,
            Self::Malformed(_) => Code::MalformedMessage,
            Self::Request(e) => e.code(),
            Self::Contradiction(_) => Code::PeerMisbehaved,
            Self::Time(e) => e.code(),
            Self::SessionOver { .. } => Code::ClockDiffers,
        }
    }
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Manifest {
    /// The bytes to send.
    ///
    /// # Errors
    /// When the request is over its size.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        codec::encode(self)
    }

    /// Parses received bytes.
    ///
    /// # Errors
    /// On anything but one whole manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }

    /// The pair that signs.
    #[must_use]
    pub fn pair(&self) -> Option<Pair> {
        Pair::ALL
            .into_iter()
            .find(|pair| pair.initiator() == self.initiator.index && pair.responder() == self.responder.index)
    }

    /// Checks everything that can be checked without a share: the requester's signature, that the
    /// manifest says what the request says, that two parties sit where a pair allows it, and that
    /// both count at `now_ms` (milliseconds since 1970 by the caller's clock).
    ///
    /// Left to the party: that the requester may ask this of the wallet, the wallet's tenant, the
    /// epoch, the Paillier key and its lock, that it is itself in the seat, that the session is
    /// new, and how long the request may be valid ([`SigningRequest::require_lifetime`]).
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn verify(&self, now_ms: u64) -> Result<SigningRequest, ManifestError> {
        use ManifestError::Contradiction;
        let request = self.request.verify()?;
        if request.wallet != self.wallet {
            return Err(Contradiction("another wallet"));
        }
        if request.job() != self.job {
            return Err(Contradiction("another job"));
        }
        if self.attempt == 0 {
            return Err(Contradiction("attempts are counted from 1"));
        }
        if self.initiator.party == self.responder.party {
            return Err(Contradiction("one party in both seats"));
        }
        match self.pair() {
            None => return Err(Contradiction("the initiator's index is not the lower one")),
            Some(pair) if !request.pairs.contains(&pair) => {
                return Err(Contradiction("a pair that the requester did not allow"));
            }
            Some(_) => {}
        }
        request.require_current(now_ms)?;
        if now_ms >= self.expires_at_ms {
            return Err(ManifestError::SessionOver { by_ms: now_ms - self.expires_at_ms });
        }
        Ok(request)
    }
}

//! The manifest of a session: everything that both parties must agree on before they sign. The
//! session's channel and proofs are bound to its bytes as received, so no process encodes it again.

use duet_protocol::{
    codec::{self, DecodeError, EncodeError, Message},
    ids::{Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
};
use serde::{Deserialize, Serialize};

use crate::{
    JobId,
    error::{Code, Refusal},
    request::{MAX_REQUEST_SIZE_BYTES, Pair, RequestError, SignedRequest, SigningRequest},
    validity::{self, CLOCK_GRACE_MS, TimeError},
};

/// A party's place in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The party in this seat.
    pub party: PartyId,
    /// The share that it holds.
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
    /// The party that starts and learns the signature first.
    pub initiator: Seat,
    /// The party that answers.
    pub responder: Seat,
    /// The request as the requester signed it.
    pub request: SignedRequest,
    /// When the session expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl Message for Manifest {
    const KIND: u8 = 0x40;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_REQUEST_SIZE_BYTES + 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// Why a manifest is refused before the party's policy decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not a manifest.
    #[error("the manifest does not parse: {0}")]
    Malformed(#[from] DecodeError),
    /// The request inside is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The manifest contradicts the request.
    #[error("the manifest contradicts the request: {0}")]
    Contradiction(&'static str),
    /// The request's own times do not allow a signature now.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// By the invited party's clock the session is over but its request is not.
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
            Self::Malformed(DecodeError::Version { .. } | DecodeError::Newer { .. }) => {
                Code::UnsupportedVersion
            }
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
    /// Encodes the manifest.
    ///
    /// # Errors
    /// When the request exceeds its size limit.
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

    /// Checks everything that can be checked without a share. The requester's signature verifies,
    /// the manifest agrees with the request, and the seats form a pair. Manifest and request are
    /// both valid at `now_ms` (milliseconds since 1970 by the caller's clock), with a grace of
    /// [`CLOCK_GRACE_MS`] at both ends.
    ///
    /// The party itself checks the rest: the wallet's tenant and requesters, the epoch, the
    /// Paillier key and its lock, and its own seat. It also checks that the session is new, and how
    /// long the request may be valid ([`SigningRequest::require_lifetime`]).
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
        request.require_current_for_party(now_ms)?;
        if now_ms >= self.expires_at_ms.saturating_add(CLOCK_GRACE_MS) {
            return Err(ManifestError::SessionOver { by_ms: now_ms - self.expires_at_ms });
        }
        Ok(request)
    }
}

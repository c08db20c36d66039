//! The frames between a browser party and the gateway: one WebSocket, one frame per binary message.
//!
//! The gateway greets with a [`ServerFrame::Challenge`], and the device answers with
//! [`ClientFrame::Hello`]. With [`ClientFrame::Authenticate`], once per wallet, the device proves
//! that it holds the key of that wallet's device card. The gateway then forwards each
//! [`ClientFrame::Request`] as it is. The messages inside are those that a native device sends to
//! the broker itself; the gateway neither makes nor changes any.

use core::fmt;

use duet_protocol::{
    codec::{self, Message},
    ids::{PartyId, SessionId, WalletId},
};
use serde::{Deserialize, Serialize};

use crate::{
    encoding::hex_array,
    error::Refusal,
    signing::{self, Identity, Purpose},
    validity,
};

/// The version of these frames. A gateway and a page of different versions do not talk.
pub const GATEWAY_PROTOCOL: u16 = 1;

/// Where a gateway listens for devices.
pub const DEVICE_PATH: &str = "/v1/device";

/// How many wallets may be authenticated on one socket.
pub const MAX_WALLETS_PER_SOCKET: usize = 64;

/// The longest name of a build, in bytes.
pub const MAX_BUILD_LENGTH_BYTES: usize = 128;

/// How old the proof in [`ClientFrame::Authenticate`] may be when it arrives, in milliseconds.
pub const MAX_AUTHENTICATION_AGE_MS: u64 = 60_000;

/// The largest message that the gateway forwards, either way, in bytes: a share package, an
/// enrolment, or an answer of the orchestrator.
pub const MAX_FORWARDED_SIZE_BYTES: usize = 512 * 1024;

/// How many bytes a frame may have around the message that it contains.
const SLACK_BYTES: usize = 2 * 1024;

/// The receiver of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// A party, asked for its card or about a wallet: a [`crate::card_request::CardRequest`]. Any
    /// device may ask for a card; the wallet has to be authenticated on this socket.
    Card(PartyId),
    /// A party, for a wallet that is being created: a [`crate::share_request::ShareRequest`]. The
    /// party judges it by the admission token inside.
    Share(PartyId),
    /// The orchestrator, about the jobs of a wallet that is authenticated on this socket: a
    /// [`crate::approval::SignedApproval`].
    Approval(WalletId),
    /// The responder of a session whose manifest came through this socket. The responder answers
    /// with its next message. Message 1 may be sent again while no responder listens; message 3 is
    /// sent once.
    Round {
        /// The session.
        session: SessionId,
        /// The responder.
        to: PartyId,
    },
    /// The orchestrator, about how such a session ended: a [`crate::SignedOutcome`].
    Outcome {
        /// The session.
        session: SessionId,
    },
    /// The observers of such a session: a [`crate::progress::Progress`]. It gets no answer and may
    /// be lost.
    Event {
        /// The session.
        session: SessionId,
    },
}

/// A frame from a device to the gateway.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// The first frame.
    Hello {
        /// The [`GATEWAY_PROTOCOL`] of the device.
        protocol: u16,
        /// The build of the page, for the log.
        build: String,
    },
    /// Proves that the device holds the key of a wallet's device card. It may come again for other
    /// wallets, up to [`MAX_WALLETS_PER_SOCKET`].
    Authenticate {
        /// The wallet.
        wallet: WalletId,
        /// When the proof was made, in milliseconds since 1970.
        issued_at_ms: u64,
        /// [`Authentication::sign`] over the challenge of this socket.
        #[serde(with = "hex_array")]
        signature: [u8; 64],
    },
    /// A message to forward.
    Request {
        /// The device's number for it, which the reply repeats. Requests under way have different
        /// numbers.
        id: u32,
        /// The receiver.
        to: Destination,
        /// The message as its receiver expects it.
        message: Vec<u8>,
    },
    /// The owner has locked the wallet: the gateway forwards nothing about it any more.
    Leave {
        /// The wallet.
        wallet: WalletId,
    },
}

impl fmt::Debug for ClientFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { protocol, build } => write!(f, "Hello({protocol}, {build:?})"),
            Self::Authenticate { wallet, .. } => write!(f, "Authenticate({wallet})"),
            Self::Request { id, to, message } => write!(f, "Request({id}, {to:?}, {} bytes)", message.len()),
            Self::Leave { wallet } => write!(f, "Leave({wallet})"),
        }
    }
}

impl Message for ClientFrame {
    const KIND: u8 = 0x60;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_FORWARDED_SIZE_BYTES + SLACK_BYTES;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// The gateway's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest frame in bytes.
    pub max_frame_bytes: u32,
    /// How many seconds a socket may be silent, pongs included, before the gateway closes it.
    pub idle_s: u32,
}

/// A frame from the gateway to a device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The first frame, sent at once.
    Challenge {
        /// Random, for this socket only.
        #[serde(with = "hex_array")]
        nonce: [u8; 32],
        /// The [`GATEWAY_PROTOCOL`] of the gateway.
        protocol: u16,
        /// The build of the page that this gateway serves; empty when it serves none. A page of
        /// another build offers to reload.
        build: String,
        /// The gateway's limits.
        limits: Limits,
    },
    /// The proof for a wallet is accepted.
    Authenticated {
        /// The wallet.
        wallet: WalletId,
    },
    /// The answer to a request.
    Reply {
        /// The request's number.
        id: u32,
        /// The message as its sender wrote it.
        message: Vec<u8>,
    },
    /// The request is refused.
    Refused {
        /// The request's number. `None` for an `Authenticate`, and when the gateway closes the
        /// socket.
        id: Option<u32>,
        /// Why.
        refusal: Refusal,
    },
    /// How many jobs wait for a wallet's owner. Sent after [`Self::Authenticated`], and on each
    /// change.
    Waiting {
        /// The wallet.
        wallet: WalletId,
        /// How many.
        jobs: u32,
    },
}

impl fmt::Debug for ServerFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Challenge { protocol, build, limits, .. } => {
                write!(f, "Challenge({protocol}, {build:?}, {limits:?})")
            }
            Self::Authenticated { wallet } => write!(f, "Authenticated({wallet})"),
            Self::Reply { id, message } => write!(f, "Reply({id}, {} bytes)", message.len()),
            Self::Refused { id, refusal } => write!(f, "Refused({id:?}, {refusal})"),
            Self::Waiting { wallet, jobs } => write!(f, "Waiting({wallet}, {jobs})"),
        }
    }
}

impl Message for ServerFrame {
    const KIND: u8 = 0x61;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = MAX_FORWARDED_SIZE_BYTES + SLACK_BYTES;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// What a device signs to prove that it holds the key of a wallet's device card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentication {
    /// The nonce of this socket's challenge.
    pub challenge: [u8; 32],
    /// The wallet.
    pub wallet: WalletId,
    /// When the proof is made, in milliseconds since 1970.
    pub issued_at_ms: u64,
}

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// The signature is not by the key over this socket's challenge.
    #[error("the proof is not by the key of the wallet's device over this connection's challenge")]
    BadSignature,
    /// It was made too long ago, or lies in the future.
    #[error(
        "by the device's clock the proof was made at a time that is {} the gateway's clock: the two clocks \
         differ, or the proof was held back; at most {} are allowed",
        validity::relation(*.issued_at_ms, *.now_ms),
        validity::span(MAX_AUTHENTICATION_AGE_MS)
    )]
    NotFresh {
        /// When it was made by the device's clock, in milliseconds since 1970.
        issued_at_ms: u64,
        /// The gateway's time.
        now_ms: u64,
    },
}

impl Authentication {
    /// The signed document: `challenge ‖ wallet ‖ issued_at_ms` (8 bytes, little endian).
    fn document(&self) -> [u8; 72] {
        let mut document = [0; 72];
        let (challenge, rest) = document.split_at_mut(32);
        let (wallet, issued_at_ms) = rest.split_at_mut(32);
        challenge.copy_from_slice(&self.challenge);
        wallet.copy_from_slice(&self.wallet.0);
        issued_at_ms.copy_from_slice(&self.issued_at_ms.to_le_bytes());
        document
    }

    /// Ed25519 by the key of the device's card, over the tag `duet/v1/gateway` and
    /// `challenge ‖ wallet ‖ issued_at_ms`.
    #[must_use]
    pub fn sign(&self, key: &impl Identity) -> [u8; 64] {
        signing::sign(Purpose::Gateway, &self.document(), key)
    }

    /// The frame with the proof.
    #[must_use]
    pub fn frame(&self, key: &impl Identity) -> ClientFrame {
        ClientFrame::Authenticate {
            wallet: self.wallet,
            issued_at_ms: self.issued_at_ms,
            signature: self.sign(key),
        }
    }

    /// Checks a proof against the Ed25519 key of the wallet's device card, and that it was made
    /// within [`MAX_AUTHENTICATION_AGE_MS`] of `now_ms`.
    ///
    /// # Errors
    /// See [`AuthenticationError`].
    pub fn verify(
        &self,
        signature: &[u8; 64],
        device_key: &[u8; 32],
        now_ms: u64,
    ) -> Result<(), AuthenticationError> {
        signing::verify(Purpose::Gateway, &self.document(), device_key, signature)
            .map_err(|_| AuthenticationError::BadSignature)?;
        if now_ms.abs_diff(self.issued_at_ms) > MAX_AUTHENTICATION_AGE_MS {
            return Err(AuthenticationError::NotFresh { issued_at_ms: self.issued_at_ms, now_ms });
        }
        Ok(())
    }
}

/// The gateway's own question to the orchestrator on `duet.v1.approval.<wallet>`: how many jobs
/// wait for the wallet's owner. No device signs it, and the answer is only a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingQuestion {
    /// The wallet.
    pub wallet: WalletId,
}

impl Message for WaitingQuestion {
    const KIND: u8 = 0x62;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 64;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

/// The answer to a [`WaitingQuestion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingAnswer {
    /// The wallet.
    pub wallet: WalletId,
    /// How many jobs wait for its owner.
    pub jobs: u32,
}

impl Message for WaitingAnswer {
    const KIND: u8 = 0x63;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 64;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

// A frame has room for the largest message of each kind that it may contain.
const _: () = {
    use crate::{
        SignedOutcome,
        approval::{ApprovalReply, SignedApproval},
        card_request::{CardReply, CardRequest},
        share_request::{ShareReply, ShareRequest},
    };
    assert!(CardRequest::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
    assert!(CardReply::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
    assert!(ShareRequest::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
    assert!(ShareReply::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
    assert!(SignedApproval::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
    assert!(ApprovalReply::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
    assert!(SignedOutcome::MAX_SIZE_BYTES <= MAX_FORWARDED_SIZE_BYTES);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;

    fn authentication() -> Authentication {
        Authentication { challenge: [1; 32], wallet: WalletId([2; 32]), issued_at_ms: 1_000_000 }
    }

    #[test]
    fn a_proof_holds_for_its_challenge_wallet_time_and_key_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let made = authentication();
        let signature = made.sign(&key);
        let now_ms = made.issued_at_ms;
        assert_eq!(made.verify(&signature, &public, now_ms), Ok(()));
        assert_eq!(made.verify(&signature, &public, now_ms + MAX_AUTHENTICATION_AGE_MS), Ok(()));
        let bad = Err(AuthenticationError::BadSignature);
        for other in [
            Authentication { challenge: [9; 32], ..made },
            Authentication { wallet: WalletId([9; 32]), ..made },
            Authentication { issued_at_ms: now_ms + 1, ..made },
        ] {
            assert_eq!(other.verify(&signature, &public, now_ms), bad);
        }
        let other_key = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert_eq!(made.verify(&signature, &other_key, now_ms), bad);
        for now_ms in [now_ms - MAX_AUTHENTICATION_AGE_MS - 1, now_ms + MAX_AUTHENTICATION_AGE_MS + 1] {
            let refused = made.verify(&signature, &public, now_ms);
            assert!(matches!(refused, Err(AuthenticationError::NotFresh { .. })), "{refused:?}");
        }
    }

    #[test]
    fn what_is_signed_is_pinned() {
        let document = [[1; 32], [2; 32]].concat();
        let expected = [&document[..], &[0x40, 0x42, 0x0f, 0, 0, 0, 0, 0]].concat();
        assert_eq!(authentication().document().to_vec(), expected);
        assert_eq!(Purpose::Gateway.tag(), b"duet/v1/gateway\n");
    }

    #[test]
    fn frames_do_not_print_what_they_carry() {
        let request = ClientFrame::Request {
            id: 1,
            to: Destination::Share("service".parse().unwrap()),
            message: vec![0xab; 5],
        };
        assert_eq!(format!("{request:?}"), "Request(1, Share(PartyId(service)), 5 bytes)");
    }
}

//! Two-party ECDSA after Lindell 2017 over the shares of a 2-of-3 wallet, without I/O.
//!
//! The two central types are [`share::KeyShare`], a holder's share of a wallet, and
//! [`enrolment::VerifiedEnrolment`], which lets one holder answer another. The flow:
//!
//! 1. Every party makes its keys and its [`card::Card`] once.
//! 2. A device deals a wallet ([`keygen::deal`]): three shares, its Paillier key, and a sealed
//!    [`package`] for each other holder. The holder verifies everything in it
//!    ([`package::Receiver`]) and answers with a receipt. With all receipts in hand, all parties
//!    commit.
//! 3. The lower index of a pair starts ([`initiator::Initiator`]), the other answers
//!    ([`responder::Responder`]). They exchange four messages inside Noise KK, the first two as its
//!    handshake.
//! 4. The session ends in a [`verdict::Verdict`]. It passes the gate of its Paillier key before any
//!    caller learns it.
//! 5. Later [`enrolment`]s serve the first contact of two parties, a rotated Paillier key, the end
//!    of a lock, and a restored backup.
//! 6. A [`refresh`] gives all holders new shares of the same key, under a new [`epoch`] record. The
//!    third holder follows by [`catch_up`]. No program starts a refresh yet.
//!
//! The caller passes randomness and time in ([`hedge::Entropy`]). The crate has no clock, no
//! network and no global state, so the same code runs in a browser.

pub mod admission;
pub mod arithmetic;
mod bytes;
pub mod card;
pub mod card_update;
pub mod catch_up;
mod channel;
pub mod codec;
pub mod curve;
pub mod dealing;
#[doc(hidden)]
pub mod door;
pub mod enrolment;
pub mod epoch;
pub mod extended_key;
pub mod hedge;
pub mod history;
mod holding;
pub mod identity;
pub mod ids;
pub mod initiator;
pub mod keygen;
pub mod natural;
mod nonce;
pub mod package;
pub mod paillier;
pub mod paillier_key;
pub mod pending;
pub mod proof_task;
pub mod proofs;
pub mod public_key;
pub mod randomizer;
pub mod receipt;
pub mod refresh;
pub mod responder;
pub mod ring_pedersen;
mod seal;
pub mod session;
pub mod share;
pub mod signature;
pub mod transcript;
pub mod verdict;
mod wallet;

// The tests beside the code use the same parties as all other tests. The adversary crate itself
// would link a second copy of this one, whose types are others.
#[cfg(test)]
extern crate self as duet_protocol;
#[cfg(test)]
#[path = "../../adversary/src/test_fixtures.rs"]
mod test_fixtures;
#[cfg(test)]
#[path = "../../adversary/src/world.rs"]
#[expect(clippy::disallowed_types, reason = "a file of the adversary crate")]
mod world;

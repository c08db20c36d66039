//! What the world wants of an engine beside the session itself.

use duet_protocol::{
    signature::{self, RecoverableSignature},
    transcript::sha256,
};

use super::fixture::Fixture;
use crate::{
    randomizers::Taken,
    session::{Engine, Protocol},
};

/// What a message shows once: the hash of a nonce or of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    R1([u8; 32]),
    R2([u8; 32]),
    Opening,
    C3([u8; 32]),
}

/// How a party sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The initiator's first message.
    First,
    /// The initiator's second message.
    Second,
    /// The responder's answer to either.
    Answer,
}

/// An engine in the world.
pub(super) trait WorldEngine: Engine {
    /// What an answer is hidden with, or makes it a wrong one.
    fn randomizer(is_honest: bool) -> Self::Randomizer;
    /// What a message shows that a party sends.
    fn seen(message: &[u8], sent: Sent) -> Seen;
    /// Panics unless the signature is one of the wallet over `digest`.
    fn verify(fixture: &Fixture, digest: [u8; 32], signature: &RecoverableSignature);
}

impl WorldEngine for Protocol {
    /// The protocol's own answers are right.
    fn randomizer(_: bool) -> Taken {
        Taken::Nothing
    }

    /// A message as a whole stands for what it hides. Only an answer with a ciphertext is long.
    fn seen(message: &[u8], sent: Sent) -> Seen {
        let hash = sha256(message);
        match sent {
            Sent::First => Seen::R1(hash),
            Sent::Second => Seen::Opening,
            Sent::Answer if message.len() > 500 => Seen::C3(hash),
            Sent::Answer => Seen::R2(hash),
        }
    }

    fn verify(fixture: &Fixture, digest: [u8; 32], signature: &RecoverableSignature) {
        signature::verify(&fixture.public_key, &digest, signature).unwrap();
    }
}

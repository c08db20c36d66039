//! The channel of a signing session: Noise KK between the two card keys, over `snow`.
//!
//! Its two handshake messages carry the protocol's first two, so it costs no round trip. The
//! prologue is the hash of everything on which both sides must agree. A side that disagrees about
//! any of it cannot read a single byte, and neither side has learnt or spent anything.

use std::sync::{Arc, Mutex, PoisonError};

use snow::{
    Builder, HandshakeState, TransportState,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

use crate::identity::{NoiseKey, PartyKeys};

const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_BLAKE2s";

/// What Noise adds to a handshake message: an ephemeral key and a tag, in bytes.
pub(crate) const HANDSHAKE_OVERHEAD_BYTES: usize = 32 + TAG_SIZE_BYTES;

/// What Noise adds to a transport message, in bytes.
pub(crate) const TAG_SIZE_BYTES: usize = 16;

/// The peer did not send these bytes in this session, or it sees another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not authentic in this session")]
pub(crate) struct NotAuthentic;

/// Gives the handshake its one ephemeral secret, which the caller drew. The responder draws its own
/// after it has read message 1, because the secret depends on that message.
#[derive(Clone, Default)]
struct Ephemeral(Arc<Mutex<Option<Zeroizing<[u8; 32]>>>>);

impl Ephemeral {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Zeroizing<[u8; 32]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), snow::Error> {
        match self.slot().take() {
            Some(secret) if secret.len() == destination.len() => {
                destination.copy_from_slice(secret.as_ref());
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

struct Resolver(Ephemeral);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.0.clone()))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// A handshake in progress.
pub(crate) struct Handshake {
    state: HandshakeState,
    ephemeral: Ephemeral,
}

impl Handshake {
    pub(crate) fn initiator(
        keys: &PartyKeys,
        peer: &NoiseKey,
        prologue: &[u8; 32],
    ) -> Result<Self, NotAuthentic> {
        Self::build(keys, peer, prologue, true)
    }

    pub(crate) fn responder(
        keys: &PartyKeys,
        peer: &NoiseKey,
        prologue: &[u8; 32],
    ) -> Result<Self, NotAuthentic> {
        Self::build(keys, peer, prologue, false)
    }

    fn build(
        keys: &PartyKeys,
        peer: &NoiseKey,
        prologue: &[u8; 32],
        initiator: bool,
    ) -> Result<Self, NotAuthentic> {
        let ephemeral = Ephemeral::default();
        let params = PATTERN.parse().map_err(|_| NotAuthentic)?;
        let builder = Builder::with_resolver(params, Box::new(Resolver(ephemeral.clone())))
            .local_private_key(keys.noise_secret().as_bytes())
            .and_then(|builder| builder.remote_public_key(peer.as_bytes()))
            .and_then(|builder| builder.prologue(prologue))
            .map_err(|_| NotAuthentic)?;
        let state = if initiator { builder.build_initiator() } else { builder.build_responder() };
        state.map(|state| Self { state, ephemeral }).map_err(|_| NotAuthentic)
    }

    /// This side's one message of the handshake, with its ephemeral key.
    pub(crate) fn write(
        &mut self,
        payload: &[u8],
        ephemeral: Zeroizing<[u8; 32]>,
    ) -> Result<Vec<u8>, NotAuthentic> {
        *self.ephemeral.slot() = Some(ephemeral);
        filled(payload.len() + HANDSHAKE_OVERHEAD_BYTES, |buffer| self.state.write_message(payload, buffer))
    }

    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        filled(message.len(), |buffer| self.state.read_message(message, buffer))
    }

    /// The hash of everything the handshake has seen so far.
    pub(crate) fn hash(&self) -> Vec<u8> {
        self.state.get_handshake_hash().to_vec()
    }

    /// The channel, after both handshake messages have passed.
    pub(crate) fn finish(self) -> Result<Channel, NotAuthentic> {
        self.state.into_transport_mode().map(Channel).map_err(|_| NotAuthentic)
    }
}

/// The channel after the handshake. One message goes each way.
pub(crate) struct Channel(TransportState);

impl Channel {
    pub(crate) fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        filled(payload.len() + TAG_SIZE_BYTES, |buffer| self.0.write_message(payload, buffer))
    }

    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        filled(message.len(), |buffer| self.0.read_message(message, buffer))
    }
}

/// The bytes that `fill` wrote into a buffer of at most `size_bytes`.
fn filled(
    size_bytes: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, snow::Error>,
) -> Result<Vec<u8>, NotAuthentic> {
    let mut buffer = vec![0; size_bytes];
    let written = fill(&mut buffer).map_err(|_| NotAuthentic)?;
    buffer.truncate(written);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    fn pair(prologues: [[u8; 32]; 2]) -> (Handshake, Handshake) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (a, b) = (PartyKeys::generate(&mut rng), PartyKeys::generate(&mut rng));
        (
            Handshake::initiator(&a, &b.noise_key(), &prologues[0]).unwrap(),
            Handshake::responder(&b, &a.noise_key(), &prologues[1]).unwrap(),
        )
    }

    #[test]
    fn four_messages_pass_and_both_sides_see_one_session() {
        let (mut initiator, mut responder) = pair([[1; 32]; 2]);
        let [third, fourth] = [3, 4].map(|byte| Zeroizing::new([byte; 32]));
        assert_eq!(responder.read(&initiator.write(b"one", third).unwrap()).unwrap(), b"one");
        assert_eq!(initiator.hash(), responder.hash());
        assert_eq!(initiator.read(&responder.write(b"two", fourth).unwrap()).unwrap(), b"two");
        assert_eq!(initiator.hash(), responder.hash());
        let (mut initiator, mut responder) = (initiator.finish().unwrap(), responder.finish().unwrap());
        let third = initiator.write(b"three").unwrap();
        assert_eq!(responder.read(&third).unwrap(), b"three");
        assert_eq!(responder.read(&third), Err(NotAuthentic));
        assert_eq!(initiator.read(&responder.write(b"four").unwrap()).unwrap(), b"four");
    }

    #[test]
    fn another_prologue_is_another_session() {
        let (mut initiator, mut responder) = pair([[1; 32], [2; 32]]);
        assert_eq!(
            responder.read(&initiator.write(b"one", Zeroizing::new([3; 32])).unwrap()),
            Err(NotAuthentic)
        );
    }
}

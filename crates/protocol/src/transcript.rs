//! All hashing of this crate: unambiguous encodings under a tag, never concatenation.
//!
//! Values are encoded by [`udigest`], which writes field names, lengths and list sizes, so that two
//! different values never hash the same input (the α-shuffle of TSSHOCK joined numbers with a
//! separator that could occur in them). Every hash carries the protocol's name and version and a
//! tag.

use sha2::{Digest as _, Sha256, Sha512};
use udigest::Digestable;

use crate::{
    curve::{self, Scalar},
    ids::{Epoch, PaillierKeyId, PartyId, WalletId},
    natural::Natural,
};

/// The protocol's name, part of every hash.
pub const PROTOCOL: &str = "duet";

/// The version of the protocol, part of every hash.
pub const PROTOCOL_VERSION: u32 = 1;

/// Bits drawn beyond the length of a bound before reducing, so that the result is within 2⁻¹²⁸ of
/// uniform.
const EXTRA_BITS: u32 = 128;

#[derive(Digestable)]
struct Tagged<'a> {
    protocol: &'static str,
    version: u32,
    tag: &'a str,
    value: &'a dyn Digestable,
}

impl<'a> Tagged<'a> {
    fn new(tag: &'a str, value: &'a dyn Digestable) -> Self {
        Self { protocol: PROTOCOL, version: PROTOCOL_VERSION, tag, value }
    }
}

/// Feeds an encoding to the hash function.
struct Sink<D>(D);

impl<D: sha2::Digest> udigest::Buffer for Sink<D> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

fn digest<D: sha2::Digest>(value: &dyn Digestable) -> sha2::digest::Output<D> {
    let mut sink = Sink(D::new());
    value.unambiguously_encode(udigest::encoding::EncodeValue::new(&mut sink));
    sink.0.finalize()
}

/// `H(tag, value)`: 32 bytes of SHA-256 over protocol, version, tag and value.
#[must_use]
pub fn hash(tag: &str, value: &dyn Digestable) -> [u8; 32] {
    digest::<Sha256>(&Tagged::new(tag, value)).into()
}

/// `H(tag, value)` reduced to a scalar, within 2⁻²⁵⁶ of uniform.
#[must_use]
pub fn hash_to_scalar(tag: &str, value: &dyn Digestable) -> Scalar {
    let wide: [u8; 64] = digest::<Sha512>(&Tagged::new(tag, value)).into();
    curve::reduce(&Natural::from_be_bytes(&wide))
}

/// The context of a proof: prover, verifier and binding. It is part of every challenge, so that a
/// proof holds in one place only.
///
/// The verifier makes it from its own data; nothing of it travels with the proof.
#[derive(Debug, Clone, PartialEq, Eq, Digestable)]
pub struct ProofContext {
    /// The prover.
    pub prover: PartyId,
    /// The verifier; `None` when the proof is for all verifiers, as on a card.
    pub verifier: Option<PartyId>,
    /// The wallet; `None` for a proof that serves many, such as a card's or one of the service's
    /// Paillier key.
    pub wallet: Option<WalletId>,
    /// The epoch of the wallet's shares; 0 without a wallet.
    pub epoch: Epoch,
    /// The initiator's Paillier key; `None` where there is none.
    pub paillier_key: Option<PaillierKeyId>,
    /// The card, enrolment or session the proof belongs to.
    pub binding: Binding,
}

/// The thing a proof is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Digestable)]
pub enum Binding {
    /// A card: the hash of the card's other contents.
    Card(#[udigest(as_bytes)] [u8; 32]),
    /// An enrolment: its identifier.
    Enrolment(#[udigest(as_bytes)] [u8; 32]),
    /// A session: `sid1`, `sid2` or `sid`.
    Session(#[udigest(as_bytes)] [u8; 32]),
}

#[derive(Digestable)]
struct ChallengeInput<'a> {
    context: &'a ProofContext,
    statement: &'a dyn Digestable,
    commitment: &'a dyn Digestable,
}

/// A Fiat–Shamir challenge over all earlier messages, from which any number of values can be drawn.
pub(crate) struct Challenge {
    seed: [u8; 64],
}

#[derive(Digestable)]
struct Block<'a> {
    label: &'a str,
    index: u32,
    block: u32,
    #[udigest(as_bytes)]
    seed: &'a [u8; 64],
}

impl Challenge {
    /// Hashes the proof's name, its context, the full statement and the prover's first message.
    pub(crate) fn new(
        proof: &str,
        context: &ProofContext,
        statement: &dyn Digestable,
        commitment: &dyn Digestable,
    ) -> Self {
        let input = ChallengeInput { context, statement, commitment };
        Self { seed: digest::<Sha512>(&Tagged::new(proof, &input)).into() }
    }

    fn expand(&self, label: &str, index: u32, bits: u32) -> Natural {
        let size = bits.div_ceil(8) as usize;
        let mut bytes = Vec::with_capacity(size + 64);
        for block in 0.. {
            if bytes.len() >= size {
                break;
            }
            let input = Block { label, index, block, seed: &self.seed };
            bytes.extend_from_slice(&digest::<Sha512>(&Tagged::new("challenge-block", &input)));
        }
        bytes.truncate(size);
        let excess = size as u32 * 8 - bits;
        Natural::from_be_bytes(&bytes).shr(excess)
    }

    /// A uniform number below `2^bits`.
    pub(crate) fn natural(&self, bits: u32) -> Natural {
        self.expand("natural", 0, bits)
    }

    /// The `index`-th of a list of numbers below `bound`, within 2⁻¹²⁸ of uniform.
    pub(crate) fn below(&self, index: u32, bound: &Natural) -> Natural {
        let wide = self.expand("below", index, bound.bit_length() + EXTRA_BITS);
        wide.rem(bound).unwrap_or_else(Natural::zero)
    }

    /// A scalar, within 2⁻²⁵⁶ of uniform.
    pub(crate) fn scalar(&self) -> Scalar {
        curve::reduce(&self.expand("scalar", 0, 512))
    }
}

/// SHA-256 of bytes that are hashed as they were received, without a tag: fingerprints of files and
/// documents only.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ProofContext {
        ProofContext {
            prover: "a".parse().unwrap(),
            verifier: Some("b".parse().unwrap()),
            wallet: Some(WalletId([1; 32])),
            epoch: Epoch(0),
            paillier_key: Some(PaillierKeyId([2; 16])),
            binding: Binding::Session([3; 32]),
        }
    }

    fn seed(context: &ProofContext, statement: &dyn Digestable, commitment: &dyn Digestable) -> [u8; 64] {
        Challenge::new("test", context, statement, commitment).seed
    }

    #[test]
    fn pairs_that_collide_under_concatenation_do_not_collide() {
        let number = |bytes: &[u8]| Natural::from_be_bytes(bytes);
        assert_ne!(
            hash("t", &(&number(&[1, 2]), &number(&[3]))),
            hash("t", &(&number(&[1]), &number(&[2, 3])))
        );
        assert_ne!(hash("t", &vec!["ab", "c"]), hash("t", &vec!["a", "bc"]));
        assert_ne!(hash("t", &vec![vec!["a"], vec!["b"]]), hash("t", &vec![vec!["a", "b"], vec![]]));
        assert_ne!(hash("tu", &"v"), hash("t", &"uv"));
        // Moving a value from the statement to the commitment, or from one party's name to
        // another's.
        assert_ne!(seed(&context(), &"ab", &"c"), seed(&context(), &"a", &"bc"));
        let shifted = ProofContext { prover: "ab".parse().unwrap(), ..context() };
        let other = ProofContext { verifier: Some("bb".parse().unwrap()), ..context() };
        assert_ne!(seed(&shifted, &"", &""), seed(&other, &"", &""));
        // A separator inside a value, as in the α-shuffle.
        assert_ne!(hash("t", &vec!["a$", "b"]), hash("t", &vec!["a", "$b"]));
    }

    #[test]
    fn every_field_of_the_context_counts() {
        let base = seed(&context(), &1_u32, &2_u32);
        let changed = [
            ProofContext { prover: "x".parse().unwrap(), ..context() },
            ProofContext { verifier: Some("x".parse().unwrap()), ..context() },
            ProofContext { verifier: None, ..context() },
            ProofContext { wallet: Some(WalletId([9; 32])), ..context() },
            ProofContext { wallet: None, ..context() },
            ProofContext { epoch: Epoch(1), ..context() },
            ProofContext { paillier_key: Some(PaillierKeyId([9; 16])), ..context() },
            ProofContext { paillier_key: None, ..context() },
            ProofContext { binding: Binding::Session([9; 32]), ..context() },
            ProofContext { binding: Binding::Enrolment([3; 32]), ..context() },
            ProofContext { binding: Binding::Card([3; 32]), ..context() },
        ];
        for context in changed {
            assert_ne!(seed(&context, &1_u32, &2_u32), base, "{context:?}");
        }
        assert_ne!(Challenge::new("other", &context(), &1_u32, &2_u32).seed, base);
        assert_ne!(seed(&context(), &2_u32, &1_u32), base);
    }

    #[test]
    fn values_are_pinned_and_within_their_bounds() {
        assert_eq!(
            hex::encode(hash("pinned", &context())),
            "11f00392cabbab7887f7e32dded4da9bd053ee034f3d1e828ee2e639077996e3"
        );
        let challenge = Challenge::new("test", &context(), &"", &"");
        let bound = Natural::from(1000);
        let drawn: Vec<_> = (0..100).map(|index| challenge.below(index, &bound)).collect();
        assert!(drawn.iter().all(|value| value < &bound));
        assert!(drawn.windows(2).any(|pair| pair[0] != pair[1]));
        assert!(challenge.natural(128) < Natural::power_of_two(128));
        let ones = (0..64_u32)
            .map(|proof| Challenge::new(&proof.to_string(), &context(), &"", &"").natural(128))
            .map(|drawn| (0..128).filter(|bit| drawn.bit(*bit)).count())
            .sum::<usize>();
        assert!((3_700..4_500).contains(&ones), "{ones} of 8192 bits are set");
    }
}

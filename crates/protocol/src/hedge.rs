//! Hedged random numbers for operations on secrets. Neither a repeating generator nor a cloned
//! machine alone makes such a number repeat.
//!
//! Each answer, proof, nonce and mask has a generator of its own: ChaCha20, seeded by HKDF-SHA-512
//! from
//!
//! - 64 bytes of the caller's generator (the salt),
//! - the secret that the numbers protect, a share for instance (the input key material),
//! - the purpose, the whole statement, the item's number, a random number of the process, and the
//!   wall clock (the info).
//!
//! With a good generator the result is uniform, independent of the other inputs. When the generator
//! repeats, for example after two starts of one machine snapshot, the statement or the clock still
//! differs. An attacker who knows the generator still lacks the secret. HKDF alone ends at
//! 16,320 bytes, which is less than a batch of choices from tables needs.
//!
//! This crate knows no clock. The caller's generator brings the process's number and the time:
//! [`Entropy`].

use core::{convert::Infallible, fmt};

use chacha20::{ChaCha20Rng, rand_core::SeedableRng as _};
use hkdf::Hkdf;
use rand_core::{CryptoRng, Rng as _, TryCryptoRng, TryRng};
use sha2::Sha512;
use udigest::Digestable;
use zeroize::Zeroizing;

use crate::transcript;

/// The place and time of a draw. They differ between two runs of a program whose generators repeat.
#[derive(Clone, Copy, PartialEq, Eq, Digestable)]
pub struct Environment {
    /// 32 bytes that the process drew when it started. Not a secret, but sent to no peer.
    #[udigest(as_bytes)]
    pub process: [u8; 32],
    /// The wall clock: nanoseconds since 1970. It may jump, and need not be right.
    pub now_ns: u64,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment(at {} ns)", self.now_ns)
    }
}

/// The operating system's generator together with its hedge.
pub trait Entropy: CryptoRng {
    /// The place and time of the draw.
    fn environment(&self) -> Environment;
}

/// A generator in an environment, which a driver passes to this crate.
#[derive(Debug)]
pub struct Surrounded<R> {
    rng: R,
    environment: Environment,
}

impl<R: CryptoRng> Surrounded<R> {
    /// Combines `rng` with `environment`. `rng` has to be the operating system's generator, or as
    /// good.
    #[must_use]
    pub const fn new(rng: R, environment: Environment) -> Self {
        Self { rng, environment }
    }
}

impl<R: CryptoRng> TryRng for Surrounded<R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.rng.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.rng.try_next_u64()
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        self.rng.try_fill_bytes(destination)
    }
}

impl<R: CryptoRng> TryCryptoRng for Surrounded<R> {}

impl<R: CryptoRng> Entropy for Surrounded<R> {
    fn environment(&self) -> Environment {
        self.environment
    }
}

/// A seeded generator as a machine in one environment, for tests that have to repeat.
#[cfg(test)]
impl Entropy for rand_chacha::ChaCha20Rng {
    fn environment(&self) -> Environment {
        Environment { process: [0; 32], now_ns: 0 }
    }
}

/// The purpose of random numbers. Two purposes never share a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Digestable)]
pub(crate) enum Purpose {
    /// `k1`.
    InitiatorNonce,
    /// `k2`.
    ResponderNonce,
    /// The blinding of the commitment to `R1`.
    Commitment,
    /// Noise's ephemeral key.
    Ephemeral,
    /// `r̃`, or the choices from a table, and `t`.
    Randomizer,
    /// `ρ`.
    Mask,
    /// The blinding of a decryption.
    Decryption,
    /// The randomness of `c_i`.
    EncryptedShare,
    /// Schnorr's nonce.
    Schnorr,
    /// Πlog*.
    LogStar,
    /// Πfac.
    Factor,
    /// Πmod.
    Modulus,
    /// Πprm.
    Parameters,
    /// A ring-Pedersen trapdoor.
    Trapdoor,
    /// The primes of a key, or of parameters.
    Primes,
    /// A wallet's polynomial.
    Polynomial,
    /// A wallet's chain code and its identifier's nonce.
    Wallet,
    /// A party's or a device's keys.
    Keys,
    /// The ephemeral key of a sealed message.
    Seal,
    /// A maker's part of a refresh's slope, and the blinding of its commitment.
    Slope,
}

/// A generator for one purpose. Wiped on drop; neither `Clone` nor `Serialize`.
pub(crate) struct Generator(ChaCha20Rng);

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(destination)
    }
}

impl TryCryptoRng for Generator {}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Generator(redacted)")
    }
}

#[derive(Digestable)]
struct Info<'a> {
    purpose: Purpose,
    statement: &'a dyn Digestable,
    item: u32,
    environment: Environment,
}

/// The hedge of all generators of one statement: a session, an enrolment, a proof.
pub(crate) struct Hedge<'a> {
    entropy: &'a mut dyn Entropy,
    secret: Zeroizing<Vec<u8>>,
    statement: &'a dyn Digestable,
}

impl<'a> Hedge<'a> {
    /// `secret` is the secret that the numbers protect. It is empty where the numbers themselves
    /// become the first secret.
    pub(crate) fn new(entropy: &'a mut dyn Entropy, secret: &[u8], statement: &'a dyn Digestable) -> Self {
        Self { entropy, secret: Zeroizing::new(secret.to_vec()), statement }
    }

    /// The generator for `purpose`.
    pub(crate) fn generator(&mut self, purpose: Purpose) -> Generator {
        self.item(purpose, 0)
    }

    /// The generator for item number `item` of a batch.
    pub(crate) fn item(&mut self, purpose: Purpose, item: u32) -> Generator {
        let mut salt = Zeroizing::new([0; 64]);
        self.entropy.fill_bytes(salt.as_mut());
        let environment = self.entropy.environment();
        let info = Info { purpose, statement: self.statement, item, environment };
        let info = transcript::hash("hedge", &info);
        let hkdf = Hkdf::<Sha512>::new(Some(salt.as_ref()), &self.secret);
        let mut seed = Zeroizing::new([0; 32]);
        // 32 bytes are less than one block; the library refuses only above 255 of them.
        while hkdf.expand(&info, seed.as_mut()).is_err() {}
        Generator(ChaCha20Rng::from_seed(*seed))
    }
}

/// A generator for `purpose`, alone.
pub(crate) fn generator(
    entropy: &mut dyn Entropy,
    secret: &[u8],
    purpose: Purpose,
    statement: &dyn Digestable,
) -> Generator {
    Hedge::new(entropy, secret, statement).generator(purpose)
}

/// 32 bytes for a new secret key that `label` names.
#[must_use]
pub fn new_key(entropy: &mut dyn Entropy, label: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    generator(entropy, &[], Purpose::Keys, &label).fill_bytes(key.as_mut());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng as Seeded;

    const AT: Environment = Environment { process: [1; 32], now_ns: 1 };

    fn draw(
        seed: u64,
        environment: Environment,
        secret: &[u8],
        (purpose, statement, item): (Purpose, [u8; 32], u32),
    ) -> [u8; 32] {
        let mut entropy = Surrounded::new(Seeded::seed_from_u64(seed), environment);
        let mut drawn = [0; 32];
        Hedge::new(&mut entropy, secret, &statement).item(purpose, item).fill_bytes(&mut drawn);
        drawn
    }

    #[test]
    fn every_input_changes_what_is_drawn() {
        let what = (Purpose::Mask, [1; 32], 0);
        let base = draw(1, AT, &[1], what);
        assert_eq!(base, draw(1, AT, &[1], what), "the rest is deterministic");
        let differing = [
            ("generator", draw(2, AT, &[1], what)),
            ("process", draw(1, Environment { process: [2; 32], ..AT }, &[1], what)),
            ("clock", draw(1, Environment { now_ns: 2, ..AT }, &[1], what)),
            ("secret", draw(1, AT, &[2], what)),
            ("purpose", draw(1, AT, &[1], (Purpose::Randomizer, [1; 32], 0))),
            ("statement", draw(1, AT, &[1], (Purpose::Mask, [2; 32], 0))),
            ("item", draw(1, AT, &[1], (Purpose::Mask, [1; 32], 1))),
        ];
        for (input, drawn) in differing {
            assert_ne!(base, drawn, "{input}");
        }
    }

    #[test]
    fn a_generator_gives_more_than_one_expansion_could() {
        let mut entropy = Surrounded::new(Seeded::seed_from_u64(1), AT);
        let mut drawn = vec![0; 1 << 16];
        generator(&mut entropy, &[1], Purpose::Mask, &[0_u8; 32]).fill_bytes(&mut drawn);
        let (first, second) = drawn.split_at(1 << 15);
        assert_ne!(first, second);
    }
}

//! Paillier's cryptosystem (Paillier 1999) with generator `1 + N`.
//!
//! A responder has an [`EncryptionKey`]. It encrypts, and computes the masked affine function of an
//! encrypted share that a signature needs. The initiator has the [`DecryptionKey`].
//!
//! # Timing
//! With an arithmetic that is not constant-time ([`Arithmetic::is_constant_time`]), the responder
//! replaces its exponent `v` by `v + t·q` with a fresh 64-bit `t`. The initiator blinds a
//! decryption in the base by a pair `(Enc(b), b)` and in the exponent by an odd 64-bit factor. That
//! hides the secrets from an attacker who measures the time of single operations. It does not
//! defend against an attacker who reads cache lines on the same core.

use std::sync::{Arc, Mutex, PoisonError};

use rand_core::{CryptoRng, Rng as _};
use zeroize::Zeroizing;

use crate::{
    arithmetic::{Arithmetic, FixedBase, Modulus, PaillierOperations, PrimeKind, PrimeProgress},
    curve::{self, Scalar},
    hedge::{self, Entropy, Purpose},
    ids::{PaillierKeyId, PartyId},
    natural::Natural,
    randomizer::OneTimeRandomizer,
    transcript,
};

/// The length of the mask `ρ`, in bits: Lindell's `ρ·q` must hide `v·x̂` for every `x̂` that Πlog*
/// lets through. `ρ·q ≈ 2^897`, `v·x̂ < 2^256·2^513 = 2^769`: 2^128 times wider.
pub const MASK_BITS: u32 = 641;

/// Every masked plaintext `v·x̂ + u + ρ·q` is below two to this power, which is below either prime
/// of the shortest modulus, so that nothing wraps.
pub const MASKED_PLAINTEXT_BITS: u32 = 898;

/// The length of a scalar of secp256k1, in bits.
const SCALAR_BITS: u32 = 256;

/// The number of uses of a decryption's blinding pair before a new one is drawn.
const BLINDING_USES: u32 = 32;

/// The lengths a modulus may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, udigest::Digestable)]
pub enum ModulusSize {
    /// 2048 bits.
    #[default]
    Bits2048,
    /// 3072 bits.
    Bits3072,
}

impl ModulusSize {
    /// The modulus's length in bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits2048 => 2048,
            Self::Bits3072 => 3072,
        }
    }

    /// The length of `number`, if it is one of the allowed ones.
    #[must_use]
    pub fn of(number: &Natural) -> Option<Self> {
        [Self::Bits2048, Self::Bits3072].into_iter().find(|size| size.bits() == number.bit_length())
    }
}

/// Why a number is not a Paillier modulus on sight. Only the modulus and factor proofs show that it
/// is a product of two suitable primes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModulus {
    /// Neither exactly 2048 nor exactly 3072 bits.
    #[error("a modulus of {0} bits, expected exactly 2048 or 3072")]
    Length(u32),
    /// Even.
    #[error("the modulus is even")]
    Even,
}

/// Why a number is not a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCiphertext {
    /// Zero, or not below `N²`.
    #[error("the ciphertext is not between 0 and N²")]
    Range,
    /// It shares a factor with `N`.
    #[error("the ciphertext shares a factor with N")]
    NotInvertible,
}

/// Misuse of an encryption key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// The plaintext is not below its bound: `N`, or `2^898` for a masked one.
    #[error("the plaintext is out of range")]
    PlaintextRange,
    /// The randomizer was made for another modulus.
    #[error("the randomizer belongs to another key")]
    ForeignRandomizer,
    /// The ciphertext was prepared for another modulus.
    #[error("the ciphertext belongs to another key")]
    ForeignCiphertext,
}

/// A public Paillier key: a modulus of an allowed length, with precomputed values.
#[derive(Clone)]
pub struct EncryptionKey {
    modulus: Arc<dyn Modulus>,
    squared: Arc<dyn Modulus>,
    operations: Arc<dyn PaillierOperations>,
    size: ModulusSize,
    arithmetic: &'static dyn Arithmetic,
}

impl EncryptionKey {
    /// Checks length and parity of `n`. [`crate::proofs::modulus`] and [`crate::proofs::factor`]
    /// show whether it is a product of two large primes.
    ///
    /// # Errors
    /// On any length but exactly 2048 or 3072 bits, and on an even number.
    pub fn parse(n: &Natural, arithmetic: &'static dyn Arithmetic) -> Result<Self, InvalidModulus> {
        let size = ModulusSize::of(n).ok_or_else(|| InvalidModulus::Length(n.bit_length()))?;
        let modulus = arithmetic.modulus(n).ok_or(InvalidModulus::Even)?;
        let squared = arithmetic.modulus(&n.square()).ok_or(InvalidModulus::Even)?;
        let operations = arithmetic.paillier(n).ok_or(InvalidModulus::Even)?;
        Ok(Self { modulus, squared, operations, size, arithmetic })
    }

    /// The modulus `N`.
    #[must_use]
    pub fn modulus(&self) -> &Natural {
        self.modulus.value()
    }

    /// Arithmetic modulo `N`.
    #[must_use]
    pub fn modulus_arithmetic(&self) -> &Arc<dyn Modulus> {
        &self.modulus
    }

    /// Arithmetic modulo `N²`.
    #[must_use]
    pub fn squared_arithmetic(&self) -> &Arc<dyn Modulus> {
        &self.squared
    }

    /// The operations of the cryptosystem under this key.
    pub(crate) fn operations(&self) -> &Arc<dyn PaillierOperations> {
        &self.operations
    }

    /// The modulus's length.
    #[must_use]
    pub fn size(&self) -> ModulusSize {
        self.size
    }

    /// The implementation this key computes with.
    #[must_use]
    pub fn arithmetic(&self) -> &'static dyn Arithmetic {
        self.arithmetic
    }

    /// The hash of `N`, under which verdicts about the modulus alone are cached.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        transcript::hash("paillier-modulus", self.modulus())
    }

    /// The key's identifier: the head of the hash of its owner and modulus.
    #[must_use]
    pub fn id(&self, owner: &PartyId) -> PaillierKeyId {
        let mut id = [0; 16];
        let hash = transcript::hash("paillier-key-id", &(owner, self.modulus()));
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        PaillierKeyId(id)
    }

    /// A uniform element of `Z*_N`.
    pub(crate) fn random_unit(&self, rng: &mut dyn CryptoRng) -> Natural {
        loop {
            let candidate = Natural::random_below(rng, self.modulus());
            if self.modulus.is_unit(&candidate) {
                return candidate;
            }
        }
    }

    /// Encrypts `plaintext < N`, and also returns the nonce, which a proof about the ciphertext
    /// needs.
    ///
    /// # Errors
    /// When the plaintext is not below `N`.
    pub fn encrypt(
        &self,
        plaintext: &Natural,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Ciphertext, EncryptionNonce), EncryptError> {
        if plaintext >= self.modulus() {
            return Err(EncryptError::PlaintextRange);
        }
        let nonce = self.random_unit(rng);
        let ciphertext = Ciphertext(self.operations.encrypt(plaintext, &nonce));
        let nonce = EncryptionNonce { nonce, ciphertext: ciphertext.clone() };
        Ok((ciphertext, nonce))
    }

    /// `(1 + plaintext·N) · nonce^N mod N²`
    pub(crate) fn raw_encrypt(&self, plaintext: &Natural, nonce: &Natural) -> Natural {
        self.operations.encrypt(plaintext, nonce)
    }

    /// Draws `r̃` from `Z*_N` and computes `r̃^N mod N²`: the expensive part of an answer. This one
    /// is for a table; an answer's own comes from
    /// [`crate::responder::AwaitingOpening::draw_randomizer`].
    pub fn make_randomizer(&self, rng: &mut dyn CryptoRng) -> OneTimeRandomizer {
        let nonce = self.random_unit(rng);
        OneTimeRandomizer {
            modulus: self.modulus().clone(),
            value: self.operations.randomizer(&nonce),
            exponent_blind: Zeroizing::new(rng.next_u64()),
        }
    }

    /// `ciphertext^multiplier · (1 + plaintext·N) · r̃^N mod N²`: with an encryption of `x`, an
    /// encryption of `multiplier·x + plaintext`.
    ///
    /// The plaintext is `u + ρ·q`, see [`masked_plaintext`]. Where the arithmetic is not
    /// constant-time the exponent becomes `v + t·q`, so that the result encrypts
    /// `v·x + u + q·(ρ + t·x)`. That changes nothing modulo `q`, and nothing for the mask: `t` is
    /// independent of `v`, for each `t` the offset `t·x` is a constant, and `ρ` hides
    /// `⌊(v·x + u)/q⌋ < 2^513` behind a uniform number of 641 bits as before, to 2⁻¹²⁸. The
    /// plaintext stays below `2^833 + 2^256 + 2^897 < 2^898`. For a negative `x̂`, which only a
    /// cheating initiator has, the whole can be negative with probability 2⁻⁶⁴ instead of 2⁻¹²⁸; it
    /// then shows as `N` minus its magnitude, which tells no more than the integer itself.
    ///
    /// # Errors
    /// When the plaintext is not below `2^898`, or the randomizer belongs to another modulus.
    pub fn affine(
        &self,
        ciphertext: &Ciphertext,
        multiplier: &Scalar,
        plaintext: &Natural,
        randomizer: OneTimeRandomizer,
    ) -> Result<Ciphertext, EncryptError> {
        self.check(plaintext, &randomizer)?;
        let mut exponent = curve::scalar_to_natural(multiplier);
        if !self.arithmetic.is_constant_time() {
            exponent = &exponent + &(&Natural::from(*randomizer.exponent_blind) * &curve::order());
        }
        Ok(Ciphertext(self.operations.affine(&ciphertext.0, &exponent, plaintext, &randomizer.value)))
    }

    /// Precomputes tables with which [`affine_with`](Self::affine_with) is faster than
    /// [`affine`](Self::affine). They take half a megabyte for 2048 bits, and the work of three
    /// answers.
    #[must_use]
    pub fn prepare(&self, ciphertext: &Ciphertext) -> PreparedCiphertext {
        let powers = self.squared.secret_fixed_base(&ciphertext.0, SCALAR_BITS);
        PreparedCiphertext { powers, modulus: self.modulus().clone() }
    }

    /// [`affine`](Self::affine) of a prepared ciphertext. It does not blind the exponent: with
    /// precomputed tables, the time of a power is independent of the exponent in either arithmetic.
    ///
    /// # Errors
    /// As [`affine`](Self::affine), and [`EncryptError::ForeignCiphertext`] for a ciphertext under
    /// another modulus.
    pub fn affine_with(
        &self,
        ciphertext: &PreparedCiphertext,
        multiplier: &Scalar,
        plaintext: &Natural,
        randomizer: OneTimeRandomizer,
    ) -> Result<Ciphertext, EncryptError> {
        self.check(plaintext, &randomizer)?;
        if &ciphertext.modulus != self.modulus() {
            return Err(EncryptError::ForeignCiphertext);
        }
        let power = ciphertext.powers.pow(&curve::scalar_to_natural(multiplier));
        let power = power.ok_or(EncryptError::ForeignCiphertext)?;
        let message = &(plaintext * self.modulus()) + &Natural::one();
        let added = self.squared.mul(&power, &message);
        Ok(Ciphertext(self.squared.mul(&added, &randomizer.value)))
    }

    /// `ciphertext · (1 + plaintext·N) mod N²`: with an encryption of `x`, an encryption of
    /// `x + plaintext`. It is not randomised anew.
    pub(crate) fn add(&self, ciphertext: &Ciphertext, plaintext: &Natural) -> Ciphertext {
        let message = &(plaintext * self.modulus()) + &Natural::one();
        Ciphertext(self.squared.mul(&ciphertext.0, &message))
    }

    fn check(&self, plaintext: &Natural, randomizer: &OneTimeRandomizer) -> Result<(), EncryptError> {
        if plaintext.bit_length() > MASKED_PLAINTEXT_BITS {
            return Err(EncryptError::PlaintextRange);
        }
        if &randomizer.modulus != self.modulus() {
            return Err(EncryptError::ForeignRandomizer);
        }
        Ok(())
    }
}

/// A ciphertext with tables of its powers, for many answers about it.
#[derive(Debug)]
pub struct PreparedCiphertext {
    modulus: Natural,
    powers: Box<dyn FixedBase>,
}

impl PartialEq for EncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        self.modulus() == other.modulus()
    }
}

impl Eq for EncryptionKey {}

impl core::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EncryptionKey({} bits, {})", self.size.bits(), self.arithmetic.name())
    }
}

impl udigest::Digestable for EncryptionKey {
    fn unambiguously_encode(&self, encoder: udigest::encoding::EncodeValue<'_, '_>) {
        self.modulus().unambiguously_encode(encoder);
    }
}

/// `u + ρ·q` with `ρ` uniform below `2^641`.
#[must_use]
pub fn masked_plaintext(u: &Scalar, rng: &mut dyn CryptoRng) -> Natural {
    let mask = Natural::random_bits(rng, MASK_BITS);
    &(&mask * &curve::order()) + &curve::scalar_to_natural(u)
}

/// A ciphertext under one key: between 0 and `N²`, sharing no factor with `N`.
#[derive(Debug, Clone, PartialEq, Eq, udigest::Digestable)]
pub struct Ciphertext(Natural);

impl Ciphertext {
    /// Checks `0 < number < N²` and `gcd(number, N) = 1`.
    ///
    /// # Errors
    /// When one of the two does not hold.
    pub fn parse(number: &Natural, key: &EncryptionKey) -> Result<Self, InvalidCiphertext> {
        if number.is_zero() || number >= key.squared.value() {
            return Err(InvalidCiphertext::Range);
        }
        if !key.modulus.is_unit(number) {
            return Err(InvalidCiphertext::NotInvertible);
        }
        Ok(Self(number.clone()))
    }

    /// The number, for the wire and for proofs.
    #[must_use]
    pub fn as_natural(&self) -> &Natural {
        &self.0
    }
}

/// The nonce of one encryption. It is secret, because its knowledge decrypts that ciphertext.
#[derive(Debug)]
pub struct EncryptionNonce {
    nonce: Natural,
    ciphertext: Ciphertext,
}

impl EncryptionNonce {
    pub(crate) fn as_natural(&self) -> &Natural {
        &self.nonce
    }

    /// Whether this is the nonce that `ciphertext` was made with.
    pub(crate) fn belongs_to(&self, ciphertext: &Ciphertext) -> bool {
        &self.ciphertext == ciphertext
    }
}

/// Why bytes are not a decryption key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecryptionKey {
    /// Not two numbers of half the length of a modulus.
    #[error("a decryption key is 256 or 384 bytes")]
    Size,
    /// Not two different Blum numbers whose product has an allowed length.
    #[error("not two primes that are 3 modulo 4 with a product of an allowed length")]
    Primes,
}

/// A private Paillier key with precomputed values.
///
/// Its numbers are wiped on drop. Not covered are the copies of the primes and of their squares
/// inside the prepared moduli: crypto-bigint's Montgomery constants and GMP's limbs. Their
/// libraries free them without wiping.
pub struct DecryptionKey {
    encryption: EncryptionKey,
    p: PrimeFactor,
    q: PrimeFactor,
    /// `p⁻¹ mod q`.
    p_inverse: Natural,
    /// `(p²)⁻¹ mod q²`.
    p_squared_inverse: Natural,
    blinding: Mutex<Option<BlindingPair>>,
}

/// One prime, and the constants of decrypting modulo it.
struct PrimeFactor {
    modulus: Arc<dyn Modulus>,
    squared: Arc<dyn Modulus>,
    minus_one: Natural,
    /// `L((1 + N)^(p−1) mod p²)⁻¹ mod p`, which is `(−q)⁻¹ mod p`.
    h: Natural,
}

impl PrimeFactor {
    fn new(prime: &Natural, other: &Natural, arithmetic: &dyn Arithmetic) -> Option<Self> {
        let modulus = arithmetic.modulus(prime)?;
        let squared = arithmetic.modulus(&prime.square())?;
        let h = modulus.invert(&modulus.sub(&Natural::zero(), other))?;
        Some(Self { modulus, squared, minus_one: prime.minus_one(), h })
    }

    fn prime(&self) -> &Natural {
        self.modulus.value()
    }

    /// `plaintext mod p`: `L(c^(k(p−1)) mod p²) · h · k⁻¹`, Paillier 1999 section 7 with a blinded
    /// exponent.
    fn decrypt(&self, ciphertext: &Natural, exponent_blind: u64) -> Option<Natural> {
        let blind = Natural::from(exponent_blind);
        let power = self.squared.pow(&self.squared.reduce(ciphertext), &(&self.minus_one * &blind));
        let (quotient, _) = power.checked_sub(&Natural::one())?.div_rem(self.prime())?;
        let plaintext = self.modulus.mul(&quotient, &self.h);
        if exponent_blind == 1 {
            return Some(plaintext);
        }
        Some(self.modulus.mul(&plaintext, &self.modulus.invert(&blind)?))
    }
}

/// `(Enc(b), b)` with `b` uniform below `N`.
struct BlindingPair {
    ciphertext: Natural,
    plaintext: Natural,
    uses_left: u32,
}

impl DecryptionKey {
    /// Two random Blum primes of equal length whose product has exactly `size` bits. This calls
    /// `progress` for every candidate; each prime of 1024 bits takes about 60.
    #[must_use]
    pub fn generate(
        size: ModulusSize,
        arithmetic: &'static dyn Arithmetic,
        entropy: &mut dyn Entropy,
        progress: &mut dyn FnMut(PrimeProgress),
    ) -> Self {
        let mut generator = hedge::generator(entropy, &[], Purpose::Primes, &size);
        loop {
            let p = arithmetic.random_prime(PrimeKind::Blum, size.bits() / 2, &mut generator, progress);
            let q = arithmetic.random_prime(PrimeKind::Blum, size.bits() / 2, &mut generator, progress);
            if let Ok(key) = Self::from_primes(&p, &q, arithmetic) {
                return key;
            }
        }
    }

    /// Makes the key of two primes. The caller vouches that they are prime; this checks everything
    /// else.
    ///
    /// # Errors
    /// Unless both are 3 modulo 4, of equal length, different, with a product of an allowed length.
    pub fn from_primes(
        p: &Natural,
        q: &Natural,
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDecryptionKey> {
        let is_blum = |prime: &Natural| prime.low_u64() & 3 == 3;
        if p == q || p.bit_length() != q.bit_length() || !is_blum(p) || !is_blum(q) {
            return Err(InvalidDecryptionKey::Primes);
        }
        Self::assemble(p, q, arithmetic).ok_or(InvalidDecryptionKey::Primes)
    }

    fn assemble(p: &Natural, q: &Natural, arithmetic: &'static dyn Arithmetic) -> Option<Self> {
        let encryption = EncryptionKey::parse(&(p * q), arithmetic).ok()?;
        let p = PrimeFactor::new(p, q, arithmetic)?;
        let q = PrimeFactor::new(q, p.prime(), arithmetic)?;
        let p_inverse = q.modulus.invert(p.prime())?;
        let p_squared_inverse = q.squared.invert(p.squared.value())?;
        Some(Self { encryption, p, q, p_inverse, p_squared_inverse, blinding: Mutex::new(None) })
    }

    /// Parses the bytes of [`to_secret_bytes`](Self::to_secret_bytes).
    ///
    /// # Errors
    /// On another size, and when the two numbers cannot be the primes of a key. This does not test
    /// for primality again, because the bytes come from authenticated storage.
    pub fn from_secret_bytes(
        bytes: &[u8],
        arithmetic: &'static dyn Arithmetic,
    ) -> Result<Self, InvalidDecryptionKey> {
        if !matches!(bytes.len(), 256 | 384) {
            return Err(InvalidDecryptionKey::Size);
        }
        let (p, q) = bytes.split_at(bytes.len() / 2);
        Self::from_primes(&Natural::from_be_bytes(p), &Natural::from_be_bytes(q), arithmetic)
    }

    /// Both primes, big-endian, one after the other: 256 bytes for 2048 bits, 384 for 3072.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let size = (self.encryption.size.bits() / 16) as usize;
        let padded = |prime: &Natural| prime.to_be_bytes_padded(size).unwrap_or_default();
        let (p, q) = (padded(self.p.prime()), padded(self.q.prime()));
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * size));
        bytes.extend_from_slice(&p);
        bytes.extend_from_slice(&q);
        bytes
    }

    /// The public key.
    #[must_use]
    pub fn encryption_key(&self) -> &EncryptionKey {
        &self.encryption
    }

    /// The primes, for the proofs about the modulus.
    pub(crate) fn primes(&self) -> (&Arc<dyn Modulus>, &Arc<dyn Modulus>) {
        (&self.p.modulus, &self.q.modulus)
    }

    /// Decrypts: the plaintext below `N`, by the Chinese remainder theorem.
    ///
    /// A signature's plaintext is below `2^898` and so below either prime, so one of the two
    /// exponentiations would suffice. This does both, because one alone compares a plaintext out of
    /// range with that prime. Without the lock on failed signatures, that reveals half of the
    /// prime's bits in about 520 sessions. The second one costs a millisecond, and security then
    /// does not depend on the lock alone.
    ///
    /// # Security
    /// Only for ciphertexts of an authenticated signing session. A peer that supplies a ciphertext
    /// and learns anything about its plaintext learns about the key, or about other values
    /// encrypted under it.
    #[must_use]
    pub fn decrypt(&self, ciphertext: &Ciphertext, entropy: &mut dyn Entropy) -> Natural {
        if self.encryption.arithmetic.is_constant_time() {
            return self.decrypt_number(&ciphertext.0, [1, 1]);
        }
        let primes = self.to_secret_bytes();
        let mut rng = hedge::generator(entropy, &primes, Purpose::Decryption, ciphertext);
        let (blinding_ciphertext, blinding_plaintext) = self.next_blinding(&mut rng);
        let blinded = self.encryption.squared.mul(&ciphertext.0, &blinding_ciphertext);
        let plaintext = self.decrypt_number(&blinded, [rng.next_u64() | 1, rng.next_u64() | 1]);
        self.encryption.modulus.sub(&plaintext, &blinding_plaintext)
    }

    fn decrypt_number(&self, ciphertext: &Natural, exponent_blinds: [u64; 2]) -> Natural {
        let [p_blind, q_blind] = exponent_blinds;
        let modulo_p = self.p.decrypt(ciphertext, p_blind);
        let modulo_q = self.q.decrypt(ciphertext, q_blind);
        // Ciphertexts are invertible modulo N, so the powers are 1 modulo either prime and never 0.
        let (modulo_p, modulo_q) =
            (modulo_p.unwrap_or_else(Natural::zero), modulo_q.unwrap_or_else(Natural::zero));
        recombine(&modulo_p, &modulo_q, self.p.prime(), &self.q.modulus, &self.p_inverse)
    }

    /// Garner's recombination of residues modulo `p` and `q`.
    pub(crate) fn recombine(&self, modulo_p: &Natural, modulo_q: &Natural) -> Natural {
        recombine(modulo_p, modulo_q, self.p.prime(), &self.q.modulus, &self.p_inverse)
    }

    /// The current blinding pair; the next one is made from it by squaring and doubling, and a new
    /// one is drawn after 32 uses. (`c·(1 + bN)` alone would blind nothing modulo `p`.)
    fn next_blinding(&self, rng: &mut dyn CryptoRng) -> (Natural, Natural) {
        let mut guard = self.blinding.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match guard.take() {
            Some(pair) if pair.uses_left > 0 => pair,
            _ => self.draw_blinding(rng),
        };
        let current = (pair.ciphertext, pair.plaintext);
        *guard = Some(BlindingPair {
            ciphertext: self.encryption.squared.mul(&current.0, &current.0),
            plaintext: self.encryption.modulus.add(&current.1, &current.1),
            uses_left: pair.uses_left - 1,
        });
        current
    }

    fn draw_blinding(&self, rng: &mut dyn CryptoRng) -> BlindingPair {
        let n = self.encryption.modulus();
        let plaintext = Natural::random_below(rng, n);
        let nonce = self.encryption.random_unit(rng);
        // nonce^N by the Chinese remainder theorem: half the time, and the exponent is public.
        let randomizer = recombine(
            &self.p.squared.pow(&nonce, n),
            &self.q.squared.pow(&nonce, n),
            self.p.squared.value(),
            &self.q.squared,
            &self.p_squared_inverse,
        );
        let message = &(&plaintext * n) + &Natural::one();
        BlindingPair {
            ciphertext: self.encryption.squared.mul(&message, &randomizer),
            plaintext,
            uses_left: BLINDING_USES,
        }
    }
}

/// `x` with `x ≡ a (mod m)` and `x ≡ b (mod n)`, `0 ≤ x < m·n`, given `m⁻¹ mod n`.
fn recombine(a: &Natural, b: &Natural, m: &Natural, n: &Arc<dyn Modulus>, m_inverse: &Natural) -> Natural {
    let factor = n.mul(&n.sub(b, a), m_inverse);
    a + &(&factor * m)
}

impl core::fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DecryptionKey({:?})", self.encryption)
    }
}

#[cfg(test)]
#[path = "paillier_tests.rs"]
mod tests;

//! kzen-paillier on curv-kzen and GMP.
//!
//! GMP's exponentiation (`mpz_powm`) is not constant-time, and neither GMP nor curv-kzen wipes freed
//! limbs (`BigInt::zeroize` replaces the number without clearing what it pointed to), so secrets that
//! pass through here may stay in freed memory. Callers blind secret exponents and bases; whoever needs
//! more builds without this implementation.

use std::sync::Arc;

use curv::arithmetic::{BigInt, Converter as _, Integer as _, Modulo as _, One as _, Primes as _};
use kzen_paillier::{
    Add as _, EncryptWithChosenRandomness as _, EncryptionKey, Mul as _, Paillier, Randomness, RawCiphertext,
    RawPlaintext,
};
use rand_core::CryptoRng;

use super::{
    Arithmetic, FixedBase, Modulus, PaillierOperations, PrimeKind, PrimeProgress,
    constant_time::MontgomeryModulus, primes,
};
use crate::natural::Natural;

/// GMP runs Baillie–PSW, which counts as 24 of these, then Miller–Rabin with random bases.
const PRIMALITY_REPETITIONS: u32 = 32;

/// The implementation on kzen-paillier, curv-kzen and GMP.
#[must_use]
pub fn gmp() -> &'static dyn Arithmetic {
    &Gmp
}

#[derive(Debug)]
struct Gmp;

fn to_big(value: &Natural) -> BigInt {
    BigInt::from_bytes(&value.to_be_bytes())
}

fn to_natural(value: &BigInt) -> Natural {
    Natural::from_be_bytes(&zeroize::Zeroizing::new(value.to_bytes()))
}

impl Arithmetic for Gmp {
    fn name(&self) -> &'static str {
        "gmp"
    }

    fn is_constant_time(&self) -> bool {
        false
    }

    fn modulus(&self, value: &Natural) -> Option<Arc<dyn Modulus>> {
        let montgomery = MontgomeryModulus::new(value)?;
        Some(Arc::new(GmpModulus { montgomery, big: to_big(value) }))
    }

    fn paillier(&self, n: &Natural) -> Option<Arc<dyn PaillierOperations>> {
        let is_usable = n.is_odd() && !n.is_one();
        is_usable.then(|| {
            Arc::new(GmpPaillier { key: EncryptionKey::from(&to_big(n)) }) as Arc<dyn PaillierOperations>
        })
    }

    fn is_prime(&self, candidate: &Natural) -> bool {
        to_big(candidate).is_probable_prime(PRIMALITY_REPETITIONS)
    }

    fn gcd(&self, a: &Natural, b: &Natural) -> Natural {
        to_natural(&to_big(a).gcd(&to_big(b)))
    }

    fn random_prime(
        &self,
        kind: PrimeKind,
        bits: u32,
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(PrimeProgress),
    ) -> Natural {
        primes::random_prime(self, kind, bits, rng, progress)
    }
}

struct GmpModulus {
    montgomery: MontgomeryModulus,
    big: BigInt,
}

impl core::fmt::Debug for GmpModulus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "GmpModulus({:?})", self.value())
    }
}

impl Modulus for GmpModulus {
    fn value(&self) -> &Natural {
        self.montgomery.value()
    }

    fn reduce(&self, a: &Natural) -> Natural {
        if a < self.value() {
            return a.clone();
        }
        to_natural(&to_big(a).modulus(&self.big))
    }

    fn mul(&self, a: &Natural, b: &Natural) -> Natural {
        to_natural(&BigInt::mod_mul(&to_big(a), &to_big(b), &self.big))
    }

    fn pow(&self, base: &Natural, exponent: &Natural) -> Natural {
        to_natural(&BigInt::mod_pow(&to_big(base), &to_big(exponent), &self.big))
    }

    fn invert(&self, a: &Natural) -> Option<Natural> {
        BigInt::mod_inv(&to_big(a), &self.big).map(|inverse| to_natural(&inverse))
    }

    fn is_unit(&self, a: &Natural) -> bool {
        to_big(a).gcd(&self.big) == BigInt::one()
    }

    // GMP has no Montgomery multiplication that curv-kzen exposes; crypto-bigint's beats a
    // multiplication followed by a division, and the exponents are public.
    fn fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase> {
        self.montgomery.fixed_base(base, max_exponent_bits)
    }
}

struct GmpPaillier {
    key: EncryptionKey,
}

impl core::fmt::Debug for GmpPaillier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("GmpPaillier")
    }
}

impl PaillierOperations for GmpPaillier {
    fn randomizer(&self, nonce: &Natural) -> Natural {
        self.encrypt(&Natural::zero(), nonce)
    }

    fn encrypt(&self, plaintext: &Natural, nonce: &Natural) -> Natural {
        let nonce = Randomness::from(to_big(nonce));
        let ciphertext = Paillier::encrypt_with_chosen_randomness(
            &self.key,
            RawPlaintext::from(to_big(plaintext)),
            &nonce,
        );
        to_natural(&BigInt::from(ciphertext))
    }

    fn affine(
        &self,
        ciphertext: &Natural,
        exponent: &Natural,
        plaintext: &Natural,
        randomizer: &Natural,
    ) -> Natural {
        let multiplied = Paillier::mul(
            &self.key,
            RawCiphertext::from(to_big(ciphertext)),
            RawPlaintext::from(to_big(exponent)),
        );
        let added = Paillier::add(&self.key, multiplied, RawPlaintext::from(to_big(plaintext)));
        let randomized = Paillier::add(&self.key, added, RawCiphertext::from(to_big(randomizer)));
        to_natural(&BigInt::from(randomized))
    }
}

//! kzen-paillier on curv-kzen and GMP.
//!
//! GMP's exponentiation (`mpz_powm`) is not constant-time, and neither GMP nor curv-kzen wipes freed
//! limbs (`BigInt::zeroize` replaces the number without clearing what it pointed to), so secrets that
//! pass through here may stay in freed memory. Callers blind secret exponents and bases; whoever needs
//! more builds without this implementation.

use std::sync::Arc;

use crypto_bigint::CtEq as _;
use curv::arithmetic::{BigInt, Converter as _, Integer as _, Modulo as _, One as _, Primes as _};
use kzen_paillier::{
    Add as _, EncryptWithChosenRandomness as _, EncryptionKey, Mul as _, Paillier, Randomness, RawCiphertext,
    RawPlaintext,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{
    Arithmetic, Choices, FixedBase, GROUP_SIZE, Modulus, PaillierOperations, PrimeKind, PrimeProgress,
    choices, constant_time::MontgomeryModulus, primes,
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
    Natural::from_be_bytes(&Zeroizing::new(value.to_bytes()))
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

    // The same, and a look-up that does not tell which.
    fn secret_fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase> {
        self.montgomery.secret_fixed_base(base, max_exponent_bits)
    }

    // GMP's multiplication and division together take two thirds of the time of crypto-bigint's Montgomery
    // multiplication at 4096 bits. Their time may depend on the numbers; but every choice is made once.
    fn choices(&self, groups: &[[Natural; GROUP_SIZE]]) -> Box<dyn Choices> {
        let width = self.value().to_be_bytes().len();
        let row = |number: &Natural| self.reduce(number).to_be_bytes_padded(width).unwrap_or_default();
        let table =
            |group: &[Natural; GROUP_SIZE]| group.iter().flat_map(|number| row(number).to_vec()).collect();
        Box::new(Tables { modulus: self.big.clone(), width, tables: groups.iter().map(table).collect() })
    }
}

/// Groups of numbers, each a row of `width` bytes, big-endian.
struct Tables {
    modulus: BigInt,
    width: usize,
    tables: Vec<Box<[u8]>>,
}

impl core::fmt::Debug for Tables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tables({})", self.tables.len())
    }
}

impl Choices for Tables {
    fn product(&self, bits: &[u8]) -> Natural {
        let mut chosen = Zeroizing::new(vec![0_u8; self.width]);
        let product =
            self.tables.iter().zip(choices(bits)).fold(BigInt::one(), |product, (table, choice)| {
                chosen.fill(0);
                if let Some(lowest) = chosen.last_mut() {
                    *lowest = choice.ct_eq(&0).to_u8();
                }
                // Every row is read, and one is kept.
                for (row, index) in table.chunks_exact(self.width).zip(1_u8..) {
                    let mask = 0_u8.wrapping_sub(choice.ct_eq(&index).to_u8());
                    chosen.iter_mut().zip(row).for_each(|(byte, of_row)| *byte |= of_row & mask);
                }
                product * BigInt::from_bytes(&chosen) % &self.modulus
            });
        to_natural(&product)
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

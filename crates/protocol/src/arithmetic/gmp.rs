//! kzen-paillier on curv-kzen and GMP.
//!
//! GMP's exponentiation (`mpz_powm`) is not constant-time, and neither GMP nor curv-kzen wipes
//! freed limbs (`BigInt::zeroize` replaces the number without clearing what it pointed to), so
//! secrets that pass through here may stay in freed memory. Callers blind secret exponents and
//! bases. A deployment that needs more builds without this implementation.

use std::sync::Arc;

use crypto_bigint::CtEq as _;
use curv::arithmetic::{BigInt, Converter as _, Integer as _, Modulo as _, One as _, Primes as _, Zero as _};
use kzen_paillier::{
    Add as _, EncryptWithChosenRandomness as _, EncryptionKey, Mul as _, Paillier, Randomness, RawCiphertext,
    RawPlaintext,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{
    Arithmetic, Choices, FixedBase, GROUP_SIZE, Modulus, PaillierOperations, PrimeKind, PrimeProgress,
    constant_time::MontgomeryModulus, operations::choices, primes,
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

    // As above, with a look-up that hides the entry.
    fn secret_fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase> {
        self.montgomery.secret_fixed_base(base, max_exponent_bits)
    }
}

/// Groups of numbers modulo `N²`. A unit `y = a + b·N` with `a, b < N` is `a·(1 + β·N)` where
/// `β = b·a⁻¹ mod N`. In a product of such numbers the `β` only add: `∏ yᵢ = (∏ aᵢ)·(1 + N·∑ βᵢ)`.
/// So a product needs as many multiplications, but by numbers of half the length. Each is followed
/// by a division with a quotient of half the length.
///
/// That takes two thirds of the time of GMP's multiplications and divisions of whole numbers modulo
/// `N²`. Those take two thirds of the time of crypto-bigint's Montgomery multiplications
/// (`docs/performance.md`). GMP's time may depend on the numbers, but every choice is made only
/// once.
struct Tables {
    n: BigInt,
    nn: BigInt,
    /// The length of `N` in bytes.
    width: usize,
    /// For each group, [`GROUP_SIZE`] rows of `2·width` bytes: `a` and `β`, big-endian.
    groups: Vec<Box<[u8]>>,
}

impl core::fmt::Debug for Tables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tables({})", self.groups.len())
    }
}

impl Tables {
    fn new(n: &BigInt, nn: &BigInt, groups: &[[Natural; GROUP_SIZE]]) -> Option<Self> {
        let mut tables = Self { n: n.clone(), nn: nn.clone(), width: n.to_bytes().len(), groups: Vec::new() };
        tables.groups = groups.iter().map(|group| tables.rows(group)).collect::<Option<_>>()?;
        Some(tables)
    }

    /// The rows of a group.
    fn rows(&self, group: &[Natural; GROUP_SIZE]) -> Option<Box<[u8]>> {
        let split: Vec<_> = group.iter().map(|number| (to_big(number) % &self.nn).div_rem(&self.n)).collect();
        // One inversion serves all of them: this inverts the product, then multiplies the other
        // factors away for each.
        let mut before = Vec::with_capacity(group.len());
        let mut product = BigInt::one();
        for (_, a) in &split {
            let next = &product * a % &self.n;
            before.push(core::mem::replace(&mut product, next));
        }
        let mut inverse = BigInt::mod_inv(&product, &self.n)?;
        let mut rows = vec![0; 2 * self.width * group.len()];
        for ((row, (b, a)), before) in
            rows.rchunks_exact_mut(2 * self.width).zip(split.iter().rev()).zip(before.iter().rev())
        {
            let beta = b * (before * &inverse % &self.n) % &self.n;
            inverse = inverse * a % &self.n;
            for (half, number) in row.chunks_exact_mut(self.width).zip([a, &beta]) {
                half.copy_from_slice(&to_natural(number).to_be_bytes_padded(self.width)?);
            }
        }
        Some(rows.into())
    }
}

impl Choices for Tables {
    fn product(&self, bits: &[u8]) -> Natural {
        let mut chosen = Zeroizing::new(vec![0_u8; 2 * self.width]);
        let (mut product, mut sum) = (BigInt::one(), BigInt::zero());
        for (group, choice) in self.groups.iter().zip(choices(bits)) {
            chosen.fill(0);
            if let Some(lowest) = chosen.get_mut(self.width - 1) {
                *lowest = choice.ct_eq(&0).to_u8();
            }
            // Every row is read, and one is kept.
            for (row, index) in group.chunks_exact(2 * self.width).zip(1_u8..) {
                let mask = 0_u8.wrapping_sub(choice.ct_eq(&index).to_u8());
                chosen.iter_mut().zip(row).for_each(|(byte, of_row)| *byte |= of_row & mask);
            }
            let (a, beta) = chosen.split_at(self.width);
            product = product * BigInt::from_bytes(a) % &self.nn;
            sum += BigInt::from_bytes(beta);
        }
        let second = sum % &self.n * &self.n + BigInt::one();
        to_natural(&(product * second % &self.nn))
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

    fn choices(&self, groups: &[[Natural; GROUP_SIZE]]) -> Option<Box<dyn Choices>> {
        Some(Box::new(Tables::new(&self.key.n, &self.key.nn, groups)?))
    }
}

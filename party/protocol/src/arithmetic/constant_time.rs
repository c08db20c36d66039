//! crypto-bigint and crypto-primes.
//!
//! Exponentiation and multiplication are Montgomery arithmetic in constant time for one length of
//! modulus and exponent, with constant-time table look-ups. Not covered: inversion and greatest common
//! divisor of public values, primality tests, and the fixed-base windows, which are for public
//! exponents. wasm engines give no guarantee about the time of single instructions.

use std::sync::Arc;

use crypto_bigint::{
    BoxedUint, Gcd as _, MontyForm, MontyMultiplier as _, Odd,
    modular::{BoxedMontyForm, BoxedMontyParams},
};
use rand_core::CryptoRng;
use zeroize::Zeroize as _;

use super::{Arithmetic, FixedBase, Modulus, PaillierOperations, PrimeKind, PrimeProgress, primes};
use crate::natural::Natural;

/// The implementation on crypto-bigint and crypto-primes.
#[must_use]
pub fn constant_time() -> &'static dyn Arithmetic {
    &ConstantTime
}

#[derive(Debug)]
struct ConstantTime;

impl Arithmetic for ConstantTime {
    fn name(&self) -> &'static str {
        "constant-time"
    }

    fn is_constant_time(&self) -> bool {
        true
    }

    fn modulus(&self, value: &Natural) -> Option<Arc<dyn Modulus>> {
        Some(Arc::new(MontgomeryModulus::new(value)?))
    }

    fn paillier(&self, n: &Natural) -> Option<Arc<dyn PaillierOperations>> {
        Some(Arc::new(MontgomeryPaillier { n: n.clone(), squared: MontgomeryModulus::new(&n.square())? }))
    }

    fn is_prime(&self, candidate: &Natural) -> bool {
        crypto_primes::is_prime(crypto_primes::Flavor::Any, candidate.as_boxed())
    }

    fn gcd(&self, a: &Natural, b: &Natural) -> Natural {
        Natural::from_boxed(a.as_boxed().gcd_vartime(b.as_boxed()))
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

pub(super) struct MontgomeryModulus {
    value: Natural,
    params: BoxedMontyParams,
}

impl core::fmt::Debug for MontgomeryModulus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "MontgomeryModulus({:?})", self.value)
    }
}

impl MontgomeryModulus {
    pub(super) fn new(value: &Natural) -> Option<Self> {
        if value.is_one() {
            return None;
        }
        let odd: Odd<BoxedUint> = value.as_boxed().as_odd_vartime()?.clone();
        Some(Self { value: value.clone(), params: BoxedMontyParams::new(odd) })
    }

    fn form(&self, a: &Natural) -> BoxedMontyForm {
        let reduced = self.reduce(a);
        BoxedMontyForm::new(reduced.to_boxed(self.params.bits_precision()), &self.params)
    }
}

fn retrieve(mut form: BoxedMontyForm) -> Natural {
    let value = Natural::from_boxed(form.retrieve());
    form.zeroize();
    value
}

impl Modulus for MontgomeryModulus {
    fn value(&self) -> &Natural {
        &self.value
    }

    fn reduce(&self, a: &Natural) -> Natural {
        if a.as_boxed().bits_precision() < self.params.bits_precision() {
            return a.clone();
        }
        Natural::from_boxed(a.as_boxed().rem(self.params.modulus().as_nz_ref()))
    }

    fn mul(&self, a: &Natural, b: &Natural) -> Natural {
        retrieve(self.form(a).mul(&self.form(b)))
    }

    fn pow(&self, base: &Natural, exponent: &Natural) -> Natural {
        let exponent = exponent.as_boxed();
        retrieve(self.form(base).pow_bounded_exp(exponent, exponent.bits_precision()))
    }

    fn invert(&self, a: &Natural) -> Option<Natural> {
        self.form(a).invert().into_option().map(retrieve)
    }

    fn is_unit(&self, a: &Natural) -> bool {
        self.value.as_boxed().gcd_vartime(self.reduce(a).as_boxed()).is_one().to_bool()
    }

    fn fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase> {
        Box::new(Windows::new(&self.params, self.form(base), max_exponent_bits))
    }
}

/// Bits of the exponent per look-up. For the 128 exponentiations of a parameter proof, 5 and 6 cost the
/// same number of multiplications; 5 needs half the memory (3.3 MB for 2048 bits).
const WINDOW_BITS: u32 = 5;

/// `windows[i][d − 1] = base^(d·2^(5i))`, so that a power is one multiplication per window.
struct Windows {
    params: BoxedMontyParams,
    windows: Vec<Vec<BoxedMontyForm>>,
}

impl core::fmt::Debug for Windows {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Windows({})", self.windows.len())
    }
}

impl Windows {
    fn new(params: &BoxedMontyParams, base: BoxedMontyForm, max_exponent_bits: u32) -> Self {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(params);
        let mut windows = Vec::new();
        let mut step = base;
        for _ in 0..max_exponent_bits.div_ceil(WINDOW_BITS) {
            let mut power = step.clone();
            let mut window = Vec::with_capacity((1 << WINDOW_BITS) - 1);
            for _ in 1..(1_u32 << WINDOW_BITS) {
                window.push(power.clone());
                multiplier.mul_assign(&mut power, &step);
            }
            step = power;
            windows.push(window);
        }
        Self { params: params.clone(), windows }
    }
}

impl FixedBase for Windows {
    fn pow(&self, exponent: &Natural) -> Option<Natural> {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(&self.params);
        let mut product = BoxedMontyForm::one(&self.params);
        let bits = exponent.bit_length();
        for start in (0..bits).step_by(WINDOW_BITS as usize) {
            let window = self.windows.get((start / WINDOW_BITS) as usize)?;
            let digit = (0..WINDOW_BITS)
                .filter(|offset| start + offset < bits && exponent.bit(start + offset))
                .fold(0_usize, |digit, offset| digit | (1 << offset));
            if let Some(power) = digit.checked_sub(1) {
                multiplier.mul_assign(&mut product, window.get(power)?);
            }
        }
        Some(retrieve(product))
    }
}

#[derive(Debug)]
struct MontgomeryPaillier {
    n: Natural,
    squared: MontgomeryModulus,
}

impl PaillierOperations for MontgomeryPaillier {
    fn randomizer(&self, nonce: &Natural) -> Natural {
        self.squared.pow(nonce, &self.n)
    }

    fn encrypt(&self, plaintext: &Natural, nonce: &Natural) -> Natural {
        let message = &(plaintext * &self.n) + &Natural::one();
        self.squared.mul(&message, &self.randomizer(nonce))
    }

    fn affine(
        &self,
        ciphertext: &Natural,
        exponent: &Natural,
        plaintext: &Natural,
        randomizer: &Natural,
    ) -> Natural {
        let message = &(plaintext * &self.n) + &Natural::one();
        let multiplied = self.squared.pow(ciphertext, exponent);
        let added = self.squared.mul(&multiplied, &message);
        self.squared.mul(&added, randomizer)
    }
}

//! crypto-bigint and crypto-primes.
//!
//! Exponentiation and multiplication are Montgomery arithmetic in constant time for one length of
//! modulus and exponent, with constant-time table look-ups. The sign of an exponent is visible. Not
//! covered are inversion and greatest common divisor of public values, primality tests, and the
//! fixed-base windows, which are for public exponents. wasm engines give no guarantee about the
//! time of single instructions.

use std::sync::Arc;

use crypto_bigint::{
    BoxedUint, CtAssign as _, CtEq as _, Gcd as _, MontyForm, MontyMultiplier as _, Odd, Word,
    modular::{BoxedMontyForm, BoxedMontyParams},
};
use rand_core::CryptoRng;
use zeroize::Zeroize;

use super::{
    Arithmetic, CHOICE_BITS, Choices, FixedBase, GROUP_SIZE, Modulus, PaillierOperations, PrimeKind,
    PrimeProgress, operations::choices, primes,
};
use crate::natural::{Integer, Natural};

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

    fn pow_pair(&self, base: &Natural, first: &Natural, second: &Natural) -> (Natural, Natural) {
        let [first, second] = self.bucket_powers(self.form(base), [first.as_boxed(), second.as_boxed()]);
        (retrieve(first), retrieve(second))
    }

    fn multi_pow(&self, terms: &[(&Natural, &Integer)]) -> Option<Natural> {
        let terms = terms
            .iter()
            .map(|(base, exponent)| {
                let base = if exponent.is_negative() { self.invert(base)? } else { (*base).clone() };
                Some((self.form(&base), exponent.magnitude().as_boxed()))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(retrieve(self.product_of_powers(&terms)))
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

    fn secret_fixed_base(&self, base: &Natural, max_exponent_bits: u32) -> Box<dyn FixedBase> {
        Box::new(Comb::new(&self.params, self.form(base), max_exponent_bits))
    }
}

/// Bits of a secret exponent per step: 15 buckets or powers to scan, as in crypto-bigint's own
/// exponentiation.
const SECRET_WINDOW_BITS: u32 = CHOICE_BITS;

/// `digits` buckets or powers with constant-time access by a secret digit; digit 0 stands for one.
struct Table(Vec<BoxedMontyForm>);

impl Table {
    /// The element for `digit`. The time is independent of it.
    fn read(&self, digit: Word, one: &BoxedMontyForm) -> BoxedMontyForm {
        let mut found = one.clone();
        for (element, index) in self.0.iter().zip(1 as Word..) {
            found.as_montgomery_mut().ct_assign(element.as_montgomery(), index.ct_eq(&digit));
        }
        found
    }

    /// Replaces the element for `digit`; digit 0 replaces none. The time is independent of it.
    fn write(&mut self, digit: Word, value: &BoxedMontyForm) {
        for (element, index) in self.0.iter_mut().zip(1 as Word..) {
            element.as_montgomery_mut().ct_assign(value.as_montgomery(), index.ct_eq(&digit));
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// Bits `start..start + width` of `exponent`, `width` dividing 32. The time depends on `start`
/// only.
fn digit(exponent: &BoxedUint, start: u32, width: u32) -> Word {
    let word = exponent.as_words().get((start / Word::BITS) as usize).copied().unwrap_or(0);
    (word >> (start % Word::BITS)) & ((1 << width) - 1)
}

impl MontgomeryModulus {
    /// Both powers in one pass over the squarings: buckets per digit, then Yao's accumulation (*On
    /// the evaluation of powers*, 1976). A third fewer multiplications than two exponentiations.
    fn bucket_powers(&self, base: BoxedMontyForm, exponents: [&BoxedUint; 2]) -> [BoxedMontyForm; 2] {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(&self.params);
        let one = BoxedMontyForm::one(&self.params);
        let mut buckets = [(); 2].map(|()| Table(vec![one.clone(); (1 << SECRET_WINDOW_BITS) - 1]));
        let mut step = base;
        let bits = exponents.map(BoxedUint::bits_precision);
        for start in (0..bits[0].max(bits[1])).step_by(SECRET_WINDOW_BITS as usize) {
            for ((exponent, buckets), bits) in exponents.iter().zip(&mut buckets).zip(bits) {
                if start < bits {
                    let digit = digit(exponent, start, SECRET_WINDOW_BITS);
                    let mut product = buckets.read(digit, &one);
                    multiplier.mul_assign(&mut product, &step);
                    buckets.write(digit, &product);
                }
            }
            for _ in 0..SECRET_WINDOW_BITS {
                multiplier.square_assign(&mut step);
            }
        }
        buckets.map(|buckets| accumulate(&buckets.0, &one, &mut multiplier))
    }

    /// The product of powers with shared squarings (Straus). Each exponent's length shows.
    fn product_of_powers(&self, terms: &[(BoxedMontyForm, &BoxedUint)]) -> BoxedMontyForm {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(&self.params);
        let one = BoxedMontyForm::one(&self.params);
        let tables: Vec<_> = terms
            .iter()
            .map(|(base, exponent)| {
                let mut powers = vec![base.clone()];
                let mut power = base.clone();
                for _ in 2..(1 << SECRET_WINDOW_BITS) {
                    multiplier.mul_assign(&mut power, base);
                    powers.push(power.clone());
                }
                (Table(powers), *exponent)
            })
            .collect();
        let bits = terms.iter().map(|(_, exponent)| exponent.bits_precision()).max().unwrap_or(0);
        let mut product = one.clone();
        for window in (0..bits / SECRET_WINDOW_BITS).rev() {
            let start = window * SECRET_WINDOW_BITS;
            for _ in 0..SECRET_WINDOW_BITS {
                multiplier.square_assign(&mut product);
            }
            for (powers, exponent) in &tables {
                if start < exponent.bits_precision() {
                    let power = powers.read(digit(exponent, start, SECRET_WINDOW_BITS), &one);
                    multiplier.mul_assign(&mut product, &power);
                }
            }
        }
        product
    }
}

/// `∏ bucketsᵢ^(i+1)`
fn accumulate<'a>(
    buckets: &[BoxedMontyForm],
    one: &BoxedMontyForm,
    multiplier: &mut <BoxedMontyForm as MontyForm>::Multiplier<'a>,
) -> BoxedMontyForm {
    let (mut running, mut product) = (one.clone(), one.clone());
    for bucket in buckets.iter().rev() {
        multiplier.mul_assign(&mut running, bucket);
        multiplier.mul_assign(&mut product, &running);
    }
    product
}

/// Bits of a public exponent per step. For 128 exponents of 2048 bits, 6 costs the least: 2,048
/// squarings once and about 460 multiplications each, against 2,600 for an exponentiation.
const PUBLIC_WINDOW_BITS: u32 = 6;

/// `steps[i] = base^(2^(6i))`: the squarings, done once. A power multiplies each step into the
/// bucket of its digit and accumulates the buckets.
struct Windows {
    params: BoxedMontyParams,
    steps: Vec<BoxedMontyForm>,
}

impl core::fmt::Debug for Windows {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Windows({})", self.steps.len())
    }
}

impl Windows {
    fn new(params: &BoxedMontyParams, base: BoxedMontyForm, max_exponent_bits: u32) -> Self {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(params);
        let mut steps = Vec::new();
        let mut step = base;
        for _ in 0..max_exponent_bits.div_ceil(PUBLIC_WINDOW_BITS) {
            steps.push(step.clone());
            for _ in 0..PUBLIC_WINDOW_BITS {
                multiplier.square_assign(&mut step);
            }
        }
        Self { params: params.clone(), steps }
    }
}

impl FixedBase for Windows {
    fn pow(&self, exponent: &Natural) -> Option<Natural> {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(&self.params);
        let one = BoxedMontyForm::one(&self.params);
        let mut buckets: Vec<Option<BoxedMontyForm>> = vec![None; (1 << PUBLIC_WINDOW_BITS) - 1];
        let bits = exponent.bit_length();
        let exponent = exponent.as_boxed();
        for (start, index) in (0..bits).step_by(PUBLIC_WINDOW_BITS as usize).zip(0..) {
            let step = self.steps.get(index)?;
            let digit = (0..PUBLIC_WINDOW_BITS)
                .filter(|offset| start + offset < bits && exponent.bit_vartime(start + offset))
                .fold(0_usize, |digit, offset| digit | (1 << offset));
            match digit.checked_sub(1).and_then(|bucket| buckets.get_mut(bucket)) {
                Some(Some(product)) => multiplier.mul_assign(product, step),
                Some(empty) => *empty = Some(step.clone()),
                None => {}
            }
        }
        let buckets: Vec<_> =
            buckets.into_iter().map(|bucket| bucket.unwrap_or_else(|| one.clone())).collect();
        Some(retrieve(accumulate(&buckets, &one, &mut multiplier)))
    }
}

/// Tables, from each of which one number is chosen.
struct Tables {
    params: BoxedMontyParams,
    tables: Vec<Table>,
}

impl core::fmt::Debug for Tables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tables({})", self.tables.len())
    }
}

impl Tables {
    /// The product of the numbers that the digits choose. The time is independent of the digits.
    fn product_of(&self, digits: impl Iterator<Item = Word>) -> Natural {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(&self.params);
        let one = BoxedMontyForm::one(&self.params);
        let mut product = one.clone();
        for (table, digit) in self.tables.iter().zip(digits) {
            let mut chosen = table.read(digit, &one);
            multiplier.mul_assign(&mut product, &chosen);
            chosen.zeroize();
        }
        retrieve(product)
    }
}

impl Choices for Tables {
    fn product(&self, bits: &[u8]) -> Natural {
        self.product_of(choices(bits).map(Word::from))
    }
}

/// All multiples of every digit of an exponent: `tables[i][d − 1] = base^(d·2^(4i))`.
#[derive(Debug)]
struct Comb(Tables);

impl Comb {
    fn new(params: &BoxedMontyParams, base: BoxedMontyForm, max_exponent_bits: u32) -> Self {
        let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(params);
        let mut step = base;
        let tables = (0..max_exponent_bits.div_ceil(SECRET_WINDOW_BITS)).map(|_| {
            let mut powers = Vec::with_capacity(GROUP_SIZE);
            let mut power = step.clone();
            for _ in 0..GROUP_SIZE {
                powers.push(power.clone());
                multiplier.mul_assign(&mut power, &step);
            }
            step = power;
            Table(powers)
        });
        let tables = tables.collect();
        Self(Tables { params: params.clone(), tables })
    }
}

impl FixedBase for Comb {
    fn pow(&self, exponent: &Natural) -> Option<Natural> {
        let windows = u32::try_from(self.0.tables.len()).ok()?;
        if exponent.bit_length() > windows * SECRET_WINDOW_BITS {
            return None;
        }
        let exponent = exponent.as_boxed();
        Some(self.0.product_of(
            (0..windows).map(|window| digit(exponent, window * SECRET_WINDOW_BITS, SECRET_WINDOW_BITS)),
        ))
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

    fn choices(&self, groups: &[[Natural; GROUP_SIZE]]) -> Option<Box<dyn Choices>> {
        let table = |group: &[Natural; GROUP_SIZE]| {
            let number = |number| self.squared.is_unit(number).then(|| self.squared.form(number));
            group.iter().map(number).collect::<Option<Vec<_>>>().map(Table)
        };
        let tables = groups.iter().map(table).collect::<Option<Vec<_>>>()?;
        Some(Box::new(Tables { params: self.squared.params.clone(), tables }))
    }
}

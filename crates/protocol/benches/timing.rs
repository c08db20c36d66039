//! Whether the time of secret operations depends on the secret: Welch's t-test over two classes of
//! inputs, one fixed and one random, measured in random order (dudect, Reparaz, Balasch and
//! Verbauwhede 2017, <https://eprint.iacr.org/2016/1123>).
//!
//! `|t|` below 4.5 is no evidence that the classes differ; above 10 they do. It is a measurement of
//! one machine at one time, no proof: run it with `cargo xtask attack --timing`, on a quiet
//! machine, for what counts. The last rows are controls: code that is known to depend on its input,
//! so that the test is known to see such a thing.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a measurement"
)]

use std::{hint::black_box, time::Instant};

use duet_adversary::test_fixtures::{self, Seeded, rng};
use duet_protocol::{
    arithmetic::{Arithmetic, GROUP_SIZE, constant_time},
    curve::{Scalar, SecretScalar},
    natural::Natural,
    paillier::{Ciphertext, DecryptionKey},
};
use rand_chacha::rand_core::Rng as _;

/// Samples beyond which the scheduler and not the code is measured: the slowest are left out at
/// several thresholds, and the largest `|t|` counts.
const KEPT: [f64; 4] = [1.0, 0.95, 0.8, 0.5];

/// Mean, variance and number.
fn moments(values: &[f64]) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, variance, n)
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, variance_a, n_a), (mean_b, variance_b, n_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (variance_a / n_a + variance_b / n_b).sqrt()
}

/// Measures an operation on inputs of the fixed (`false`) and the random class, which are all made
/// beforehand.
fn measure<T>(
    name: &str,
    samples: usize,
    mut make: impl FnMut(bool, &mut Seeded) -> T,
    mut operation: impl FnMut(&T),
) {
    let factor: f64 =
        std::env::var("DUET_TIMING_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let samples = (samples as f64 * factor) as usize;
    let mut rng = rng(1);
    let inputs: Vec<(bool, T)> = (0..samples)
        .map(|_| {
            let class = rng.next_u32() & 1 == 1;
            (class, make(class, &mut rng))
        })
        .collect();
    // Caches and the processor's clock warm up.
    for (_, input) in inputs.iter().take(samples / 20) {
        operation(black_box(input));
    }
    let mut times = [Vec::new(), Vec::new()];
    for (class, input) in &inputs {
        let started = Instant::now();
        operation(black_box(input));
        times[usize::from(*class)].push(started.elapsed().as_nanos() as f64);
    }
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let t = KEPT.iter().map(|kept| {
        let limit = all[((all.len() - 1) as f64 * kept) as usize];
        let [fixed, random] = [0, 1]
            .map(|class| times[class].iter().copied().filter(|&time| time <= limit).collect::<Vec<_>>());
        welch(&fixed, &random).abs()
    });
    let t = t.fold(0.0, f64::max);
    let verdict = match t {
        _ if t < 4.5 => "no difference seen",
        _ if t < 10.0 => "unclear",
        _ => "different",
    };
    println!("{name:<55} {samples:>7} {:>11.1} µs {t:>8.2}  {verdict}", all[all.len() / 2] / 1000.0);
}

/// A ciphertext that an attacker chose because powers of small numbers are fast, against
/// encryptions of random plaintexts.
fn chosen(key: &DecryptionKey) -> impl FnMut(bool, &mut Seeded) -> Ciphertext {
    let public = key.encryption_key();
    let small = Ciphertext::parse(&Natural::from(2), public).unwrap();
    let mut honest = ciphertexts(key);
    move |random, rng| if random { honest(true, rng) } else { small.clone() }
}

/// Encryptions of one plaintext against encryptions of random ones.
fn ciphertexts(key: &DecryptionKey) -> impl FnMut(bool, &mut Seeded) -> Ciphertext {
    let public = key.encryption_key();
    move |random, rng| {
        let plaintext = if random { Natural::random_below(rng, public.modulus()) } else { Natural::one() };
        public.encrypt(&plaintext, rng).unwrap().0
    }
}

fn decrypt(key: &DecryptionKey) -> impl FnMut(&Ciphertext) {
    let mut rng = rng(7);
    move |ciphertext| {
        black_box(key.decrypt(ciphertext, &mut rng));
    }
}

/// A power of two of full length against random numbers of that length.
fn exponents(random: bool, rng: &mut Seeded) -> Natural {
    let high = Natural::power_of_two(1023);
    let low = Natural::random_below(rng, &high);
    if random { &high + &low } else { high }
}

fn power(arithmetic: &'static dyn Arithmetic, n: &Natural) -> impl FnMut(&Natural) {
    let modulus = arithmetic.modulus(n).unwrap();
    let base = Natural::random_below(&mut rng(2), n);
    move |exponent| {
        black_box(modulus.pow(&base, exponent));
    }
}

/// The scalar 1 against random ones.
fn scalars(random: bool, rng: &mut Seeded) -> SecretScalar {
    let drawn = SecretScalar::random(rng);
    if random { drawn } else { SecretScalar::new(Scalar::ONE).unwrap() }
}

fn main() {
    let key = test_fixtures::decryption_key(0, constant_time());
    let n = key.encryption_key().modulus();
    println!("{:<55} {:>7} {:>14} {:>8}", "operation", "samples", "median", "|t|");
    measure("constant-time decrypt: one plaintext or random", 3_000, ciphertexts(&key), decrypt(&key));
    measure("constant-time decrypt: ciphertext 2 or random", 3_000, chosen(&key), decrypt(&key));
    let sparse = "constant-time pow mod N: exponent sparse or random";
    measure(sparse, 4_000, exponents, power(constant_time(), n));
    let squared = constant_time().modulus(&n.square()).unwrap();
    let powers = squared.secret_fixed_base(&Natural::random_below(&mut rng(4), n), 1024);
    measure("powers by tables mod N²: exponent sparse or random", 4_000, exponents, |exponent| {
        black_box(powers.pow(exponent).unwrap());
    });
    let groups: Vec<[Natural; GROUP_SIZE]> =
        (0..256).map(|_| std::array::from_fn(|_| n.minus_one())).collect();
    let choices = constant_time().paillier(n).unwrap().choices(&groups).unwrap();
    let choose = |random: bool, rng: &mut Seeded| {
        let mut bits = [0; 128];
        if random {
            rng.fill_bytes(&mut bits);
        }
        bits
    };
    measure("product over tables mod N²: first or random choices", 4_000, choose, |bits| {
        black_box(choices.product(bits));
    });
    measure("k256 scalar times generator: 1 or random", 50_000, scalars, |scalar| {
        black_box(scalar.public());
    });
    let point = SecretScalar::random(&mut rng(3)).public();
    measure("k256 scalar times point: 1 or random", 50_000, scalars, |scalar| {
        black_box(point.mul(scalar.as_scalar()));
    });
    measure("k256 nonce inversion: 1 or random", 50_000, scalars, |scalar| {
        black_box(scalar.as_scalar().invert());
    });
    #[cfg(feature = "gmp")]
    {
        let gmp = duet_protocol::arithmetic::gmp();
        let key = test_fixtures::decryption_key(0, gmp);
        measure("GMP decrypt, blinded: one plaintext or random", 4_000, ciphertexts(&key), decrypt(&key));
        measure("GMP decrypt, blinded: ciphertext 2 or random", 4_000, chosen(&key), decrypt(&key));
        // What decryption is without the two blindings: c^(p − 1) mod p².
        let [prime, ..] = test_fixtures::blum_primes_1024();
        let (squared, exponent) = (gmp.modulus(&prime.square()).unwrap(), prime.minus_one());
        let unblinded = "unblinded, for comparison: GMP, ciphertext 2 or random";
        measure(unblinded, 4_000, chosen(&key), |ciphertext: &Ciphertext| {
            black_box(squared.pow(&squared.reduce(ciphertext.as_natural()), &exponent));
        });
        measure("control: GMP pow mod N: exponent sparse or random", 4_000, exponents, power(gmp, n));
    }
    measure("control: variable-time inversion: 1 or random", 50_000, scalars, |scalar| {
        black_box(scalar.as_scalar().invert_vartime());
    });
}

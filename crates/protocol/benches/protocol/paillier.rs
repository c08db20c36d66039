//! The Paillier operations of a signature, and the search for primes.

use criterion::{BatchSize, Criterion};
use duet_adversary::test_fixtures;
use duet_protocol::{
    arithmetic::PrimeKind,
    curve::{Scalar, scalar_to_natural},
    natural::Natural,
    paillier::{Ciphertext, masked_plaintext},
};

use crate::{arithmetics, group, rng};

pub(crate) fn benches(criterion: &mut Criterion) {
    for (name, arithmetic) in arithmetics() {
        let secret = test_fixtures::decryption_key(0, arithmetic);
        let key = secret.encryption_key();
        let mut rng = rng();
        let [x, v, u] = [(); 3].map(|()| Scalar::generate_biased_from_rng(&mut rng));
        let (ciphertext, _) = key.encrypt(&scalar_to_natural(&x), &mut rng).unwrap();
        let plaintext = masked_plaintext(&u, &mut rng);

        let mut group = group(criterion, name, "paillier");
        group.bench_function("encrypt", |b| b.iter(|| key.encrypt(&plaintext, &mut rng)));
        group.bench_function("randomizer", |b| b.iter(|| key.make_randomizer(&mut rng)));
        group.bench_function("affine", |b| {
            b.iter_batched(
                || key.make_randomizer(&mut rng),
                |randomizer| key.affine(&ciphertext, &v, &plaintext, randomizer),
                BatchSize::PerIteration,
            );
        });
        group.bench_function("decrypt", |b| b.iter(|| secret.decrypt(&ciphertext, &mut rng)));
        group.bench_function("parse-ciphertext", |b| {
            b.iter(|| Ciphertext::parse(ciphertext.as_natural(), key));
        });
        group.bench_function("blum-prime", |b| {
            b.iter(|| -> Natural { arithmetic.random_prime(PrimeKind::Blum, 1024, &mut rng, &mut |_| {}) });
        });
        // Once in a party's life, seconds each, and how many depends on luck: a few show what to
        // expect.
        group.sample_size(10);
        group.bench_function("safe-prime", |b| {
            b.iter(|| -> Natural { arithmetic.random_prime(PrimeKind::Safe, 1024, &mut rng, &mut |_| {}) });
        });
        group.finish();
    }
}

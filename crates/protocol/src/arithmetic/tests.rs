//! Both implementations, compared with each other and with known values.

use core::ops::ControlFlow;

use super::*;
use crate::{
    natural::{Integer, Natural},
    test_fixtures,
};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

/// Every implementation that is built in.
fn all() -> Vec<&'static dyn Arithmetic> {
    let mut all = vec![constant_time()];
    if default_arithmetic().name() != constant_time().name() {
        all.push(default_arithmetic());
    }
    all
}

fn bytes(max: usize) -> impl Strategy<Value = Natural> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(|bytes| Natural::from_be_bytes(&bytes))
}

proptest! {
    #[test]
    fn implementations_agree(a in bytes(80), b in bytes(80), exponent in bytes(40), modulus in bytes(48)) {
        let odd = if modulus.is_odd() { modulus } else { &modulus + &Natural::one() };
        let results: Vec<_> = all()
            .into_iter()
            .map(|arithmetic| {
                let modulus = arithmetic.modulus(&odd)?;
                let power = modulus.pow(&a, &exponent);
                let pair = modulus.pow_pair(&a, &exponent, &b);
                assert_eq!(pair, (power.clone(), modulus.pow(&a, &b)));
                let windows = modulus.fixed_base(&a, exponent.bit_length());
                assert_eq!(windows.pow(&exponent), Some(power.clone()));
                assert_eq!(windows.pow(&exponent.shl(20)).is_none(), !exponent.is_zero());
                let comb = modulus.secret_fixed_base(&a, exponent.bit_length());
                assert_eq!(comb.pow(&exponent), Some(power.clone()));
                assert_eq!(comb.pow(&exponent.shl(20)).is_none(), !exponent.is_zero());
                let inverse = modulus.invert(&a);
                assert_eq!(inverse.is_some(), modulus.is_unit(&a));
                if let Some(inverse) = &inverse {
                    assert_eq!(modulus.mul(inverse, &a), modulus.reduce(&Natural::one()));
                }
                let signed = Integer::new(true, exponent.clone());
                assert_eq!(
                    modulus.pow_signed(&a, &signed).is_some(),
                    exponent.is_zero() || inverse.is_some()
                );
                assert_eq!(modulus.add(&modulus.sub(&a, &b), &b), modulus.reduce(&a));
                Some((
                    power,
                    modulus.mul(&a, &b),
                    modulus.reduce(&a),
                    modulus.sub(&a, &b),
                    inverse,
                    modulus.multi_pow(&[(&a, &signed), (&b, &Integer::from(a.clone()))]),
                    arithmetic.gcd(&a, &b),
                ))
            })
            .collect();
        prop_assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
        if let Some(Some(first)) = results.first() {
            prop_assert_eq!(Some(first.2.clone()), a.rem(&odd));
            prop_assert_eq!(Some(first.1.clone()), (&a * &b).rem(&odd));
        }
    }

    #[test]
    fn jacobi_symbols_are_legendre_symbols_of_primes(a: u64) {
        // 2^61 - 1
        let prime = Natural::from((1 << 61) - 1);
        let modulus = constant_time().modulus(&prime).unwrap();
        let power = modulus.pow(&a.into(), &prime.shr(1));
        let expected = if power.is_zero() { 0 } else if power.is_one() { 1 } else { -1 };
        prop_assert_eq!(jacobi_symbol(&a.into(), &prime), Some(expected));
        let product = &prime * &Natural::from(1_000_003);
        let other = jacobi_symbol(&a.into(), &Natural::from(1_000_003)).unwrap();
        prop_assert_eq!(jacobi_symbol(&a.into(), &product), Some(expected * other));
    }
}

#[test]
fn a_product_takes_one_number_of_each_group() {
    const N: u64 = 1_000_003;
    const BASES: [u64; 3] = [1, 5_000_000_000, 987_654_321_000];
    let groups = BASES.map(|base| std::array::from_fn(|i| Natural::from(base + i as u64 + 1)));
    for arithmetic in all() {
        let choices = arithmetic.paillier(&N.into()).unwrap().choices(&groups).unwrap();
        for (bits, digits) in [
            (&[][..], [0, 0, 0]),
            (&[0, 0], [0, 0, 0]),
            (&[0x01, 0xf0], [1, 0, 0]),
            (&[0x0f, 0xff], [15, 0, 15]),
            (&[0x21, 0x0f], [1, 2, 15]),
            (&[0x50], [0, 5, 0]),
        ] {
            let numbers = BASES.iter().zip(digits).filter(|(_, digit)| *digit > 0);
            let expected = numbers.fold(1, |product, (base, digit)| {
                product * u128::from(base + digit) % (u128::from(N) * u128::from(N))
            });
            let expected = Natural::from(u64::try_from(expected).unwrap());
            assert_eq!(choices.product(bits), expected, "{} {bits:?}", arithmetic.name());
        }
    }
}

#[test]
fn numbers_that_share_a_factor_with_the_modulus_are_not_chosen_from() {
    for arithmetic in all() {
        let operations = arithmetic.paillier(&15.into()).unwrap();
        let group =
            |last: u64| std::array::from_fn(|i| Natural::from(if i == GROUP_SIZE - 1 { last } else { 2 }));
        assert!(operations.choices(&[group(2), group(7)]).is_some());
        for shared in [0, 3, 5, 15, 15 * 8] {
            assert!(
                operations.choices(&[group(2), group(shared)]).is_none(),
                "{} {shared}",
                arithmetic.name()
            );
        }
    }
}

#[test]
fn even_and_trivial_moduli_are_refused() {
    for arithmetic in all() {
        for value in [0, 1, 2, 4] {
            assert!(arithmetic.modulus(&value.into()).is_none(), "{value}");
            assert!(arithmetic.paillier(&value.into()).is_none(), "{value}");
        }
        assert!(arithmetic.modulus(&3.into()).is_some());
    }
    assert_eq!(jacobi_symbol(&3.into(), &4.into()), None);
}

#[test]
fn primes_are_recognised() {
    for arithmetic in all() {
        let [blum, ..] = test_fixtures::blum_primes_1024();
        let [safe, other, ..] = test_fixtures::safe_primes_1024();
        assert!(
            arithmetic.is_prime(&blum) && arithmetic.is_prime(&safe) && arithmetic.is_prime(&safe.shr(1))
        );
        assert!(!arithmetic.is_prime(&(&safe * &other)) && !arithmetic.is_prime(&blum.square()));
        // 561 and 1729 are Carmichael numbers.
        for composite in [0, 1, 4, 561, 1729, 3_215_031_751] {
            assert!(!arithmetic.is_prime(&composite.into()), "{composite}");
        }
    }
}

#[test]
fn generated_primes_have_the_asked_for_shape() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for arithmetic in all() {
        for (kind, bits) in [(PrimeKind::Blum, 512), (PrimeKind::Safe, 192)] {
            let mut candidates = 0;
            let prime = arithmetic.random_prime(kind, bits, &mut rng, &mut |progress| {
                assert_eq!(progress.candidates, candidates + 1);
                candidates = progress.candidates;
            });
            assert!(candidates > 0);
            assert_eq!(prime.bit_length(), bits);
            assert!(prime.bit(bits - 2) && prime.low_u64() & 3 == 3);
            assert!(constant_time().is_prime(&prime));
            assert!(kind == PrimeKind::Blum || constant_time().is_prime(&prime.shr(1)));
        }
    }
}

#[test]
fn a_search_for_a_prime_can_be_ended() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut heard = 0;
    let mut third_time = |progress: PrimeProgress| {
        heard = progress.candidates;
        if heard == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let found = search_prime(default_arithmetic(), PrimeKind::Blum, 1024, &mut rng, &mut third_time);
    assert!(found.is_none());
    assert_eq!(heard, 3);
}

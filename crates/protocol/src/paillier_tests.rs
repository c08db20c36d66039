//! Paillier across both arithmetics, the numbers of the protocol, and values out of range.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

use super::*;
use crate::{
    arithmetic::{constant_time, default_arithmetic},
    proofs::log_star::PLAINTEXT_BOUND_BITS,
    test_fixtures,
};

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn all() -> Vec<&'static dyn Arithmetic> {
    let mut all = vec![constant_time()];
    if default_arithmetic().name() != constant_time().name() {
        all.push(default_arithmetic());
    }
    all
}

/// A key of 2048 bits under one arithmetic and its public part under another.
fn keys(
    decrypting: &'static dyn Arithmetic,
    encrypting: &'static dyn Arithmetic,
) -> (DecryptionKey, EncryptionKey) {
    let secret = test_fixtures::decryption_key(0, decrypting);
    let public = EncryptionKey::parse(secret.encryption_key().modulus(), encrypting).unwrap();
    (secret, public)
}

#[test]
fn implementations_interoperate() {
    for decrypting in all() {
        for encrypting in all() {
            let mut rng = rng(1);
            let (secret, public) = keys(decrypting, encrypting);
            let n = public.modulus();
            for plaintext in
                [Natural::zero(), Natural::one(), n.minus_one(), Natural::random_below(&mut rng, n)]
            {
                let (ciphertext, nonce) = public.encrypt(&plaintext, &mut rng).unwrap();
                assert_eq!(secret.decrypt(&ciphertext, &mut rng), plaintext);
                let again = secret.encryption_key().raw_encrypt(&plaintext, nonce.as_natural());
                assert_eq!(&again, ciphertext.as_natural(), "both compute the same ciphertext");
            }
        }
    }
}

#[test]
fn a_response_decrypts_to_the_affine_function_modulo_the_order() {
    for decrypting in all() {
        for responding in all() {
            let mut rng = rng(2);
            let (secret, public) = keys(decrypting, responding);
            for _ in 0..3 {
                let [x, v, u] = [(); 3].map(|()| Scalar::generate_biased_from_rng(&mut rng));
                let (ciphertext, _) = public.encrypt(&curve::scalar_to_natural(&x), &mut rng).unwrap();
                let plaintext = masked_plaintext(&u, &mut rng);
                let prepared = public.prepare(&ciphertext);
                let mut randomizer = || public.make_randomizer(&mut rng);
                for response in [
                    public.affine(&ciphertext, &v, &plaintext, randomizer()),
                    public.affine_with(&prepared, &v, &plaintext, randomizer()),
                ] {
                    let response = response.unwrap();
                    let response = Ciphertext::parse(response.as_natural(), secret.encryption_key()).unwrap();
                    let decrypted = secret.decrypt(&response, &mut rng);
                    assert!(decrypted.bit_length() <= MASKED_PLAINTEXT_BITS);
                    assert_eq!(curve::reduce(&decrypted), v * x + u);
                }
            }
        }
    }
}

#[test]
fn decryption_survives_redrawing_its_blinding_and_many_threads() {
    let (secret, public) = keys(default_arithmetic(), default_arithmetic());
    let ciphertexts: Vec<_> =
        (0..8_u64).map(|i| (i, public.encrypt(&Natural::from(i), &mut rng(i)).unwrap().0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (secret, ciphertexts) = (&secret, &ciphertexts);
            scope.spawn(move || {
                let mut rng = rng(thread);
                for (plaintext, ciphertext) in ciphertexts.iter().cycle().take(40) {
                    assert_eq!(secret.decrypt(ciphertext, &mut rng), Natural::from(*plaintext));
                }
            });
        }
    });
}

#[test]
fn blinding_pairs_change_with_every_use() {
    let secret = test_fixtures::decryption_key(0, default_arithmetic());
    let mut rng = rng(3);
    let pairs: Vec<_> = (0..=BLINDING_USES).map(|_| secret.next_blinding(&mut rng)).collect();
    for (index, (ciphertext, plaintext)) in pairs.iter().enumerate() {
        assert!(pairs.iter().skip(index + 1).all(|(other, _)| other != ciphertext));
        let ciphertext = Ciphertext::parse(ciphertext, secret.encryption_key()).unwrap();
        assert_eq!(&secret.decrypt_number(ciphertext.as_natural(), [1, 1]), plaintext);
    }
    let doubled =
        |(_, plaintext): &(Natural, Natural)| secret.encryption_key().modulus.add(plaintext, plaintext);
    assert_eq!(doubled(&pairs[0]), pairs[1].1);
    assert_ne!(doubled(&pairs[31]), pairs[32].1, "drawn anew after 32 uses");
}

/// The numbers of the signing equation, as bounds on lengths.
#[test]
fn the_mask_is_wide_enough_and_nothing_wraps() {
    let order = curve::order();
    let power = Natural::power_of_two;
    assert_eq!(PLAINTEXT_BOUND_BITS, 513);
    for blinded in [false, true] {
        // v below q, or v + t·q with 64-bit t.
        let largest_v = if blinded { &order.shl(64) + &order } else { order.clone() };
        let largest_product = &largest_v * &power(PLAINTEXT_BOUND_BITS);
        let largest_masked = &(&power(MASK_BITS).minus_one() * &order) + &order;
        let largest = &largest_product + &largest_masked;
        assert!(largest < power(MASKED_PLAINTEXT_BITS), "blinded: {blinded}");
    }
    // ρ against what it hides: (v·x̂ + u)/q is at most 2^513, ρ has 641 bits.
    const { assert!(MASK_BITS >= PLAINTEXT_BOUND_BITS + 128) };
    // The shortest prime has 1024 bits with the two highest set.
    assert!(power(MASKED_PLAINTEXT_BITS) < power(1023));
    assert!(masked_plaintext(&(-Scalar::ONE), &mut rng(4)).bit_length() <= 897);
}

#[test]
fn masks_fill_their_range() {
    let mut rng = rng(5);
    let mut longest = 0;
    let mut ones = [0_u32; 4];
    for _ in 0..2_000 {
        let (mask, rest) = masked_plaintext(&Scalar::ONE, &mut rng).div_rem(&curve::order()).unwrap();
        assert!(rest.is_one());
        longest = longest.max(mask.bit_length());
        for (count, bit) in ones.iter_mut().zip([0, 128, 512, 640]) {
            *count += u32::from(mask.bit(bit));
        }
    }
    assert_eq!(longest, MASK_BITS);
    // Five standard deviations around 1000.
    assert!(ones.iter().all(|count| (888..=1112).contains(count)), "{ones:?}");
}

#[test]
fn numbers_that_are_no_ciphertexts_are_refused() {
    for arithmetic in all() {
        let secret = test_fixtures::decryption_key(0, arithmetic);
        let key = secret.encryption_key();
        let n = key.modulus();
        let squared = n.square();
        let [p, q, ..] = test_fixtures::blum_primes_1024();
        for (number, error) in [
            (Natural::zero(), InvalidCiphertext::Range),
            (squared.clone(), InvalidCiphertext::Range),
            (&squared + &Natural::one(), InvalidCiphertext::Range),
            (n.clone(), InvalidCiphertext::NotInvertible),
            (n * &Natural::from(7), InvalidCiphertext::NotInvertible),
            (squared.checked_sub(n).unwrap(), InvalidCiphertext::NotInvertible),
            (p.clone(), InvalidCiphertext::NotInvertible),
            (q.square(), InvalidCiphertext::NotInvertible),
        ] {
            assert_eq!(Ciphertext::parse(&number, key), Err(error));
        }
        assert!(Ciphertext::parse(&Natural::one(), key).is_ok());
        assert!(Ciphertext::parse(&squared.minus_one(), key).is_ok());
    }
}

#[test]
fn misuse_is_refused() {
    let key = test_fixtures::decryption_key(0, default_arithmetic()).encryption_key().clone();
    let other = test_fixtures::decryption_key(1, default_arithmetic()).encryption_key().clone();
    let mut rng = rng(6);
    assert_eq!(key.encrypt(key.modulus(), &mut rng).unwrap_err(), EncryptError::PlaintextRange);
    let (ciphertext, _) = key.encrypt(&Natural::one(), &mut rng).unwrap();
    let foreign = other.make_randomizer(&mut rng);
    assert_eq!(
        key.affine(&ciphertext, &Scalar::ONE, &Natural::one(), foreign).unwrap_err(),
        EncryptError::ForeignRandomizer
    );
    let own = key.make_randomizer(&mut rng);
    let long = Natural::power_of_two(MASKED_PLAINTEXT_BITS);
    assert_eq!(key.affine(&ciphertext, &Scalar::ONE, &long, own).unwrap_err(), EncryptError::PlaintextRange);
    let prepared =
        |by: &EncryptionKey, plaintext: &Natural, randomizer_of: &EncryptionKey, rng: &mut ChaCha20Rng| {
            let randomizer = randomizer_of.make_randomizer(rng);
            key.affine_with(&by.prepare(&ciphertext), &Scalar::ONE, plaintext, randomizer).map(|_| ())
        };
    let one = Natural::one();
    assert_eq!(prepared(&key, &one, &key, &mut rng), Ok(()));
    assert_eq!(prepared(&key, &long, &key, &mut rng), Err(EncryptError::PlaintextRange));
    assert_eq!(prepared(&key, &one, &other, &mut rng), Err(EncryptError::ForeignRandomizer));
    assert_eq!(prepared(&other, &one, &key, &mut rng), Err(EncryptError::ForeignCiphertext));
}

#[test]
fn generated_keys_have_exactly_the_asked_for_length() {
    let mut candidates = 0;
    let mut rng = rng(7);
    let key = DecryptionKey::generate(ModulusSize::Bits2048, default_arithmetic(), &mut rng, &mut |_| {
        candidates += 1
    });
    assert_eq!(key.encryption_key().modulus().bit_length(), 2048);
    assert_eq!(key.encryption_key().size(), ModulusSize::Bits2048);
    assert!(candidates > 0);
    let (p, q) = key.primes();
    assert!(p.value().low_u64() & 3 == 3 && q.value().low_u64() & 3 == 3);
    assert_eq!((p.value().bit_length(), q.value().bit_length()), (1024, 1024));
}

#[test]
fn keys_of_3072_bits_work() {
    let [p, q] = test_fixtures::blum_primes_1536();
    let mut rng = rng(8);
    for arithmetic in all() {
        let key = DecryptionKey::from_primes(&p, &q, arithmetic).unwrap();
        assert_eq!(key.encryption_key().size(), ModulusSize::Bits3072);
        let plaintext = Natural::random_bits(&mut rng, 898);
        let (ciphertext, _) = key.encryption_key().encrypt(&plaintext, &mut rng).unwrap();
        assert_eq!(key.decrypt(&ciphertext, &mut rng), plaintext);
        let restored = DecryptionKey::from_secret_bytes(&key.to_secret_bytes(), arithmetic).unwrap();
        assert_eq!(restored.decrypt(&ciphertext, &mut rng), plaintext);
    }
}

#[test]
fn secret_bytes_that_are_no_key_are_refused() {
    let arithmetic = default_arithmetic();
    let key = test_fixtures::decryption_key(0, arithmetic);
    let bytes = key.to_secret_bytes();
    assert_eq!(bytes.len(), 256);
    assert_eq!(
        DecryptionKey::from_secret_bytes(&bytes, arithmetic).unwrap().encryption_key(),
        key.encryption_key()
    );
    for size in [0, 1, 255, 257, 383] {
        let refusal = DecryptionKey::from_secret_bytes(&vec![1; size], arithmetic).unwrap_err();
        assert_eq!(refusal, InvalidDecryptionKey::Size, "{size}");
    }
    let (p, q) = bytes.split_at(128);
    let changed = |p: &[u8], q: &[u8]| DecryptionKey::from_secret_bytes(&[p, q].concat(), arithmetic).err();
    let zero = [0; 128];
    let mut even = q.to_vec();
    even[127] ^= 1;
    let mut one_modulo_four = q.to_vec();
    one_modulo_four[127] ^= 2;
    let mut short = q.to_vec();
    short[0] = 0;
    for (p, q) in [(p, p), (p, &zero), (&zero, q), (p, &even), (p, &one_modulo_four), (p, &short)] {
        assert_eq!(changed(p, q), Some(InvalidDecryptionKey::Primes));
    }
}

#[test]
fn nothing_secret_is_printed() {
    let key = test_fixtures::decryption_key(0, default_arithmetic());
    let mut rng = rng(9);
    let (_, nonce) = key.encryption_key().encrypt(&Natural::one(), &mut rng).unwrap();
    let randomizer = key.encryption_key().make_randomizer(&mut rng);
    let printed = format!("{key:?} {nonce:?} {randomizer:?}");
    assert!(printed.chars().filter(char::is_ascii_digit).count() < 20, "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_plaintext_below_the_modulus_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..256), seed: u64) {
        let mut rng = rng(seed);
        let key = test_fixtures::decryption_key(0, default_arithmetic());
        let plaintext = Natural::from_be_bytes(&bytes).rem(key.encryption_key().modulus()).unwrap();
        let (ciphertext, _) = key.encryption_key().encrypt(&plaintext, &mut rng).unwrap();
        prop_assert_eq!(key.decrypt(&ciphertext, &mut rng), plaintext);
    }
}

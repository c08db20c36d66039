//! Provers that cheat: each proof is made as well as a cheater who knows every secret can make it,
//! and the refusal is the one that was meant for it.

use std::sync::Arc;

use super::{
    ITERATIONS, Rounds,
    factor::{FactorProof, FactorProofError},
    log_star::{LogStarProof, LogStarProofError, Statement},
    modulus::{self, ModulusProof, ModulusProofError, Round},
    parameters::{self, ParametersProof, ParametersProofError},
    tests::{context, key, parameters, rng},
};
use crate::{
    arithmetic::{Modulus, PrimeKind, default_arithmetic, jacobi_symbol},
    curve::{self, Point, SecretScalar},
    natural::{Integer, Natural},
    paillier::{EncryptionKey, InvalidModulus},
    ring_pedersen::{Parameters, RawParameters},
    test_fixtures,
};

fn product(factors: &[Natural]) -> Natural {
    factors.iter().fold(Natural::one(), |product, factor| &product * factor)
}

fn parse(n: &Natural) -> EncryptionKey {
    EncryptionKey::parse(n, default_arithmetic()).unwrap()
}

/// The residue modulo the product of the pairwise coprime `moduli`.
fn recombine(residues: &[Natural], moduli: &[Natural]) -> Natural {
    let mut total = Natural::zero();
    let mut so_far = Natural::one();
    for (residue, modulus) in residues.iter().zip(moduli) {
        let modulus = default_arithmetic().modulus(modulus).unwrap();
        let inverse = modulus.invert(&so_far).unwrap_or_else(Natural::one);
        let step = modulus.mul(&modulus.sub(residue, &total), &inverse);
        total = &total + &(&so_far * &step);
        so_far = &so_far * modulus.value();
    }
    total
}

/// A prime power of a cheater's modulus, with exponents that take roots wherever there are any.
struct PrimePower {
    modulus: Arc<dyn Modulus>,
    symbol_exponent: Natural,
    fourth_root: Natural,
    nth_root: Option<Natural>,
}

impl PrimePower {
    /// `prime^power` with `prime ≡ 3 (mod 4)` and `power` 1 or 2, in the modulus `n`.
    fn new(prime: &Natural, power: u32, n: &Natural) -> Self {
        let value = if power == 1 { prime.clone() } else { prime.square() };
        // The order of the group is p^(power − 1)·(p − 1) = 2·odd.
        let odd_order = if power == 1 { prime.shr(1) } else { prime * &prime.shr(1) };
        let odd = default_arithmetic().modulus(&odd_order).unwrap();
        Self {
            modulus: default_arithmetic().modulus(&value).unwrap(),
            // y^odd is χ(y).
            symbol_exponent: odd_order.clone(),
            // Squares form a group of odd order, in which 4 and perhaps N are invertible.
            fourth_root: odd.invert(&Natural::from(4)).unwrap(),
            nth_root: odd.invert(n).map(
                |inverse| {
                    if inverse.is_odd() { inverse } else { &inverse + &odd_order }
                },
            ),
        }
    }

    fn is_residue(&self, y: &Natural) -> bool {
        self.modulus.pow(y, &self.symbol_exponent).is_one()
    }
}

/// The best modulus proof for `n = ∏ primeᵢ^powerᵢ`: right in every round in which it can be.
fn cheat(factors: &[(Natural, u32)]) -> (Natural, ModulusProof) {
    let n = product(
        &factors.iter().map(|(p, k)| if *k == 1 { p.clone() } else { p.square() }).collect::<Vec<_>>(),
    );
    let powers: Vec<_> = factors.iter().map(|(prime, power)| PrimePower::new(prime, *power, &n)).collect();
    let moduli: Vec<_> = powers.iter().map(|power| power.modulus.value().clone()).collect();
    // Modulo a square there is none.
    let w = (2..100).map(Natural::from).find(|w| jacobi_symbol(w, &n) == Some(-1)).unwrap_or(2.into());
    let challenge = modulus::challenge(&n, &context(), &w);
    let rounds = Rounds::try_from_fn(|index| {
        let y = challenge.below(index, &n);
        let options = [(false, false), (true, false), (false, true), (true, true)].map(|(a, b)| {
            let whole = default_arithmetic().modulus(&n).unwrap();
            let with_w = if b { whole.mul(&y, &w) } else { y.clone() };
            let target = if a { whole.sub(&Natural::zero(), &with_w) } else { with_w };
            let residues = powers.iter().filter(|power| power.is_residue(&target)).count();
            (residues, a, b, target)
        });
        let (_, a, b, target) = options.into_iter().max_by_key(|(residues, ..)| *residues).unwrap();
        let roots: Vec<_> = powers.iter().map(|p| p.modulus.pow(&target, &p.fourth_root)).collect();
        let nth: Vec<_> = powers
            .iter()
            .map(|p| p.nth_root.as_ref().map_or_else(|| p.modulus.reduce(&y), |root| p.modulus.pow(&y, root)))
            .collect();
        Ok::<_, ()>(Round { x: recombine(&roots, &moduli), a, b, z: recombine(&nth, &moduli) })
    });
    (n, ModulusProof { w, rounds: rounds.unwrap() })
}

/// How many rounds of a modulus proof hold an `N`-th root.
fn nth_roots(n: &Natural, proof: &ModulusProof) -> usize {
    let challenge = modulus::challenge(n, &context(), &proof.w);
    let modulus = default_arithmetic().modulus(n).unwrap();
    proof
        .rounds
        .iter()
        .filter(|(index, round)| modulus.pow(&round.z, n) == challenge.below(*index, n))
        .count()
}

#[test]
fn the_cheaters_method_convinces_for_an_honest_modulus() {
    let [p, q, ..] = test_fixtures::blum_primes_1024();
    let (n, proof) = cheat(&[(p, 1), (q, 1)]);
    assert_eq!(proof.verify(&parse(&n), &context()), Ok(()));
}

/// The 20-bit Blum primes that the smooth moduli are made of.
fn small_primes(count: usize) -> Vec<Natural> {
    (600_000..1_048_576)
        .map(Natural::from)
        .filter(|n| n.low_u64() & 3 == 3 && default_arithmetic().is_prime(n))
        .take(count)
        .collect()
}

/// A Blum prime that makes the product with `others` exactly `bits` long.
fn completing_prime(others: &Natural, bits: u32) -> Natural {
    let mut rng = rng(11);
    let length = bits - others.bit_length();
    (length..=length + 1)
        .cycle()
        .map(|length| default_arithmetic().random_prime(PrimeKind::Blum, length, &mut rng, &mut |_| {}))
        .find(|prime| (others * prime).bit_length() == bits)
        .unwrap()
}

#[test]
fn a_smooth_modulus_is_refused_although_every_root_is_there_and_both_halves_are_long() {
    // 16 primes of 20 bits and one of 704, times one of 1024: CVE-2023-33241 against a certificate
    // of N-th roots.
    let mut factors = small_primes(16);
    factors.push(completing_prime(&product(&factors), 1024));
    let smooth_half = product(&factors);
    let other_half = completing_prime(&smooth_half, 2048);
    factors.push(other_half.clone());
    let (n, proof) = cheat(&factors.into_iter().map(|factor| (factor, 1)).collect::<Vec<_>>());
    assert_eq!(nth_roots(&n, &proof), ITERATIONS as usize, "a root certificate holds");
    let lengths = FactorProof::attempt(
        &parse(&n),
        [&smooth_half, &other_half],
        &parameters(0, default_arithmetic()),
        &context(),
        &mut rng(1),
    );
    assert_eq!(
        lengths.verify(&parse(&n), &parameters(0, default_arithmetic()), &context()),
        Ok(()),
        "the factor proof holds"
    );
    assert!(matches!(proof.verify(&parse(&n), &context()), Err(ModulusProofError::FourthRoot(_))));
}

#[test]
fn a_modulus_with_a_square_factor_is_refused() {
    let mut rng = rng(12);
    let (n, proof) = std::iter::repeat_with(|| {
        let mut prime =
            |bits| default_arithmetic().random_prime(PrimeKind::Blum, bits, &mut rng, &mut |_| {});
        [(prime(683), 2), (prime(683), 1)]
    })
    .map(|factors| (product(&[factors[0].0.square(), factors[1].0.clone()]), factors))
    .find(|(n, _)| n.bit_length() == 2048)
    .map(|(_, factors)| cheat(&factors))
    .unwrap();
    assert!(nth_roots(&n, &proof) < 10, "roots of p²q are rare");
    assert!(matches!(proof.verify(&parse(&n), &context()), Err(ModulusProofError::NthRoot(_))));
}

#[test]
fn three_primes_are_refused() {
    let [p, ..] = test_fixtures::blum_primes_1024();
    let mut rng = rng(13);
    let r = default_arithmetic().random_prime(PrimeKind::Blum, 512, &mut rng, &mut |_| {});
    let last = completing_prime(&(&p * &r), 2048);
    let (n, proof) = cheat(&[(p, 1), (r, 1), (last, 1)]);
    assert_eq!(nth_roots(&n, &proof), ITERATIONS as usize);
    assert!(matches!(proof.verify(&parse(&n), &context()), Err(ModulusProofError::FourthRoot(_))));
}

#[test]
fn a_square_and_a_prime_are_refused() {
    let [p, ..] = test_fixtures::blum_primes_1024();
    let (n, proof) = cheat(&[(p, 2)]);
    assert_eq!(proof.verify(&parse(&n), &context()), Err(ModulusProofError::Symbol));
    let prime = default_arithmetic().random_prime(PrimeKind::Blum, 2048, &mut rng(14), &mut |_| {});
    let (n, proof) = cheat(&[(prime, 1)]);
    assert_eq!(proof.verify(&parse(&n), &context()), Err(ModulusProofError::Prime));
}

#[test]
fn moduli_of_other_lengths_and_even_ones_are_refused() {
    let parse = |n: &Natural| EncryptionKey::parse(n, default_arithmetic()).err();
    let odd = |bits| &Natural::power_of_two(bits - 1) + &Natural::one();
    for bits in [2, 1024, 2047, 2049, 3071, 3073, 4096] {
        assert_eq!(parse(&odd(bits)), Some(InvalidModulus::Length(bits)), "{bits}");
    }
    assert_eq!(parse(&odd(2048)), None);
    assert_eq!(parse(&odd(3072)), None);
    assert_eq!(parse(&Natural::power_of_two(2047)), Some(InvalidModulus::Even));
    assert_eq!(parse(&Natural::zero()), Some(InvalidModulus::Length(0)));
}

#[test]
fn every_part_of_a_modulus_proof_counts() {
    let secret = test_fixtures::decryption_key(0, default_arithmetic());
    let proof = ModulusProof::prove(&secret, &context(), &mut rng(1)).unwrap();
    let key = secret.encryption_key();
    let refusal = |change: &dyn Fn(&mut ModulusProof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        changed.verify(key, &context()).unwrap_err()
    };
    let n = key.modulus();
    for w in [
        Natural::zero(),
        Natural::one(),
        n.clone(),
        &proof.w + n,
        key.modulus_arithmetic().mul(&proof.w, &proof.w),
    ] {
        assert_eq!(refusal(&|proof| proof.w = w.clone()), ModulusProofError::Symbol);
    }
    for at in [0, 63, 127] {
        let index = u32::try_from(at).unwrap();
        for out_of_range in [Natural::zero(), n.clone(), &proof.rounds.0[at].x + n] {
            assert_eq!(
                refusal(&|proof| proof.rounds.0[at].x = out_of_range.clone()),
                ModulusProofError::Range(index)
            );
            assert_eq!(
                refusal(&|proof| proof.rounds.0[at].z = out_of_range.clone()),
                ModulusProofError::Range(index)
            );
        }
        let next = (at + 1) % 128;
        assert_eq!(refusal(&|proof| proof.rounds.0[at].a ^= true), ModulusProofError::FourthRoot(index));
        assert_eq!(refusal(&|proof| proof.rounds.0[at].b ^= true), ModulusProofError::FourthRoot(index));
        assert_eq!(
            refusal(&|proof| proof.rounds.0[at].x = proof.rounds.0[next].x.clone()),
            ModulusProofError::FourthRoot(index)
        );
        assert_eq!(
            refusal(&|proof| proof.rounds.0[at].z = proof.rounds.0[next].z.clone()),
            ModulusProofError::NthRoot(index)
        );
        assert_eq!(
            refusal(&|proof| proof.rounds.0[at] = proof.rounds.0[next].clone()),
            ModulusProofError::FourthRoot(index)
        );
    }
    assert_eq!(refusal(&|proof| proof.rounds.0.swap(3, 4)), ModulusProofError::FourthRoot(3));
}

#[test]
fn rounds_cannot_be_left_out_repeated_or_added() {
    let rounds = Rounds::try_from_fn(Ok::<_, ()>).unwrap();
    let mut json = serde_json::to_value(&rounds).unwrap();
    assert_eq!(serde_json::from_value::<Rounds<u32>>(json.clone()).unwrap(), rounds);
    let list = json.as_array_mut().unwrap();
    let last = list.pop().unwrap();
    assert!(serde_json::from_value::<Rounds<u32>>(serde_json::Value::Array(list.clone())).is_err());
    list.extend([last.clone(), last]);
    assert!(serde_json::from_value::<Rounds<u32>>(json).is_err());
    assert!(serde_json::from_str::<Rounds<u32>>("[]").is_err());
}

#[test]
fn a_small_factor_is_refused() {
    let mut rng = rng(15);
    for bits in [20, 128, 200] {
        let small = default_arithmetic().random_prime(PrimeKind::Blum, bits, &mut rng, &mut |_| {});
        let large = completing_prime(&small, 2048);
        let key = parse(&(&small * &large));
        let parameters = parameters(0, default_arithmetic());
        for primes in [[&small, &large], [&large, &small]] {
            let proof = FactorProof::attempt(&key, primes, &parameters, &context(), &mut rng);
            assert_eq!(proof.verify(&key, &parameters, &context()), Err(FactorProofError::Bound), "{bits}");
        }
    }
}

#[test]
fn factors_of_another_modulus_are_refused() {
    let [p, q, r, _] = test_fixtures::blum_primes_1024();
    let key = parse(&(&p * &q));
    let parameters = parameters(0, default_arithmetic());
    let proof = FactorProof::attempt(&key, [&p, &r], &parameters, &context(), &mut rng(1));
    assert_eq!(proof.verify(&key, &parameters, &context()), Err(FactorProofError::Product));
}

#[test]
fn every_part_of_a_factor_proof_counts() {
    let secret = test_fixtures::decryption_key(0, default_arithmetic());
    let key = secret.encryption_key();
    let parameters = parameters(0, default_arithmetic());
    let proof = FactorProof::prove(&secret, &parameters, &context(), &mut rng(1));
    assert_eq!(proof.verify(key, &parameters, &context()), Ok(()));
    let refusal = |change: &dyn Fn(&mut FactorProof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        changed.verify(key, &parameters, &context()).unwrap_err()
    };
    let [safe, ..] = test_fixtures::safe_primes_1024();
    for bad in [Natural::zero(), parameters.modulus().clone(), safe, parameters.modulus().square()] {
        let parts: [fn(&mut FactorProof) -> &mut Natural; 5] = [
            |proof| &mut proof.commitment.p,
            |proof| &mut proof.commitment.q,
            |proof| &mut proof.commitment.a,
            |proof| &mut proof.commitment.b,
            |proof| &mut proof.commitment.t,
        ];
        for part in parts {
            assert_eq!(refusal(&|proof| *part(proof) = bad.clone()), FactorProofError::CommitmentRange);
        }
    }
    let huge = Integer::from(Natural::power_of_two(2048 + 2048 + 256 + 512 + 2));
    assert_eq!(refusal(&|proof| proof.commitment.sigma = huge.clone()), FactorProofError::CommitmentRange);
    assert_eq!(refusal(&|proof| proof.z1 = huge.clone()), FactorProofError::Bound);
    assert_eq!(refusal(&|proof| proof.z2 = -&huge), FactorProofError::Bound);
    assert_eq!(refusal(&|proof| proof.w1 = huge.clone()), FactorProofError::ResponseRange);
    assert_eq!(refusal(&|proof| proof.w2 = -&huge), FactorProofError::ResponseRange);
    assert_eq!(refusal(&|proof| proof.v = huge.clone()), FactorProofError::ResponseRange);
    let one = Integer::from(Natural::one());
    assert_eq!(refusal(&|proof| proof.z1 = &proof.z1 + &one), FactorProofError::FirstFactor);
    assert_eq!(refusal(&|proof| proof.w1 = -&proof.w1), FactorProofError::FirstFactor);
    assert_eq!(refusal(&|proof| proof.z2 = &proof.z2 + &one), FactorProofError::SecondFactor);
    assert_eq!(refusal(&|proof| proof.w2 = -&proof.w2), FactorProofError::SecondFactor);
    assert_eq!(refusal(&|proof| proof.v = &proof.v + &one), FactorProofError::Product);
    // The hash covers every commitment.
    assert_eq!(
        refusal(&|proof| proof.commitment.sigma = -&proof.commitment.sigma),
        FactorProofError::FirstFactor
    );
}

/// A statement about `x`, with `Enc(x + offset·q)` in it, and the proof a cheater makes for it.
fn logarithm_proof_with_offset(offset: &Integer) -> Result<(), LogStarProofError> {
    let key = key(0, default_arithmetic());
    let parameters = parameters(0, default_arithmetic());
    let secret = SecretScalar::random(&mut rng(5));
    let plaintext = &Integer::from(secret.to_natural()) + &(offset * &Integer::from(curve::order()));
    let reduced = plaintext.rem_euclid(key.modulus()).unwrap();
    let (ciphertext, nonce) = key.encrypt(&reduced, &mut rng(6)).unwrap();
    let point = secret.public();
    let statement = Statement { key: &key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
    LogStarProof::attempt(&statement, &plaintext, &nonce, &context(), &mut rng(8))
        .verify(&statement, &context())
}

#[test]
fn a_plaintext_out_of_range_is_refused() {
    let times = |exponent| Integer::from(Natural::power_of_two(exponent));
    assert_eq!(logarithm_proof_with_offset(&Integer::from(Natural::zero())), Ok(()));
    assert_eq!(logarithm_proof_with_offset(&times(1200)), Err(LogStarProofError::Bound));
    assert_eq!(logarithm_proof_with_offset(&times(512)), Err(LogStarProofError::Bound));
    assert_eq!(logarithm_proof_with_offset(&-&times(512)), Err(LogStarProofError::Bound));
    // Within the slack: not the honest plaintext, and harmless, because the mask is made for it.
    assert_eq!(logarithm_proof_with_offset(&-&times(0)), Ok(()));
}

#[test]
fn a_plaintext_of_another_point_is_refused() {
    let key = key(0, default_arithmetic());
    let parameters = parameters(0, default_arithmetic());
    let (secret, other) = (SecretScalar::random(&mut rng(5)), SecretScalar::random(&mut rng(9)));
    let (ciphertext, nonce) = key.encrypt(&secret.to_natural(), &mut rng(6)).unwrap();
    let prove = |point: &Point, plaintext: &SecretScalar| {
        let statement = Statement { key: &key, ciphertext: &ciphertext, point, parameters: &parameters };
        let proof = LogStarProof::attempt(
            &statement,
            &plaintext.to_natural().into(),
            &nonce,
            &context(),
            &mut rng(8),
        );
        assert_eq!(
            LogStarProof::prove(&statement, plaintext, &nonce, &context(), &mut rng(8)).is_ok(),
            point == &plaintext.public()
        );
        proof.verify(&statement, &context())
    };
    assert_eq!(prove(&secret.public(), &secret), Ok(()));
    let (_, foreign_nonce) = key.encrypt(&secret.to_natural(), &mut rng(7)).unwrap();
    let point = secret.public();
    let statement = Statement { key: &key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
    assert!(LogStarProof::prove(&statement, &secret, &foreign_nonce, &context(), &mut rng(8)).is_err());
    assert_eq!(prove(&other.public(), &secret), Err(LogStarProofError::Point));
    assert_eq!(prove(&other.public(), &other), Err(LogStarProofError::Ciphertext));
}

#[test]
fn every_part_of_a_logarithm_proof_counts() {
    let key = key(0, default_arithmetic());
    let parameters = parameters(0, default_arithmetic());
    let secret = SecretScalar::random(&mut rng(5));
    let point = secret.public();
    let (ciphertext, nonce) = key.encrypt(&secret.to_natural(), &mut rng(6)).unwrap();
    let statement = Statement { key: &key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
    let proof = LogStarProof::prove(&statement, &secret, &nonce, &context(), &mut rng(8)).unwrap();
    let refusal = |change: &dyn Fn(&mut LogStarProof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        changed.verify(&statement, &context()).unwrap_err()
    };
    let [safe, ..] = test_fixtures::safe_primes_1024();
    for bad in [Natural::zero(), parameters.modulus().clone(), safe] {
        assert_eq!(refusal(&|proof| proof.commitment.s = bad.clone()), LogStarProofError::CommitmentRange);
        assert_eq!(refusal(&|proof| proof.commitment.d = bad.clone()), LogStarProofError::CommitmentRange);
    }
    let [blum, ..] = test_fixtures::blum_primes_1024();
    for bad in [Natural::zero(), key.modulus().clone(), key.modulus().square(), blum.clone()] {
        assert_eq!(refusal(&|proof| proof.commitment.a = bad.clone()), LogStarProofError::CommitmentRange);
        assert_eq!(refusal(&|proof| proof.z2 = bad.clone()), LogStarProofError::ResponseRange);
    }
    let over = Integer::from(&Natural::power_of_two(512) + &Natural::one());
    assert_eq!(refusal(&|proof| proof.z1 = over.clone()), LogStarProofError::Bound);
    assert_eq!(refusal(&|proof| proof.z1 = -&over), LogStarProofError::Bound);
    let huge = Integer::from(Natural::power_of_two(2048 + 513));
    assert_eq!(refusal(&|proof| proof.z3 = huge.clone()), LogStarProofError::ResponseRange);
    let order = Integer::from(curve::order());
    assert_eq!(refusal(&|proof| proof.z1 = -&proof.z1), LogStarProofError::Point);
    // The same scalar, another integer.
    assert_eq!(refusal(&|proof| proof.z1 = &proof.z1 + &order), LogStarProofError::Commitment);
    assert_eq!(refusal(&|proof| proof.z3 = -&proof.z3), LogStarProofError::Commitment);
    let two = Natural::from(2);
    assert_eq!(
        refusal(&|proof| proof.z2 = key.modulus_arithmetic().mul(&proof.z2, &two)),
        LogStarProofError::Ciphertext
    );
    assert_eq!(refusal(&|proof| proof.commitment.y = point), LogStarProofError::Point);
}

#[test]
fn an_s_outside_the_group_of_t_is_refused() {
    let (made, trapdoor) = test_fixtures::ring_pedersen(0, default_arithmetic(), &mut rng(7));
    // −s is no power of the square t.
    let s = made.modulus().checked_sub(made.s()).unwrap();
    let cheating = Parameters::parse(&RawParameters { s, ..made.to_raw() }, default_arithmetic()).unwrap();
    let proof = ParametersProof::prove(&cheating, &trapdoor, &context(), &mut rng(1));
    assert_eq!(proof.verify(&cheating, &context()), Err(ParametersProofError::Equation));
    // A prover that hopes for the challenge 0…0, under which s never occurs.
    let hoping = ParametersProof { challenge: [0; 16], ..proof };
    assert_eq!(hoping.verify(&cheating, &context()), Err(ParametersProofError::Equation));
}

/// A prover without a witness chooses its answers first and hashes until the challenge is the one
/// they are for. Each try costs it a hash; it has to hit all of 128 bits, and no part of them is
/// worth anything.
#[test]
fn a_challenge_that_is_ground_does_not_come_out_as_hoped() {
    let tries = if std::env::var_os("DUET_ATTACK_LONG").is_some() { 200_000 } else { 3_000 };
    let (made, trapdoor) = test_fixtures::ring_pedersen(0, default_arithmetic(), &mut rng(7));
    let mut rng = rng(16);
    let mut commitments: Vec<_> = (0..128).map(|_| Natural::random_below(&mut rng, made.modulus())).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut best = 0;
    for attempt in 0..tries {
        commitments[attempt % 128] = Natural::random_below(&mut rng, made.modulus());
        let challenge = parameters::challenge(&made, &context(), &commitments);
        best = best.max(challenge.iter().map(|byte| byte.count_zeros()).sum::<u32>());
        assert!(seen.insert(challenge), "a challenge came out twice");
    }
    // 64 and eight standard deviations of 5.7.
    assert!(best < 110, "{best}");
    let proof = ParametersProof::prove(&made, &trapdoor, &context(), &mut rng);
    assert_eq!(proof.verify(&made, &context()), Ok(()));
    eprintln!("evidence: challenges ground = {tries}; bits as hoped at best = {best} of 128");
}

#[test]
fn every_part_of_a_parameter_proof_counts() {
    let (made, trapdoor) = test_fixtures::ring_pedersen(0, default_arithmetic(), &mut rng(7));
    let proof = ParametersProof::prove(&made, &trapdoor, &context(), &mut rng(1));
    assert_eq!(proof.verify(&made, &context()), Ok(()));
    let refusal = |change: &dyn Fn(&mut ParametersProof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        changed.verify(&made, &context()).unwrap_err()
    };
    for at in [0, 64, 127] {
        assert_eq!(
            refusal(&|proof| proof.responses.0[at] = made.modulus().clone()),
            ParametersProofError::ResponseRange
        );
        assert_eq!(refusal(&|proof| proof.responses.0[at] = Natural::zero()), ParametersProofError::Equation);
        assert_eq!(
            refusal(&|proof| proof.responses.0[at] = proof.responses.0[(at + 1) % 128].clone()),
            ParametersProofError::Equation
        );
        assert_eq!(refusal(&|proof| proof.challenge[at / 8] ^= 1), ParametersProofError::Equation);
    }
}

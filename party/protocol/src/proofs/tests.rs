//! Honest proofs across both arithmetics, statements and contexts changed after proving, and
//! provers that cheat.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

use super::{
    factor::FactorProof,
    log_star::{LogStarProof, Statement},
    modulus::ModulusProof,
    parameters::ParametersProof,
    schnorr::SchnorrProof,
};
use crate::{
    arithmetic::{Arithmetic, constant_time, default_arithmetic},
    curve::SecretScalar,
    ids::{Epoch, PaillierKeyId, WalletId},
    paillier::EncryptionKey,
    ring_pedersen::Parameters,
    test_fixtures,
    transcript::{Binding, ProofContext, sha256},
};

pub(super) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Prover's and verifier's arithmetic, in every combination there is.
fn pairs() -> Vec<(&'static dyn Arithmetic, &'static dyn Arithmetic)> {
    let mut pairs = vec![(constant_time(), constant_time())];
    if default_arithmetic().name() != constant_time().name() {
        let (fast, slow) = (default_arithmetic(), constant_time());
        pairs.extend([(fast, fast), (fast, slow), (slow, fast)]);
    }
    pairs
}

pub(super) fn context() -> ProofContext {
    ProofContext {
        prover: "device".parse().unwrap(),
        verifier: Some("service".parse().unwrap()),
        wallet: Some(WalletId([1; 32])),
        epoch: Epoch(0),
        paillier_key: Some(PaillierKeyId([2; 16])),
        binding: Binding::Enrolment([3; 32]),
    }
}

/// The context with each of its fields changed in turn; for one verifier, since hashing is the same
/// code for all.
fn other_contexts(verifier: &dyn Arithmetic) -> Vec<ProofContext> {
    if verifier.name() != default_arithmetic().name() {
        return Vec::new();
    }
    vec![
        ProofContext { prover: "partner".parse().unwrap(), ..context() },
        ProofContext { verifier: Some("partner".parse().unwrap()), ..context() },
        ProofContext { wallet: Some(WalletId([4; 32])), ..context() },
        ProofContext { epoch: Epoch(1), ..context() },
        ProofContext { paillier_key: Some(PaillierKeyId([4; 16])), ..context() },
        ProofContext { binding: Binding::Session([3; 32]), ..context() },
    ]
}

pub(super) fn parameters(which: usize, arithmetic: &'static dyn Arithmetic) -> Parameters {
    test_fixtures::ring_pedersen(which, arithmetic, &mut rng(7)).0
}

pub(super) fn key(which: usize, arithmetic: &'static dyn Arithmetic) -> EncryptionKey {
    test_fixtures::decryption_key(which, arithmetic).encryption_key().clone()
}

/// Sends a proof over the wire.
fn sent<P: serde::Serialize + serde::de::DeserializeOwned>(proof: &P, max_size_bytes: usize) -> P {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(proof, config).unwrap();
    assert!(bytes.len() <= max_size_bytes, "{} bytes, at most {max_size_bytes} expected", bytes.len());
    let (received, read) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert_eq!(read, bytes.len());
    for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(bincode::serde::decode_from_slice::<P, _>(&bytes[..end], config).is_err(), "prefix of {end}");
    }
    received
}

#[test]
fn modulus_proofs_hold_in_their_context_only() {
    for (prover, verifier) in pairs() {
        let secret = test_fixtures::decryption_key(0, prover);
        let proof = ModulusProof::prove(&secret, &context(), &mut rng(1)).unwrap();
        let proof = sent(&proof, super::modulus::MAX_SIZE_BYTES);
        assert_eq!(proof.verify(&key(0, verifier), &context()), Ok(()));
        assert!(proof.verify(&key(1, verifier), &context()).is_err());
        for context in other_contexts(verifier) {
            assert!(proof.verify(&key(0, verifier), &context).is_err(), "{context:?}");
        }
    }
}

#[test]
fn factor_proofs_hold_in_their_context_only() {
    for (prover, verifier) in pairs() {
        let secret = test_fixtures::decryption_key(0, prover);
        let proof = FactorProof::prove(&secret, &parameters(0, prover), &context(), &mut rng(1));
        let proof = sent(&proof, super::factor::MAX_SIZE_BYTES);
        assert_eq!(proof.verify(&key(0, verifier), &parameters(0, verifier), &context()), Ok(()));
        assert!(proof.verify(&key(1, verifier), &parameters(0, verifier), &context()).is_err());
        assert!(proof.verify(&key(0, verifier), &parameters(1, verifier), &context()).is_err());
        for context in other_contexts(verifier) {
            assert!(
                proof.verify(&key(0, verifier), &parameters(0, verifier), &context).is_err(),
                "{context:?}"
            );
        }
    }
}

#[test]
fn logarithm_proofs_hold_in_their_context_only() {
    for (prover, verifier) in pairs() {
        let secret = SecretScalar::random(&mut rng(5));
        let point = secret.public();
        let prover_key = key(0, prover);
        let (ciphertext, nonce) = prover_key.encrypt(&secret.to_natural(), &mut rng(1)).unwrap();
        let prover_parameters = parameters(0, prover);
        let statement = Statement {
            key: &prover_key,
            ciphertext: &ciphertext,
            point: &point,
            parameters: &prover_parameters,
        };
        let proof = LogStarProof::prove(&statement, &secret, &nonce, &context(), &mut rng(1)).unwrap();
        let proof = sent(&proof, super::log_star::MAX_SIZE_BYTES);

        let (verifier_key, verifier_parameters) = (key(0, verifier), parameters(0, verifier));
        let statement = Statement { key: &verifier_key, parameters: &verifier_parameters, ..statement };
        assert_eq!(proof.verify(&statement, &context()), Ok(()));
        let (other_key, other_parameters) = (key(1, verifier), parameters(1, verifier));
        let other_point = SecretScalar::random(&mut rng(6)).public();
        let (other_ciphertext, _) = prover_key.encrypt(&secret.to_natural(), &mut rng(2)).unwrap();
        for changed in [
            Statement { key: &other_key, ..statement },
            Statement { parameters: &other_parameters, ..statement },
            Statement { point: &other_point, ..statement },
            Statement { ciphertext: &other_ciphertext, ..statement },
        ] {
            assert!(proof.verify(&changed, &context()).is_err());
        }
        for context in other_contexts(verifier) {
            assert!(proof.verify(&statement, &context).is_err(), "{context:?}");
        }
    }
}

#[test]
fn parameter_proofs_hold_in_their_context_only() {
    for (prover, verifier) in pairs() {
        let (made, trapdoor) = test_fixtures::ring_pedersen(0, prover, &mut rng(7));
        let proof = ParametersProof::prove(&made, &trapdoor, &context(), &mut rng(1));
        let proof = sent(&proof, super::parameters::MAX_SIZE_BYTES);
        let received = Parameters::parse(&made.to_raw(), verifier).unwrap();
        assert_eq!(proof.verify(&received, &context()), Ok(()));
        assert!(proof.verify(&parameters(1, verifier), &context()).is_err());
        for context in other_contexts(verifier) {
            assert!(proof.verify(&received, &context).is_err(), "{context:?}");
        }
    }
}

#[test]
fn schnorr_proofs_hold_in_their_context_only() {
    let secret = SecretScalar::random(&mut rng(5));
    let proof = SchnorrProof::prove(&secret, &context(), &mut rng(1));
    let proof = sent(&proof, super::schnorr::SIZE_BYTES);
    assert!(proof.verify(&secret.public(), &context()).is_ok());
    assert!(proof.verify(&SecretScalar::random(&mut rng(6)).public(), &context()).is_err());
    for context in other_contexts(default_arithmetic()) {
        assert!(proof.verify(&secret.public(), &context).is_err(), "{context:?}");
    }
}

#[test]
fn a_repeating_generator_does_not_repeat_schnorr_nonces() {
    let secret = SecretScalar::random(&mut rng(5));
    let prove = |context: &ProofContext| SchnorrProof::prove(&secret, context, &mut rng(1));
    let first = serde_json::to_value(prove(&context())).unwrap();
    for context in other_contexts(default_arithmetic()) {
        let second = serde_json::to_value(prove(&context)).unwrap();
        assert_ne!(first["commitment"], second["commitment"], "{context:?}");
    }
}

/// One mask under two challenges is the witness: `z = α + e·x`.
#[test]
fn a_repeating_generator_repeats_in_no_other_statement() {
    let arithmetic = default_arithmetic();
    let (parameters, trapdoor) = test_fixtures::ring_pedersen(0, arithmetic, &mut rng(7));
    let secret_key = test_fixtures::decryption_key(0, arithmetic);
    let key = secret_key.encryption_key();
    let secret = SecretScalar::random(&mut rng(5));
    let point = secret.public();
    let (ciphertext, nonce) = key.encrypt(&secret.to_natural(), &mut rng(1)).unwrap();
    let statement = Statement { key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
    let prove = |context: &ProofContext| {
        let log_star = LogStarProof::prove(&statement, &secret, &nonce, context, &mut rng(1)).unwrap();
        let factor = FactorProof::prove(&secret_key, &parameters, context, &mut rng(1));
        let modulus = ModulusProof::prove(&secret_key, context, &mut rng(1)).unwrap();
        let made = ParametersProof::prove(&parameters, &trapdoor, context, &mut rng(1));
        let [log_star, factor, modulus, made] = [json(&log_star), json(&factor), json(&modulus), json(&made)];
        // What is drawn first shows in these. Πprm sends no commitments; an equal nonce shows as an
        // equal response wherever two challenges agree, which is every other round.
        let responses = made["responses"].as_array().unwrap().clone();
        ([log_star["commitment"].clone(), factor["commitment"].clone(), modulus["w"].clone()], responses)
    };
    let (first, first_responses) = prove(&context());
    for context in other_contexts(arithmetic).into_iter().take(2) {
        let (second, second_responses) = prove(&context);
        for (proof, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_ne!(first, second, "proof {proof} in {context:?}");
        }
        assert!(first_responses.iter().zip(&second_responses).all(|(a, b)| a != b), "{context:?}");
    }
}

fn json(proof: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(proof).unwrap()
}

/// The encodings, as they are stored and sent: a change of a byte is a change of the protocol, or
/// of how random numbers are drawn.
#[test]
fn encodings_are_pinned_and_the_same_for_both_arithmetics() {
    let config = bincode::config::standard();
    for (arithmetic, _) in pairs() {
        let hash =
            |bytes: Result<Vec<u8>, bincode::error::EncodeError>| hex::encode(&sha256(&bytes.unwrap())[..8]);
        let (parameters, trapdoor) = test_fixtures::ring_pedersen(0, arithmetic, &mut rng(7));
        let secret_key = test_fixtures::decryption_key(0, arithmetic);
        let key = secret_key.encryption_key();
        let secret = SecretScalar::random(&mut rng(5));
        let point = secret.public();
        let (ciphertext, nonce) = key.encrypt(&secret.to_natural(), &mut rng(1)).unwrap();
        let statement = Statement { key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
        let log_star = LogStarProof::prove(&statement, &secret, &nonce, &context(), &mut rng(1)).unwrap();
        let factor = FactorProof::prove(&secret_key, &parameters, &context(), &mut rng(1));
        let made = ParametersProof::prove(&parameters, &trapdoor, &context(), &mut rng(1));
        let schnorr = SchnorrProof::prove(&secret, &context(), &mut rng(1));
        let found = [
            hash(bincode::serde::encode_to_vec(&schnorr, config)),
            hash(bincode::serde::encode_to_vec(&log_star, config)),
            hash(bincode::serde::encode_to_vec(&factor, config)),
            hash(bincode::serde::encode_to_vec(&made, config)),
        ];
        let pinned = ["0c209f1d2a52435a", "d91362e6a6a70d83", "586337c7d6ae50bd", "ab474660cf2007d9"];
        assert_eq!(found, pinned, "{}", arithmetic.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_changed_byte_is_refused_without_panic(at: prop::sample::Index, change in 1_u8..) {
        let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
        let verifier = default_arithmetic();
        let (key, parameters) = (key(0, verifier), parameters(0, verifier));
        let secret = SecretScalar::random(&mut rng(5));
        let point = secret.public();
        let (ciphertext, nonce) = key.encrypt(&secret.to_natural(), &mut rng(1)).unwrap();
        let statement =
            Statement { key: &key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
        let proof = LogStarProof::prove(&statement, &secret, &nonce, &context(), &mut rng(1)).unwrap();
        let mut bytes = bincode::serde::encode_to_vec(&proof, config).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok((changed, read)) = bincode::serde::decode_from_slice::<LogStarProof, _>(&bytes, config) {
            prop_assert!(read != bytes.len() || changed.verify(&statement, &context()).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_proof_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6_000)) {
        let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
        let verifier = default_arithmetic();
        let (key, parameters) = (key(0, verifier), parameters(0, verifier));
        if let Ok((proof, _)) = bincode::serde::decode_from_slice::<FactorProof, _>(&bytes, config) {
            prop_assert!(proof.verify(&key, &parameters, &context()).is_err());
        }
        if let Ok((proof, _)) = bincode::serde::decode_from_slice::<ModulusProof, _>(&bytes, config) {
            prop_assert!(proof.verify(&key, &context()).is_err());
        }
        if let Ok((proof, _)) = bincode::serde::decode_from_slice::<ParametersProof, _>(&bytes, config) {
            prop_assert!(proof.verify(&parameters, &context()).is_err());
        }
        if let Ok((proof, _)) = bincode::serde::decode_from_slice::<SchnorrProof, _>(&bytes, config) {
            prop_assert!(proof.verify(&crate::curve::Point::generator(), &context()).is_err());
        }
    }
}

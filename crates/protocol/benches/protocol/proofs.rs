//! Every proof: proving and verifying.

use criterion::Criterion;
use duet_adversary::test_fixtures;
use duet_protocol::{
    curve::SecretScalar,
    ids::{Epoch, PaillierKeyId, WalletId},
    proofs::{
        factor::FactorProof,
        log_star::{LogStarProof, Statement},
        modulus::ModulusProof,
        parameters::ParametersProof,
        schnorr::SchnorrProof,
    },
    transcript::{Binding, ProofContext},
};

use crate::{arithmetics, group, rng};

pub(crate) fn benches(criterion: &mut Criterion) {
    let context = ProofContext {
        prover: "device".parse().unwrap(),
        verifier: Some("service".parse().unwrap()),
        wallet: Some(WalletId([1; 32])),
        epoch: Epoch(0),
        paillier_key: Some(PaillierKeyId([2; 16])),
        binding: Binding::Enrolment([3; 32]),
    };
    for (name, arithmetic) in arithmetics() {
        let secret_key = test_fixtures::decryption_key(0, arithmetic);
        let key = secret_key.encryption_key();
        let mut rng = rng();
        let (parameters, trapdoor) = test_fixtures::ring_pedersen(0, arithmetic, &mut rng);
        let mut group = group(criterion, name, "proof");

        let proof = ModulusProof::prove(&secret_key, &context, &mut rng).unwrap();
        group.bench_function("modulus.prove", |b| {
            b.iter(|| ModulusProof::prove(&secret_key, &context, &mut rng));
        });
        group.bench_function("modulus.verify", |b| b.iter(|| proof.verify(key, &context).unwrap()));

        let proof = FactorProof::prove(&secret_key, &parameters, &context, &mut rng);
        group.bench_function("factor.prove", |b| {
            b.iter(|| FactorProof::prove(&secret_key, &parameters, &context, &mut rng));
        });
        group.bench_function("factor.verify", |b| {
            b.iter(|| proof.verify(key, &parameters, &context).unwrap())
        });

        let share = SecretScalar::random(&mut rng);
        let point = share.public();
        let (ciphertext, nonce) = key.encrypt(&share.to_natural(), &mut rng).unwrap();
        let statement = Statement { key, ciphertext: &ciphertext, point: &point, parameters: &parameters };
        let proof = LogStarProof::prove(&statement, &share, &nonce, &context, &mut rng).unwrap();
        group.bench_function("log-star.prove", |b| {
            b.iter(|| LogStarProof::prove(&statement, &share, &nonce, &context, &mut rng));
        });
        group.bench_function("log-star.verify", |b| b.iter(|| proof.verify(&statement, &context).unwrap()));

        let proof = ParametersProof::prove(&parameters, &trapdoor, &context, &mut rng);
        group.bench_function("parameters.prove", |b| {
            b.iter(|| ParametersProof::prove(&parameters, &trapdoor, &context, &mut rng));
        });
        group.bench_function("parameters.verify", |b| {
            b.iter(|| proof.verify(&parameters, &context).unwrap());
        });

        let proof = SchnorrProof::prove(&share, &context, &mut rng);
        group.bench_function("schnorr.prove", |b| b.iter(|| SchnorrProof::prove(&share, &context, &mut rng)));
        group.bench_function("schnorr.verify", |b| b.iter(|| proof.verify(&point, &context).unwrap()));
        group.finish();
    }
}

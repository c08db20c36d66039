//! Every pair, role and path signs; every signature is what Ethereum takes.
#![cfg(feature = "gmp")]
#![allow(
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    non_snake_case,
    reason = "tests, with the names of end-to-end tests"
)]

mod support;

use duet_protocol::{
    arithmetic::{Arithmetic, constant_time, gmp},
    signature::verify,
};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};
use support::{Job, PAIRS, Wallet, World};

const PATHS: [&str; 4] = ["m", "m/0", "m/44/60/0/0/7", "m/2147483647"];

/// Signs and checks with k256 directly: library verifier, low s, exact recovery id.
fn sign_and_check(world: &mut World, wallet: &Wallet, pair: support::Pair, path: &str) {
    let job = Job::random(&mut world.rng, path);
    let signature = wallet.sign(world, pair, &job);
    let public = wallet.service.wallet();
    let (child, _) = public.public_key().child(public.chain_code(), &job.path).unwrap();
    verify(&child, &job.digest, &signature).unwrap();

    let plain = Signature::from_scalars(*signature.r(), *signature.s()).unwrap();
    assert_eq!(plain, plain.normalize_s(), "low s");
    let key = VerifyingKey::from_sec1_bytes(&child.to_bytes()).unwrap();
    key.verify_prehash(&job.digest, &plain).unwrap();
    let id = RecoveryId::new(signature.y_parity(), false);
    assert_eq!(VerifyingKey::recover_from_prehash(&job.digest, &plain, id).unwrap(), key);
}

fn every_pair_and_path(arithmetic: &'static dyn Arithmetic, rounds: usize) {
    let mut world = World::new(arithmetic, 1);
    let wallet = world.wallet(None);
    for round in 0..rounds {
        for pair in PAIRS {
            sign_and_check(&mut world, &wallet, pair, PATHS[round % PATHS.len()]);
        }
    }
}

#[test]
fn hundreds_of_random_signatures_of_every_pair_with_gmp() {
    every_pair_and_path(gmp(), 200);
}

#[test]
fn every_pair_signs_in_constant_time() {
    every_pair_and_path(constant_time(), 4);
}

//! A published signature, byte for byte: the example of EIP-155, with its private key split.

use duet_adversary::{
    initiator::start_with_nonce,
    responder::accept_with_nonce,
    world::{Job, PAIRS, World, good},
};
use duet_protocol::{
    arithmetic::{Arithmetic, constant_time, default_arithmetic},
    curve::{Scalar, SecretScalar, scalar_from_bytes},
};

fn word(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

const PRIVATE_KEY: &str = "4646464646464646464646464646464646464646464646464646464646464646";
const DIGEST: &str = "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53";
const R: &str = "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276";
const S: &str = "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83";
/// `v = 37 = 35 + 2·1 + parity`.
const Y_PARITY: bool = false;

fn reproduce(arithmetic: &'static dyn Arithmetic) {
    let mut world = World::new(arithmetic, 51);
    let wallet = world.wallet(Some(SecretScalar::from_bytes(&word(PRIVATE_KEY)).unwrap()));
    assert_eq!(hex::encode(wallet.service.wallet().address()), "9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f");
    // The nonce that RFC 6979 derived, from the signature itself: k = s⁻¹·(m + r·x).
    let scalar = |text| scalar_from_bytes(&word(text)).unwrap();
    let k = scalar(S).invert().unwrap() * (scalar(DIGEST) + scalar(R) * scalar(PRIVATE_KEY));
    for pair in PAIRS {
        let mut job = Job::random(&mut world.rng, "m");
        job.digest = word(DIGEST);
        let k1 = SecretScalar::random(&mut world.rng);
        let k2: Scalar = k * k1.as_scalar().invert().unwrap();
        let k2 = SecretScalar::new(k2).unwrap();
        let setup = wallet.initiator(&world, pair, &job);
        let (initiator, one) = start_with_nonce(setup, k1, &mut world.rng).unwrap();
        let setup = wallet.responder(&world, pair, &job);
        let (responder, two) = accept_with_nonce(setup, &one, k2, &mut world.rng).unwrap();
        let (initiator, three) = initiator.receive(&two, &mut world.rng).unwrap();
        let ready = responder.receive(&three).unwrap();
        let (four, _) = ready.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
        let (signature, _) = good(initiator.receive(&four, &mut world.rng).unwrap(), &job);
        assert_eq!(hex::encode(signature.r()), R);
        assert_eq!(hex::encode(signature.s()), S);
        assert_eq!(signature.y_parity(), Y_PARITY);
    }
}

#[test]
fn the_signature_of_eip_155__should_come_out_byte_for_byte() {
    reproduce(default_arithmetic());
}

#[test]
fn the_signature_of_eip_155__should_come_out_in_constant_time_as_well() {
    reproduce(constant_time());
}

//! Every pair, role and path signs, before and after a rotation; every signature is what Ethereum
//! takes.

use std::sync::Arc;

use duet_adversary::{
    dealing::deal_chosen,
    responder::respond_with,
    test_fixtures,
    world::{Job, PAIRS, Pair, Wallet, World, bad, good, party},
};
use duet_protocol::{
    arithmetic::{Arithmetic, constant_time, gmp},
    enrolment::{EnrolmentOffer, EnrolmentRefusal, ModulusProofs, OfferSetup, OfferVerifier},
    ids::ShareIndex,
    initiator::Initiator,
    natural::Natural,
    paillier::{DecryptionKey, ModulusSize},
    paillier_key::PaillierKey,
    responder::Responder,
    session::{Round, SessionError},
    signature::verify,
};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};

const PATHS: [&str; 4] = ["m", "m/0", "m/44/60/0/0/7", "m/2147483647"];

/// Signs and checks with k256 directly: library verifier, low s, exact recovery id.
fn sign_and_check(world: &mut World, wallet: &Wallet, pair: Pair, path: &str) {
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

fn many(arithmetic: &'static dyn Arithmetic, pair: Pair, count: usize) {
    let mut world = World::new(arithmetic, 1);
    let wallet = world.wallet(None);
    for round in 0..count {
        sign_and_check(&mut world, &wallet, pair, PATHS[round % PATHS.len()]);
    }
}

/// Enough for every path and for what happens once in a hundred signatures: leading zeros, either
/// parity, a high s.
const MANY: usize = 240;

#[test]
fn device_and_service__should_sign_hundreds_of_times() {
    many(gmp(), Pair::DeviceService, MANY);
}

#[test]
fn device_and_partner__should_sign_hundreds_of_times() {
    many(gmp(), Pair::DevicePartner, MANY);
}

#[test]
fn service_and_partner__should_sign_hundreds_of_times() {
    many(gmp(), Pair::ServicePartner, MANY);
}

#[test]
fn every_pair__should_sign_in_constant_time() {
    let mut world = World::new(constant_time(), 1);
    let wallet = world.wallet(None);
    for pair in PAIRS {
        for path in ["m", "m/44/60/0/0/7"] {
            sign_and_check(&mut world, &wallet, pair, path);
        }
    }
}

#[test]
fn extreme_digests__should_sign_like_any_other() {
    let mut world = World::new(gmp(), 2);
    let wallet = world.wallet(None);
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for digest in ["00".repeat(32), "ff".repeat(32), order.to_owned(), format!("{:064x}", 1)] {
        let mut job = Job::random(&mut world.rng, "m");
        job.digest = hex::decode(digest).unwrap().try_into().unwrap();
        let signature = wallet.sign(&mut world, Pair::ServicePartner, &job);
        verify(wallet.service.wallet().public_key(), &job.digest, &signature).unwrap();
    }
}

/// The two implementations talk to each other: each side computes with its own.
#[test]
fn gmp_and_constant_time__should_sign_together() {
    let mut world = World::new(gmp(), 3);
    let wallet = world.wallet(None);
    let pair = Pair::DeviceService;
    let job = Job::random(&mut world.rng, "m/1");
    let bytes = wallet.enrolment(pair).to_bytes().unwrap();
    let mut setup = wallet.responder(&world, pair, &job);
    setup.enrolment = Arc::new(
        duet_protocol::enrolment::VerifiedEnrolment::from_trusted_bytes(&bytes, constant_time()).unwrap(),
    );
    let (first, one) = Initiator::start(wallet.initiator(&world, pair, &job), &mut world.rng).unwrap();
    let (second, two) = Responder::accept(setup, &one, &mut world.rng).unwrap();
    let (first, three) = first.receive(&two, &mut world.rng).unwrap();
    let ready = second.receive(&three).unwrap();
    let (four, _) = ready.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
    good(first.receive(&four, &mut world.rng).unwrap(), &job);
}

/// Makes the service's second key and enrols it with the partner.
fn rotate_service(world: &mut World, wallet: &mut Wallet, generation: u64) {
    let key = test_fixtures::decryption_key(0, world.arithmetic);
    wallet.service_paillier = Arc::new(PaillierKey::new(party("service"), key));
    wallet.enrol_service_with_partner(world, generation);
}

#[test]
fn a_rotation__should_replace_the_key_and_unlock_after_a_bad_signature() {
    let mut world = World::new(gmp(), 4);
    let mut wallet = world.wallet(None);
    let pair = Pair::ServicePartner;
    sign_and_check(&mut world, &wallet, pair, "m");
    let job = Job::random(&mut world.rng, "m");
    let (first, second, _) = wallet.run_to_answer(&mut world, pair, &job);
    let (four, _) = respond_with(second, &Natural::from(2)).unwrap();
    assert_eq!(bad(first.receive(&four, &mut world.rng).unwrap(), &job), party("partner"));

    let old_offer = wallet.service_offer(&mut world, 2);
    let old_key = wallet.service_paillier.clone();
    let old_enrolment = wallet.enrolment(pair);
    rotate_service(&mut world, &mut wallet, 3);
    assert_ne!(wallet.enrolment(pair).paillier_key(), old_enrolment.paillier_key());
    sign_and_check(&mut world, &wallet, pair, "m");
    sign_and_check(&mut world, &wallet, pair, "m/7");

    // Who still uses the old key on either side has no channel; nothing is locked by that.
    let job = Job::random(&mut world.rng, "m");
    let mut stale = wallet.initiator(&world, pair, &job);
    stale.paillier = old_key;
    let (_, one) = Initiator::start(stale, &mut world.rng).unwrap();
    let refused = Responder::accept(wallet.responder(&world, pair, &job), &one, &mut world.rng);
    assert_eq!(refused.unwrap_err(), SessionError::NotAuthentic(Round::Commitment));
    // And a replay of its offer does not bring the old key back.
    let replayed = wallet.partner_verifier(&world).verify(&old_offer);
    assert_eq!(replayed.unwrap_err(), EnrolmentRefusal::Stale);
}

#[test]
fn a_devices_rotation__should_serve_both_its_responders() {
    let mut world = World::new(gmp(), 5);
    let mut wallet = world.wallet(None);
    let new_key = test_fixtures::decryption_key(1, world.arithmetic);
    let new_key = Arc::new(PaillierKey::new(party("device"), new_key));
    for (index, responder) in
        [(ShareIndex::Service, world.service_card.clone()), (ShareIndex::Partner, world.partner_card.clone())]
    {
        let card = wallet.device.card().clone();
        let proofs = ModulusProofs::prove(&new_key, &card, &responder, &mut world.rng).unwrap();
        let setup = OfferSetup {
            share: wallet.device.share(),
            paillier: &new_key,
            keys: wallet.device.keys(),
            card: &card,
            responder: &responder,
            responder_index: index,
            generation: 2,
        };
        let offer = EnrolmentOffer::make(&setup, Some(proofs), &mut world.rng).unwrap();
        let verifier = OfferVerifier {
            wallet: wallet.device.share().wallet(),
            index,
            card: responder.card(),
            initiator: &card,
            modulus: None,
            newest_generation: Some(1),
            arithmetic: world.arithmetic,
        };
        let (enrolment, _) = verifier.verify(&offer).unwrap();
        match index {
            ShareIndex::Service => wallet.from_device_to_service = Arc::new(enrolment),
            _ => wallet.from_device_to_partner = Arc::new(enrolment),
        }
    }
    wallet.device = wallet.device.with_paillier(new_key);
    for pair in PAIRS {
        sign_and_check(&mut world, &wallet, pair, "m/0");
    }
}

#[test]
fn a_device_with_a_3072_bit_key__should_sign_with_both_responders() {
    let mut world = World::new(gmp(), 6);
    let [p, q] = test_fixtures::blum_primes_1536();
    let key = DecryptionKey::from_primes(&p, &q, world.arithmetic).unwrap();
    let mut setup = world.dealer_setup();
    setup.modulus = ModulusSize::Bits3072;
    let dealt = deal_chosen(&setup, None, Some(key), &mut world.rng).unwrap();
    let wallet = world.complete(dealt.pending);
    for pair in PAIRS {
        sign_and_check(&mut world, &wallet, pair, "m/3");
    }
}

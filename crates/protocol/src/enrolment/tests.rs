//! Offers in which just one thing is wrong: each is refused by the name of that thing.

use std::sync::LazyLock;

use super::*;
use crate::{
    arithmetic::default_arithmetic,
    curve::SecretScalar,
    test_fixtures,
    world::{Wallet, World},
};

/// One for all tests that leave it as it is: it takes seconds to make.
static SHARED: LazyLock<Case> = LazyLock::new(Case::new);

struct Case {
    world: World,
    wallet: Wallet,
    honest: EnrolmentOffer,
}

impl Case {
    fn new() -> Self {
        let mut world = World::new(default_arithmetic(), 11);
        let wallet = world.wallet(None);
        let honest = wallet.service_offer(&mut world, 2);
        Self { world, wallet, honest }
    }

    fn verify(&self, offer: &EnrolmentOffer) -> Result<(VerifiedEnrolment, ModulusCheck), EnrolmentRefusal> {
        self.wallet.partner_verifier(&self.world).verify(offer)
    }

    /// The name of the check that refuses the changed offer, signed again by the cheating
    /// initiator.
    fn refusal(&self, change: impl FnOnce(&mut Offer)) -> &'static str {
        let mut offer = self.honest.offer.clone();
        change(&mut offer);
        let signature = self.world.service.keys.sign_statement(&offer);
        self.verify(&EnrolmentOffer { offer, signature }).unwrap_err().check()
    }
}

#[test]
fn what_the_offer_is_for_is_checked() {
    let case = &*SHARED;
    case.verify(&case.honest).unwrap();
    assert_eq!(case.refusal(|o| o.wallet = WalletId([1; 32])), "enrolment-wallet");
    assert_eq!(case.refusal(|o| o.epoch = Epoch(1)), "enrolment-epoch");
    assert_eq!(case.refusal(|o| o.responder_index = ShareIndex::Service), "enrolment-roles");
    assert_eq!(case.refusal(|o| o.initiator_index = ShareIndex::Partner), "enrolment-roles");
    assert_eq!(case.refusal(|o| o.initiator_index = ShareIndex::Device), "enrolment-card");
    assert_eq!(case.refusal(|o| o.generation = 1), "enrolment-stale");
    // Another generation is another binding of the proof.
    assert_eq!(case.refusal(|o| o.generation = 3), "encrypted-share-proof");
    let mut unsigned = case.honest.clone();
    unsigned.offer.generation = 3;
    assert_eq!(case.verify(&unsigned).unwrap_err(), EnrolmentRefusal::Signature);
}

#[test]
fn modulus_and_ciphertext_are_checked() {
    let case = &*SHARED;
    let n = case.honest.offer.modulus.clone();
    assert_eq!(case.refusal(|o| o.modulus = n.shr(1)), "paillier-modulus");
    assert_eq!(case.refusal(|o| o.modulus = n.shl(1)), "paillier-modulus");
    assert_eq!(case.refusal(|o| o.modulus = n.minus_one()), "paillier-modulus");
    // Another party's good modulus, with proofs about the own one.
    let foreign = test_fixtures::decryption_key(0, case.world.arithmetic);
    let other = foreign.encryption_key().modulus().clone();
    assert_eq!(case.refusal(|o| o.modulus = other.clone()), "modulus-proof");
    assert_eq!(case.refusal(|o| o.modulus_proofs = None), "paillier-modulus-unknown");
    for bad in [Natural::zero(), n.clone(), n.square(), &n.square() + &Natural::one(), n.shl(3)] {
        assert_eq!(case.refusal(|o| o.ciphertext = bad), "encrypted-share");
    }
    assert_eq!(case.refusal(|o| o.ciphertext = Natural::one()), "encrypted-share-proof");
}

/// The oracle that signing would be without its lock, played on a party that verifies enrolments:
/// ciphertexts that are right for one bit of a share and wrong for the other. The verifier decrypts
/// none of them, so it refuses right and wrong ones in the same words.
#[test]
fn crafted_ciphertexts_are_refused_alike_whatever_is_in_them() {
    let case = &*SHARED;
    let long = std::env::var_os("DUET_ATTACK_LONG").is_some();
    let (_, check) = case.verify(&case.honest).unwrap();
    let verifier = OfferVerifier { modulus: Some(check), ..case.wallet.partner_verifier(&case.world) };
    let enrolment = case.wallet.enrolment(crate::world::Pair::ServicePartner);
    let key = enrolment.encryption_key();
    let squared = key.squared_arithmetic();
    let share = case.wallet.service.secret().to_natural();
    let crafted = if long { 256 } else { 16 };
    let mut right = 0;
    let mut answers = std::collections::BTreeSet::new();
    for bit in 0..crafted {
        // Enc((x − guess)·2^-(bit + 1)), the guess being right in all bits but perhaps this one.
        let power = Natural::power_of_two(bit + 1);
        let (_, low) = share.div_rem(&power).unwrap();
        let guess = if bit % 2 == 0 { low.clone() } else { &low + &Natural::one() };
        right += u32::from(guess == low);
        let minus_guess = key.modulus().checked_sub(&guess).unwrap();
        let shift = squared.reduce(&(&Natural::one() + &(&minus_guess * key.modulus())));
        let difference = squared.mul(enrolment.ciphertext().as_natural(), &shift);
        let inverse = key.modulus_arithmetic().invert(&power).unwrap();
        let mut offer = case.honest.offer.clone();
        offer.ciphertext = squared.pow(&difference, &inverse);
        let signature = case.world.service.keys.sign_statement(&offer);
        let refusal = verifier.verify(&EnrolmentOffer { offer, signature }).unwrap_err();
        answers.insert((refusal.check(), refusal.to_string()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    case.verify(&case.honest).unwrap();
    eprintln!(
        "evidence: crafted ciphertexts = {crafted}; right guesses among them = {right}; different answers = {}",
        answers.len()
    );
}

#[test]
fn proofs_hold_for_this_wallet_these_cards_and_this_key_only() {
    let mut case = Case::new();
    // Another wallet's proof of its own share, under the same key and cards.
    let other = case.world.wallet(None);
    let others = other.service_offer(&mut case.world, 2);
    assert_eq!(case.refusal(|o| o.range_proof = others.offer.range_proof.clone()), "encrypted-share-proof");
    assert_eq!(
        case.refusal(|o| {
            o.range_proof = others.offer.range_proof.clone();
            o.ciphertext = others.offer.ciphertext.clone();
        }),
        "encrypted-share-proof"
    );
    // Proofs about the modulus serve all wallets of one prover and verifier.
    let shared = others.offer.modulus_proofs.clone();
    let mut offer = case.honest.offer.clone();
    offer.modulus_proofs = shared;
    let signature = case.world.service.keys.sign_statement(&offer);
    case.verify(&EnrolmentOffer { offer, signature }).unwrap();
    // The device's, to the same verifier, do not serve the service.
    let device = &case.wallet.device;
    let devices =
        ModulusProofs::prove(device.paillier(), device.card(), &case.world.partner_card, &mut case.world.rng)
            .unwrap();
    assert_eq!(case.refusal(|o| o.modulus_proofs = Some(devices)), "modulus-proof");
    // Each of the two proofs on its own.
    let to_service = ModulusProofs::prove(
        &case.wallet.service_paillier,
        &case.world.service.card,
        &case.world.service_card,
        &mut case.world.rng,
    )
    .unwrap();
    let mut mixed = case.honest.offer.modulus_proofs.clone().unwrap();
    mixed.factor = to_service.factor.clone();
    assert_eq!(case.refusal(|o| o.modulus_proofs = Some(mixed)), "factor-proof");
}

#[test]
fn a_check_of_the_modulus_saves_the_proofs_and_serves_no_other_verifier() {
    let case = &*SHARED;
    let (_, check) = case.verify(&case.honest).unwrap();
    let mut offer = case.honest.offer.clone();
    offer.modulus_proofs = None;
    let signature = case.world.service.keys.sign_statement(&offer);
    let short = EnrolmentOffer { offer, signature };
    assert_eq!(check.modulus_fingerprint(), &short.modulus_fingerprint());
    let mut verifier = case.wallet.partner_verifier(&case.world);
    verifier.modulus = Some(check);
    verifier.verify(&short).unwrap();
    verifier.modulus = Some(ModulusCheck { verifier: CardFingerprint([0; 32]), ..check });
    assert_eq!(verifier.verify(&short).unwrap_err(), EnrolmentRefusal::ModulusUnknown);
    verifier.modulus = Some(ModulusCheck { modulus: [0; 32], ..check });
    assert_eq!(verifier.verify(&short).unwrap_err(), EnrolmentRefusal::ModulusUnknown);
}

#[test]
fn a_verified_enrolment_survives_storage() {
    let case = &*SHARED;
    let (enrolment, _) = case.verify(&case.honest).unwrap();
    let bytes = enrolment.to_bytes().unwrap();
    let again = VerifiedEnrolment::from_trusted_bytes(&bytes, case.world.arithmetic).unwrap();
    assert_eq!(again.to_bytes().unwrap(), bytes);
    assert_eq!(again.paillier_key(), enrolment.paillier_key());
    assert!(VerifiedEnrolment::from_trusted_bytes(&bytes[..bytes.len() - 1], case.world.arithmetic).is_err());
}

#[test]
fn an_initiator_cannot_make_an_offer_for_what_is_not_its_own() {
    let mut case = Case::new();
    let World { service, partner, service_card, partner_card, rng, .. } = &mut case.world;
    let honest = OfferSetup {
        share: &case.wallet.service,
        paillier: &case.wallet.service_paillier,
        keys: &service.keys,
        card: &service.card,
        responder: partner_card,
        responder_index: ShareIndex::Partner,
        generation: 9,
    };
    let mut refused = |setup: OfferSetup<'_>| EnrolmentOffer::make(&setup, None, rng).unwrap_err();
    assert_eq!(refused(OfferSetup { responder_index: ShareIndex::Service, ..honest }), OfferError::Roles);
    assert_eq!(refused(OfferSetup { responder: service_card, ..honest }), OfferError::Card);
    assert_eq!(refused(OfferSetup { card: &partner.card, ..honest }), OfferError::Card);
    assert_eq!(refused(OfferSetup { keys: &partner.keys, ..honest }), OfferError::Card);
    let devices = case.wallet.device.paillier();
    assert_eq!(refused(OfferSetup { paillier: devices, ..honest }), OfferError::PaillierKey);
    // A secret that is not the share does not even make a KeyShare.
    let wrong = SecretScalar::random(&mut case.world.rng);
    assert!(KeyShare::new(case.wallet.service.wallet().clone(), ShareIndex::Service, wrong).is_err());
}

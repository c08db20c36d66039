//! Cards: signed, pinned, with parameters that are proved.

#![allow(
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    non_snake_case,
    reason = "tests, with the names of end-to-end tests"
)]

mod support;

use std::sync::Arc;

use duet_protocol::{
    arithmetic::default_arithmetic,
    card::{Card, CardRefusal, VerifiedCard},
    codec,
    identity::PartyKeys,
    ids::CardFingerprint,
    ring_pedersen::Parameters,
    test_fixtures,
};
use support::{World, party, rng};

#[test]
fn a_card__should_survive_the_wire_and_no_changed_byte() {
    let world = World::new(default_arithmetic(), 61);
    for card in
        [&world.service.card, &Arc::new(Card::new(party("device"), &PartyKeys::generate(&mut rng(1))))]
    {
        let bytes = codec::encode(&**card).unwrap();
        let again: Card = codec::decode(&bytes).unwrap();
        assert_eq!(again.fingerprint(), card.fingerprint());
        for at in (2..bytes.len()).step_by(bytes.len() / 60 + 1) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(codec::decode::<Card>(&changed).is_err(), "byte {at} of {}", bytes.len());
        }
    }
}

#[test]
fn a_card__should_be_the_pinned_one_with_proved_parameters() {
    let arithmetic = default_arithmetic();
    let mut world = World::new(arithmetic, 62);
    let card = world.service.card.clone();
    let other = world.partner.card.fingerprint();
    assert_eq!(
        VerifiedCard::verify(card.clone(), &other, arithmetic).unwrap_err(),
        CardRefusal::Fingerprint { found: card.fingerprint(), pinned: other }
    );
    let keys = PartyKeys::generate(&mut world.rng);
    let device = Arc::new(Card::new(party("device"), &keys));
    let refused = |card: &Arc<Card>| VerifiedCard::verify(card.clone(), &card.fingerprint(), arithmetic);
    assert_eq!(refused(&device).unwrap_err(), CardRefusal::NoParameters);

    // s is no power of t that the maker knows: the proof is about other parameters.
    let (honest, trapdoor) = test_fixtures::ring_pedersen(0, arithmetic, &mut world.rng);
    let mut raw = honest.to_raw();
    std::mem::swap(&mut raw.s, &mut raw.t);
    let swapped = Parameters::parse(&raw, arithmetic).unwrap();
    let liar = Arc::new(Card::new_verifier(party("service"), &keys, &swapped, &trapdoor, &mut world.rng));
    assert_eq!(refused(&liar).unwrap_err(), CardRefusal::Parameters);

    // A verdict saves the proof, for that very card only.
    let verdict = world.service_card.verdict();
    let again = VerifiedCard::with_verdict(card.clone(), &card.fingerprint(), &verdict, arithmetic).unwrap();
    assert_eq!(again.parameters(), world.service_card.parameters());
    let of_another = world.partner_card.verdict();
    assert_eq!(
        VerifiedCard::with_verdict(card.clone(), &card.fingerprint(), &of_another, arithmetic).unwrap_err(),
        CardRefusal::Parameters
    );
    let pinned = CardFingerprint([0; 32]);
    assert!(VerifiedCard::with_verdict(card, &pinned, &verdict, arithmetic).is_err());
}

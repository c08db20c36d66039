//! Cards: signed, pinned, with parameters that are proved; and a device's card replaced by its
//! owner.

use std::sync::Arc;

use duet_adversary::{
    test_fixtures::{self, rng},
    world::{World, party},
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::{Card, CardRefusal, VerifiedCard},
    card_update::{CardUpdateRefusal, DeviceCardUpdate},
    codec,
    identity::PartyKeys,
    ids::{CardFingerprint, WalletId},
    ring_pedersen::Parameters,
    share::Requester,
};

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

    // A check saves the proof, for that very card only.
    let check = world.service_card.check();
    let again = VerifiedCard::with_check(card.clone(), &card.fingerprint(), &check, arithmetic).unwrap();
    assert_eq!(again.parameters(), world.service_card.parameters());
    let of_another = world.partner_card.check();
    assert_eq!(
        VerifiedCard::with_check(card.clone(), &card.fingerprint(), &of_another, arithmetic).unwrap_err(),
        CardRefusal::Parameters
    );
    let pinned = CardFingerprint([0; 32]);
    assert!(VerifiedCard::with_check(card, &pinned, &check, arithmetic).is_err());
}

#[test]
fn a_devices_card__should_be_replaced_by_its_owner_only() {
    let mut world = World::new(default_arithmetic(), 63);
    let owner = PartyKeys::generate(&mut world.rng);
    world.owner = owner.identity();
    let dealt = world.deal(None);
    let prepared = world.prepare(&dealt, 0);
    let wallet = prepared.share().wallet();
    assert_eq!(wallet.requesters(), [Requester::new(world.owner)]);

    let keys = PartyKeys::generate(&mut world.rng);
    let update = |signer: &PartyKeys, id: WalletId, name: &str, generation: u64| {
        let card = Card::new(party(name), &keys);
        let signature = signer.sign(&DeviceCardUpdate::message(id, &card, generation));
        let update = DeviceCardUpdate::new(id, card, generation, signature);
        codec::decode::<DeviceCardUpdate>(&codec::encode(&update).unwrap()).unwrap()
    };
    let id = wallet.id();
    assert_eq!(update(&owner, id, "device", 5).verify(wallet, None).unwrap().identity(), &keys.identity());
    assert!(update(&owner, id, "device", 5).verify(wallet, Some(4)).is_ok());
    let refused = |update: DeviceCardUpdate, newest| update.verify(wallet, newest).unwrap_err();
    assert_eq!(refused(update(&owner, id, "device", 5), Some(5)), CardUpdateRefusal::Stale);
    assert_eq!(refused(update(&keys, id, "device", 5), None), CardUpdateRefusal::Signature);
    assert_eq!(refused(update(&owner, id, "service", 5), None), CardUpdateRefusal::Party);
    assert_eq!(refused(update(&owner, WalletId([0; 32]), "device", 5), None), CardUpdateRefusal::Wallet);
}

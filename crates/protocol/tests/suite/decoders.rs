//! Every decoder on random bytes and on valid messages with a few bytes changed: an error or
//! another valid message, never a panic.

use std::sync::OnceLock;

use duet_adversary::world::{Party, Wallet, World};
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::Card,
    catch_up::SlopeBox,
    codec::{self, Message},
    enrolment::{EnrolmentOffer, VerifiedEnrolment},
    history::{OneSuccessor, SignedRecord},
    ids::ShareIndex,
    keygen::{DeviceWallet, PendingWallet},
    package::{Envelope, PreparedShare},
    proof_task::{MadeProofs, ProofTask},
    receipt::{CommitAck, Receipt, ReceiptBundle},
    refresh::{EpochAck, NextShare, Refresh, RefreshSetup},
    session::CipherEvidence,
    share::{KeyShare, WalletPublic},
};
use proptest::prelude::*;

/// A refresh by service and partner: the service's next share and the signed record.
fn refreshed(world: &mut World, wallet: &Wallet) -> (NextShare, SignedRecord) {
    let setup = |own: &Party, peer: &Party, share: &std::sync::Arc<KeyShare>| RefreshSetup {
        refresh: [1; 16],
        share: share.clone(),
        keys: own.keys.clone(),
        card: own.card.clone(),
        peer_index: peer.index,
        peer: peer.card.clone(),
        devices: vec![wallet.device_card.fingerprint()],
        locked_keys: 0,
    };
    let stored = |next: &NextShare| OneSuccessor::stored_durably(next.record().unwrap().hash());
    let start = setup(&world.service, &world.partner, &wallet.service);
    let (coordinator, message1) = Refresh::start(start, &mut world.rng).unwrap();
    let join = setup(&world.partner, &world.service, &wallet.partner);
    let (joiner, message2) = Refresh::join(join, &message1, &mut world.rng).unwrap();
    let (coordinator, message3) = coordinator.receive(&message2).unwrap();
    let joiner = joiner.receive(&message3).unwrap();
    let row = stored(joiner.next());
    let (_, message4) = joiner.answer(row).unwrap();
    let coordinator = coordinator.receive(&message4).unwrap();
    let row = stored(coordinator.next());
    let (next, signed) = coordinator.sign(row).unwrap();
    assert_eq!(signed.signers(), [ShareIndex::Service, ShareIndex::Partner]);
    (next, signed)
}

/// One valid message of every kind.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let mut world = World::new(default_arithmetic(), 71);
        let pending = world.deal(None);
        let (service, partner) = (world.prepare(&pending, 0), world.prepare(&pending, 1));
        let receipt = service.receipt(&world.service.keys, &world.service.card);
        let bundle = pending
            .bundle(&[receipt.clone(), partner.receipt(&world.partner.keys, &world.partner.card)])
            .unwrap();
        let order = bundle.verify(&service, &world.service.card, &[&world.partner.card]).unwrap();
        let wallet = world.wallet(None);
        let task = ProofTask::new(wallet.device.paillier(), wallet.device.card(), &world.service_card);
        let task_bytes = task.to_secret_bytes().unwrap().to_vec();
        let made = task.prove(world.arithmetic, &mut world.rng).unwrap();
        let (next, signed) = refreshed(&mut world, &wallet);
        let (card, keys) = (world.service.card.clone(), world.service.keys.clone());
        let slope = SlopeBox::seal(&next, &card, &keys, &wallet.device_card, &mut world.rng).unwrap();
        vec![
            codec::encode(&signed).unwrap(),
            codec::encode(&EpochAck::sign(next.share(), &card, &keys)).unwrap(),
            codec::encode(&slope).unwrap(),
            next.to_secret_bytes().unwrap().to_vec(),
            next.share().to_secret_bytes().unwrap().to_vec(),
            task_bytes,
            codec::encode(&made).unwrap(),
            codec::encode(&*world.service.card).unwrap(),
            codec::encode(&wallet.service_offer(&mut world, 9)).unwrap(),
            codec::encode(&world.service.token(&world.tenant)).unwrap(),
            codec::encode(service.share().wallet()).unwrap(),
            codec::encode(&receipt).unwrap(),
            codec::encode(&bundle).unwrap(),
            codec::encode(&order.acknowledge(&world.service.keys)).unwrap(),
            pending.deliveries()[0].envelope().to_vec(),
            pending.to_secret_bytes().unwrap().to_vec(),
            service.to_secret_bytes().unwrap().to_vec(),
            service.share().to_secret_bytes().unwrap().to_vec(),
            service.enrolment().to_bytes().unwrap(),
            wallet.device.to_secret_bytes().unwrap().to_vec(),
        ]
    })
}

fn canonical<M: Message>(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<M>(bytes) {
        let again = codec::encode(&message).unwrap();
        assert!(again.len() <= bytes.len(), "what was parsed encodes no longer than it came");
        assert!(codec::decode::<M>(&again).is_ok());
    }
}

fn every_decoder(bytes: &[u8]) {
    canonical::<Card>(bytes);
    canonical::<EnrolmentOffer>(bytes);
    canonical::<AdmissionToken>(bytes);
    canonical::<WalletPublic>(bytes);
    canonical::<Receipt>(bytes);
    canonical::<ReceiptBundle>(bytes);
    canonical::<CommitAck>(bytes);
    canonical::<Envelope>(bytes);
    canonical::<CipherEvidence>(bytes);
    canonical::<ProofTask>(bytes);
    canonical::<MadeProofs>(bytes);
    canonical::<SignedRecord>(bytes);
    canonical::<EpochAck>(bytes);
    canonical::<SlopeBox>(bytes);
    let arithmetic = default_arithmetic();
    let _ = PendingWallet::from_secret_bytes(bytes, arithmetic);
    let _ = PreparedShare::from_secret_bytes(bytes, arithmetic);
    let _ = DeviceWallet::from_secret_bytes(bytes, arithmetic);
    let _ = VerifiedEnrolment::from_trusted_bytes(bytes, arithmetic);
    let _ = KeyShare::from_secret_bytes(bytes);
    let _ = NextShare::from_secret_bytes(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes__should_not_panic(kind in 0_u8..0x22, tail in prop::collection::vec(any::<u8>(), 0..600)) {
        every_decoder(&[&[kind, 1], tail.as_slice()].concat());
    }

    #[test]
    fn changed_messages__should_not_panic(
        which in 0_usize..20,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = samples()[which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        every_decoder(&bytes);
    }
}

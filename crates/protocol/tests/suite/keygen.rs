//! Key generation interrupted anywhere, repeated, tampered with, and with a backup instead of a
//! partner.

use duet_adversary::{
    dealing::{deal_chosen, device},
    test_fixtures,
    world::{NOW_UNIX_S, Party, World, party},
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    codec,
    dealing::Drawn,
    ids::ShareIndex,
    keygen::{self, DealError, DealerSetup, PaperRefusal, PendingWallet, ThirdHolder},
    package::{PackageRefusal, PreparedShare},
    paillier_key::PaillierKey,
    proof_task::{MadeProofs, ProofTask},
    receipt::{BundleRefusal, CommitAck, Receipt, ReceiptBundle},
    share::{Holder, InvalidWallet, Requester},
};

/// A pending wallet after the device was killed and read its disk again.
fn device_restarts(pending: &PendingWallet, world: &World) -> PendingWallet {
    PendingWallet::from_secret_bytes(&pending.to_secret_bytes().unwrap(), world.arithmetic).unwrap()
}

/// A prepared share after the party was killed and read its disk again.
fn party_restarts(prepared: &PreparedShare, world: &World) -> PreparedShare {
    PreparedShare::from_secret_bytes(&prepared.to_secret_bytes().unwrap(), world.arithmetic).unwrap()
}

fn over_the_wire<M: codec::Message>(message: &M) -> M {
    codec::decode(&codec::encode(message).unwrap()).unwrap()
}

fn receipt(prepared: &PreparedShare, party: &Party) -> Receipt {
    over_the_wire(&prepared.receipt(&party.keys, &party.card))
}

fn commit(bundle: &ReceiptBundle, prepared: &PreparedShare, own: &Party, peer: &Party) -> CommitAck {
    let order = over_the_wire(bundle).verify(prepared, &own.card, &[&peer.card]).unwrap();
    over_the_wire(&order.acknowledge(&own.keys))
}

#[test]
fn keygen_interrupted_after_every_message__should_end_in_the_same_wallet() {
    let mut world = World::new(default_arithmetic(), 31);
    let dealt = world.deal(None);
    let service = world.prepare(&dealt, 0);
    let partner = world.prepare(&dealt, 1);
    let receipts = [receipt(&service, &world.service), receipt(&partner, &world.partner)];
    let bundle = dealt.bundle(&receipts).unwrap();
    let acks = [
        commit(&bundle, &service, &world.service, &world.partner),
        commit(&bundle, &partner, &world.partner, &world.service),
    ];

    // A device or party that dies after any step repeats it from its disk, with the same bytes.
    let dealt = device_restarts(&dealt, &world);
    let service = party_restarts(&service, &world);
    let partner = party_restarts(&partner, &world);
    assert_eq!(receipt(&service, &world.service), receipts[0]);
    let prepared_again = world.prepare(&dealt, 1);
    assert_eq!(receipt(&prepared_again, &world.partner), receipts[1], "the package sent again");
    assert_eq!(receipt(&partner, &world.partner), receipts[1]);
    let again = dealt.bundle(&receipts).unwrap();
    assert_eq!(again, bundle);
    assert_eq!(commit(&again, &service, &world.service, &world.partner), acks[0]);
    assert_eq!(commit(&again, &partner, &world.partner, &world.service), acks[1]);
    let wallet = device_restarts(&dealt, &world).finish(&again, &acks).map_err(|(_, e)| e).unwrap();
    let again = keygen::DeviceWallet::from_secret_bytes(&wallet.to_secret_bytes().unwrap(), world.arithmetic);
    assert_eq!(again.unwrap().share().wallet(), service.share().wallet());
}

#[test]
fn a_dropped_or_forged_paper__should_be_named_and_keep_the_wallet_pending() {
    let mut world = World::new(default_arithmetic(), 32);
    let dealt = world.deal(None);
    let other = world.deal(None);
    let service = world.prepare(&dealt, 0);
    let partner = world.prepare(&dealt, 1);
    let receipts = [receipt(&service, &world.service), receipt(&partner, &world.partner)];
    let foreign = receipt(&world.prepare(&other, 0), &world.service);

    assert_eq!(dealt.bundle(&receipts[..1]).unwrap_err(), PaperRefusal::Missing(party("partner")));
    assert_eq!(dealt.bundle(&receipts[1..]).unwrap_err(), PaperRefusal::Missing(party("service")));
    assert_eq!(
        dealt.bundle(&[foreign.clone(), receipts[1].clone()]).unwrap_err(),
        PaperRefusal::Receipt(party("service"))
    );
    let forged = service.receipt(&world.partner.keys, &world.service.card);
    assert_eq!(dealt.check_receipt(&forged).unwrap_err(), PaperRefusal::Receipt(party("service")));

    let bundle = dealt.bundle(&receipts).unwrap();
    let foreign_bundle = {
        let others = [foreign, receipt(&world.prepare(&other, 1), &world.partner)];
        other.bundle(&others).unwrap()
    };
    let (own, peer) = (&world.service, &world.partner);
    let refused = |bundle: &ReceiptBundle, peers: &[&duet_protocol::card::Card]| {
        bundle.verify(&service, &own.card, peers).unwrap_err()
    };
    assert_eq!(refused(&foreign_bundle, &[&peer.card]), BundleRefusal::Wallet);
    assert_eq!(refused(&bundle, &[]), BundleRefusal::UnknownCard(party("partner")));

    let acks = [commit(&bundle, &service, own, peer), commit(&bundle, &partner, peer, own)];
    let (dealt, refusal) = dealt.finish(&bundle, &acks[..1]).map(|_| ()).unwrap_err();
    assert_eq!(refusal, PaperRefusal::Missing(party("partner")));
    let (dealt, refusal) = dealt.finish(&foreign_bundle, &acks).map(|_| ()).unwrap_err();
    assert_eq!(refusal, PaperRefusal::Acknowledgement(party("service")));
    // The papers themselves survive no change of a single byte.
    let bytes = codec::encode(&bundle).unwrap();
    for at in (2..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(changed) = codec::decode::<ReceiptBundle>(&changed) {
            assert!(changed.verify(&service, &own.card, &[&peer.card]).is_err(), "byte {at}");
        }
    }
    dealt.finish(&bundle, &acks).map_err(|(_, refusal)| refusal).unwrap();
}

#[test]
fn the_pending_record__should_hold_the_others_shares_as_sealed_packages_only() {
    let mut world = World::new(default_arithmetic(), 33);
    let dealt = world.deal(None);
    let stored = dealt.to_secret_bytes().unwrap();
    for at in [0, 1] {
        let prepared = world.prepare(&dealt, at);
        let record = prepared.share().to_secret_bytes().unwrap();
        let secret = &record[record.len() - 32..];
        assert!(!stored.windows(32).any(|window| window == secret), "share {}", at + 2);
        assert!(!format!("{dealt:?}").contains(&hex::encode(secret)));
    }
}

#[test]
fn a_backup_instead_of_a_partner__should_need_no_receipt() {
    let mut world = World::new(default_arithmetic(), 34);
    let setup = DealerSetup { third: ThirdHolder::Backup, ..world.dealer_setup() };
    let paillier = test_fixtures::decryption_key(0, world.arithmetic);
    let dealt = deal_chosen(&setup, None, Some(paillier), &mut world.rng).unwrap();
    let backup = dealt.backup.unwrap();
    assert_eq!(backup.index(), ShareIndex::Partner);
    assert_eq!(backup.wallet().holder(ShareIndex::Partner), &Holder::Backup);
    let service = world.prepare(&dealt.pending, 0);
    let receipts = [receipt(&service, &world.service)];
    let bundle = dealt.pending.bundle(&receipts).unwrap();
    let order = bundle.verify(&service, &world.service.card, &[]).unwrap();
    let acks = [order.acknowledge(&world.service.keys)];
    let wallet = dealt.pending.finish(&bundle, &acks).map_err(|(_, refusal)| refusal).unwrap();
    assert_eq!(wallet.share().wallet(), backup.wallet());
}

/// What another thread makes of a task that reaches it as bytes.
fn prove_elsewhere(task: &ProofTask, world: &mut World) -> MadeProofs {
    let bytes = task.to_secret_bytes().unwrap();
    let task: ProofTask = codec::decode(&bytes).unwrap();
    over_the_wire(&task.prove(world.arithmetic, &mut world.rng).unwrap())
}

fn draw(world: &mut World) -> Drawn {
    let key = PaillierKey::new(party("device"), test_fixtures::decryption_key(0, world.arithmetic));
    Drawn::draw(&world.dealer_setup(), Some(key), &mut (), &mut world.rng).unwrap()
}

#[test]
fn proofs_made_in_other_threads__should_convince_both_receivers() {
    let mut world = World::new(default_arithmetic(), 38);
    let drawn = draw(&mut world);
    let tasks: Vec<_> = drawn.proof_tasks().collect();
    assert_eq!(
        tasks.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        [ShareIndex::Service, ShareIndex::Partner]
    );
    let encrypted = drawn.encrypt(&mut world.rng).unwrap();
    // In whatever order they are finished.
    let proofs = tasks.iter().rev().map(|(_, task)| prove_elsewhere(task, &mut world)).collect();
    let dealt = encrypted.assemble(proofs, &mut (), &mut world.rng).unwrap();
    let wallet = world.complete(dealt.pending);
    assert_eq!(wallet.device.share().index(), ShareIndex::Device);
}

#[test]
fn proofs_of_another_wallet_or_receiver__should_not_be_assembled() {
    let mut world = World::new(default_arithmetic(), 39);
    // The same Paillier key, another device's card.
    let other = draw(&mut world);
    let foreign = prove_elsewhere(&other.proof_tasks().nth(1).unwrap().1, &mut world);
    for with in [vec![], vec![foreign]] {
        let drawn = draw(&mut world);
        let (_, task) = drawn.proof_tasks().next().unwrap();
        let service = prove_elsewhere(&task, &mut world);
        let encrypted = drawn.encrypt(&mut world.rng).unwrap();
        let proofs = with.into_iter().chain([service.clone(), service]).collect();
        let refusal = encrypted.assemble(proofs, &mut (), &mut world.rng).map(|_| ()).unwrap_err();
        assert_eq!(refusal, DealError::Proofs(party("partner")));
    }
}

#[test]
fn a_proof_task__should_hold_the_primes_and_no_share() {
    let mut world = World::new(default_arithmetic(), 40);
    let drawn = draw(&mut world);
    let tasks: Vec<_> = drawn.proof_tasks().map(|(_, task)| task).collect();
    let printed = format!("{tasks:?} {drawn:?}");
    let encrypted = drawn.encrypt(&mut world.rng).unwrap();
    let proofs: Vec<_> = tasks.iter().map(|task| prove_elsewhere(task, &mut world)).collect();
    let made = proofs.iter().flat_map(|made| codec::encode(made).unwrap()).collect::<Vec<_>>();
    let dealt = encrypted.assemble(proofs, &mut (), &mut world.rng).unwrap();

    let holds =
        |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    let primes = test_fixtures::decryption_key(0, world.arithmetic).to_secret_bytes();
    let record = device(&dealt.pending).share().to_secret_bytes().unwrap();
    let secrets = [&primes[..128], &primes[128..], &record[record.len() - 32..]];
    for task in tasks {
        let bytes = task.to_secret_bytes().unwrap();
        assert!(holds(&bytes, &primes), "without them nothing can be proved");
        assert!(!holds(&bytes, secrets[2]), "a share");
    }
    for secret in secrets {
        assert!(!holds(&made, secret));
        assert!(!printed.contains(&hex::encode(&secret[..16])));
    }
}

#[test]
fn a_setup_that_contradicts_itself__should_deal_nothing() {
    let mut world = World::new(default_arithmetic(), 35);
    let honest = world.dealer_setup();
    let paillier = || Some(test_fixtures::decryption_key(0, default_arithmetic()));
    let mut refused = |setup: DealerSetup| {
        deal_chosen(&setup, None, paillier(), &mut world.rng).map(|_| ()).unwrap_err().to_string()
    };
    let requesters = InvalidWallet::Requesters.to_string();
    assert_eq!(refused(DealerSetup { requesters: vec![], ..honest.clone() }), requesters);
    let twice = vec![Requester::new(world.owner); 2];
    assert_eq!(refused(DealerSetup { requesters: twice, ..honest.clone() }), requesters);
    let third = ThirdHolder::Partner(honest.service.clone());
    assert_eq!(refused(DealerSetup { third, ..honest.clone() }), InvalidWallet::Holders.to_string());
    let device = party("service");
    assert_eq!(refused(DealerSetup { device, ..honest }), InvalidWallet::Holders.to_string());
}

#[test]
fn a_service_that_has_not_pinned_the_partner__should_refuse_the_package() {
    let mut world = World::new(default_arithmetic(), 36);
    let dealt = world.deal(None);
    world.service.pinned.clear();
    let receiver = world.service.receiver(world.arithmetic);
    let opened = receiver.open(dealt.deliveries()[0].envelope()).unwrap();
    assert_eq!(opened.wallet(), dealt.wallet());
    let refusal = opened.verify(&receiver, NOW_UNIX_S, 0).unwrap_err();
    assert_eq!(refusal, PackageRefusal::PeerCard(party("partner")));
}

/// The real thing once: prime search, all proofs, all verifications.
#[test]
#[cfg(feature = "gmp")]
fn a_dealt_wallet_with_its_own_primes__should_sign() {
    #[derive(Default)]
    struct Steps(Vec<keygen::KeygenStep>, usize);
    impl keygen::KeygenObserver for Steps {
        fn step(&mut self, step: keygen::KeygenStep) {
            self.0.push(step);
        }
        fn candidate(&mut self) {
            self.1 += 1;
        }
    }
    let mut world = World::new(default_arithmetic(), 37);
    let mut steps = Steps::default();
    let setup = world.dealer_setup();
    let dealt = keygen::deal(&setup, &mut steps, &mut world.rng).unwrap();
    assert!(
        world.prepare(&dealt.pending, 0).share().wallet()
            == world.prepare(&dealt.pending, 1).share().wallet()
    );
    assert_eq!(steps.0.len(), 6);
    assert!(steps.1 > 2, "two primes take some candidates");
}

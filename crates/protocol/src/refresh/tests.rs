//! Refreshes: all pairs sign afterwards, and everything that is wrong is refused by name.

use super::*;
use crate::{
    arithmetic::default_arithmetic,
    catch_up::{BoxRefusal, CatchUpRefusal, Follower, OtherEpoch, SlopeBox},
    enrolment::VerifiedEnrolment,
    epoch,
    history::{self, RecordRefusal, SignerCard},
    ids::{Epoch, TenantId},
    initiator::Initiator,
    public_key::{ChainCode, PublicKey},
    responder::{Responder, ResponderSetup},
    session::SessionError,
    share::{Holder, PayloadKindTag, lagrange},
    test_fixtures::{Seeded, rng},
    world::{Job, PAIRS, Pair, Wallet, World},
};

use ShareIndex::{Device, Partner, Service};

const MAKERS: [[ShareIndex; 2]; 3] = [[Device, Service], [Device, Partner], [Service, Partner]];

fn third(makers: [ShareIndex; 2]) -> ShareIndex {
    ShareIndex::ALL.into_iter().find(|index| !makers.contains(index)).unwrap()
}

/// One holder of a wallet.
#[derive(Clone)]
struct One {
    keys: Arc<PartyKeys>,
    card: Arc<Card>,
    share: Arc<KeyShare>,
}

/// The three holders of a wallet.
struct Holders {
    all: [One; 3],
    rng: Seeded,
}

/// A refresh's result at its makers.
struct Made {
    makers: [ShareIndex; 2],
    next: [NextShare; 2],
    signed: SignedRecord,
}

fn stored(next: &NextShare) -> OneSuccessor {
    OneSuccessor::stored_durably(next.record().unwrap().hash())
}

impl Holders {
    /// Holders of a new wallet. They have no Paillier keys, so they cannot sign.
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let keys = [(); 3].map(|()| Arc::new(PartyKeys::generate(&mut rng)));
        let names = ["device", "service", "partner"];
        let cards = [0, 1, 2].map(|at: usize| Arc::new(Card::new(names[at].parse().unwrap(), &keys[at])));
        let shares = crate::share::tests::shares_with(&cards, &mut rng);
        let all = [0, 1, 2].map(|at: usize| One {
            keys: keys[at].clone(),
            card: cards[at].clone(),
            share: shares[at].clone(),
        });
        Self { all, rng }
    }

    /// The holders of a wallet that can sign.
    fn of(world: &World, wallet: &Wallet) -> Self {
        let device = &wallet.device;
        let one = |keys: &Arc<PartyKeys>, card: &Arc<Card>, share: &Arc<KeyShare>| One {
            keys: keys.clone(),
            card: card.clone(),
            share: share.clone(),
        };
        let all = [
            one(device.keys(), &wallet.device_card, device.share()),
            one(&world.service.keys, &world.service.card, &wallet.service),
            one(&world.partner.keys, &world.partner.card, &wallet.partner),
        ];
        Self { all, rng: rng(9) }
    }

    fn one(&self, index: ShareIndex) -> &One {
        &self.all[usize::from(u8::from(index)) - 1]
    }

    fn wallet(&self, index: ShareIndex) -> &WalletPublic {
        self.one(index).share.wallet()
    }

    fn cards(&self) -> [SignerCard<'_>; 3] {
        ShareIndex::ALL.map(|index| (index, &*self.one(index).card))
    }

    fn setup(&self, own: ShareIndex, peer: ShareIndex) -> RefreshSetup {
        let One { keys, card, share } = self.one(own).clone();
        RefreshSetup {
            refresh: [7; 16],
            share,
            keys,
            card,
            peer_index: peer,
            peer: self.one(peer).card.clone(),
            devices: vec![self.one(Device).card.fingerprint()],
            locked_keys: 0,
        }
    }

    fn start(&mut self, makers: [ShareIndex; 2]) -> (AwaitingCommitment, Vec<u8>) {
        Refresh::start(self.setup(makers[0], makers[1]), &mut self.rng).unwrap()
    }

    fn join(
        &mut self,
        makers: [ShareIndex; 2],
        message1: &[u8],
    ) -> Result<(AwaitingSlope, Vec<u8>), RefreshError> {
        Refresh::join(self.setup(makers[1], makers[0]), message1, &mut self.rng)
    }

    /// Messages 1 to 3.
    fn run(&mut self, makers: [ShareIndex; 2]) -> (AwaitingSignature, JoinerReady) {
        let (coordinator, message1) = self.start(makers);
        let (joiner, message2) = self.join(makers, &message1).unwrap();
        let (coordinator, message3) = coordinator.receive(&message2).unwrap();
        (coordinator, joiner.receive(&message3).unwrap())
    }

    fn refresh(&mut self, makers: [ShareIndex; 2]) -> Made {
        let (coordinator, joiner) = self.run(makers);
        let row = stored(joiner.next());
        let (joined, message4) = joiner.answer(row).unwrap();
        let coordinator = coordinator.receive(&message4).unwrap();
        let row = stored(coordinator.next());
        let (coordinated, signed) = coordinator.sign(row).unwrap();
        Made { makers, next: [coordinated, joined], signed }
    }

    /// The box of the maker at `maker` for the holder of share `to`.
    fn sealed(&mut self, made: &Made, maker: usize, to: ShareIndex) -> SlopeBox {
        let (One { keys, card, .. }, to) = (self.one(made.makers[maker]).clone(), self.one(to).card.clone());
        SlopeBox::seal(&made.next[maker], &card, &keys, &to, &mut self.rng).unwrap()
    }

    fn follow(
        &self,
        signed: &SignedRecord,
        slope: &SlopeBox,
        own: ShareIndex,
    ) -> Result<NextShare, CatchUpRefusal> {
        let One { keys, card, share } = self.one(own);
        Follower { share, card, keys, cards: &self.cards() }.follow(signed, slope)
    }

    /// Brings all three to the new epoch, the third one by the box of the maker at `maker`. Returns
    /// what each has of it.
    fn complete(&mut self, made: Made, maker: usize) -> [NextShare; 3] {
        let third = third(made.makers);
        let slope = self.sealed(&made, maker, third);
        let caught_up = self.follow(&made.signed, &slope, third).unwrap();
        let [one, other] = made.next;
        let mut next = [one, other, caught_up];
        next.sort_by_key(|next| next.share().index());
        for (one, next) in self.all.iter_mut().zip(&next) {
            one.share =
                Arc::new(KeyShare::from_secret_bytes(&next.share().to_secret_bytes().unwrap()).unwrap());
        }
        next
    }

    fn signed_by(&self, record: &EpochRecord, signers: [ShareIndex; 2]) -> SignedRecord {
        let [one, other] = signers.map(|index| {
            let One { keys, card, .. } = self.one(index);
            let row = OneSuccessor::stored_durably(record.hash());
            HolderSignature::sign(record, index, card, keys, row).unwrap()
        });
        SignedRecord::new(record.clone(), one, other)
    }

    fn fault(&self, index: ShareIndex, fault: RefreshFault) -> RefreshError {
        RefreshError::PeerMisbehaved { culprit: self.one(index).card.party().clone(), fault }
    }
}

/// The wallet in the new epoch, enrolments included.
fn moved(wallet: Wallet, [device, service, partner]: [NextShare; 3]) -> Wallet {
    let carried =
        |enrolment: &VerifiedEnrolment, next: &NextShare| Arc::new(enrolment.carried(next).unwrap());
    Wallet {
        from_device_to_service: carried(&wallet.from_device_to_service, &service),
        from_device_to_partner: carried(&wallet.from_device_to_partner, &partner),
        from_service_to_partner: wallet.from_service_to_partner.map(|e| carried(&e, &partner)),
        device: wallet.device.with_share(Arc::new(device.into_parts().0)),
        service: Arc::new(service.into_parts().0),
        partner: Arc::new(partner.into_parts().0),
        ..wallet
    }
}

#[test]
fn every_pair_refreshes_and_every_pair_signs_afterwards() {
    let mut world = World::new(default_arithmetic(), 3);
    let mut wallet = world.wallet(None);
    let (key, id) = (*wallet.service.wallet().public_key(), wallet.service.wallet().id());
    for (at, makers) in MAKERS.into_iter().enumerate() {
        let mut holders = Holders::of(&world, &wallet);
        let made = holders.refresh(makers);
        assert_eq!(made.signed.signers(), makers);
        wallet = moved(wallet, holders.complete(made, at % 2));
        let now = wallet.service.wallet();
        assert_eq!((now.public_key(), now.id(), now.epoch()), (&key, id, Epoch(at as u32 + 1)));
        for pair in PAIRS {
            for path in ["m", "m/0/5"] {
                let job = Job::random(&mut world.rng, path);
                // The initiator verifies the signature under the child's key.
                wallet.sign(&mut world, pair, &job);
            }
        }
    }
    // A new offer, of the new share, is taken in the new epoch.
    wallet.enrol_service_with_partner(&mut world, 2);
    let job = Job::random(&mut world.rng, "m");
    wallet.sign(&mut world, Pair::ServicePartner, &job);
}

#[test]
fn an_old_store_gets_no_session_and_an_old_enrolment_serves_none() {
    let mut world = World::new(default_arithmetic(), 4);
    let wallet = world.wallet(None);
    let (old_share, old_enrolment) = (wallet.device.share().clone(), wallet.from_device_to_service.clone());
    let mut holders = Holders::of(&world, &wallet);
    let made = holders.refresh([Service, Partner]);
    let [service, partner] = &made.next;
    assert_eq!(old_enrolment.carried(partner).unwrap_err(), OtherEpoch, "another responder's");
    let carried = old_enrolment.carried(service).unwrap();
    assert_eq!(carried.carried(service).unwrap_err(), OtherEpoch, "twice");
    let bytes = carried.to_bytes().unwrap();
    let again = VerifiedEnrolment::from_trusted_bytes(&bytes, world.arithmetic).unwrap();
    assert_eq!((again.epoch(), again.ciphertext()), (Epoch(1), carried.ciphertext()));

    // The device's old store has its card and its Paillier key.
    let new = moved(wallet, holders.complete(made, 0));
    let job = Job::random(&mut world.rng, "m");
    let mut setup = new.initiator(&world, Pair::DeviceService, &job);
    setup.share = old_share;
    let (_, message1) = Initiator::start(setup, &mut world.rng).unwrap();
    let accept = |responder: ResponderSetup, world: &mut World| {
        Responder::accept(responder, &message1, &mut world.rng).map(drop).unwrap_err()
    };
    let mut responder = new.responder(&world, Pair::DeviceService, &job);
    let refused = accept(responder, &mut world);
    assert!(matches!(refused, SessionError::NotAuthentic(_)), "{refused}");
    responder = new.responder(&world, Pair::DeviceService, &job);
    responder.enrolment = old_enrolment;
    let refused = accept(responder, &mut world);
    assert!(matches!(refused, SessionError::ApiMisuse(ApiMisuse::Enrolment)), "{refused}");
}

/// `λ_i·x_i + λ_j·x_j`, times `G`.
fn joined(one: &KeyShare, other: &KeyShare) -> Option<Point> {
    let sum = lagrange(one.index(), other.index())? * one.secret().as_scalar()
        + lagrange(other.index(), one.index())? * other.secret().as_scalar();
    SecretScalar::new(sum).ok().map(|sum| sum.public())
}

#[test]
fn old_shares_and_new_ones_give_no_key() {
    let mut holders = Holders::new(1);
    let before = ShareIndex::ALL.map(|index| holders.one(index).share.clone());
    let made = holders.refresh([Service, Partner]);
    holders.complete(made, 0);
    let after = ShareIndex::ALL.map(|index| holders.one(index).share.clone());
    let key = Point::from_projective(holders.wallet(Device).public_key().to_projective());
    for (i, j) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        assert_eq!(joined(&before[i], &before[j]), key);
        assert_eq!(joined(&after[i], &after[j]), key);
        assert_ne!(joined(&before[i], &after[j]), key, "old share {} with new share {}", i + 1, j + 1);
    }
}

#[test]
fn makers_of_different_records_get_no_channel() {
    let mut holders = Holders::new(1);
    let stale = holders.one(Device).share.clone();
    let made = holders.refresh([Service, Partner]);
    holders.complete(made, 1);
    let behind = RefreshSetup { share: stale, ..holders.setup(Device, Service) };
    let (_, message1) = Refresh::start(behind, &mut holders.rng).unwrap();
    let refused = holders.join([Device, Service], &message1).map(drop).unwrap_err();
    assert_eq!(refused, RefreshError::NotAuthentic(1));
    // Two that do not agree on the owner's devices, of which no record tells in epoch 0.
    let mut holders = Holders::new(2);
    let other = RefreshSetup { devices: vec![CardFingerprint([9; 32])], ..holders.setup(Service, Partner) };
    let (_, message1) = Refresh::start(other, &mut holders.rng).unwrap();
    let refused = holders.join([Service, Partner], &message1).map(drop).unwrap_err();
    assert_eq!(refused, RefreshError::NotAuthentic(1));
}

#[test]
fn a_changed_bit_of_any_message_is_not_authentic() {
    let mut holders = Holders::new(1);
    let makers = [Service, Partner];
    let flipped = |message: &[u8]| {
        let mut message = message.to_vec();
        message[40] ^= 1;
        message
    };
    let (_, message1) = holders.start(makers);
    let refused = holders.join(makers, &flipped(&message1)).map(drop).unwrap_err();
    assert_eq!(refused, RefreshError::NotAuthentic(1));
    let (coordinator, message1) = holders.start(makers);
    let (_, message2) = holders.join(makers, &message1).unwrap();
    let refused = coordinator.receive(&flipped(&message2)).map(drop).unwrap_err();
    assert_eq!(refused, RefreshError::NotAuthentic(2));
    let (coordinator, message1) = holders.start(makers);
    let (joiner, message2) = holders.join(makers, &message1).unwrap();
    let (_, message3) = coordinator.receive(&message2).unwrap();
    let refused = joiner.receive(&flipped(&message3)).map(drop).unwrap_err();
    assert_eq!(refused, RefreshError::NotAuthentic(3));
    let (coordinator, joiner) = holders.run(makers);
    let row = stored(joiner.next());
    let (_, message4) = joiner.answer(row).unwrap();
    let refused = coordinator.receive(&flipped(&message4)).map(drop).unwrap_err();
    assert_eq!(refused, RefreshError::NotAuthentic(4));
}

#[test]
fn a_maker_that_opens_or_signs_something_else_is_named() {
    let mut holders = Holders::new(1);
    let makers = [Service, Partner];
    // The joiner sees the coordinator's part and then wants another one of its own.
    let (coordinator, mut joiner) = holders.run(makers);
    joiner.maker.opening.part[31] ^= 1;
    let row = stored(joiner.next());
    let (_, message4) = joiner.answer(row).unwrap();
    let refused = coordinator.receive(&message4).map(drop).unwrap_err();
    assert_eq!(refused, holders.fault(Partner, RefreshFault::Opening));
    // It signs another record.
    let (coordinator, mut joiner) = holders.run(makers);
    [_, joiner.next] = holders.refresh(makers).next;
    let row = stored(joiner.next());
    let (_, message4) = joiner.answer(row).unwrap();
    let refused = coordinator.receive(&message4).map(drop).unwrap_err();
    assert_eq!(refused, holders.fault(Partner, RefreshFault::Signature));
    // The coordinator opens something else.
    let (mut coordinator, message1) = holders.start(makers);
    let (joiner, message2) = holders.join(makers, &message1).unwrap();
    coordinator.maker.opening.part = [1; 32];
    let (_, message3) = coordinator.receive(&message2).unwrap();
    let refused = joiner.receive(&message3).map(drop).unwrap_err();
    assert_eq!(refused, holders.fault(Service, RefreshFault::Opening));
}

#[test]
fn a_zero_part_is_no_part_even_when_it_was_committed_to() {
    let mut holders = Holders::new(1);
    let makers = [Service, Partner];
    let (mut maker, ephemeral) = Maker::new(holders.setup(Service, Partner), &mut holders.rng).unwrap();
    maker.opening.part = [0; 32];
    let mut handshake =
        Handshake::initiator(&maker.setup.keys, maker.setup.peer.noise_key(), &maker.prologue).unwrap();
    let message1 = handshake.write(&encode(&maker.commitment()).unwrap(), ephemeral).unwrap();
    let (joiner, message2) = holders.join(makers, &message1).unwrap();
    let (_, message3) = AwaitingCommitment { maker, handshake }.receive(&message2).unwrap();
    let refused = joiner.receive(&message3).map(drop).unwrap_err();
    assert_eq!(refused, holders.fault(Service, RefreshFault::Opening));
}

#[test]
fn a_row_for_another_record_signs_nothing() {
    let mut holders = Holders::new(1);
    let (_, joiner) = holders.run([Service, Partner]);
    let other = OneSuccessor::stored_durably([1; 32]);
    assert_eq!(joiner.answer(other).map(drop).unwrap_err(), RefreshError::OtherSuccessor(OtherSuccessor));
}

#[test]
fn the_count_of_locked_keys_is_the_higher_one_and_never_falls() {
    let mut holders = Holders::new(1);
    let makers = [Service, Partner];
    let knows_two = RefreshSetup { locked_keys: 2, ..holders.setup(Service, Partner) };
    let (coordinator, message1) = Refresh::start(knows_two, &mut holders.rng).unwrap();
    let (joiner, message2) = holders.join(makers, &message1).unwrap();
    let (coordinator, message3) = coordinator.receive(&message2).unwrap();
    let joiner = joiner.receive(&message3).unwrap();
    let row = stored(joiner.next());
    let (joined, message4) = joiner.answer(row).unwrap();
    let coordinator = coordinator.receive(&message4).unwrap();
    let row = stored(coordinator.next());
    let (coordinated, signed) = coordinator.sign(row).unwrap();
    assert_eq!(signed.record().locked_keys(), 2);
    holders.complete(Made { makers, next: [coordinated, joined], signed }, 0);
    assert_eq!(holders.refresh([Device, Service]).signed.record().locked_keys(), 2);
}

#[test]
fn two_holders_change_nothing_but_the_slope() {
    let mut holders = Holders::new(1);
    let made = holders.refresh([Service, Partner]);
    holders.complete(made, 0);
    let made = holders.refresh([Service, Partner]);
    // What a holder of epoch 1 says to a changed record of epoch 2 that two holders signed.
    let refusal = |change: fn(&mut epoch::Fields)| {
        let mut fields = epoch::Fields::from(made.signed.record().clone());
        change(&mut fields);
        let signed = holders.signed_by(&EpochRecord::try_from(fields).unwrap(), [Service, Partner]);
        holders.wallet(Device).follow(&signed, &holders.cards()).map(drop).unwrap_err()
    };
    let changed = RecordRefusal::Change;
    assert_eq!(refusal(|f| f.chain_code = ChainCode([9; 32])), changed("chain code"));
    assert_eq!(refusal(|f| f.tenant = "other".parse::<TenantId>().unwrap()), changed("tenant"));
    assert_eq!(refusal(|f| f.holders[2] = Holder::Backup), changed("holders"));
    assert_eq!(refusal(|f| f.devices.push(CardFingerprint([9; 32]))), changed("devices"));
    assert_eq!(refusal(|f| f.requesters[0].kinds.push(PayloadKindTag::Digest)), changed("requesters"));
    assert_eq!(
        refusal(|f| {
            f.recovery = Some(epoch::RecoveryKey { key: f.requesters[0].key, delay_s: 0 });
        }),
        changed("recovery")
    );
    assert_eq!(refusal(|f| f.operators_may_recover = true), changed("operators' recovery"));
    assert_eq!(refusal(|f| f.export_allowed = true), changed("export"));
    assert_eq!(refusal(|f| f.origin = epoch::Origin::Imported), changed("origin"));
    assert_eq!(refusal(|f| f.exported = epoch::Exported::Key), changed("exported"));
    assert_eq!(refusal(|f| f.previous = [9; 32]), RecordRefusal::Previous);
    assert_eq!(refusal(|f| f.wallet.0[0] ^= 1), RecordRefusal::Previous);
    let skipped = RecordRefusal::Epoch { found: Epoch(3), next: Epoch(2) };
    assert_eq!(refusal(|f| f.epoch = Epoch(3)), skipped);
    assert_eq!(
        refusal(|f| {
            let point = f.public_key.to_projective() + Point::generator().to_projective();
            f.public_key = PublicKey::from_projective(&point).unwrap();
        }),
        RecordRefusal::Wallet(InvalidWallet::Id)
    );
}

#[test]
fn a_record_needs_two_holders_with_the_cards_in_force() {
    let mut holders = Holders::new(1);
    let made = holders.refresh([Service, Partner]);
    let other = holders.refresh([Service, Partner]).signed;
    let record = made.signed.record();
    let follow = |signed: &SignedRecord, cards: &[SignerCard<'_>]| {
        holders.wallet(Device).follow(signed, cards).map(|wallet| wallet.epoch())
    };
    let all = holders.cards();
    assert_eq!(follow(&made.signed, &all), Ok(Epoch(1)));
    assert_eq!(follow(&holders.signed_by(record, [Device, Partner]), &all), Ok(Epoch(1)));
    let refused = Err(RecordRefusal::Signatures);
    assert_eq!(follow(&made.signed, &all[..2]), refused, "the partner's card is not known");
    assert_eq!(follow(&holders.signed_by(record, [Service, Service]), &all), refused);
    // The partner's signature in the service's place.
    let crossed = [all[0], (Service, all[2].1), (Partner, all[1].1)];
    assert_eq!(follow(&made.signed, &crossed), refused);
    // Signatures of another record.
    let mut mixed = made.signed.clone();
    mixed.record = other.record().clone();
    assert_eq!(follow(&mixed, &all), refused);
}

#[test]
fn the_maker_of_a_fork_is_named_and_one_record_stands() {
    let mut holders = Holders::new(1);
    let one = holders.refresh([Service, Partner]).signed;
    let other = holders.refresh([Device, Service]).signed;
    assert_eq!(history::forkers(&one, &other), [Service]);
    assert_eq!(history::forkers(&one, &one), []);
    assert_eq!(history::standing(&one, &other), history::standing(&other, &one));
    // The next epoch of one is no fork of it.
    let made = holders.refresh([Service, Partner]);
    let first = made.signed.clone();
    holders.complete(made, 0);
    assert_eq!(history::forkers(&first, &holders.refresh([Service, Partner]).signed), []);
}

#[test]
fn a_garbage_box_names_its_maker_and_the_other_box_serves() {
    let mut holders = Holders::new(1);
    let mut made = holders.refresh([Service, Partner]);
    let good = holders.sealed(&made, 1, Device);
    let theirs = holders.sealed(&made, 1, Partner);
    // The service seals another slope under the label of this record.
    [made.next[0].slope, _] = holders.refresh([Service, Partner]).next.map(|next| next.into_parts().1);
    let bad = holders.sealed(&made, 0, Device);
    let refused = holders.follow(&made.signed, &bad, Device).map(drop).unwrap_err();
    assert_eq!((refused, bad.maker()), (CatchUpRefusal::Box(BoxRefusal::Slope), Service));
    holders.follow(&made.signed, &good, Device).unwrap();
    // A box for another holder does not open.
    let refused = holders.follow(&made.signed, &theirs, Device).map(drop).unwrap_err();
    assert_eq!(refused, CatchUpRefusal::Box(BoxRefusal::Label));
}

#[test]
fn a_maker_that_was_put_back_catches_up_by_its_own_box() {
    let mut holders = Holders::new(1);
    let made = holders.refresh([Service, Partner]);
    let own = holders.sealed(&made, 0, Service);
    let own: SlopeBox = codec::decode(&codec::encode(&own).unwrap()).unwrap();
    let signed: SignedRecord = codec::decode(&codec::encode(&made.signed).unwrap()).unwrap();
    let again = holders.follow(&signed, &own, Service).unwrap();
    assert_eq!(again.share().secret().to_bytes(), made.next[0].share().secret().to_bytes());
}

#[test]
fn a_holder_ten_epochs_behind_follows_to_the_newest() {
    let mut holders = Holders::new(1);
    let behind = holders.one(Device).clone();
    let mut steps = Vec::new();
    for at in 0..10 {
        let made = holders.refresh([Service, Partner]);
        steps.push((made.signed.clone(), holders.sealed(&made, at % 2, Device)));
        holders.complete(made, at % 2);
    }
    let now = std::mem::replace(&mut holders.all[0], behind);
    // The newest record does not follow on the first.
    let refused = holders.follow(&steps[9].0, &steps[9].1, Device).map(drop).unwrap_err();
    assert_eq!(refused, CatchUpRefusal::Record(RecordRefusal::Previous));
    for (signed, slope) in &steps {
        let next = holders.follow(signed, slope, Device).unwrap();
        holders.all[0].share = Arc::new(next.into_parts().0);
    }
    let caught_up = &holders.one(Device).share;
    assert_eq!(caught_up.wallet(), now.share.wallet());
    assert_eq!(caught_up.secret().to_bytes(), now.share.secret().to_bytes());
}

#[test]
fn an_ack_is_of_one_holder_and_one_record() {
    let mut holders = Holders::new(1);
    let One { keys, card, share } = holders.one(Service).clone();
    let old = EpochAck::sign(&share, &card, &keys);
    let made = holders.refresh([Service, Partner]);
    holders.complete(made, 0);
    let One { share, .. } = holders.one(Service).clone();
    let ack = EpochAck::sign(&share, &card, &keys);
    let ack: EpochAck = codec::decode(&codec::encode(&ack).unwrap()).unwrap();
    let wallet = holders.wallet(Partner);
    assert!(ack.is_of(wallet, Service, &card));
    assert!(!old.is_of(wallet, Service, &card), "of the epoch before");
    assert!(!ack.is_of(wallet, Partner, &holders.one(Partner).card));
    assert!(!ack.is_of(wallet, Partner, &card));
}

#[test]
fn shares_of_later_epochs_are_stored_and_read_back() {
    let mut holders = Holders::new(1);
    let first = holders.one(Service).share.to_secret_bytes().unwrap();
    assert_eq!(first[..2], [0x07, 1], "epoch 0 is stored as ever");
    let made = holders.refresh([Service, Partner]);
    let [next, _] = made.next;
    let bytes = next.to_secret_bytes().unwrap();
    let again = NextShare::from_secret_bytes(&bytes).unwrap();
    assert_eq!(again.share().wallet(), next.share().wallet());
    assert_eq!(again.slope().to_bytes(), next.slope().to_bytes());
    let bytes = next.share().to_secret_bytes().unwrap();
    assert_eq!(bytes[..2], [0x07, 2]);
    let again = KeyShare::from_secret_bytes(&bytes).unwrap();
    assert_eq!((again.wallet(), again.index()), (next.share().wallet(), Service));
    assert_eq!(again.wallet().record_hash(), made.signed.record().hash());
    // Each changed byte is refused, or changes the hash of the record in force.
    for at in 2..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(changed) = KeyShare::from_secret_bytes(&changed) {
            assert_ne!(changed.wallet().record_hash(), again.wallet().record_hash(), "byte {at}");
        }
    }
    // A later wallet cannot travel without its history.
    assert!(codec::encode(next.share().wallet()).is_err());
    assert!(!format!("{next:?}").contains(&hex::encode(*next.share().secret().to_bytes())));
}

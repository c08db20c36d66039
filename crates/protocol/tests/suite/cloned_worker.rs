//! A worker that was cloned or rewound: its generator repeats, and its memory is there twice. A
//! merely curious peer computes the key from what the copies send, unless everything random that
//! meets a secret is hedged.
//!
//! Each attack is played twice: against a worker without a hedge, where it has to succeed, and
//! against the product, whose generator, process number and clock repeat as well, where it has to
//! fail.
//!
//! A worker without a hedge takes its random numbers from its generator as they are. The adversary
//! crate plays it, because the product has no such worker.
use duet_adversary::{
    cloned_worker::{
        CuriousInitiator, SeenAnswer, SeenSignature, interpolate, key_from_one_initiator_nonce,
        offer_without_hedge, share_from_two_offers,
    },
    dealing::deal_chosen,
    initiator::{look_into, nonce_point, start_with_nonce},
    responder::{accept_with_nonce, respond_without_hedge},
    test_fixtures::{self, SMOOTH_FACTORS, Seeded, rng},
    world::{Job, Pair, Wallet, World, good},
};
use duet_protocol::{
    arithmetic::gmp,
    curve::SecretScalar,
    enrolment::{EnrolmentOffer, OfferSetup},
    hedge::{Environment, Surrounded},
    ids::ShareIndex,
    initiator::Initiator,
    paillier::DecryptionKey,
    session::{ApiMisuse, SessionError},
};

const PAIR: Pair = Pair::DeviceService;

/// Whether a worker's random numbers are hedged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hedge {
    On,
    Off,
}

/// Which Paillier modulus the initiator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modulus {
    Ordinary,
    /// One less than one of its primes is smooth. Every proof holds for it.
    Smooth,
}

/// A copy of a machine at `now_ns`: its generator and its process's number are those of every other
/// copy.
fn copy(now_ns: u64) -> Surrounded<Seeded> {
    Surrounded::new(rng(7), Environment { process: [1; 32], now_ns })
}

fn case(modulus: Modulus) -> (World, Wallet) {
    let mut world = World::new(gmp(), 31);
    let [first, second, ..] = test_fixtures::blum_primes_1024();
    let first = match modulus {
        Modulus::Ordinary => first,
        Modulus::Smooth => test_fixtures::smooth_prime_1024(),
    };
    let paillier = DecryptionKey::from_primes(&first, &second, gmp()).unwrap();
    let setup = world.dealer_setup();
    let dealt = deal_chosen(&setup, None, Some(paillier), &mut world.rng).unwrap();
    let wallet = world.complete(dealt.pending);
    (world, wallet)
}

/// Both ways to the key that two answers can open.
fn keys_of(wallet: &Wallet, answers: &[SeenAnswer; 2]) -> [Option<SecretScalar>; 2] {
    let curious = CuriousInitiator::new(wallet.device.share(), ShareIndex::Service);
    let enrolment = wallet.enrolment(PAIR);
    let answers = [&answers[0], &answers[1]];
    let smooth = test_fixtures::smooth_prime_1024();
    let key = enrolment.encryption_key();
    let by_randomizer = key
        .modulus()
        .rem(&smooth)
        .is_some_and(|rest| rest.is_zero())
        .then(|| {
            let encrypted = enrolment.ciphertext().as_natural();
            curious.key_from_one_randomizer(answers, (key, &smooth, &SMOOTH_FACTORS), encrypted)
        })
        .flatten();
    [curious.key_from_one_mask(answers), by_randomizer]
}

fn is_the_key(wallet: &Wallet, found: &SecretScalar) -> bool {
    *found.as_scalar() == interpolate(wallet.device.share(), &wallet.service).unwrap()
}

/// Two sessions, each answered by a copy of one machine in one instant.
fn two_answers(world: &mut World, wallet: &Wallet, hedge: Hedge) -> [SeenAnswer; 2] {
    [(); 2].map(|()| {
        let job = Job::random(&mut world.rng, "m");
        let (first, second, _) = wallet.run_to_answer(world, PAIR, &job);
        let (four, _) = match hedge {
            Hedge::On => second.respond(job.charged(wallet), None, &mut copy(1)).unwrap(),
            Hedge::Off => respond_without_hedge(second, &mut rng(7), &mut rng(8)).unwrap(),
        };
        look_into(first, &four, job.digest, &mut world.rng).unwrap()
    })
}

#[test]
fn two_answers_of_a_cloned_responder__should_give_the_key_without_the_hedge() {
    for modulus in [Modulus::Ordinary, Modulus::Smooth] {
        let (mut world, wallet) = case(modulus);
        let answers = two_answers(&mut world, &wallet, Hedge::Off);
        let [by_mask, by_randomizer] = keys_of(&wallet, &answers);
        assert!(is_the_key(&wallet, &by_mask.unwrap()), "{modulus:?}");
        assert_eq!(by_randomizer.is_some_and(|key| is_the_key(&wallet, &key)), modulus == Modulus::Smooth);
    }
}

#[test]
fn two_answers_of_a_cloned_responder__should_give_nothing() {
    for prepared in [false, true] {
        for modulus in [Modulus::Ordinary, Modulus::Smooth] {
            let (mut world, wallet) = case(modulus);
            if prepared {
                wallet.enrolment(PAIR).prepare();
            }
            let answers = two_answers(&mut world, &wallet, Hedge::On);
            assert!(keys_of(&wallet, &answers).iter().all(Option::is_none), "{modulus:?}");
        }
    }
}

/// Two sessions, each with an `r̃^N` of a copy of one machine, and all else as it should be.
fn with_copied_randomizers(world: &mut World, wallet: &Wallet, hedge: Hedge) -> [SeenAnswer; 2] {
    [(); 2].map(|()| {
        let job = Job::random(&mut world.rng, "m");
        let (first, second, [_, two]) = wallet.open(world, PAIR, &job);
        let randomizer = second.draw_randomizer(&mut copy(1)).compute();
        let (first, three) = first.receive(&two, &mut world.rng).unwrap();
        let second = second.receive(&three).unwrap();
        let (four, _) = match hedge {
            Hedge::On => second.respond(job.charged(wallet), Some(randomizer), &mut world.rng).unwrap(),
            Hedge::Off => respond_without_hedge(second, &mut world.rng, &mut rng(7)).unwrap(),
        };
        look_into(first, &four, job.digest, &mut world.rng).unwrap()
    })
}

#[test]
fn one_randomizer_in_two_answers__should_give_the_key_of_a_smooth_modulus_without_the_hedge() {
    let (mut world, wallet) = case(Modulus::Smooth);
    let answers = with_copied_randomizers(&mut world, &wallet, Hedge::Off);
    let [by_mask, by_randomizer] = keys_of(&wallet, &answers);
    assert!(by_mask.is_none(), "the masks differ");
    assert!(is_the_key(&wallet, &by_randomizer.unwrap()));
}

#[test]
fn a_memory_copied_between_computing_and_using__should_serve_one_session() {
    for modulus in [Modulus::Ordinary, Modulus::Smooth] {
        let (mut world, wallet) = case(modulus);
        // Copied before message 1: each session's randomizer is its own, though the generator
        // repeats.
        let answers = with_copied_randomizers(&mut world, &wallet, Hedge::On);
        assert!(keys_of(&wallet, &answers).iter().all(Option::is_none), "{modulus:?}");

        // Copied after it was computed: another session does not take it.
        let [job, other] = [(); 2].map(|()| Job::random(&mut world.rng, "m"));
        let (_, second, _) = wallet.run_to_answer(&mut world, PAIR, &job);
        let randomizer = second.draw_randomizer(&mut world.rng).compute();
        let (_, another, _) = wallet.run_to_answer(&mut world, PAIR, &other);
        let refused = another.respond(other.charged(&wallet), Some(randomizer), &mut world.rng);
        assert_eq!(refused.unwrap_err(), SessionError::ApiMisuse(ApiMisuse::Randomizer));

        // Both copies go on with the one session, at two moments: they say the same twice.
        let answers = [1, 2].map(|now_ns| {
            world.rng = rng(8);
            let (first, second, _) = wallet.run_to_answer(&mut world, PAIR, &job);
            let randomizer = second.draw_randomizer(&mut copy(0)).compute();
            let mut entropy = copy(now_ns);
            let (four, _) = second.respond(job.charged(&wallet), Some(randomizer), &mut entropy).unwrap();
            look_into(first, &four, job.digest, &mut world.rng).unwrap()
        });
        assert_eq!(answers[0].r, answers[1].r, "it is one session");
        assert_ne!(answers[0].plaintext, answers[1].plaintext, "the masks differ");
        assert!(keys_of(&wallet, &answers).iter().all(Option::is_none), "{modulus:?}");
    }
}

/// Offers of copies of one service in one instant, to one partner.
fn two_offers(world: &World, wallet: &Wallet, hedge: Hedge) -> [EnrolmentOffer; 2] {
    [2, 3].map(|generation| {
        let setup = OfferSetup {
            share: &wallet.service,
            paillier: &wallet.service_paillier,
            keys: &world.service.keys,
            card: &world.service.card,
            responder: &world.partner_card,
            responder_index: ShareIndex::Partner,
            generation,
        };
        match hedge {
            Hedge::On => EnrolmentOffer::make(&setup, None, &mut copy(1)).unwrap(),
            Hedge::Off => offer_without_hedge(&setup, &mut rng(7), &mut copy(1)).unwrap(),
        }
    })
}

fn share_of(world: &World, wallet: &Wallet, offers: &[EnrolmentOffer; 2]) -> Option<SecretScalar> {
    let share = wallet.partner.wallet().public_share(ShareIndex::Service);
    share_from_two_offers(&wallet.partner_verifier(world), [&offers[0], &offers[1]], share)
}

#[test]
fn two_offers_of_a_cloned_service__should_give_its_share_without_the_hedge() {
    let (world, wallet) = case(Modulus::Ordinary);
    let offers = two_offers(&world, &wallet, Hedge::Off);
    assert!(share_of(&world, &wallet, &offers).is_some());
}

#[test]
fn two_offers_of_a_cloned_service__should_give_nothing() {
    let (world, wallet) = case(Modulus::Ordinary);
    let offers = two_offers(&world, &wallet, Hedge::On);
    assert!(share_of(&world, &wallet, &offers).is_none());
}

/// Two copies of an initiator are shown one manifest, a nanosecond apart, by a responder that takes
/// down what it sees.
fn one_manifest_twice(world: &mut World, wallet: &Wallet, hedge: Hedge) -> [SeenSignature; 2] {
    let job = Job::random(&mut world.rng, "m");
    [1, 2].map(|now_ns| {
        let mut entropy = copy(now_ns);
        let setup = wallet.initiator(world, PAIR, &job);
        let (first, one) = match hedge {
            Hedge::On => Initiator::start(setup, &mut entropy).unwrap(),
            Hedge::Off => {
                let repeated = SecretScalar::random(&mut rng(7));
                start_with_nonce(setup, repeated, &mut entropy).unwrap()
            }
        };
        let nonce_point = nonce_point(&first);
        let nonce = SecretScalar::random(&mut world.rng);
        let k2 = *nonce.as_scalar();
        let setup = wallet.responder(world, PAIR, &job);
        let (second, two) = accept_with_nonce(setup, &one, nonce, &mut world.rng).unwrap();
        let (first, three) = first.receive(&two, &mut world.rng).unwrap();
        let second = second.receive(&three).unwrap();
        let (four, _) = second.respond(job.charged(wallet), None, &mut world.rng).unwrap();
        let (signature, _) = good(first.receive(&four, &mut world.rng).unwrap(), &job);
        SeenSignature { nonce_point, k2, signature, digest: job.digest }
    })
}

#[test]
fn one_manifest_shown_to_two_copies_of_an_initiator__should_give_the_key_without_the_hedge() {
    let (mut world, wallet) = case(Modulus::Ordinary);
    let [first, second] = one_manifest_twice(&mut world, &wallet, Hedge::Off);
    assert_eq!(first.nonce_point, second.nonce_point);
    let key = key_from_one_initiator_nonce(wallet.service.wallet(), [&first, &second]).unwrap();
    assert!(is_the_key(&wallet, &key));
}

#[test]
fn one_manifest_shown_to_two_copies_of_an_initiator__should_give_nothing() {
    let (mut world, wallet) = case(Modulus::Ordinary);
    let [first, second] = one_manifest_twice(&mut world, &wallet, Hedge::On);
    assert_ne!(first.nonce_point, second.nonce_point);
    assert!(key_from_one_initiator_nonce(wallet.service.wallet(), [&first, &second]).is_none());
}

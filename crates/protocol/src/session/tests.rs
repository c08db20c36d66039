//! Sessions in which a party cheats, replays or errs: refused by name, never with a verdict.

use zeroize::Zeroizing;

use super::*;
use crate::{
    arithmetic::default_arithmetic,
    channel::Handshake,
    curve::SecretScalar,
    initiator::{self, Initiator},
    paillier::InvalidCiphertext,
    responder::{self, Charged, Responder},
    test_fixtures::rng,
    verdict::{ForeignToken, LockWritten, Unlocked, Verdict},
    world::{Job, PAIRS, Pair, Wallet, World, bad, good, party},
};

fn case() -> (World, Wallet) {
    let mut world = World::new(default_arithmetic(), 21);
    let wallet = world.wallet(None);
    (world, wallet)
}

fn refused_by_responder(world: &mut World, wallet: &Wallet, pair: Pair, job: &Job, message1: &[u8]) -> bool {
    let outcome = Responder::accept(wallet.responder(world, pair, job), message1, &mut world.rng);
    matches!(outcome, Err(SessionError::NotAuthentic(Round::Commitment)))
}

#[test]
fn every_message_replayed_in_another_session_pair_or_role_is_refused() {
    let (mut world, wallet) = case();
    for pair in PAIRS {
        let job = Job::random(&mut world.rng, "m");
        let (first, answering, [one, two, three]) = wallet.run_to_answer(&mut world, pair, &job);
        let (four, _) = answering.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
        good(first.receive(&four, &mut world.rng).unwrap(), &job);
        let seen = [one, two, three, four];

        for other_pair in PAIRS {
            // Another session: every recorded message, in every place.
            let other = Job::random(&mut world.rng, "m");
            for message in &seen {
                assert!(refused_by_responder(&mut world, &wallet, other_pair, &other, message));
                let (awaiting_response, awaiting_opening, _) = wallet.open(&mut world, other_pair, &other);
                assert!(awaiting_response.receive(message, &mut world.rng).is_err());
                assert!(awaiting_opening.receive(message).is_err());
                let (awaiting_cipher, _, _) = wallet.run_to_answer(&mut world, other_pair, &other);
                let error = awaiting_cipher.receive(message, &mut world.rng).unwrap_err();
                assert_eq!(error, SessionError::NotAuthentic(Round::Cipher));
                assert_eq!(error.culprit(), None, "a replay blames no party");
            }
            // The same session again (a restarted worker): only message 1 can be repeated, and then
            // the responder has another nonce, so that the old messages 3 and 4 are worthless.
            if other_pair == pair {
                let setup = wallet.responder(&world, pair, &job);
                let (again, second) = Responder::accept(setup, &seen[0], &mut world.rng).unwrap();
                assert_ne!(second, seen[1]);
                assert!(again.receive(&seen[2]).is_err());
            } else {
                assert!(refused_by_responder(&mut world, &wallet, other_pair, &job, &seen[0]));
            }
        }
    }
}

#[test]
fn changed_truncated_and_oversized_messages_are_refused_without_blame() {
    let (mut world, wallet) = case();
    let pair = Pair::DeviceService;
    for trial in 0..40_usize {
        let job = Job::random(&mut world.rng, "m");
        let spoil = |message: &[u8]| {
            let mut message = message.to_vec();
            match trial % 4 {
                0 => message.truncate(trial),
                1 => message.push(0),
                2 => message.resize(5000, 0),
                _ => {
                    let at = trial * 13 % message.len();
                    message[at] ^= 1;
                }
            }
            message
        };
        let (first, second, [one, two]) = wallet.open(&mut world, pair, &job);
        assert!(refused_by_responder(&mut world, &wallet, pair, &job, &spoil(&one)));
        assert_eq!(
            first.receive(&spoil(&two), &mut world.rng).unwrap_err(),
            SessionError::NotAuthentic(Round::ResponderNonce)
        );
        drop(second);
        let (first, second, [_, two]) = wallet.open(&mut world, pair, &job);
        let (first, three) = first.receive(&two, &mut world.rng).unwrap();
        assert_eq!(second.receive(&spoil(&three)).unwrap_err(), SessionError::NotAuthentic(Round::Opening));
        assert_eq!(
            first.receive(&spoil(&three), &mut world.rng).unwrap_err(),
            SessionError::NotAuthentic(Round::Cipher)
        );
    }
}

#[test]
fn sides_that_see_different_things_have_no_channel() {
    let (mut world, wallet) = case();
    let pair = Pair::ServicePartner;
    let job = Job::random(&mut world.rng, "m/1");
    let changes: [fn(&mut Job); 4] = [
        |job| job.digest[0] ^= 1,
        |job| job.path = "m/2".parse().unwrap(),
        |job| job.manifest.push(0),
        |job| job.session = SessionId([7; 16]),
    ];
    for change in changes {
        let mut seen = job.clone();
        change(&mut seen);
        let (_, one) = Initiator::start(wallet.initiator(&world, pair, &job), &mut world.rng).unwrap();
        assert!(refused_by_responder(&mut world, &wallet, pair, &seen, &one));
    }
    // The initiator uses another Paillier key than the responder has enrolled: stale, not a lock.
    let mut setup = wallet.initiator(&world, pair, &job);
    let other = crate::test_fixtures::decryption_key(0, world.arithmetic);
    setup.paillier = std::sync::Arc::new(crate::paillier_key::PaillierKey::new(party("service"), other));
    let (_, one) = Initiator::start(setup, &mut world.rng).unwrap();
    assert!(refused_by_responder(&mut world, &wallet, pair, &job, &one));
}

#[test]
fn a_cheating_initiator_is_named() {
    let (mut world, wallet) = case();
    let pair = Pair::ServicePartner;
    let fault = |error: SessionError| {
        assert_eq!(error.culprit(), Some(&party("service")));
        let SessionError::PeerMisbehaved { fault, .. } = error else { panic!("{error}") };
        fault
    };
    let job = Job::random(&mut world.rng, "m");

    // A commitment that does not parse.
    let setup = wallet.initiator(&world, pair, &job);
    let prologue = initiator::agree(&setup).unwrap().prologue();
    let ephemeral = Zeroizing::new([5; 32]);
    let mut handshake = Handshake::initiator(&setup.keys, setup.responder.noise_key(), &prologue).unwrap();
    let one = handshake.write(b"garbage", ephemeral).unwrap();
    let error = Responder::accept(wallet.responder(&world, pair, &job), &one, &mut world.rng).unwrap_err();
    assert!(matches!(fault(error), PeerFault::Malformed { round: Round::Commitment, .. }));

    // An opening that was changed after the commitment, in each of its parts.
    let other_nonce = SecretScalar::random(&mut world.rng);
    let changes: [&dyn Fn(&mut NonceOpening); 2] =
        [&|opening| opening.point = other_nonce.public(), &|opening| opening.blinding[0] ^= 1];
    for change in changes {
        let (mut first, second, [_, two]) = wallet.open(&mut world, pair, &job);
        change(first.opening_mut());
        let (_, three) = first.receive(&two, &mut world.rng).unwrap();
        assert_eq!(fault(second.receive(&three).unwrap_err()), PeerFault::Commitment);
    }

    // A proof made for another session, properly committed to.
    let setup = wallet.initiator(&world, pair, &job);
    let agreement = initiator::agree(&setup).unwrap();
    let nonce = SecretScalar::random(&mut world.rng);
    let proof = SchnorrProof::prove(&nonce, &agreement.initiator_context([0; 32]), &mut world.rng);
    let opening = NonceOpening { point: nonce.public(), proof, blinding: [1; 32] };
    let commitment = commit(&agreement.sid1(), &opening.point, &opening.proof, &opening.blinding);
    let ephemeral = Zeroizing::new([6; 32]);
    let to = setup.responder.noise_key();
    let mut handshake = Handshake::initiator(&setup.keys, to, &agreement.prologue()).unwrap();
    let one = handshake.write(&codec::encode(&NonceCommitment { commitment }).unwrap(), ephemeral).unwrap();
    let (second, two) =
        Responder::accept(wallet.responder(&world, pair, &job), &one, &mut world.rng).unwrap();
    handshake.read(&two).unwrap();
    let three = handshake.finish().unwrap().write(&codec::encode(&opening).unwrap()).unwrap();
    assert_eq!(fault(second.receive(&three).unwrap_err()), PeerFault::NonceProof);
}

#[test]
fn a_cheating_responder_is_named_and_locks_nothing_it_can_choose() {
    let (mut world, wallet) = case();
    let pair = Pair::DevicePartner;
    let fault = |error: SessionError| {
        assert_eq!(error.culprit(), Some(&party("partner")));
        let SessionError::PeerMisbehaved { fault, .. } = error else { panic!("{error}") };
        fault
    };
    let job = Job::random(&mut world.rng, "m");

    // A nonce proof for another session id, and a message that does not parse.
    for parses in [true, false] {
        let setup = wallet.responder(&world, pair, &job);
        let agreement = responder::agree(&setup).unwrap();
        let (first, one) = Initiator::start(wallet.initiator(&world, pair, &job), &mut world.rng).unwrap();
        let ephemeral = Zeroizing::new([6; 32]);
        let to = setup.initiator.noise_key();
        let mut handshake = Handshake::responder(&setup.keys, to, &agreement.prologue()).unwrap();
        handshake.read(&one).unwrap();
        let nonce = SecretScalar::random(&mut world.rng);
        let proof = SchnorrProof::prove(&nonce, &agreement.responder_context([0; 32]), &mut world.rng);
        let payload = if parses {
            codec::encode(&ResponderNonce { point: nonce.public(), proof }).unwrap()
        } else {
            vec![1, 2, 3]
        };
        let two = handshake.write(&payload, ephemeral).unwrap();
        match fault(first.receive(&two, &mut world.rng).unwrap_err()) {
            PeerFault::NonceProof => assert!(parses),
            PeerFault::Malformed { round: Round::ResponderNonce, .. } => assert!(!parses),
            other => panic!("{other}"),
        }
    }

    // Numbers that are no ciphertexts, signed as they should be.
    let n = wallet.enrolment(pair).encryption_key().modulus().clone();
    let range = PeerFault::Cipher(InvalidCiphertext::Range);
    let factor = PeerFault::Cipher(InvalidCiphertext::NotInvertible);
    for (number, expected) in [
        (Natural::zero(), &range),
        (n.square(), &range),
        (&n.square() + &Natural::one(), &range),
        (n.clone(), &factor),
        (&n * &Natural::from(12345), &factor),
    ] {
        let (first, second, _) = wallet.run_to_answer(&mut world, pair, &job);
        let (four, _) = second.respond_with(&number).unwrap();
        assert_eq!(&fault(first.receive(&four, &mut world.rng).unwrap_err()), expected);
    }

    // An answer that is not signed by the card: by another key, or over another session.
    let (first, mut second, _) = wallet.run_to_answer(&mut world, pair, &job);
    let ciphertext = Natural::from(2);
    let statement = CipherStatement { sid: second.sid(), ciphertext_hash: ciphertext_hash(&ciphertext) };
    let signature = world.service.keys.sign_statement(&statement);
    let forged = codec::encode(&SignedCipher { ciphertext: ciphertext.clone(), signature }).unwrap();
    let four = second.send_payload(&forged);
    assert_eq!(fault(first.receive(&four, &mut world.rng).unwrap_err()), PeerFault::CipherSignature);
    let (first, mut second, _) = wallet.run_to_answer(&mut world, pair, &job);
    let statement = CipherStatement { sid: [0; 32], ..statement };
    let signature = world.partner.keys.sign_statement(&statement);
    let old = codec::encode(&SignedCipher { ciphertext, signature }).unwrap();
    let four = second.send_payload(&old);
    assert_eq!(fault(first.receive(&four, &mut world.rng).unwrap_err()), PeerFault::CipherSignature);
    // And one that does not parse.
    let (first, mut second, _) = wallet.run_to_answer(&mut world, pair, &job);
    let four = second.send_payload(&[4, 1]);
    let error = first.receive(&four, &mut world.rng).unwrap_err();
    assert!(matches!(fault(error), PeerFault::Malformed { round: Round::Cipher, .. }));
}

#[test]
fn an_authentic_answer_that_spoils_the_signature_demands_the_lock() {
    let (mut world, wallet) = case();
    for pair in PAIRS {
        let job = Job::random(&mut world.rng, "m");
        let (first, second, _) = wallet.run_to_answer(&mut world, pair, &job);
        let (four, _) = second.respond_with(&Natural::from(2)).unwrap();
        let verdict = first.receive(&four, &mut world.rng).unwrap();
        assert_eq!(verdict.paillier_key(), wallet.enrolment(pair).paillier_key());
        let responder = if pair == Pair::DeviceService { "service" } else { "partner" };
        assert_eq!(bad(verdict, &job), party(responder));
    }
}

#[test]
fn the_gate_opens_for_its_own_token_only() {
    let (mut world, wallet) = case();
    let pair = Pair::DeviceService;
    let key = wallet.enrolment(pair).paillier_key();
    let other_key = wallet.enrolment(Pair::ServicePartner).paillier_key();
    let job = Job::random(&mut world.rng, "m");
    for (token_key, token_session) in [(other_key, job.session), (key, SessionId([0; 16]))] {
        let (first, second, _) = wallet.run_to_answer(&mut world, pair, &job);
        let (four, _) = second.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
        let Verdict::Good(gated) = first.receive(&four, &mut world.rng).unwrap() else { panic!() };
        let shown = format!("{gated:?}");
        let token = Unlocked::found_by_linearisable_read(token_key, token_session);
        assert_eq!(gated.release(token), Err(ForeignToken));
        assert!(shown.len() < 120, "nothing of the signature is printed: {shown}");

        let (first, second, _) = wallet.run_to_answer(&mut world, pair, &job);
        let (four, evidence) = second.respond_with(&Natural::from(2)).unwrap();
        evidence.verify(world.service.card.identity()).unwrap();
        assert!(evidence.verify(world.partner.card.identity()).is_err());
        let Verdict::Bad(demand) = first.receive(&four, &mut world.rng).unwrap() else { panic!() };
        assert_eq!(demand.evidence(), &evidence);
        let token = LockWritten::committed_durably(token_key, token_session);
        assert_eq!(demand.settle(token).unwrap_err(), ForeignToken);
    }
}

#[test]
fn a_callers_mistakes_are_the_callers() {
    let (mut world, wallet) = case();
    let job = Job::random(&mut world.rng, "m");
    let pair = Pair::DeviceService;
    let mut start = |setup| {
        let error = Initiator::start(setup, &mut world.rng).unwrap_err();
        assert_eq!(error.culprit(), None);
        error
    };
    let honest = |world: &World| wallet.initiator(world, pair, &job);
    let world_now = World::new(default_arithmetic(), 21);
    let mut setup = honest(&world_now);
    setup.responder_index = ShareIndex::Device;
    assert_eq!(start(setup), SessionError::ApiMisuse(ApiMisuse::Roles));
    let mut setup = honest(&world_now);
    setup.responder_index = ShareIndex::Partner;
    assert_eq!(start(setup), SessionError::ApiMisuse(ApiMisuse::Card));
    let mut setup = honest(&world_now);
    setup.paillier = wallet.service_paillier.clone();
    assert_eq!(start(setup), SessionError::ApiMisuse(ApiMisuse::PaillierKey));

    let accept = |world: &mut World, setup| {
        let error = Responder::accept(setup, &[], &mut world.rng).unwrap_err();
        let SessionError::ApiMisuse(misuse) = error else { panic!("{error}") };
        misuse
    };
    let mut setup = wallet.responder(&world, pair, &job);
    setup.enrolment = wallet.enrolment(Pair::ServicePartner);
    assert_eq!(accept(&mut world, setup), ApiMisuse::Enrolment);
    let mut setup = wallet.responder(&world, pair, &job);
    setup.initiator = world.partner.card.clone();
    assert_eq!(accept(&mut world, setup), ApiMisuse::PaillierKey);
    let mut setup = wallet.responder(&world, pair, &job);
    setup.keys = world.partner.keys.clone();
    assert_eq!(accept(&mut world, setup), ApiMisuse::Card);

    // Nothing leaves without its own charge, or with another session's randomizer.
    let id = wallet.service.wallet().id();
    for charge in [
        Charged::committed_durably(SessionId([0; 16]), id, job.digest),
        Charged::committed_durably(job.session, WalletId([0; 32]), job.digest),
        Charged::committed_durably(job.session, id, [0; 32]),
    ] {
        let (_, second, _) = wallet.run_to_answer(&mut world, pair, &job);
        let error = second.respond(charge, None, &mut world.rng).unwrap_err();
        assert_eq!(error, SessionError::ApiMisuse(ApiMisuse::Charge));
    }
    let (_, other, _) = wallet.run_to_answer(&mut world, pair, &job);
    let foreign = other.draw_randomizer(&mut world.rng).compute();
    let (_, second, _) = wallet.run_to_answer(&mut world, pair, &job);
    let error = second.respond(job.charged(&wallet), Some(foreign), &mut world.rng).unwrap_err();
    assert_eq!(error, SessionError::ApiMisuse(ApiMisuse::Randomizer));
    // With its own, started before message 3, the answer is as good as any.
    let (first, second, [_, message2]) = wallet.open(&mut world, pair, &job);
    let own = second.draw_randomizer(&mut world.rng).compute();
    let (first, message3) = first.receive(&message2, &mut world.rng).unwrap();
    let second = second.receive(&message3).unwrap();
    let (four, _) = second.respond(job.charged(&wallet), Some(own), &mut world.rng).unwrap();
    good(first.receive(&four, &mut world.rng).unwrap(), &job);
    // And so it is from an enrolment that was prepared, every time.
    wallet.enrolment(pair).prepare();
    for _ in 0..2 {
        let (first, second, _) = wallet.run_to_answer(&mut world, pair, &job);
        let (four, _) = second.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
        good(first.receive(&four, &mut world.rng).unwrap(), &job);
    }
}

#[test]
fn no_nonce_is_used_twice_even_by_a_repeating_generator() {
    let (mut world, wallet) = case();
    let mut points = std::collections::BTreeSet::new();
    for trial in 0..20 {
        let job = Job::random(&mut world.rng, "m");
        // A cloned machine: the same generator state for every session.
        world.rng = rng(99);
        let (first, second, _) = wallet.open(&mut world, Pair::DeviceService, &job);
        assert!(points.insert(first.nonce_point().to_bytes()), "R1 of {trial}");
        drop(second);
        world.rng = rng(trial);
        let (_, ready, _) = wallet.run_to_answer(&mut world, Pair::DeviceService, &job);
        assert!(points.insert(ready.nonce_point().to_bytes()), "R2 of {trial}");
    }
}

#[test]
fn sizes_and_layouts_on_the_wire_are_pinned() {
    let (mut world, wallet) = case();
    let job = Job::random(&mut world.rng, "m");
    let (_, second, [one, two, three]) = wallet.run_to_answer(&mut world, Pair::DeviceService, &job);
    let (four, evidence) = second.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
    // Header 2, then: hash 32; point 33 and proof 65; point, proof and blinding 130; number of at
    // most 512 bytes with its length, signature 64. Noise adds 48, 48, 16 and 16.
    assert_eq!((one.len(), two.len(), three.len()), (34 + 48, 100 + 48, 132 + 16));
    let (least, most) = (2 + 3 + 500 + 64 + 16, 2 + 3 + 512 + 64 + 16);
    assert!((least..=most).contains(&four.len()), "{}", four.len());
    let payloads = one.len() + two.len() + three.len() + four.len() - 48 - 48 - 16 - 16;
    assert!(payloads <= 1536, "{payloads} bytes a signature");

    let commitment = NonceCommitment { commitment: [0xab; 32] };
    assert_eq!(hex::encode(codec::encode(&commitment).unwrap()), format!("0101{}", "ab".repeat(32)));
    let cipher = SignedCipher { ciphertext: Natural::from(0x1234), signature: IdentitySignature([7; 64]) };
    assert_eq!(hex::encode(codec::encode(&cipher).unwrap()), format!("0401021234{}", "07".repeat(64)));
    let generator = Point::generator();
    let bytes = codec::encode(&ResponderNonce {
        point: generator,
        proof: SchnorrProof::prove(
            &SecretScalar::random(&mut world.rng),
            &responder::agree(&wallet.responder(&world, Pair::DeviceService, &job))
                .unwrap()
                .responder_context([0; 32]),
            &mut world.rng,
        ),
    })
    .unwrap();
    assert_eq!(hex::encode(&bytes[..35]), format!("0201{}", hex::encode(generator.to_bytes())));
    let record = codec::encode(&evidence).unwrap();
    assert_eq!(codec::decode::<CipherEvidence>(&record), Ok(evidence));
}

#[test]
fn what_is_hashed_is_pinned() {
    let seat =
        |name: &str, index, byte| Seat { party: party(name), index, card: CardFingerprint([byte; 32]) };
    let agreement = Agreement {
        manifest: b"manifest".to_vec(),
        session: SessionId([1; 16]),
        wallet: WalletId([2; 32]),
        epoch: Epoch(3),
        public_key: PublicKey::from_bytes(&Point::generator().to_bytes()).unwrap(),
        paillier_key: PaillierKeyId([4; 16]),
        initiator: seat("device", ShareIndex::Device, 5),
        responder: seat("service", ShareIndex::Service, 6),
        path: "m/0/7".parse().unwrap(),
        digest: [8; 32],
        record: None,
    };
    let of = |agreement: &Agreement| {
        [
            agreement.prologue(),
            agreement.sid1(),
            agreement.sid2(&[9; 32]),
            agreement.sid(&[9; 32]),
            ciphertext_hash(&Natural::from(10)),
        ]
    };
    let hashes = of(&agreement);
    // A change here is a change of the protocol: old and new builds no longer sign together.
    assert_eq!(
        hashes.map(|hash| hex::encode(&hash[..8])),
        ["8588499902798513", "5106b559698e2ba4", "754ddf8eabe89583", "743727d145b12ce0", "f9aa170631d51379"]
    );
    // From epoch 1 on, all hashes of a session are also over the record in force.
    let on_record = |byte| of(&Agreement { record: Some([byte; 32]), ..agreement.clone() });
    for (at, one) in on_record(1).iter().enumerate().take(4) {
        assert!(*one != hashes[at] && *one != on_record(2)[at], "hash {at}");
    }
}

/// A tail on a round message would be under no hash: a decoder that ignored it would let one value
/// have many encodings.
#[test]
fn round_messages_take_no_tail() {
    fn refuses<M: Message>() {
        let marked = M::VERSION | codec::WITH_TAIL;
        for rest in [&[][..], &[codec::READER_LEVEL], &[codec::READER_LEVEL; 30]] {
            let refused = codec::decode::<M>(&[&[M::KIND, marked], rest].concat()).err();
            assert_eq!(refused, Some(DecodeError::Version { found: marked, supported: M::VERSION }));
        }
    }
    refuses::<NonceCommitment>();
    refuses::<ResponderNonce>();
    refuses::<NonceOpening>();
    refuses::<SignedCipher>();
    refuses::<CipherEvidence>();
}

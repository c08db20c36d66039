//! Pending verdicts: what an initiator stores before it decrypts is judged, without the nonce,
//! exactly as the session itself would have been.
use duet_adversary::{
    oracle::respond_as_abort_oracle,
    responder::respond_with,
    test_fixtures::rng,
    world::{Job, PAIRS, Pair, Wallet, World, bad, good, party},
};
use duet_protocol::{
    arithmetic::{constant_time, gmp},
    codec,
    natural::Natural,
    pending::{Judged, PendingVerdict, PendingWritten},
    session::{ApiMisuse, SessionError},
    verdict::Verdict,
};

/// What the wallet's holder judges of a stored pending verdict.
fn judge(wallet: &Wallet, pair: Pair, stored: &[u8]) -> Judged {
    let pending: PendingVerdict = codec::decode(stored).unwrap();
    let (share, paillier) = match pair {
        Pair::DeviceService | Pair::DevicePartner => (wallet.device.share(), wallet.device.paillier()),
        Pair::ServicePartner => (&wallet.service, &wallet.service_paillier),
    };
    pending.judge(share.wallet(), paillier, &mut rng(9)).unwrap()
}

#[test]
fn an_honest_answer__should_be_judged_good_for_every_pair_and_child_key() {
    for arithmetic in [gmp(), constant_time()] {
        let mut world = World::new(arithmetic, 71);
        let wallet = world.wallet(None);
        for pair in PAIRS {
            // Enough of them for either sign: a high s is made low in half of all signatures.
            for path in ["m", "m/0", "m/44/60/0/0/7", "m/2147483647"].iter().cycle().take(8) {
                let job = Job::random(&mut world.rng, path);
                let (initiator, responder, _) = wallet.run_to_answer(&mut world, pair, &job);
                let (answer, _) = responder.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
                let authentic = initiator.authenticate(&answer).unwrap();
                let stored = codec::encode(&authentic.pending()).unwrap();
                assert!(matches!(judge(&wallet, pair, &stored), Judged::Good), "{pair:?} {path}");
                let written = PendingWritten::survives_the_process(job.session);
                good(authentic.decrypt(&written, &mut world.rng).unwrap(), &job);
            }
        }
    }
}

#[test]
fn a_bad_answer__should_be_judged_bad_with_the_responder_as_the_culprit() {
    let mut world = World::new(gmp(), 72);
    let wallet = world.wallet(None);
    for path in ["m", "m/5"] {
        let job = Job::random(&mut world.rng, path);
        let (initiator, responder, _) = wallet.run_to_answer(&mut world, Pair::ServicePartner, &job);
        let (answer, evidence) = respond_with(responder, &Natural::from(2)).unwrap();
        let authentic = initiator.authenticate(&answer).unwrap();
        let stored = codec::encode(&authentic.pending()).unwrap();
        let Judged::Bad(demand) = judge(&wallet, Pair::ServicePartner, &stored) else { panic!("it is bad") };
        assert_eq!((demand.session(), demand.evidence()), (job.session, &evidence));
        assert_eq!(bad(Verdict::Bad(demand), &job), party("partner"));
    }
}

#[test]
fn the_abort_oracle__should_be_judged_as_the_session_was() {
    let mut world = World::new(gmp(), 73);
    let wallet = world.wallet(None);
    let mut verdicts = [0; 2];
    for bit in 0..24 {
        let job = Job::random(&mut world.rng, "m");
        let (initiator, responder, _) = wallet.run_to_answer(&mut world, Pair::DeviceService, &job);
        // One bit of the share: some of these guesses are right.
        let guess = Natural::from(u64::from(bit % 2 == 0));
        let (answer, _) = respond_as_abort_oracle(responder, 1, &guess, &mut world.rng).unwrap();
        let authentic = initiator.authenticate(&answer).unwrap();
        let stored = codec::encode(&authentic.pending()).unwrap();
        let judged = matches!(judge(&wallet, Pair::DeviceService, &stored), Judged::Bad(_));
        let written = PendingWritten::survives_the_process(job.session);
        let verdict = authentic.decrypt(&written, &mut world.rng).unwrap();
        assert_eq!(judged, matches!(verdict, Verdict::Bad(_)));
        verdicts[usize::from(judged)] += 1;
    }
    assert_eq!(verdicts, [12, 12]);
}

#[test]
fn a_pending_verdict__should_not_be_judged_with_another_wallet_or_key() {
    let mut world = World::new(gmp(), 74);
    let (wallet, other) = (world.wallet(None), world.wallet(None));
    let job = Job::random(&mut world.rng, "m");
    let (initiator, responder, _) = wallet.run_to_answer(&mut world, Pair::ServicePartner, &job);
    let (answer, _) = responder.respond(job.charged(&wallet), None, &mut world.rng).unwrap();
    let authentic = initiator.authenticate(&answer).unwrap();
    let pending = authentic.pending();
    let (public, key) = (wallet.service.wallet(), &wallet.service_paillier);
    assert!(pending.clone().judge(other.service.wallet(), key, &mut rng(1)).is_err());
    assert!(pending.clone().judge(public, wallet.device.paillier(), &mut rng(1)).is_err());
    assert!(pending.judge(public, key, &mut rng(1)).is_ok());

    let another = PendingWritten::survives_the_process(other_session(&job));
    let refused = authentic.decrypt(&another, &mut world.rng);
    assert!(matches!(refused, Err(SessionError::ApiMisuse(ApiMisuse::Pending))), "{refused:?}");
}

fn other_session(job: &Job) -> duet_protocol::ids::SessionId {
    let mut session = job.session;
    session.0[0] ^= 1;
    session
}

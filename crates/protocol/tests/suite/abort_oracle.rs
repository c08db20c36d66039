//! The abort oracle of CVE-2023-33242 (ePrint 2023/1234), played for real: a responder that learns
//! one bit of the initiator's share from whether the signature verifies. It gets one verdict, ever.
use std::collections::BTreeSet;

use duet_adversary::{
    oracle::respond_as_abort_oracle,
    world::{Job, Pair, Wallet, World, party},
};
use duet_protocol::{
    arithmetic::gmp,
    ids::PaillierKeyId,
    natural::Natural,
    verdict::{LockWritten, Unlocked, Verdict},
};

/// The smallest share store there is: a set of locked keys, read and written in one place.
#[derive(Default)]
struct Store {
    locked: BTreeSet<PaillierKeyId>,
}

/// What the world hears of a session.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Signature,
    BadSignature { culprit: String },
    Locked,
}

impl Store {
    fn settle(&mut self, verdict: Verdict, job: &Job) -> Heard {
        let key = verdict.paillier_key();
        if self.locked.contains(&key) {
            return Heard::Locked;
        }
        match verdict {
            Verdict::Good(gated) => {
                gated.release(Unlocked::found_by_linearisable_read(key, job.session)).unwrap();
                Heard::Signature
            }
            Verdict::Bad(demand) => {
                self.locked.insert(key);
                let report = demand.settle(LockWritten::committed_durably(key, job.session)).unwrap();
                Heard::BadSignature { culprit: report.culprit().to_string() }
            }
        }
    }
}

/// One query: is the initiator's share `guess` modulo `2^bits`?
fn query(world: &mut World, wallet: &Wallet, pair: Pair, bits: u32, guess: u64) -> (Verdict, Job) {
    let job = Job::random(&mut world.rng, "m");
    let (initiator, responder, _) = wallet.run_to_answer(world, pair, &job);
    let (answer, _) =
        respond_as_abort_oracle(responder, bits, &Natural::from(guess), &mut world.rng).unwrap();
    (initiator.receive(&answer, &mut world.rng).unwrap(), job)
}

#[test]
fn the_attack_without_a_lock__should_read_the_share_bit_by_bit() {
    // That the attack is real: were verdicts let out, twelve of them would give twelve bits.
    let mut world = World::new(gmp(), 41);
    let wallet = world.wallet(None);
    let record = wallet.device.share().to_secret_bytes().unwrap();
    let low = u64::from(record[record.len() - 1]) | u64::from(record[record.len() - 2]) << 8;
    let mut known = 0;
    for bit in 0..12 {
        let (verdict, _) = query(&mut world, &wallet, Pair::DeviceService, bit + 1, known);
        if matches!(verdict, Verdict::Bad(_)) {
            known |= 1 << bit;
        }
    }
    assert_eq!(known, low & 0xfff);
}

#[test]
fn the_attack_with_the_lock__should_get_one_failure_across_wallets_and_sessions() {
    let mut world = World::new(gmp(), 42);
    // Many wallets under the service's one key towards the partner, as throwaway wallets would be.
    let wallets: Vec<_> = (0..3).map(|_| world.wallet(None)).collect();
    let mut store = Store::default();
    // 64 sessions run at once: every answer is there before the first verdict is settled.
    let verdicts: Vec<_> = (0..64_u32)
        .map(|i| {
            let wallet = &wallets[i as usize % wallets.len()];
            query(&mut world, wallet, Pair::ServicePartner, 16 + i % 8, u64::from(i))
        })
        .collect();
    let heard: Vec<_> = verdicts.into_iter().map(|(verdict, job)| store.settle(verdict, &job)).collect();
    let first_bad = heard.iter().position(|heard| matches!(heard, Heard::BadSignature { .. })).unwrap();
    assert_eq!(heard[first_bad], Heard::BadSignature { culprit: party("partner").to_string() });
    assert!(heard[..first_bad].iter().all(|heard| *heard == Heard::Signature));
    assert!(heard[first_bad + 1..].iter().all(|heard| *heard == Heard::Locked));

    // Honest sessions under that key say nothing either; another key goes on.
    let job = Job::random(&mut world.rng, "m");
    let (initiator, responder, _) = wallets[0].run_to_answer(&mut world, Pair::ServicePartner, &job);
    let (answer, _) = responder.respond(job.charged(&wallets[0]), None, &mut world.rng).unwrap();
    let verdict = initiator.receive(&answer, &mut world.rng).unwrap();
    assert_eq!(store.settle(verdict, &job), Heard::Locked);
    let job = Job::random(&mut world.rng, "m");
    let (initiator, responder, _) = wallets[0].run_to_answer(&mut world, Pair::DeviceService, &job);
    let (answer, _) = responder.respond(job.charged(&wallets[0]), None, &mut world.rng).unwrap();
    let verdict = initiator.receive(&answer, &mut world.rng).unwrap();
    assert_eq!(store.settle(verdict, &job), Heard::Signature);
}

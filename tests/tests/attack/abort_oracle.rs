//! P2* inverts `2^e` mod N. Then the verdict on the signature tells a bit of the initiator's share
//! (CVE-2023-33242, ePrint 2023/1234).

use anyhow::Result;
use duet_actors::{
    malicious::MaliciousPartner,
    refused_writes::{Refused, accept, refuse},
    stage::{Stage, name},
    tries::tries,
};
use duet_adversary::{
    oracle::respond_as_abort_oracle,
    responder::respond_with,
    world::{Job, Pair as Seats, World},
};
use duet_party::{
    compute::system_rng,
    store::{Readiness, RecordStore as _},
};
use duet_protocol::{arithmetic::default_arithmetic, ids::PaillierKeyId, natural::Natural, verdict::Verdict};
use duet_wire::{Code, InvitationReply, Manifest, OutcomeResult, Pair, SigningRequest, WalletInfo};

/// The low `bits` bits of a big-endian number.
fn low_bits(number: &[u8], bits: u32) -> Vec<bool> {
    (0..bits as usize).map(|bit| number[number.len() - 1 - bit / 8] >> (bit % 8) & 1 == 1).collect()
}

#[test]
fn an_initiator_without_a_lock__should_give_its_share_away() {
    // Show that the attack is real. The initiator is the protocol's own, changed to report each
    // verdict.
    let bits = tries(24, 256);
    let mut world = World::new(default_arithmetic(), 4);
    let wallet = world.wallet(None);
    let mut known = Natural::zero();
    let mut read = Vec::new();
    for bit in 0..bits {
        let job = Job::random(&mut world.rng, "m");
        let (initiator, responder, _) = wallet.run_to_answer(&mut world, Seats::DeviceService, &job);
        let (answer, _) = respond_as_abort_oracle(responder, bit + 1, &known, &mut world.rng).unwrap();
        let wrong = matches!(initiator.receive(&answer, &mut world.rng).unwrap(), Verdict::Bad(_));
        if wrong {
            known = &known + &Natural::power_of_two(bit);
        }
        read.push(wrong);
    }
    let record = wallet.device.share().to_secret_bytes().unwrap();
    assert_eq!(read, low_bits(&record[record.len() - 32..], bits), "the bits are the share's");
    eprintln!("evidence: bits of x1 read without a lock = {bits}; queries = {bits}");
}

/// What an attacker learns from one query.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Signature,
    BadSignature,
    Locked,
}

/// One query to the service's real worker: is its share `guess` modulo `2^bits`?
async fn query(
    stage: &mut Stage,
    attacker: &MaliciousPartner,
    wallet: &WalletInfo,
    key: PaillierKeyId,
    (bits, guess): (u32, Natural),
) -> Result<Heard> {
    let request = stage.request(wallet, "m", "attack");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    let mut rounds = attacker.listen(&manifest).await?;
    match stage.invite(&manifest.initiator.party, &manifest.encode()?).await? {
        InvitationReply::Accepted { .. } => {}
        InvitationReply::Refused(refusal) => {
            assert_eq!(refusal.code, Code::Locked);
            return Ok(Heard::Locked);
        }
    }
    let opened = attacker.opened(&manifest, &request, &mut rounds).await?;
    opened.answer(move |state| respond_as_abort_oracle(state, bits, &guess, &mut system_rng())).await?;
    match stage.outcome(&manifest, duet_protocol::ids::ShareIndex::Service).await? {
        OutcomeResult::Signed { .. } => Ok(Heard::Signature),
        OutcomeResult::Failed { code: Code::PeerMisbehaved, culprit, .. } => {
            assert_eq!(culprit, Some(name("partner")), "the responder is blamed");
            Ok(Heard::BadSignature)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party__should_give_one_failure_in_all() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    let other = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    stage.enrolled(other.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &[&wallet, &other], key).await?;

    // The attack that succeeds above: each learnt bit becomes part of the next guess.
    let (mut signed, mut failures, mut locked) = (0, 0, 0);
    let mut known = Natural::zero();
    for bit in 0..24 {
        match query(&mut stage, &attacker, &wallet, key, (bit + 1, known.clone())).await? {
            Heard::Signature => signed += 1,
            Heard::BadSignature => {
                failures += 1;
                known = &known + &Natural::power_of_two(bit);
            }
            Heard::Locked => locked += 1,
        }
        if bit == 12 {
            stage.service.crash().await?;
            stage.service.start().await?;
        }
    }
    assert_eq!(failures, 1, "{signed} signed, {locked} locked");
    assert!(locked > 0);
    assert_eq!(query(&mut stage, &attacker, &other, key, (1, Natural::zero())).await?, Heard::Locked);
    eprintln!(
        "evidence: queries against the party = 24; failures heard = {failures}; refused as locked = {locked}"
    );

    // The lock ends only initiating with that key.
    stage.partner.start().await?;
    stage.sign_device(&wallet, Pair::DeviceService, "m").await
}

/// A session in which the attacker has to answer next.
async fn opened(
    stage: &Stage,
    attacker: &MaliciousPartner,
    manifest: &Manifest,
    request: &SigningRequest,
) -> Result<duet_actors::malicious::Opened> {
    let mut rounds = attacker.listen(manifest).await?;
    let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    attacker.opened(manifest, request, &mut rounds).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_could_not_lock__should_say_nothing_and_initiate_nothing_after_a_restart() -> Result<()>
{
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &[&wallet], key).await?;
    let request = stage.request(&wallet, "m", "attack");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let session = opened(&stage, &attacker, &manifest, &request).await?;

    // The disk fails just before the bad answer arrives, and is still full after the restart.
    let database = stage.service.sqlite.path().to_owned();
    refuse(&database, Refused::All).await?;
    session.answer(|state| respond_with(state, &Natural::from(2))).await?;
    let unready = async {
        while stage.service.sqlite.readiness() == Readiness::Ready {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(duet_actors::stage::PATIENCE, unready).await?;
    drop(stage.service.worker.take());
    accept(&database).await?;
    stage.service.crash().await?;
    refuse(&database, Refused::All).await?;
    // Opening the store made its test write before the disk was full again.
    assert!(stage.service.sqlite.recover().await.is_err());
    stage.service.start().await?;
    let request = stage.request(&wallet, "m", "afterwards");
    let next = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    stage.invite_until_absent(&next.initiator.party, &next.encode()?).await?;
    assert!(stage.outcomes.try_recv().is_err(), "nothing was said of the session that could not lock");
    eprintln!(
        "evidence: verdicts told when the lock could not be written = 0; sessions initiated after the restart = 0"
    );
    Ok(())
}

//! P2* adds a multiple of `q·x` to its answers, so that a session is valid exactly when a share `x`
//! is below a chosen threshold. The number of valid sessions before the first failure then names
//! one of `T + 1` intervals. So a lock is worth `log2(T + 1)` bits.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use anyhow::{Context as _, Result, bail, ensure};
use duet_actors::{
    malicious::MaliciousPartner,
    stage::{Stage, now_ms},
    tries::tries,
};
use duet_adversary::{
    oracle::respond_as_threshold,
    world::{Job, Pair as Seats, World},
};
use duet_party::{
    at_rest::{RecordKind, RecordLabel},
    compute::system_rng,
    enrolment::Enroller,
    store::KeyStore as _,
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    curve,
    ids::{Epoch, PaillierKeyId, ShareIndex},
    natural::Natural,
    paillier::ModulusSize,
    verdict::Verdict,
};
use duet_wire::{Code, InvitationReply, OutcomeResult, Pair, WalletInfo};

/// An interval that contains the share: from the first number to below the second.
#[derive(Debug, Clone, PartialEq)]
struct Interval(Natural, Natural);

impl Interval {
    fn of_all_shares() -> Self {
        Self(Natural::zero(), curve::order())
    }

    /// The inner bounds of `parts` intervals of equal width, highest first.
    fn thresholds(&self, parts: u32) -> Vec<Natural> {
        let width = self.1.checked_sub(&self.0).unwrap();
        let parts = u64::from(parts);
        let at = |part: u64| {
            let (share, _) = (&width * &Natural::from(part)).div_rem(&Natural::from(parts)).unwrap();
            &self.0 + &share
        };
        (1..parts).rev().map(at).collect()
    }

    /// The interval that the answers to [`Self::thresholds`] name. `valid` is the number of valid
    /// sessions before the first failure.
    fn named(&self, thresholds: &[Natural], valid: usize) -> Self {
        let low = thresholds.get(valid).unwrap_or(&self.0);
        let high = valid.checked_sub(1).and_then(|last| thresholds.get(last)).unwrap_or(&self.1);
        Self(low.clone(), high.clone())
    }

    fn holds(&self, share: &Natural) -> bool {
        share.checked_sub(&self.0).is_some() && share.checked_sub(&self.1).is_none()
    }

    /// The number of bits of a share that remain unknown.
    fn open_bits(&self) -> u32 {
        self.1.checked_sub(&self.0).unwrap().bit_length()
    }
}

/// The number of valid sessions before the first failure, computed from the share itself.
fn expected(thresholds: &[Natural], share: &Natural) -> usize {
    thresholds.iter().take_while(|threshold| share.checked_sub(threshold).is_none()).count()
}

fn number(record: &[u8]) -> Natural {
    Natural::from_be_bytes(&record[record.len() - 32..])
}

#[test]
fn sessions_before_the_first_failure__should_name_one_of_one_more_intervals() {
    let parts = tries(16, 128);
    let mut world = World::new(default_arithmetic(), 6);
    let (victim, throwaway) = (world.wallet(None), world.wallet(None));
    let share = number(&victim.service.to_secret_bytes().unwrap());
    let encrypted = victim.enrolment(Seats::ServicePartner).ciphertext().clone();
    // Through the wallet itself, and through another one under the same N.
    for through in [&victim, &throwaway] {
        let thresholds = Interval::of_all_shares().thresholds(parts);
        let mut valid = 0;
        for threshold in &thresholds {
            let job = Job::random(&mut world.rng, "m");
            let (initiator, responder, _) = through.run_to_answer(&mut world, Seats::ServicePartner, &job);
            let (answer, _) = respond_as_threshold(responder, &encrypted, threshold, &mut world.rng).unwrap();
            match initiator.receive(&answer, &mut world.rng).unwrap() {
                Verdict::Good(_) => valid += 1,
                Verdict::Bad(_) => break,
            }
        }
        assert_eq!(valid, expected(&thresholds, &share));
        let named = Interval::of_all_shares().named(&thresholds, valid);
        assert!(named.holds(&share), "{named:?}");
        assert!(named.open_bits() <= 257 - parts.ilog2(), "{named:?}");
    }
    eprintln!(
        "evidence: sessions until one failure at most = {}; bits of the share named by it = {}",
        parts - 1,
        parts.ilog2()
    );
}

/// Asks for the interval of `victim`'s share, through sessions of `through`, until one fails.
/// Returns the number of valid ones.
async fn ask(
    stage: &mut Stage,
    key: PaillierKeyId,
    (victim, through): (&WalletInfo, &[&WalletInfo]),
    thresholds: &[Natural],
) -> Result<usize> {
    let all: Vec<&WalletInfo> = through.iter().copied().chain([victim]).collect();
    let attacker = MaliciousPartner::of(stage, &all, key).await?;
    drop(stage.partner.worker.take());
    let encrypted = attacker.enrolment(victim.id)?.ciphertext().clone();
    let mut valid = 0;
    for (threshold, wallet) in thresholds.iter().zip(through.iter().cycle()) {
        let request = stage.request(wallet, "m", "threshold");
        let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
        let mut rounds = attacker.listen(&manifest).await?;
        let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
        ensure!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
        let opened = attacker.opened(&manifest, &request, &mut rounds).await?;
        let (encrypted, threshold) = (encrypted.clone(), threshold.clone());
        opened
            .answer(move |state| respond_as_threshold(state, &encrypted, &threshold, &mut system_rng()))
            .await?;
        match stage.outcome(&manifest, ShareIndex::Service).await? {
            OutcomeResult::Signed { .. } => valid += 1,
            OutcomeResult::Failed { code: Code::PeerMisbehaved, .. } => break,
            other => bail!("{other:?}"),
        }
    }
    stage.partner.start().await?;
    Ok(valid)
}

async fn share_of_service(stage: &Stage, wallet: &WalletInfo) -> Result<Natural> {
    let label = RecordLabel::of_wallet(RecordKind::Share, wallet.id, ShareIndex::Service, Epoch(0), &[]);
    let record = stage.service.party.context().vault.read(&label).await?.context("no share")?;
    Ok(number(&record))
}

async fn rotate(stage: &Stage) -> Result<()> {
    let service = &stage.service;
    let context = service.party.context().clone();
    Enroller::new(context, service.bus.clone(), ModulusSize::Bits2048)
        .rotate(service.party.identity(), None, None)
        .await?;
    Ok(())
}

/// The code with which the service refuses to initiate with the partner.
async fn refusal(stage: &Stage, wallet: &WalletInfo) -> Result<Code> {
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let request = stage.request(wallet, "m", "afterwards");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    match stage.invite(&manifest.initiator.party, &manifest.encode()?).await? {
        InvitationReply::Refused(refusal) => Ok(refusal.code),
        InvitationReply::Accepted { .. } => bail!("the service initiates"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks__should_add_up_over_rotations_only_by_the_operators_word_and_once() -> Result<()> {
    let parts = tries(4, 16);
    let mut stage = Stage::set().await?;
    let (victim, throwaway) = (stage.create().await?, stage.create().await?);
    for wallet in [&victim, &throwaway] {
        stage.enrolled(wallet.id).await?;
    }
    let share = share_of_service(&stage, &victim).await?;
    let culprit = stage.partner.party.card().fingerprint();
    let mut known = Interval::of_all_shares();
    let mut sessions = 0;
    // One wallet's own sessions, then another one's, under the same key.
    for (round, through) in [(1, &victim), (2, &throwaway)] {
        let key = stage.paillier_key(victim.id, Pair::ServicePartner).await?;
        let thresholds = known.thresholds(parts);
        // No share is below the last threshold, so there is a lock.
        let asked = [&thresholds[..], &[Natural::one()]].concat();
        let valid = ask(&mut stage, key, (&victim, &[through]), &asked).await?;
        assert_eq!(valid, expected(&thresholds, &share), "sessions before the failure");
        known = known.named(&thresholds, valid);
        assert!(known.holds(&share), "{known:?}");
        assert!(known.open_bits() <= 257 - round * parts.ilog2(), "{known:?}");
        sessions += valid + 1;

        // Without the operator's acceptance, a new key helps no wallet.
        rotate(&stage).await?;
        for wallet in [&victim, &throwaway] {
            assert_eq!(refusal(&stage, wallet).await?, Code::Locked);
        }
        let standing = stage.service.sqlite.accept_culprit(culprit, now_ms()).await?;
        assert_eq!(standing.is_trusted(), round == 1, "a second lock is final");
    }
    for wallet in [&victim, &throwaway] {
        assert_eq!(refusal(&stage, wallet).await?, Code::Locked);
    }
    eprintln!(
        "evidence: bits of the share named without the operator's word = {}; with it = {}; sessions held = {sessions}; locks = 2",
        parts.ilog2(),
        2 * parts.ilog2()
    );
    Ok(())
}

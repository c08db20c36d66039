//! P2* asks for bits of one wallet's share through sessions of other wallets under the same
//! Paillier key.

use anyhow::{Result, ensure};
use duet_actors::{
    malicious::MaliciousPartner,
    stage::{Stage, now_ms},
    tries::tries,
};
use duet_adversary::{
    oracle::respond_as_oracle_on_another_wallet,
    world::{Job, Pair as Seats, World},
};
use duet_party::{compute::system_rng, culprits};
use duet_protocol::{
    arithmetic::default_arithmetic,
    ids::{PaillierKeyId, ShareIndex, TenantId},
    natural::Natural,
    verdict::Verdict,
};
use duet_wire::{Code, InvitationReply, OutcomeResult, Pair, WalletInfo};

#[test]
fn wallets_under_one_key_without_a_lock__should_give_away_each_others_shares() {
    let bits = tries(12, 64);
    let mut world = World::new(default_arithmetic(), 5);
    let victim = world.wallet(None);
    let throwaway = world.wallet(None);
    let victims_share = victim.enrolment(Seats::ServicePartner).ciphertext().clone();
    let mut known = 0_u64;
    for bit in 0..bits {
        let job = Job::random(&mut world.rng, "m");
        let (initiator, responder, _) = throwaway.run_to_answer(&mut world, Seats::ServicePartner, &job);
        let guess = Natural::from(known);
        let (answer, _) =
            respond_as_oracle_on_another_wallet(responder, &victims_share, bit + 1, &guess, &mut world.rng)
                .unwrap();
        if matches!(initiator.receive(&answer, &mut world.rng).unwrap(), Verdict::Bad(_)) {
            known |= 1 << bit;
        }
    }
    let record = victim.service.to_secret_bytes().unwrap();
    let low = u64::from_be_bytes(record[record.len() - 8..].try_into().unwrap());
    assert_eq!(known, low & (u64::MAX >> (64 - bits)), "bits of a share of which no session was held");
    eprintln!("evidence: bits of another wallet's share read without a lock = {bits}");
}

/// One query through `through` on the share of `victim`. Returns the verdict, if the attacker
/// learns one.
async fn query(
    stage: &mut Stage,
    attacker: &MaliciousPartner,
    (victim, through): (&WalletInfo, &WalletInfo),
    key: PaillierKeyId,
    bits: u32,
) -> Result<Option<bool>> {
    let request = stage.request(through, "m", "throwaway");
    let manifest = stage.manifest(through, Pair::ServicePartner, key, &request);
    let mut rounds = attacker.listen(&manifest).await?;
    if let InvitationReply::Refused(refusal) =
        stage.invite(&manifest.initiator.party, &manifest.encode()?).await?
    {
        ensure!(refusal.code == Code::Locked, "{refusal}");
        return Ok(None);
    }
    let opened = attacker.opened(&manifest, &request, &mut rounds).await?;
    let victims_share = attacker.enrolment(victim.id)?.ciphertext().clone();
    opened
        .answer(move |state| {
            let guess = Natural::zero();
            respond_as_oracle_on_another_wallet(state, &victims_share, bits, &guess, &mut system_rng())
        })
        .await?;
    match stage.outcome(&manifest, ShareIndex::Service).await? {
        OutcomeResult::Signed { .. } => Ok(Some(true)),
        OutcomeResult::Failed { code: Code::PeerMisbehaved, .. } => Ok(Some(false)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throwaway_wallets__should_give_one_failure_in_all() -> Result<()> {
    let (mut stage, victim) = Stage::with_wallet().await?;
    let mut throwaways = Vec::new();
    for _ in 0..tries(2, 16) {
        throwaways.push(stage.create().await?);
    }
    for wallet in throwaways.iter().chain([&victim]) {
        stage.enrolled(wallet.id).await?;
    }
    let key = stage.paillier_key(victim.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let all: Vec<&WalletInfo> = throwaways.iter().chain([&victim]).collect();
    let attacker = MaliciousPartner::of(&stage, &all, key).await?;
    let (mut failures, mut refused) = (0, 0);
    // 64 zero bits practically never occur: the second query fails at the latest.
    for bits in [1, 64] {
        for throwaway in &throwaways {
            match query(&mut stage, &attacker, (&victim, throwaway), key, bits).await? {
                Some(true) => {}
                Some(false) => failures += 1,
                None => refused += 1,
            }
        }
    }
    assert_eq!(failures, 1);
    assert!(refused > 0);
    stage.partner.start().await?;
    for wallet in &all {
        let refusal = stage.sign_service_partner(wallet, "m").await.unwrap_err();
        assert!(refusal.to_string().contains("[locked]"), "{refusal}");
    }
    let wallets = all.len();
    eprintln!(
        "evidence: wallets under one key = {wallets}; failures heard through all of them = {failures}; refused as locked = {refused}"
    );

    // Another tenant's wallets have another key, which is not locked.
    let tenant: TenantId = "other".parse()?;
    let mut order = stage.order();
    let expires = now_ms() / 1000 + 3600;
    order.service.token = stage.service.party.issue_token(tenant.clone(), expires, 9);
    order.partner.token = stage.partner.party.issue_token(tenant.clone(), expires, 9);
    order.tenant = tenant;
    let other = stage.device.create_wallet(&stage.device_bus, order, std::sync::Arc::new(|_| {})).await?;
    stage.enrolled(other.id).await?;
    let others_key = stage.paillier_key(other.id, Pair::ServicePartner).await?;
    assert_ne!(others_key, key, "never one key for two tenants");
    // But the card that locked the first key is quarantined until the operator accepts it.
    let refusal = stage.sign_service_partner(&other, "m").await.unwrap_err();
    ensure!(refusal.to_string().contains("quarantined"), "{refusal}");
    culprits::accept(stage.service.party.context(), stage.partner.party.card().fingerprint()).await?;
    stage.sign_service_partner(&other, "m").await
}

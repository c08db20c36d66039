//! P1* keeps the signature and reports failure, to get more signatures than its limits permit. But
//! the responder charges the session before its answer leaves, and refunds nothing. Or P1* shows
//! the responder a payment that the wallet's policy permits, and runs the session for another one.

use anyhow::{Result, ensure};
use duet_actors::{
    malicious::MaliciousService,
    stage::{PATIENCE, Stage, verify},
};
use duet_bus::Address;
use duet_party::compute::system_rng;
use duet_protocol::{
    codec,
    ids::ShareIndex,
    initiator::Initiator,
    verdict::{Unlocked, Verdict},
};
use duet_wire::{
    Code, InvitationReply, Manifest, Outcome, OutcomeResult, Pair, RecoverableSignature, SignedOutcome,
    SigningRequest, WalletInfo,
};
use serde_json::json;

const PAYEE: &str = "0x00000000000000000000000000000000DeaDBeef";
const MALLORY: &str = "0x1111111111111111111111111111111111111111";

/// Takes the responder's seat in a session.
async fn seated(stage: &Stage, manifest: &Manifest) -> Result<()> {
    let reply = stage.invite(&manifest.responder.party, &manifest.encode()?).await?;
    ensure!(matches!(reply, InvitationReply::Accepted { .. }), "{reply:?}");
    Ok(())
}

/// Runs a session as an honest initiator does, and keeps the signature.
async fn taken(
    liar: &MaliciousService,
    manifest: &Manifest,
    request: &SigningRequest,
) -> Result<RecoverableSignature> {
    let (state, first) = Initiator::start(liar.setup(manifest, request)?, &mut system_rng())?;
    let second = liar.send(manifest, first).await?;
    let (state, third) = state.receive(&second, &mut system_rng())?;
    let fourth = liar.send(manifest, third).await?;
    let Verdict::Good(gated) = state.receive(&fourth, &mut system_rng())? else { panic!("honest") };
    let key = manifest.paillier_key;
    Ok(gated.release(Unlocked::found_by_linearisable_read(key, manifest.session))?.0)
}

/// Reports failure of a session that succeeded.
async fn deny(stage: &Stage, liar: &MaliciousService, manifest: &Manifest) -> Result<()> {
    let outcome = Outcome {
        session: manifest.session,
        job: manifest.job,
        attempt: manifest.attempt,
        from: manifest.initiator.party.clone(),
        result: OutcomeResult::Failed { code: Code::Deadline, culprit: None, message: "no".to_owned() },
    };
    let lie = SignedOutcome::sign(&outcome, &*liar.identity.keys)?;
    let address = Address::Outcome { session: manifest.session, from: manifest.initiator.party.clone() };
    stage.service.bus.request(&address, codec::encode(&lie)?, PATIENCE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_reports_failure__should_get_no_refund() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.service.worker.take());
    let liar = MaliciousService::of(&stage, &wallet, key).await?;
    let request = stage.request(&wallet, "m", "taken");
    let digest = request.payload.digest()?;
    let charges =
        async |stage: &Stage| stage.partner.party.context().vault.store().charges(wallet.id, digest).await;
    for charged in 1..=3 {
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        seated(&stage, &manifest).await?;
        let signature = taken(&liar, &manifest, &request).await?;
        assert_eq!(charges(&stage).await?, charged, "charged when the answer is out");
        verify(&wallet, &request, &signature)?;
        // It has the signature, and reports that there is none.
        deny(&stage, &liar, &manifest).await?;
        let told = stage.outcome(&manifest, ShareIndex::Partner).await?;
        assert_eq!(told, OutcomeResult::Answered, "the responder says that it answered");
        assert_eq!(charges(&stage).await?, charged);
    }
    // A restart refunds nothing either.
    stage.partner.crash().await?;
    stage.partner.start().await?;
    assert_eq!(charges(&stage).await?, 3);
    eprintln!("evidence: signatures taken and denied = 3; charges kept = 3");
    stage.service.start().await?;
    stage.sign_service_partner(&wallet, "m").await
}

/// A wallet whose owner permits 25 wei an hour to one payee, at most 10 at once.
async fn limited(stage: &Stage) -> Result<WalletInfo> {
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let payouts = json!({
        "name": "payouts", "payloads": ["transaction"], "chains": [31337], "to": [PAYEE], "max_value": "10",
        "limits": [{"within": "1h", "value": "25"}],
    });
    let policy = json!({"version": 1, "wallet": wallet.id, "revision": 1, "delay": "1h", "rules": [payouts]});
    stage.device.set_policy(&stage.device_bus, wallet.id, policy.to_string().into_bytes()).await?;
    Ok(wallet)
}

fn payment(stage: &Stage, wallet: &WalletInfo, to: &str, value: u32, nonce: u32) -> SigningRequest {
    let payload = json!({
        "kind": "transaction", "type": "0x2", "chainId": 31337, "nonce": nonce, "to": to,
        "value": value.to_string(), "gas": 21000, "maxFeePerGas": "1", "maxPriorityFeePerGas": "1",
    });
    stage.request_for(wallet, "m", &payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_shows_a_smaller_payment__should_get_that_one_signed_and_no_more_than_the_limit()
-> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = limited(&stage).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.service.worker.take());
    let liar = MaliciousService::of(&stage, &wallet, key).await?;
    let manifest =
        |stage: &Stage, request: &SigningRequest| stage.manifest(&wallet, Pair::ServicePartner, key, request);

    // The payment that it wants, shown as it is. The responder's policy refuses it, although the
    // initiator would not.
    let loot = payment(&stage, &wallet, MALLORY, 1000, 0);
    let shown = stage.invite(stage.partner.party.id(), &manifest(&stage, &loot).encode()?).await?;
    let InvitationReply::Refused(refusal) = shown else { panic!("{shown:?}") };
    assert_eq!(refusal.code, Code::PolicyRefused, "{refusal}");

    // The payment shown smaller than it is, twice as often as the limit permits. The responder
    // signs what it was shown: its side of the session is bound to the digest that it derived
    // itself.
    let mut signed = 0;
    for nonce in 0..2 {
        let small = payment(&stage, &wallet, PAYEE, 10, nonce);
        let session = manifest(&stage, &small);
        seated(&stage, &session).await?;
        let (_, first) = Initiator::start(liar.setup(&session, &loot)?, &mut system_rng())?;
        let from = session.initiator.party.clone();
        let rounds = Address::Round { session: session.session, from, to: session.responder.party.clone() };
        stage.service.bus.publish(&rounds, first).await?;
        // This session gets no answer: the responder takes the next message for the first.
        let signature = taken(&liar, &session, &small).await?;
        verify(&wallet, &small, &signature)?;
        assert!(verify(&wallet, &loot, &signature).is_err());
        deny(&stage, &liar, &session).await?;
        assert_eq!(stage.outcome(&session, ShareIndex::Partner).await?, OutcomeResult::Answered);
        signed += 10;
    }

    // 20 of 25 are spent, no matter what the initiator reports. A third payment gets no ciphertext.
    let third = payment(&stage, &wallet, PAYEE, 10, 2);
    let session = manifest(&stage, &third);
    seated(&stage, &session).await?;
    let (state, first) = Initiator::start(liar.setup(&session, &third)?, &mut system_rng())?;
    let second = liar.send(&session, first).await?;
    let (_, opening) = state.receive(&second, &mut system_rng())?;
    let told = tokio::select! {
        answer = liar.send(&session, opening) => panic!("answered: {answer:?}"),
        told = stage.outcome(&session, ShareIndex::Partner) => told?,
    };
    let OutcomeResult::Failed { code, culprit: None, .. } = told else { panic!("{told:?}") };
    assert_eq!(code, Code::LimitExceeded);
    let charges =
        stage.partner.party.context().vault.store().charges(wallet.id, third.payload.digest()?).await?;
    assert_eq!(charges, 0, "what was refused is not charged");

    // The honest pair signs what is left of the limit.
    stage.service.start().await?;
    let last = payment(&stage, &wallet, PAYEE, 5, 3);
    let session = manifest(&stage, &last);
    let told = stage.run(&session).await?;
    let OutcomeResult::Signed { signature } = told else { panic!("{told:?}") };
    verify(&wallet, &last, &signature)?;
    eprintln!(
        "evidence: limit = 25; signed and denied = {signed}; refused beyond = 1; of the payment that was not shown = 0"
    );
    Ok(())
}

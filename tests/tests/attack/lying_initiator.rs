//! P1* takes the signature and reports failure, to have more signatures than its limits allow: the responder charged
//! the session before its answer left, and refunds nothing.

use anyhow::Result;
use duet_bus::Address;
use duet_party::compute::system_rng;
use duet_protocol::{
    codec,
    ids::ShareIndex,
    initiator::Initiator,
    verdict::{Unlocked, Verdict},
};
use duet_tests::{
    malicious::MaliciousService,
    stage::{PATIENCE, Stage, verify},
};
use duet_wire::{Code, InvitationReply, Outcome, OutcomeResult, Pair, SignedOutcome};

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_reports_failure__should_get_no_refund() -> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.service.worker.take());
    let liar = MaliciousService::of(&stage, &wallet, key).await?;
    let request = stage.request(&wallet, "m", "taken");
    let digest = request.payload.digest()?;
    let charges =
        async |stage: &Stage| stage.partner.party.context().vault.store().charges(wallet.id, digest).await;
    for taken in 1..=3 {
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        let accepted = stage.invite(&manifest.responder.party, &manifest.encode()?).await?;
        assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
        let (state, first) = Initiator::start(liar.setup(&manifest, &request)?, &mut system_rng())?;
        let second = liar.send(&manifest, first).await?;
        let (state, third) = state.receive(&second, &mut system_rng())?;
        let fourth = liar.send(&manifest, third).await?;
        assert_eq!(charges(&stage).await?, taken, "charged when the answer is out");
        let Verdict::Good(gated) = state.receive(&fourth, &mut system_rng())? else { panic!("honest") };
        let (signature, _) = gated.release(Unlocked::found_by_linearisable_read(key, manifest.session))?;
        verify(&wallet, &request, &signature)?;

        // It has the signature, and says that there is none.
        let outcome = Outcome {
            session: manifest.session,
            job: manifest.job,
            attempt: manifest.attempt,
            from: manifest.initiator.party.clone(),
            result: OutcomeResult::Failed { code: Code::Deadline, culprit: None, message: "no".to_owned() },
        };
        let lie = SignedOutcome::sign(&outcome, &*liar.identity.keys)?;
        let from = manifest.initiator.party.clone();
        let address = Address::Outcome { session: manifest.session, from };
        stage.service.bus.request(&address, codec::encode(&lie)?, PATIENCE).await?;
        let told = stage.outcome(&manifest, ShareIndex::Partner).await?;
        assert_eq!(told, OutcomeResult::Answered, "the responder says that it answered");
        assert_eq!(charges(&stage).await?, taken);
    }
    // Nor does a restart refund.
    stage.partner.crash().await?;
    stage.partner.start().await?;
    assert_eq!(charges(&stage).await?, 3);
    eprintln!("evidence: signatures taken and denied = 3; charges kept = 3");
    stage.service.start().await?;
    stage.sign_service_partner(&wallet, "m").await
}

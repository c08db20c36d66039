//! N* and P1* replay everything that an honest session sent: its invitation, its rounds, its
//! report. They replay it into the same session and into another, before and after a restart.

use anyhow::Result;
use duet_actors::{malicious::MaliciousService, stage::Stage};
use duet_bus::{Address, RequestError};
use duet_party::compute::system_rng;
use duet_protocol::{ids::ShareIndex, initiator::Initiator};
use duet_wire::{Code, InvitationReply, Manifest, OutcomeResult, Pair};

async fn invited(stage: &Stage, manifest: &Manifest) -> Result<Option<Code>> {
    Ok(match stage.invite(&manifest.responder.party, &manifest.encode()?).await? {
        InvitationReply::Accepted { .. } => None,
        InvitationReply::Refused(refusal) => Some(refusal.code),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_was_sent__should_count_once() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.service.worker.take());
    let service = MaliciousService::of(&stage, &wallet, key).await?;
    let request = stage.request(&wallet, "m", "once");
    let digest = request.payload.digest()?;

    let old = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    assert_eq!(invited(&stage, &old).await?, None);
    let (state, first) = Initiator::start(service.setup(&old, &request)?, &mut system_rng())?;
    let second = service.send(&old, first.clone()).await?;
    let (_, third) = state.receive(&second, &mut system_rng())?;
    service.send(&old, third.clone()).await?;
    assert_eq!(stage.outcome(&old, ShareIndex::Partner).await?, OutcomeResult::Answered);

    let (mut replays, mut answers) = (0, 0);
    for restarted in [false, true] {
        if restarted {
            stage.partner.crash().await?;
            stage.partner.start().await?;
        }
        assert_eq!(invited(&stage, &old).await?, Some(Code::SessionReplayed), "restarted: {restarted}");
        for message in [&first, &third] {
            let replayed = service.send(&old, message.clone()).await;
            assert!(matches!(replayed, Err(RequestError::NoResponders { .. })), "{replayed:?}");
        }
        // Replayed into a new session before its own messages: the responder ignores it, and the
        // session continues.
        let new = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        assert_eq!(invited(&stage, &new).await?, None);
        let address = Address::Round {
            session: new.session,
            from: new.initiator.party.clone(),
            to: new.responder.party.clone(),
        };
        for message in [&first, &third, &second.to_vec()] {
            stage.service.bus.publish(&address, message.clone()).await?;
        }
        let (state, own) = Initiator::start(service.setup(&new, &request)?, &mut system_rng())?;
        let second = service.send(&new, own).await?;
        let (_, third) = state.receive(&second, &mut system_rng())?;
        service.send(&new, third).await?;
        assert_eq!(stage.outcome(&new, ShareIndex::Partner).await?, OutcomeResult::Answered);
        replays += 6;
        answers += 1;
    }
    let charges = stage.partner.party.context().vault.store().charges(wallet.id, digest).await?;
    assert_eq!(charges, 1 + answers, "no replay was answered with a ciphertext");
    eprintln!(
        "evidence: messages replayed = {replays}; ciphertexts given for them = {}",
        charges - 1 - answers
    );
    stage.service.start().await?;
    stage.sign_service_partner(&wallet, "m").await
}

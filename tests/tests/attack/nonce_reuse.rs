//! A crash, a redelivery or a second worker could use one nonce twice, and then two equations give
//! the share. P1* uses one nonce of its own in every session. So equal nonces of the responder
//! would show as equal `r`.

use std::collections::BTreeSet;

use anyhow::Result;
use duet_actors::{
    malicious::MaliciousService,
    stage::{Stage, random},
};
use duet_adversary::initiator::{signature_r, start_with_nonce};
use duet_bus::RequestError;
use duet_party::compute::system_rng;
use duet_protocol::{
    curve::{Scalar, SecretScalar},
    ids::ShareIndex,
    initiator::AwaitingCipher,
};
use duet_wire::{Code, InvitationReply, Manifest, OutcomeResult, Pair, SigningRequest, WalletInfo};

/// The stage without the service, whose part the test plays.
struct Attack {
    stage: Stage,
    wallet: WalletInfo,
    service: MaliciousService,
    request: SigningRequest,
    nonce: [u8; 32],
}

impl Attack {
    async fn prepare() -> Result<Self> {
        let (mut stage, wallet) = Stage::with_wallet().await?;
        stage.enrolled(wallet.id).await?;
        let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
        drop(stage.service.worker.take());
        let service = MaliciousService::of(&stage, &wallet, key).await?;
        let request = stage.request(&wallet, "m", "twice");
        Ok(Self { stage, wallet, service, request, nonce: random() })
    }

    async fn manifest(&self) -> Result<Manifest> {
        let key = self.stage.paillier_key(self.wallet.id, Pair::ServicePartner).await?;
        Ok(self.stage.manifest(&self.wallet, Pair::ServicePartner, key, &self.request))
    }

    async fn invited(&self, manifest: &Manifest) -> Result<Option<Code>> {
        Ok(match self.stage.invite(&manifest.responder.party, &manifest.encode()?).await? {
            InvitationReply::Accepted { .. } => None,
            InvitationReply::Refused(refusal) => Some(refusal.code),
        })
    }

    /// Messages 1 to 3 of a session, of which the first two have been exchanged.
    async fn opened(&self, manifest: &Manifest) -> Result<(AwaitingCipher, Vec<u8>)> {
        let nonce = SecretScalar::from_bytes(&self.nonce)?;
        let setup = self.service.setup(manifest, &self.request)?;
        let (state, first) = start_with_nonce(setup, nonce, &mut system_rng())?;
        let second = self.service.send(manifest, first.clone()).await?;
        // Delivered again, it gets the same answer, and no second nonce.
        assert_eq!(self.service.send(manifest, first).await?, second);
        Ok(state.receive(&second, &mut system_rng())?)
    }

    async fn crash(&mut self) -> Result<()> {
        self.stage.partner.crash().await?;
        self.stage.partner.start().await
    }

    async fn next_session_signs(mut self) -> Result<()> {
        self.stage.service.start().await?;
        self.stage.sign_service_partner(&self.wallet, "m").await
    }
}

/// `r` of a session's joint nonce, as an ordered value.
fn r_of(state: &AwaitingCipher) -> Vec<u8> {
    let r: Scalar = signature_r(state);
    r.to_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_dies_around_every_message__should_use_no_nonce_twice() -> Result<()> {
    let mut attack = Box::pin(Attack::prepare()).await?;
    let mut seen = BTreeSet::new();
    let mut refused_again = 0;
    for dies_after in ["its invitation", "message 2", "message 4", "the end"] {
        let manifest = attack.manifest().await?;
        assert_eq!(attack.invited(&manifest).await?, None, "{dies_after}");
        if dies_after != "its invitation" {
            let (state, third) = attack.opened(&manifest).await?;
            assert!(seen.insert(r_of(&state)), "a nonce was used before: {dies_after}");
            if dies_after != "message 2" {
                attack.service.send(&manifest, third.clone()).await?;
                // A second answer in one session would be a second equation with the same nonce.
                if dies_after == "the end" {
                    let told = attack.stage.outcome(&manifest, ShareIndex::Partner).await?;
                    assert_eq!(told, OutcomeResult::Answered);
                    let again = attack.service.send(&manifest, third).await;
                    assert!(matches!(again, Err(RequestError::NoResponders { .. })), "{again:?}");
                }
            }
        }
        attack.crash().await?;
        // The session is spent, however it ended.
        assert_eq!(attack.invited(&manifest).await?, Some(Code::SessionReplayed), "{dies_after}");
        refused_again += 1;
    }
    eprintln!("evidence: crashes = {refused_again}; nonces seen = {}; nonces seen twice = 0", seen.len());
    Box::pin(attack.next_session_signs()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_invitation_to_two_workers__should_be_taken_once() -> Result<()> {
    const DELIVERIES: usize = 32;
    let attack = Box::pin(Attack::prepare()).await?;
    let second_worker = attack.stage.partner.another_worker().await?;
    let manifest = attack.manifest().await?;
    let deliveries =
        futures::future::try_join_all((0..DELIVERIES).map(|_| attack.invited(&manifest))).await?;
    let accepted = deliveries.iter().filter(|code| code.is_none()).count();
    let replayed = deliveries.iter().filter(|code| **code == Some(Code::SessionReplayed)).count();
    assert_eq!((accepted, replayed), (1, DELIVERIES - 1), "{deliveries:?}");
    // The worker that accepted the session answers once.
    let (_, third) = attack.opened(&manifest).await?;
    attack.service.send(&manifest, third).await?;
    drop(second_worker);
    eprintln!("evidence: deliveries of one invitation to two workers = {DELIVERIES}; accepted = {accepted}");
    Box::pin(attack.next_session_signs()).await
}

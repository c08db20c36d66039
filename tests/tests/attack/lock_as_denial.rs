//! N* forges, changes, truncates and replays the answer, to make the initiator lock its key. Only
//! an authentic answer can do that.

use anyhow::Result;
use duet_actors::{malicious::MaliciousPartner, stage::Stage};
use duet_adversary::responder::respond_with;
use duet_party::store::PaillierState;
use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, InvitationReply, OutcomeResult, Pair};

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_network_makes__should_lock_nothing() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let partner = MaliciousPartner::of(&stage, &[&wallet], key).await?;

    // What the network makes of the honest answer. `previous` is the answer of the session before.
    type Network = fn(Vec<u8>, &[u8]) -> Vec<u8>;
    let networks: [Network; 8] = [
        |mut answer, _| {
            answer[0] ^= 1;
            answer
        },
        |mut answer, _| {
            let middle = answer.len() / 2;
            answer[middle] ^= 0x80;
            answer
        },
        |mut answer, _| {
            *answer.last_mut().unwrap() ^= 1;
            answer
        },
        |mut answer, _| {
            answer.truncate(answer.len() - 1);
            answer
        },
        |answer, _| answer[..16].to_vec(),
        |_, _| Vec::new(),
        |answer, _| [answer.as_slice(), &[0]].concat(),
        |_, previous| previous.to_vec(),
    ];
    let mut previous = vec![7; 600];
    for network in networks {
        let request = stage.request(&wallet, "m", "disturbed");
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        let mut rounds = partner.listen(&manifest).await?;
        let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
        assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
        let opened = partner.opened(&manifest, &request, &mut rounds).await?;
        // This answer would lock the key if it arrived unchanged. The network can only weaken it.
        let (answer, _) = respond_with(opened.state, &duet_protocol::natural::Natural::from(2))?;
        opened.message.respond(network(answer.clone(), &previous)).await?;
        previous = answer;
        match stage.outcome(&manifest, ShareIndex::Service).await? {
            OutcomeResult::Failed { code: Code::PeerMisbehaved, culprit: None, .. } => {}
            other => panic!("neither party can be blamed: {other:?}"),
        }
        let state = stage.service.party.context().vault.store().paillier_key(key).await?.map(|row| row.state);
        assert_eq!(state, Some(PaillierState::Ready));
    }
    eprintln!("evidence: answers changed, cut, forged or replayed = {}; locks = 0", networks.len());
    stage.partner.start().await?;
    stage.sign_service_partner(&wallet, "m").await
}

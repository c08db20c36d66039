//! A lying orchestrator shows the two parties different payloads under one session. It wants one of
//! them to sign what the other has not seen, or a mismatch that makes a bad signature and a lock.

use std::time::Duration;

use anyhow::Result;
use duet_actors::stage::Stage;
use duet_party::{PartySettings, SessionLimits, store::PaillierState};
use duet_protocol::ids::ShareIndex;
use duet_wire::{InvitationReply, Manifest, OutcomeResult, Pair, SignedRequest};

#[tokio::test(flavor = "multi_thread")]
async fn two_payloads_under_one_session__should_sign_neither_and_lock_nothing() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    // The parties wait for each other in vain. Shorten their limits for that.
    for backend in [&mut stage.service, &mut stage.partner] {
        drop(backend.worker.take());
        let limits = SessionLimits {
            round: Duration::from_secs(3),
            session: Duration::from_secs(6),
            ..SessionLimits::default()
        };
        backend.party =
            backend.party.clone().with_settings(PartySettings { limits, ..PartySettings::default() });
        backend.start().await?;
    }
    let shown = stage.request(&wallet, "m", "pay 1 to Alice");
    let meant = stage.request(&wallet, "m", "pay 1000 to Mallory");
    let to_partner = stage.manifest(&wallet, Pair::ServicePartner, key, &shown);
    // The owner rightly signed both requests. Only the session is the same.
    let signed = SignedRequest::sign(meant.to_json()?, stage.device.owner_key());
    let to_service = Manifest { job: meant.job(), request: signed, ..to_partner.clone() };
    for (manifest, party) in [(&to_partner, &to_partner.responder), (&to_service, &to_service.initiator)] {
        let accepted = stage.invite(&party.party, &manifest.encode()?).await?;
        assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    }
    let told = stage.outcome(&to_service, ShareIndex::Service).await?;
    let OutcomeResult::Failed { culprit: None, code, .. } = told else { panic!("{told:?}") };
    let store = stage.partner.party.context().vault.store();
    let mut charges = 0;
    for request in [&shown, &meant] {
        charges += store.charges(wallet.id, request.payload.digest()?).await?;
    }
    assert_eq!(charges, 0, "refused before the ciphertext");
    let state = stage.service.party.context().vault.store().paillier_key(key).await?.map(|row| row.state);
    assert_eq!(state, Some(PaillierState::Ready), "nothing is locked");
    eprintln!(
        "evidence: payloads under one session = 2; signatures = 0; ciphertexts = {charges}; locks = 0; code = {code}"
    );
    stage.sign_service_partner(&wallet, "m").await
}

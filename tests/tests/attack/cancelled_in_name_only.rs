//! A lying orchestrator keeps a signed request, and brings it to the parties later: after a
//! revocation, long after it was meant, or after a party's store was put back to before the
//! revocation.

use anyhow::{Context as _, Result, bail};
use duet_actors::stage::{Backend, PATIENCE, Stage, now_ms};
use duet_bus::{Address, Speaker};
use duet_party::{
    Party,
    clock::Clock,
    store::{
        RecordStore as _,
        sqlite::{SqliteOptions, SqliteStore},
    },
    worker::{Worker, WorkerSettings},
};
use duet_protocol::codec;
use duet_wire::{
    Code, InvitationReply, Manifest, OutcomeResult, Pair, SignedRequest, SigningRequest,
    revocation::{RevocationProof, RevocationReply, SignedRevocation},
    signing::SigningKey,
};

/// Both parties' answers to an invitation, after they have compared their stores with their
/// witnesses.
async fn invited(stage: &Stage, manifest: &Manifest) -> Result<[Option<Code>; 2]> {
    let mut said = [None; 2];
    for (said, party) in said.iter_mut().zip([&manifest.responder.party, &manifest.initiator.party]) {
        loop {
            *said = match stage.invite_when_present(party, &manifest.encode()?).await? {
                InvitationReply::Accepted { .. } => None,
                InvitationReply::Refused(refusal) => Some(refusal.code),
            };
            if *said != Some(Code::StorageUnavailable) {
                break;
            }
        }
    }
    Ok(said)
}

/// Brings a revocation to a party, as an orchestrator does.
async fn tell(stage: &Stage, backend: &Backend, revocation: &SignedRevocation) -> Result<RevocationReply> {
    let address = Address::Card { from: Speaker::Orchestrator, to: backend.party.id().clone() };
    let reply = stage.orchestrator.request(&address, codec::encode(revocation)?, PATIENCE).await?;
    Ok(codec::decode(&reply)?)
}

fn revocation(stage: &Stage, request: &SigningRequest, by: &SigningKey) -> Result<SignedRevocation> {
    let signed = SignedRequest::sign(request.to_json()?, stage.device.owner_key());
    let proof = RevocationProof::sign(request.wallet, signed.content_hash(), by);
    Ok(SignedRevocation { request: signed, proof })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_request__should_be_signed_by_no_party() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let request = stage.request(&wallet, "m", "take it back");
    let digest = request.payload.digest()?;
    let owner = stage.device.owner_key().clone();

    // A revocation by a stranger, or of another request, revokes nothing.
    let stranger = revocation(&stage, &request, &SigningKey::from_bytes(&[7; 32]))?;
    let other = stage.request(&wallet, "m", "another");
    let mut crossed = revocation(&stage, &other, &owner)?;
    crossed.request = revocation(&stage, &request, &owner)?.request;
    for (forged, code) in [(stranger, Code::RequesterNotAllowed), (crossed, Code::BadSignature)] {
        for backend in [&stage.service, &stage.partner] {
            match tell(&stage, backend, &forged).await? {
                RevocationReply::Refused(refusal) => assert_eq!(refusal.code, code, "{refusal}"),
                RevocationReply::Kept => panic!("a forged revocation is kept"),
            }
        }
    }

    // The responder has been invited already when the revocation comes. It sends no answer.
    let under_way = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let bytes = under_way.encode()?;
    let accepted = stage.invite(&under_way.responder.party, &bytes).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    let revoked = revocation(&stage, &request, &owner)?;
    assert_eq!(tell(&stage, &stage.partner, &revoked).await?, RevocationReply::Kept);
    let accepted = stage.invite(&under_way.initiator.party, &bytes).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    let told = stage.outcome(&under_way, duet_protocol::ids::ShareIndex::Partner).await?;
    let OutcomeResult::Failed { code: Code::Cancelled, culprit: None, .. } = told else { bail!("{told:?}") };

    assert_eq!(tell(&stage, &stage.service, &revoked).await?, RevocationReply::Kept);
    let mut replays = 0;
    for restarted in [false, true] {
        if restarted {
            for backend in [&mut stage.service, &mut stage.partner] {
                backend.crash().await?;
                backend.start().await?;
            }
        }
        let replayed = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        assert_eq!(invited(&stage, &replayed).await?, [Some(Code::Cancelled); 2], "restarted: {restarted}");
        // Also to the responder in a session with the device.
        let device_key = stage.paillier_key(wallet.id, Pair::DevicePartner).await?;
        let with_device = stage.manifest(&wallet, Pair::DevicePartner, device_key, &request);
        let reply = stage.invite(&with_device.responder.party, &with_device.encode()?).await?;
        let InvitationReply::Refused(refusal) = reply else { bail!("{reply:?}") };
        assert_eq!(refusal.code, Code::Cancelled);
        replays += 3;
    }
    let mut charges = 0;
    for backend in [&stage.service, &stage.partner] {
        charges += backend.party.context().vault.store().charges(wallet.id, digest).await?;
    }
    assert_eq!(charges, 0, "no ciphertext left");
    eprintln!("evidence: replays of a revoked request = {replays}; ciphertexts given for them = {charges}");
    stage.sign_service_partner(&wallet, "m").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_kept_back__should_be_signed_no_more() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    // A request valid for a day comes a minute after its end, which is more than parties grant to
    // clocks that differ. One valid for a month comes at once, and on its last day.
    let day_ms = 24 * 60 * 60 * 1000;
    let mut old = stage.request(&wallet, "m", "old");
    old.expires_at = old.issued_at.context("dated")? + 86_400;
    let mut long = stage.request(&wallet, "m", "long");
    long.expires_at = long.issued_at.context("dated")? + 30 * 86_400;
    for (request, later_ms, code) in [
        (&old, day_ms + 60_000, Code::JobExpired),
        (&long, 0, Code::ValidTooLong),
        (&long, 29 * day_ms, Code::ValidTooLong),
    ] {
        for backend in [&mut stage.service, &mut stage.partner] {
            drop(backend.worker.take());
            let mut context = backend.party.context().clone();
            context.clock = Clock::new(move || now_ms() + later_ms);
            let party = Party::open(context).await?;
            backend.worker =
                Some(Worker::start(party, backend.bus.clone(), WorkerSettings::default()).await?);
        }
        let mut manifest = stage.manifest(&wallet, Pair::ServicePartner, key, request);
        manifest.expires_at_ms += later_ms;
        assert_eq!(invited(&stage, &manifest).await?, [Some(code); 2], "{later_ms} ms later");
    }
    eprintln!("evidence: requests kept back = 3; sessions = 0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_party__should_sign_nothing_from_before() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let owner = stage.device.owner_key().clone();
    let request = stage.request(&wallet, "m", "forgotten");
    let backup = stage.partner.directory.path().join("backup.db");
    stage.partner.sqlite.back_up(&backup).await?;
    let revoked = revocation(&stage, &request, &owner)?;
    assert_eq!(tell(&stage, &stage.partner, &revoked).await?, RevocationReply::Kept);

    // The partner's store is put back to before the revocation. Wait for a later second than that
    // of the request.
    while Some(now_ms() / 1000) <= request.issued_at {
        tokio::time::sleep(core::time::Duration::from_millis(10)).await;
    }
    drop(stage.partner.worker.take());
    let path = stage.partner.directory.path().join("store.db");
    stage.partner.sqlite.close().await;
    for suffix in ["", "-wal", "-shm", ".generation"] {
        let file = stage.partner.directory.path().join(format!("store.db{suffix}"));
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    SqliteStore::restore(&backup, &SqliteOptions::at(path)).await?;
    stage.partner.crash().await?;
    stage.partner.start().await?;
    let replayed = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let reply = stage.invite_when_present(&replayed.responder.party, &replayed.encode()?).await?;
    let InvitationReply::Refused(refusal) = reply else { bail!("{reply:?}") };
    assert_eq!(refusal.code, Code::IssuedBeforeRestore);
    // Version 1 does not state the time of issue.
    let mut undated = request.clone();
    (undated.version, undated.issued_at) = (1, None);
    let replayed = stage.manifest(&wallet, Pair::ServicePartner, key, &undated);
    let reply = stage.invite(&replayed.responder.party, &replayed.encode()?).await?;
    let InvitationReply::Refused(refusal) = reply else { bail!("{reply:?}") };
    assert_eq!(refusal.code, Code::IssuedBeforeRestore);
    eprintln!("evidence: requests from before a restore = 2; sessions = 0");

    // A request issued after that is signed.
    stage.sign_service_partner(&wallet, "m").await
}

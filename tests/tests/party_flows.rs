//! Parties over a real broker: key generation, sessions in every pair, refusals, locks and
//! rotation. The test acts as the orchestrator.

#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use duet_actors::{
    malicious::{MaliciousPartner, answer_badly_in},
    refused_writes::{Refused, accept, refuse},
    stage::{Backend, PATIENCE, Stage, name, now_ms, random, tenant},
};
use duet_adversary::{oracle::respond_as_abort_oracle, responder::respond_with};
use duet_bus::Role;
use duet_party::{
    PartySettings, SessionLimits, Worker, WorkerSettings,
    compute::system_rng,
    culprits,
    device::{CreateProgress, OnProgress},
    enrolment::Enroller,
    store::{
        Culprit, Readiness, RecordStore as _, Standing,
        sqlite::{SqliteOptions, SqliteStore},
    },
};
use duet_protocol::{
    codec,
    identity::IdentitySignature,
    ids::{Epoch, PaillierKeyId, SessionId, ShareIndex, WalletId},
    natural::Natural,
    paillier::ModulusSize,
    session::CipherEvidence,
};
use duet_wire::{
    Code, InvitationReply, Manifest, OutcomeResult, Pair, Seat, SignedRequest, SigningRequest, WalletInfo,
    request::UNDATED_REQUEST_VERSION, signing::SigningKey,
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_a_new_wallet__should_sign() -> Result<()> {
    let mut stage = Stage::set().await?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let progress: OnProgress = Arc::new(move |step| hearing.lock().unwrap().push(step));
    let wallet = stage.device.create_wallet(&stage.device_bus, stage.order(), progress).await?;
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.last(), Some(&CreateProgress::Ready(wallet.id)));
    assert_eq!(wallet.initiates.len(), 1, "one Paillier key for both responders");
    assert_eq!(stage.device.pending().await?, []);
    assert_eq!(stage.service.party.wallet(wallet.id).await?.address, wallet.address);
    stage.all_pairs_sign(&wallet).await?;

    // Drained workers leave in order, and their stored data is there after a restart.
    for backend in [&mut stage.service, &mut stage.partner] {
        assert!(backend.worker.take().unwrap().drain().await, "drains cleanly");
        backend.crash().await?;
        backend.start().await?;
    }
    stage.reopen_device().await?;
    stage.all_pairs_sign(&wallet).await?;
    drop(stage.broker);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_one_wrong_thing__should_be_refused_by_the_party_itself() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let request = stage.request(&wallet, "m", "checked");
    let good = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let owner = stage.device.owner_key().clone();
    let resigned = |request: &SigningRequest, key: &SigningKey| Manifest {
        job: request.job(),
        request: SignedRequest::sign(request.to_json().unwrap(), key),
        ..good.clone()
    };
    let with = |change: &dyn Fn(&mut SigningRequest)| {
        let mut request = request.clone();
        change(&mut request);
        resigned(&request, &owner)
    };
    let digest = serde_json::json!({ "kind": "digest", "digest": format!("0x{}", hex::encode([1; 32])) });
    let digest = duet_wire::Payload::from_json(digest.to_string().as_bytes())?;
    let mut forged = good.clone();
    forged.request.signature[0] ^= 1;
    let cases: Vec<(&str, Manifest, Code)> = vec![
        ("signature", forged, Code::BadSignature),
        ("requester", resigned(&request, &SigningKey::from_bytes(&[7; 32])), Code::RequesterNotAllowed),
        ("kind", with(&|request| request.payload = digest.clone()), Code::KindNotAllowed),
        ("tenant", with(&|request| request.tenant = "other".parse().unwrap()), Code::WrongTenant),
        ("request expiry", with(&|request| request.expires_at = now_ms() / 1000 - 31), Code::JobExpired),
        ("session expiry", Manifest { expires_at_ms: now_ms() - 31_000, ..good.clone() }, Code::ClockDiffers),
        (
            "issue",
            with(&|request| {
                request.issued_at = Some(now_ms() / 1000 + 60);
                request.expires_at = now_ms() / 1000 + 600;
            }),
            Code::ClockDiffers,
        ),
        (
            "lifetime",
            with(&|request| request.expires_at = request.issued_at.unwrap() + 86_401),
            Code::ValidTooLong,
        ),
        (
            "lifetime of version 1",
            with(&|request| {
                (request.version, request.issued_at) = (UNDATED_REQUEST_VERSION, None);
                request.expires_at = now_ms() / 1000 + 86_460;
            }),
            Code::ValidTooLong,
        ),
        ("pair", with(&|request| request.pairs = vec![Pair::DeviceService]), Code::PeerMisbehaved),
        ("job", Manifest { job: duet_wire::JobId([0; 16]), ..good.clone() }, Code::PeerMisbehaved),
        ("epoch", Manifest { epoch: Epoch(1), ..good.clone() }, Code::StaleEpoch),
        (
            "Paillier key",
            Manifest { paillier_key: PaillierKeyId([0; 16]), ..good.clone() },
            Code::StalePaillierKey,
        ),
        (
            "wallet",
            Manifest { wallet: WalletId([0; 32]), ..with(&|request| request.wallet = WalletId([0; 32])) },
            Code::UnknownWallet,
        ),
        (
            "seat of the peer",
            Manifest {
                initiator: Seat { party: name("stranger"), index: ShareIndex::Service },
                ..good.clone()
            },
            Code::CardMismatch,
        ),
    ];
    for (what, manifest, expected) in cases {
        let party = good.responder.party.clone();
        match stage.invite(&party, &manifest.encode()?).await? {
            InvitationReply::Refused(refusal) => assert_eq!(refusal.code, expected, "{what}: {refusal}"),
            InvitationReply::Accepted { .. } => panic!("{what} was accepted"),
        }
    }
    // The refusals did not use up the session. But it can be used only once.
    let result = stage.run(&good).await?;
    assert!(matches!(result, OutcomeResult::Signed { .. }), "{result:?}");
    for party in [&good.responder.party, &good.initiator.party] {
        match stage.invite(party, &good.encode()?).await? {
            InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::SessionReplayed),
            InvitationReply::Accepted { .. } => panic!("a session was taken twice"),
        }
    }
    Ok(())
}

/// Interrupts a creation at its step `at`, as a crash of the device would.
async fn interrupted(stage: &Stage, at: usize) -> Result<usize> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let progress: OnProgress = Arc::new(move |step| {
        if !matches!(step, CreateProgress::Candidate | CreateProgress::Card(_) | CreateProgress::Deal(_)) {
            sender.send(step).ok();
        }
    });
    let (device, bus, order) = (stage.device.clone(), stage.device_bus.clone(), stage.order());
    let creation = tokio::spawn(async move { device.create_wallet(&bus, order, progress).await });
    let mut seen = 0;
    while let Some(step) = timeout(PATIENCE, events.recv()).await? {
        if seen == at || matches!(step, CreateProgress::Ready(_)) {
            break;
        }
        seen += 1;
    }
    creation.abort();
    creation.await.ok();
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_interrupted_anywhere__should_be_resumable() -> Result<()> {
    let mut stage = Stage::set().await?;
    // Stored, two receipts, two acknowledgements: a crash after each, on either side.
    for at in 0..5 {
        let seen = interrupted(&stage, at).await?;
        assert_eq!(seen, at, "interrupted where it should be");
        let backend = if at % 2 == 0 { &mut stage.service } else { &mut stage.partner };
        backend.crash().await?;
        backend.start().await?;
        stage.reopen_device().await?;
        let pending = stage.device.pending().await?;
        let finished = stage.device.resume_pending(&stage.device_bus, Arc::new(|_| {})).await?;
        for (wallet, result) in finished {
            assert!(pending.contains(&wallet));
            let wallet = result?;
            stage.all_pairs_sign(&wallet).await?;
        }
        assert_eq!(stage.device.pending().await?, []);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_beyond_the_tokens_quota__should_be_refused() -> Result<()> {
    let stage = Stage::set().await?;
    let mut order = stage.order();
    order.service.token = stage.service.party.issue_token(tenant(), now_ms() / 1000 + 60, 1);
    stage.device.create_wallet(&stage.device_bus, order.clone(), Arc::new(|_| {})).await?;
    let refused = stage.device.create_wallet(&stage.device_bus, order.clone(), Arc::new(|_| {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::Quota);
    order.service.token = stage.service.party.issue_token(tenant(), now_ms() / 1000, 9);
    let refused = stage.device.create_wallet(&stage.device_bus, order.clone(), Arc::new(|_| {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::AdmissionToken);
    // Another party's card in the service's place.
    order.service.fingerprint = stage.partner.party.card().fingerprint();
    let refused = stage.device.create_wallet(&stage.device_bus, order, Arc::new(|_| {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::CardMismatch);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store__should_initiate_nothing_until_it_is_rotated() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.all_pairs_sign(&wallet).await?;
    let old = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;

    // The service's store is lost, and restored from a backup.
    let SqliteBackup { directory, file } = backup(&stage.service).await?;
    drop(stage.service.worker.take());
    let restored = tempfile::tempdir()?;
    std::fs::copy(directory.path().join("key"), restored.path().join("key"))?;
    SqliteStore::restore(&file, &SqliteOptions::at(restored.path().join("store.db"))).await?.close().await;
    stage.service.directory = restored;
    stage.service.crash().await?;
    stage.service.start().await?;
    let refused = stage.sign_service_partner(&wallet, "m").await.unwrap_err();
    assert!(refused.to_string().contains("needs-rotation"), "{refused}");
    // It still responds.
    stage.sign_device(&wallet, Pair::DeviceService, "m").await?;

    let service = &stage.service;
    let enroller = Enroller::new(service.party.context().clone(), service.bus.clone(), ModulusSize::Bits2048);
    let rotated = enroller.rotate(service.party.identity(), None, None).await?;
    assert_eq!(rotated.len(), 1);
    let new = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    assert_ne!(new, old);
    stage.sign_service_partner(&wallet, "m").await?;

    // The device rotates in the same way, while the old key still serves.
    let old = stage.paillier_key(wallet.id, Pair::DeviceService).await?;
    let new = stage.device.rotate(&stage.device_bus, wallet.id).await?;
    assert_ne!(new, old);
    let wallet = stage.device.wallet(wallet.id).await?;
    stage.all_pairs_sign(&wallet).await
}

struct SqliteBackup {
    directory: TempDir,
    file: std::path::PathBuf,
}

async fn backup(backend: &Backend) -> Result<SqliteBackup> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("backup.db");
    let store = SqliteStore::open(&SqliteOptions::at(backend.directory.path().join("store.db"))).await?;
    store.back_up(&file).await?;
    store.close().await;
    std::fs::copy(backend.directory.path().join("key"), directory.path().join("key"))?;
    Ok(SqliteBackup { directory, file })
}

/// Plays one session up to message 3, waits for the others, and answers with the abort oracle.
async fn attack(
    attacker: &MaliciousPartner,
    manifest: &Manifest,
    request: &SigningRequest,
    together: Arc<tokio::sync::Barrier>,
) -> Result<()> {
    let mut rounds = attacker.listen(manifest).await?;
    together.wait().await;
    let opened = attacker.opened(manifest, request, &mut rounds).await?;
    together.wait().await;
    // This is right only if the victim's share has these 64 low bits, which is practically
    // impossible.
    let guess = Natural::from_be_bytes(&random::<8>());
    opened.answer(move |state| respond_as_abort_oracle(state, 64, &guess, &mut system_rng())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_bad_answers_at_once__should_yield_one_verdict() -> Result<()> {
    const SESSIONS: usize = 64;
    let (mut stage, wallet) = Stage::with_wallet().await?;
    let other = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    stage.enrolled(other.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    assert_eq!(key, stage.paillier_key(other.id, Pair::ServicePartner).await?, "one key serves both");

    let long = SessionLimits {
        round: Duration::from_secs(100),
        session: Duration::from_secs(110),
        ..SessionLimits::default()
    };
    drop(stage.partner.worker.take());
    drop(stage.service.worker.take());
    let party = stage.service.party.clone();
    stage.service.party = party.with_settings(PartySettings { limits: long, ..PartySettings::default() });
    let settings = WorkerSettings { sessions: 2 * SESSIONS, ..WorkerSettings::default() };
    stage.service.worker =
        Some(Worker::start(stage.service.party.clone(), stage.service.bus.clone(), settings.clone()).await?);
    // A second worker of the service with its own connections to the store. It gets half of the
    // sessions.
    let second = stage.service.once_more(long).await?;
    let _second = Worker::start(second, stage.broker.connect(Role::Service).await?, settings).await?;

    let attacker = Arc::new(MaliciousPartner::of(&stage, &[&wallet], key).await?);
    let together = Arc::new(tokio::sync::Barrier::new(SESSIONS));
    let mut attacks = Vec::new();
    let mut manifests = Vec::new();
    for number in 0..SESSIONS {
        let request = stage.request(&wallet, "m", &format!("attack {number}"));
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        let (attacker, together) = (Arc::clone(&attacker), Arc::clone(&together));
        let attacked = manifest.clone();
        attacks.push(tokio::spawn(async move { attack(&attacker, &attacked, &request, together).await }));
        manifests.push(manifest);
    }
    for manifest in &manifests {
        match stage.invite(&manifest.initiator.party, &manifest.encode()?).await? {
            InvitationReply::Accepted { .. } => {}
            InvitationReply::Refused(refusal) => bail!("refused: {refusal}"),
        }
    }
    for attack in attacks {
        attack.await??;
    }
    let (mut verdicts, mut locked) = (0, 0);
    for _ in 0..SESSIONS {
        let signed = timeout(2 * PATIENCE, stage.outcomes.recv()).await?.context("no more outcomes")?;
        let outcome = signed.verify(stage.service.party.card().identity().as_bytes())?;
        match outcome.result {
            OutcomeResult::Failed { code: Code::PeerMisbehaved, culprit, .. } => {
                assert_eq!(culprit, Some(name("partner")), "the responder is blamed");
                verdicts += 1;
            }
            OutcomeResult::Failed { code: Code::Locked, culprit: None, .. } => locked += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((verdicts, locked), (1, SESSIONS - 1));

    // Every wallet under that key is refused, before and after a restart of every worker.
    stage.partner.start().await?;
    for _ in 0..2 {
        for wallet in [&wallet, &other] {
            let refused = stage.sign_service_partner(wallet, "m").await.unwrap_err();
            assert!(refused.to_string().contains("[locked]"), "{refused}");
        }
        stage.service.crash().await?;
        stage.service.start().await?;
    }
    // The lock stops initiating, but not responding. A rotation ends it.
    stage.sign_device(&wallet, Pair::DeviceService, "m").await?;
    let service = &stage.service;
    let enroller = Enroller::new(service.party.context().clone(), service.bus.clone(), ModulusSize::Bits2048);
    let rotated = enroller.rotate(service.party.identity(), None, None).await?;
    assert_eq!(rotated.first().map(|rotated| rotated.wallets), Some(2));
    // But a rotation does not end the quarantine of the responder that locked the key. That takes
    // the operator's acceptance.
    let refused = stage.sign_service_partner(&wallet, "m").await.unwrap_err();
    assert!(refused.to_string().contains("quarantined"), "{refused}");
    let culprit = stage.partner.party.card().fingerprint();
    let accepted = culprits::accept(stage.service.party.context(), culprit).await?;
    let failures: Vec<_> = accepted.losses.iter().map(|loss| loss.failures).collect();
    assert_eq!(failures, [1, 1], "both wallets were enrolled under that key");
    for wallet in [&wallet, &other] {
        stage.sign_service_partner(wallet, "m").await?;
    }
    Ok(())
}

/// The refusal of a session that the device was to initiate.
async fn refusal(stage: &mut Stage, wallet: &WalletInfo, pair: Pair) -> Result<String> {
    match stage.sign_device(wallet, pair, "m").await {
        Ok(()) => bail!("{pair:?} signs"),
        Err(error) => Ok(error.to_string()),
    }
}

/// Has the service answer the device badly in a wallet, once; it is honest again when the device
/// has enrolled anew.
async fn lock_device(stage: &mut Stage, wallet: &WalletInfo) -> Result<()> {
    answer_badly_in(&stage.service, wallet.id, ShareIndex::Device).await?;
    stage.service.crash().await?;
    stage.service.start().await?;
    let refused = refusal(stage, wallet, Pair::DeviceService).await?;
    assert!(refused.contains("bad signature; the Paillier key is locked"), "{refused}");
    Ok(())
}

/// A card that locked a key of a device: nothing is initiated with it in any wallet of the device's
/// store, whatever is rotated, until the owner's word; and after its second lock never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_locked_a_device__should_stay_out_of_all_its_wallets_until_the_owners_word() -> Result<()>
{
    let mut stage = Stage::set().await?;
    let wallets = [stage.create().await?, stage.create().await?];
    let [first, second] = &wallets;
    let culprit = stage.service.party.card().fingerprint();
    lock_device(&mut stage, first).await?;
    // That wallet's key was for both responders.
    let refused = refusal(&mut stage, first, Pair::DevicePartner).await?;
    assert!(refused.contains("[locked]"), "{refused}");

    for _ in 0..2 {
        // The error names the card, the word, and the pair that goes on.
        let refused = refusal(&mut stage, second, Pair::DeviceService).await?;
        for part in ["[locked]", &format!("accept-culprit {culprit}"), "meanwhile partner answers this party"]
        {
            assert!(refused.contains(part), "{refused}");
        }
        stage.sign_device(second, Pair::DevicePartner, "m").await?;
        stage.reopen_device().await?;
    }
    stage.device.rotate(&stage.device_bus, first.id).await?;
    stage.sign_device(first, Pair::DevicePartner, "m").await?;
    for wallet in &wallets {
        let refused = refusal(&mut stage, wallet, Pair::DeviceService).await?;
        assert!(refused.contains("quarantined"), "{refused}");
    }
    let refused = stage.create().await.unwrap_err().to_string();
    assert!(refused.contains("quarantined"), "no new wallet is dealt to it: {refused}");

    culprits::accept(stage.device.context(), culprit).await?;
    for wallet in &wallets {
        stage.sign_device(wallet, Pair::DeviceService, "m").await?;
    }
    lock_device(&mut stage, second).await?;
    let refused = culprits::accept(stage.device.context(), culprit).await.unwrap_err().to_string();
    assert!(refused.contains("final"), "{refused}");
    stage.device.rotate(&stage.device_bus, second.id).await?;
    for wallet in &wallets {
        let refused = refusal(&mut stage, wallet, Pair::DeviceService).await?;
        assert!(refused.contains("replace that party; meanwhile partner answers this party"), "{refused}");
        stage.sign_device(wallet, Pair::DevicePartner, "m").await?;
    }
    Ok(())
}

/// A device's lock from before locks named a card: the signed answer beside it names the responder,
/// and where there is none both responders of the wallet are quarantined.
#[tokio::test(flavor = "multi_thread")]
async fn a_devices_lock_that_names_no_card__should_quarantine_its_signer_or_else_both() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    let [service, partner] =
        [&stage.service, &stage.partner].map(|backend| backend.party.card().fingerprint());
    lock_device(&mut stage, &wallet).await?;
    let forgery = CipherEvidence {
        session: SessionId(random()),
        responder: name("partner"),
        sid: random(),
        ciphertext_hash: random(),
        signature: IdentitySignature(random()),
    };
    let forgery = format!("x'{}'", hex::encode(codec::encode(&forgery)?));
    let of_before = "UPDATE paillier_keys SET locked_card = NULL";
    let cases = [
        (of_before.to_owned(), vec![service]),
        // Without evidence, or with a forged one, it may be either.
        (format!("{of_before}, locked_evidence = NULL"), vec![service, partner]),
        (format!("{of_before}, locked_evidence = {forgery}"), vec![service, partner]),
    ];
    for (statement, mut expected) in cases {
        let options = SqliteConnectOptions::new().filename(stage.device_database());
        let mut connection = SqliteConnection::connect_with(&options).await?;
        for statement in ["DELETE FROM suspects", &statement] {
            sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        }
        connection.close().await?;
        stage.reopen_device().await?;
        expected.sort();
        let culprits = culprits::culprits(stage.device.context()).await?;
        let standing = Standing { locks: 1, is_accepted: false };
        let expected: Vec<_> = expected.into_iter().map(|card| Culprit { card, standing }).collect();
        assert_eq!(culprits, expected, "{statement}");
    }
    stage.device.rotate(&stage.device_bus, wallet.id).await?;
    for (pair, card) in [(Pair::DeviceService, service), (Pair::DevicePartner, partner)] {
        let refused = refusal(&mut stage, &wallet, pair).await?;
        assert!(refused.contains("quarantined"), "{refused}");
        culprits::accept(stage.device.context(), card).await?;
        stage.sign_device(&wallet, pair, "m").await?;
    }
    Ok(())
}

/// One signed request is worth sixteen answers: at the responder, and at an initiator whose
/// responder does not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_request__should_get_sixteen_answers_and_no_more() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let request = stage.request(&wallet, "m", "again and again");
    for number in 1..=16 {
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        let result = stage.run(&manifest).await?;
        assert!(matches!(result, OutcomeResult::Signed { .. }), "{number}: {result:?}");
    }
    for backend in [&mut stage.service, &mut stage.partner] {
        backend.crash().await?;
        backend.start().await?;
    }
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    for party in [&manifest.responder.party, &manifest.initiator.party] {
        let invited = stage.invite(party, &manifest.encode()?).await?;
        assert!(matches!(invited, InvitationReply::Accepted { .. }), "{invited:?}");
    }
    match stage.outcome(&manifest, ShareIndex::Partner).await? {
        OutcomeResult::Failed { code, culprit: None, .. } => assert_eq!(code, Code::TooManyAnswers),
        other => panic!("{other:?}"),
    }

    // A responder that answers all the same: the initiator decrypts no more.
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &[&wallet], key).await?;
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let mut rounds = attacker.listen(&manifest).await?;
    let invited = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    assert!(matches!(invited, InvitationReply::Accepted { .. }), "{invited:?}");
    let opened = attacker.opened(&manifest, &request, &mut rounds).await?;
    opened.answer(|state| respond_with(state, &Natural::from(2))).await?;
    match stage.outcome(&manifest, ShareIndex::Service).await? {
        OutcomeResult::Failed { code, culprit: None, .. } => assert_eq!(code, Code::TooManyAnswers),
        other => panic!("{other:?}"),
    }
    // The initiator did not even look at it: a bad answer would have locked the key.
    stage.partner.start().await?;
    stage.sign_service_partner(&wallet, "m").await
}

/// When a worker's patience ends, a session that waits for an absent peer fails, and the worker
/// reports it.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_end__should_fail_and_say_so_when_its_worker_stops() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let settings = WorkerSettings { drain: Duration::from_millis(100), ..WorkerSettings::default() };
    let worker = Worker::start(stage.partner.party.clone(), stage.partner.bus.clone(), settings).await?;
    // The initiator is never invited.
    let request = stage.request(&wallet, "m", "stuck");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let accepted = stage.invite(&manifest.responder.party, &manifest.encode()?).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");

    assert!(!worker.drain().await, "a session was cut off");
    match stage.outcome(&manifest, ShareIndex::Partner).await? {
        OutcomeResult::Failed { code, culprit: None, .. } => assert_eq!(code, Code::Overloaded),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_that_is_released__should_serve_the_next_session() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let settings = WorkerSettings { sessions: 1, ..WorkerSettings::default() };
    let worker = Worker::start(stage.partner.party.clone(), stage.partner.bus.clone(), settings).await?;
    let partner = stage.partner.party.id().clone();
    let mut manifests = Vec::new();
    for text in ["first", "second", "third"] {
        let request = stage.request(&wallet, "m", text);
        manifests.push(stage.manifest(&wallet, Pair::ServicePartner, key, &request));
    }
    // The initiator of the first two is never invited. Without a release each of them would hold
    // the only seat until its deadline, and no worker would be there for the next.
    for manifest in &manifests[..2] {
        let accepted = stage.invite_when_present(&partner, &manifest.encode()?).await?;
        let InvitationReply::Accepted { instance } = accepted else { bail!("{accepted:?}") };
        stage.invite_until_absent(&partner, &manifests[2].encode()?).await?;
        // A session that is not here, and a worker that is another one.
        stage.release(&partner, &instance, SessionId([9; 16])).await?;
        stage.release(&partner, "another", manifest.session).await?;
        stage.invite_until_absent(&partner, &manifests[2].encode()?).await?;
        stage.release(&partner, &instance, manifest.session).await?;
    }
    let accepted = stage.invite_when_present(&partner, &manifests[2].encode()?).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    assert!(now_ms() < manifests[0].expires_at_ms, "the first session's own deadline has not come");
    let service = manifests[2].initiator.party.clone();
    stage.invite(&service, &manifests[2].encode()?).await?;
    let signed = stage.outcome(&manifests[2], ShareIndex::Service).await?;
    assert!(matches!(signed, OutcomeResult::Signed { .. }), "{signed:?}");
    assert!(worker.drain().await, "every seat is free, and every report is out");
    while let Ok(report) = stage.outcomes.try_recv() {
        let outcome: duet_wire::Outcome = codec::decode(&report.outcome)?;
        assert_eq!(outcome.session, manifests[2].session, "a released worker reports nothing");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_written__should_silence_the_party_until_it_is() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &[&wallet], key).await?;
    let request = stage.request(&wallet, "m", "attack");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let together = Arc::new(tokio::sync::Barrier::new(2));
    let (attacked, meeting) = (manifest.clone(), Arc::clone(&together));
    let attack = tokio::spawn(async move { attack(&attacker, &attacked, &request, meeting).await });
    together.wait().await;
    let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");

    // The disk accepts the pending verdict, and fails before the lock.
    let database = stage.service.sqlite.path().to_owned();
    refuse(&database, Refused::Decisions).await?;
    together.wait().await;
    attack.await??;
    let becomes = |ready: bool| {
        let worker = stage.service.worker.as_ref().unwrap();
        timeout(PATIENCE, async move {
            while (worker.readiness() == Readiness::Ready) != ready {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    becomes(false).await?;
    let request = stage.request(&wallet, "m", "afterwards");
    let next = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let next_manifest = next.encode()?;
    stage.invite_until_absent(&next.initiator.party, &next_manifest).await?;

    // The disk works again: the lock is written before anything else.
    accept(&database).await?;
    becomes(true).await?;
    match stage.invite_when_present(&next.initiator.party, &next_manifest).await? {
        InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::Locked),
        InvitationReply::Accepted { .. } => panic!("the lock was forgotten"),
    }
    assert!(stage.outcomes.try_recv().is_err(), "the session that could not lock said nothing");
    Ok(())
}

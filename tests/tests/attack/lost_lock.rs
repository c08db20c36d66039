//! P2* sends a bad answer, the initiator decrypts it, and the verdict is lost before the lock is
//! written: the worker dies, or its disk is full. If the lock were lost too, the attacker could ask
//! again and again.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use duet_party::{
    compute::system_rng,
    culprits,
    enrolment::Enroller,
    store::{KeyStore as _, PaillierState, PendingStore as _, Readiness, RecordStore as _},
};
use duet_protocol::{ids::PaillierKeyId, natural::Natural, paillier::ModulusSize, responder::Charged};
use duet_test_postgres::Server as Postgres;
use duet_tests::{
    chaos::SmallDisk,
    duet::text,
    http::Api,
    malicious::{MaliciousPartner, answer_badly_to},
    stack::{ALL_KINDS, Pair as StackPair, Stack},
    stage::{Backend, PATIENCE, Stage},
};
use duet_wire::{InvitationReply, Pair, WalletInfo};
use sqlx::{Connection as _, Row as _};
use tokio::{sync::OwnedMutexGuard, time::timeout};

/// The partner's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
}

/// Lets the partner answer a session of the service. `disk` says when the service's disk becomes
/// full.
async fn answered(
    stage: &Stage,
    attacker: &MaliciousPartner,
    wallet: &WalletInfo,
    key: PaillierKeyId,
    answer: Answer,
    disk: Option<&SmallDisk>,
) -> Result<()> {
    let request = stage.request(wallet, "m", "lost");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    let mut rounds = attacker.listen(&manifest).await?;
    let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    ensure!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    let opened = attacker.opened(&manifest, &request, &mut rounds).await?;
    if let Some(disk) = disk {
        disk.fill()?;
    }
    opened
        .answer(move |state| match answer {
            Answer::Good => {
                let (session, wallet, digest) = state.charge();
                let charged = Charged::committed_durably(session, wallet, digest);
                state.respond(charged, None, &mut system_rng())
            }
            Answer::Bad => state.respond_with(&Natural::from(2)),
        })
        .await
}

/// Runs a session with the partner's `answer` until the verdict is about to pass the gate. It is
/// written as pending, and stays before the gate as long as the returned guard lives.
async fn decrypted(
    stage: &Stage,
    attacker: &MaliciousPartner,
    wallet: &WalletInfo,
    key: PaillierKeyId,
    answer: Answer,
) -> Result<OwnedMutexGuard<()>> {
    let kept = stage.service.party.context().verdicts.clone().lock_owned().await;
    answered(stage, attacker, wallet, key, answer, None).await?;
    let pending = async {
        // At the end of all time, every pending verdict is old.
        while stage.service.sqlite.abandoned(u64::MAX, 1).await?.is_empty() {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, pending).await??;
    Ok(kept)
}

async fn becomes_unready(stage: &Stage) -> Result<()> {
    let unready = async {
        while stage.service.sqlite.readiness() == Readiness::Ready {
            tokio::task::yield_now().await;
        }
    };
    Ok(timeout(PATIENCE, unready).await?)
}

async fn state(stage: &Stage, key: PaillierKeyId) -> Result<PaillierState> {
    Ok(stage.service.sqlite.paillier_key(key).await?.context("the key's row is gone")?.state)
}

/// Copies the files of a store and its key.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for name in ["store.db", "store.db-wal", "store.db.generation", "key"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

/// Simulates `kill -9`: another process opens the files as they are.
async fn killed_and_started_again(backend: &mut Backend) -> Result<()> {
    drop(backend.worker.take());
    let copy = tempfile::tempdir()?;
    copy_files(backend.directory.path(), copy.path())?;
    backend.directory = copy;
    backend.crash().await?;
    backend.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_the_lock__should_lock_when_it_starts_again() -> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &[&wallet], key).await?;

    // Losing a good verdict costs nothing.
    let kept = decrypted(&stage, &attacker, &wallet, key, Answer::Good).await?;
    killed_and_started_again(&mut stage.service).await?;
    drop(kept);
    assert_eq!(state(&stage, key).await?, PaillierState::Ready);
    assert_eq!(stage.service.sqlite.unclean_starts().await?, 1);

    let kept = decrypted(&stage, &attacker, &wallet, key, Answer::Bad).await?;
    assert_eq!(state(&stage, key).await?, PaillierState::Ready, "the lock is not written yet");
    killed_and_started_again(&mut stage.service).await?;
    drop(kept);
    assert_eq!(state(&stage, key).await?, PaillierState::Locked);
    assert!(stage.service.sqlite.abandoned(u64::MAX, 1).await?.is_empty());
    stage.partner.start().await?;
    let refused = stage.sign_service_partner(&wallet, "m").await.unwrap_err();
    assert!(refused.to_string().contains("[locked]"), "{refused}");

    // The stored evidence names the culprit. A rotation does not clear it. The operator's
    // acceptance does, once.
    let service = &stage.service;
    let enroller = Enroller::new(service.party.context().clone(), service.bus.clone(), ModulusSize::Bits2048);
    enroller.rotate(service.party.identity(), None, None).await?;
    let refused = stage.sign_service_partner(&wallet, "m").await.unwrap_err();
    assert!(refused.to_string().contains("quarantined"), "{refused}");
    let culprit = stage.partner.party.card().fingerprint();
    let accepted = culprits::accept(stage.service.party.context(), culprit).await?;
    let losses: Vec<_> = accepted.losses.iter().map(|loss| (loss.wallet, loss.failures)).collect();
    assert_eq!(losses, [(wallet.id, 1)]);
    stage.sign_service_partner(&wallet, "m").await?;
    eprintln!("evidence: bad verdicts lost with their process = 1; locked at the next start = 1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_truly_full__should_let_no_verdict_out_and_forget_none() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mounted = folder.path().join("disk");
    let disk = match SmallDisk::mount(&mounted) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("SKIPPED: no disk can be mounted here: {error}");
            return Ok(());
        }
    };
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &[&wallet], key).await?;
    drop(stage.service.worker.take());
    stage.service.sqlite.close().await;
    let directory = tempfile::tempdir_in(&mounted)?;
    copy_files(stage.service.directory.path(), directory.path())?;
    stage.service.directory = directory;
    stage.service.crash().await?;
    stage.service.start().await?;
    while stage.outcomes.try_recv().is_ok() {}

    // Full before the answer comes: nothing is decrypted. Full between decryption and gate: no
    // verdict leaves, good or bad.
    let mut silent = 0;
    for (answer, is_full_before) in
        [(Answer::Good, true), (Answer::Bad, true), (Answer::Good, false), (Answer::Bad, false)]
    {
        if is_full_before {
            answered(&stage, &attacker, &wallet, key, answer, Some(&disk)).await?;
        } else {
            let kept = decrypted(&stage, &attacker, &wallet, key, answer).await?;
            disk.fill()?;
            drop(kept);
        }
        becomes_unready(&stage).await?;
        assert!(stage.outcomes.try_recv().is_err(), "{answer:?}: something was said");
        silent += 1;
        assert!(stage.service.crash().await.is_err(), "a store that cannot write at all does not open");
        // As when the process ends. Not earlier, because closing removes the write-ahead log, which
        // makes room.
        stage.service.sqlite.close().await;
        disk.empty()?;
        stage.service.crash().await?;
        stage.service.start().await?;
        let expected = match (answer, is_full_before) {
            (Answer::Bad, false) => PaillierState::Locked,
            _ => PaillierState::Ready,
        };
        assert_eq!(state(&stage, key).await?, expected, "{answer:?}, full before: {is_full_before}");
    }
    eprintln!("evidence: verdicts on a full file system = {silent}; told = 0; locks forgotten = 0");
    drop(stage);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_between_decryption_and_lock__should_lock_when_it_starts_again() -> Result<()> {
    let server = Postgres::shared().await?;
    let mut stack = Stack::start_on(Some(server)).await?;
    let wallet = stack.create_wallet("device", ALL_KINDS).await?;
    wallet.sign_by(StackPair::ServicePartner, &["message", "honest"]).await?;
    stack.partner.stop().await?;
    answer_badly_to(&stack.party("partner"), wallet.id.parse()?, duet_protocol::ids::ShareIndex::Service)
        .await?;
    stack.partner.start().await?;

    // The lock waits for a row that the test holds. The answer is decrypted by then.
    let party = stack.party("service");
    let database = party.database().context("the stack is on a server")?;
    let mut holder = database.administer().await?;
    let mut watcher = database.administer().await?;
    let mut held = holder.begin().await?;
    sqlx::query("SELECT id FROM paillier_keys FOR UPDATE").fetch_all(&mut *held).await?;
    let api = Api::new(&stack, &wallet)?;
    let payload = serde_json::json!({"kind": "personal_message", "text": "bad"});
    api.submit(&api.request(&payload, "bad")?, "bad").await?;
    let waiting = async {
        loop {
            let row = sqlx::query(
                "SELECT COUNT(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE paillier_keys%'",
            )
            .fetch_one(&mut watcher)
            .await?;
            if row.try_get::<i64, _>(0)? > 0 {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, waiting).await??;
    stack.service.kill().await?;
    held.rollback().await?;
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM pending_verdicts) AS pending,
                (SELECT COUNT(*) FROM paillier_keys WHERE state = 1) AS locked",
    )
    .fetch_one(&mut watcher)
    .await?;
    assert_eq!(row.try_get::<i64, _>("pending")?, 1, "the verdict outlives its process");
    assert_eq!(row.try_get::<i64, _>("locked")?, 0, "and the lock is not written");

    stack.service.start().await?;
    let status = party.command(&stack.duet()).json(&["party", "status"]).await?;
    assert_eq!(status["unclean_starts"], 1, "{status}");
    let states: Vec<_> =
        status["paillier_keys"].as_array().context("keys")?.iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["locked"], "{status}");
    assert_eq!(text(&status, "/culprits/0/state")?, "quarantined");
    eprintln!("evidence: processes killed between decryption and lock = 1; locks forgotten = 0");
    Ok(())
}

//! A lock is undone without the party's knowledge. Its row is reset by hand, or the whole store is
//! put back to yesterday. The broker's stream or another party knows better.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use duet_actors::{
    malicious::MaliciousPartner,
    stage::{PATIENCE, Stage, name},
};
use duet_adversary::responder::respond_with;
use duet_bus::{audit::read_head, streams::StorageSettings};
use duet_party::{
    enrolment::Enroller,
    party::fetch_card,
    store::{KeyStore as _, PaillierState, RecordStore as _, Standing, WalletStore as _, WitnessStore as _},
};
use duet_protocol::{
    codec,
    ids::{PaillierKeyId, ShareIndex},
    natural::Natural,
    paillier::ModulusSize,
};
use duet_wire::{Code, InvitationReply, OutcomeResult, Pair, WalletInfo, audit::SignedHead};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes the service lock its key: the partner gives it a bad answer in a wallet's session.
async fn lock(stage: &mut Stage, wallet: &WalletInfo, key: PaillierKeyId) -> Result<()> {
    let attacker = MaliciousPartner::of(stage, &[wallet], key).await?;
    drop(stage.partner.worker.take());
    let request = stage.request(wallet, "m", "attack");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    let mut rounds = attacker.listen(&manifest).await?;
    let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    ensure!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    let opened = attacker.opened(&manifest, &request, &mut rounds).await?;
    // The partner's own worker listens again before the lock is published, because it is one of the
    // witnesses.
    stage.partner.start().await?;
    opened.answer(|state| respond_with(state, &Natural::from(2))).await?;
    match stage.outcome(&manifest, ShareIndex::Service).await? {
        OutcomeResult::Failed { code: Code::PeerMisbehaved, .. } => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// Stops the service in order, so that its files no longer change.
async fn stop(stage: &mut Stage) -> Result<()> {
    drop(stage.service.worker.take());
    stage.service.sqlite.close().await;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(to)? {
        fs::remove_file(entry?.path())?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// A copy of the service's whole directory, as it is now.
async fn yesterday(stage: &mut Stage) -> Result<TempDir> {
    stop(stage).await?;
    let kept = tempfile::tempdir()?;
    copy(stage.service.directory.path(), kept.path())?;
    stage.service.crash().await?;
    stage.service.start().await?;
    Ok(kept)
}

async fn put_back(stage: &mut Stage, kept: &TempDir) -> Result<()> {
    stop(stage).await?;
    copy(kept.path(), stage.service.directory.path())?;
    stage.service.crash().await
}

/// The heads of the service's audit log that the partner keeps, newest chain last.
async fn kept_by_partner(stage: &Stage) -> Result<Vec<SignedHead>> {
    let rows = stage.partner.sqlite.heads(&name("service")).await?;
    rows.into_iter().map(|row| Ok(codec::decode(&row.head)?)).collect()
}

/// Waits until the stream and the partner both know that `key` is locked.
async fn witnessed(stage: &Stage, key: PaillierKeyId) -> Result<()> {
    timeout(PATIENCE, async {
        loop {
            let in_stream = read_head(&stage.service.bus, &name("service"), PATIENCE).await?;
            let heads = kept_by_partner(stage).await?;
            let names = |head: Option<&SignedHead>| head.is_some_and(|head| head.head.locked.contains(&key));
            if names(in_stream.as_ref()) && names(heads.last()) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    })
    .await
    .context("the lock was not told")?
}

/// The code with which the service refuses to initiate.
async fn refusal(stage: &Stage, wallet: &WalletInfo, key: PaillierKeyId) -> Result<Code> {
    let request = stage.request(wallet, "m", "afterwards");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    loop {
        match stage.invite_when_present(&manifest.initiator.party, &manifest.encode()?).await? {
            InvitationReply::Refused(refusal) if refusal.code == Code::StorageUnavailable => {
                sleep(LOOK_EVERY).await;
            }
            InvitationReply::Refused(refusal) => return Ok(refusal.code),
            InvitationReply::Accepted { .. } => bail!("the service initiates"),
        }
    }
}

async fn failures(stage: &Stage, wallet: &WalletInfo) -> Result<u32> {
    Ok(stage.service.sqlite.wallet(wallet.id).await?.context("no wallet")?.failures)
}

/// What an attacker with access to the database does, without its key.
async fn set_back_by_hand(stage: &Stage, statements: &[&str]) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(stage.service.directory.path().join("store.db"));
    let mut connection = SqliteConnection::connect_with(&options).await?;
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_set_back_in_the_database__should_be_repaired_before_anything_is_initiated()
-> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let before = yesterday(&mut stage).await?;
    lock(&mut stage, &wallet, key).await?;
    witnessed(&stage, key).await?;

    // First the column. Then the old row and the sealed key with it. Last, the records of the lock
    // are removed too.
    let old = before.path().join("store.db");
    let attach = format!("ATTACH '{}' AS old", old.display());
    let copy = |table: &str, columns: &str| {
        format!("REPLACE INTO {table} ({columns}) SELECT {columns} FROM old.{table}")
    };
    let keys = copy(
        "paillier_keys",
        "id, scope, state, sequence, created_at_ms, locked_session, locked_evidence, locked_at_ms, \
         superseded_at_ms, removed_at_ms, verdicts, locked_card",
    );
    let sealed = copy("records", "kind, wallet, share_index, epoch, item, sealed");
    let row = [attach.as_str(), keys.as_str(), sealed.as_str()];
    let records = "UPDATE audit_records SET body = '{}' WHERE body LIKE '%_locked%'";
    let everything = [&row[..], &[records]].concat();
    // The first leaves the time of the lock: it was counted. Where that is gone, it counts again.
    let tries: [(&[&str], u32); 3] =
        [(&["UPDATE paillier_keys SET state = 0"], 1), (&row, 2), (&everything, 3)];
    for (statements, expected) in tries {
        stop(&mut stage).await?;
        set_back_by_hand(&stage, statements).await?;
        stage.service.crash().await?;
        let state = stage.service.sqlite.paillier_key(key).await?.context("no key")?.state;
        ensure!(state == PaillierState::Ready, "the attack as it is played: {state:?}");
        stage.service.start().await?;
        assert_eq!(refusal(&stage, &wallet, key).await?, Code::Locked, "{statements:?}");
        let state = stage.service.sqlite.paillier_key(key).await?.context("no key")?.state;
        assert_eq!(state, PaillierState::Locked, "{statements:?}");
        assert_eq!(failures(&stage, &wallet).await?, expected, "{statements:?}");
    }
    eprintln!(
        "evidence: locks set back in the database = {}; sessions initiated afterwards = 0",
        tries.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_put_back_to_yesterday__should_initiate_nothing_until_it_is_rotated() -> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let kept = yesterday(&mut stage).await?;
    // Also without a lock in between: an operator who restores a store does not know what it has
    // forgotten.
    stage.sign_service_partner(&wallet, "m").await?;
    timeout(PATIENCE, async {
        while kept_by_partner(&stage).await?.last().is_none_or(|head| head.head.position.sequence < 8) {
            sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    })
    .await??;
    put_back(&mut stage, &kept).await?;
    assert!(!stage.service.sqlite.was_restored().await?, "nothing in the directory shows it");
    stage.service.start().await?;
    assert_eq!(refusal(&stage, &wallet, key).await?, Code::NeedsRotation);
    assert!(stage.service.sqlite.was_restored().await?);

    // The next start finds nothing new, and a rotated key signs.
    stage.service.crash().await?;
    stage.service.start().await?;
    assert_eq!(refusal(&stage, &wallet, key).await?, Code::NeedsRotation);
    let service = &stage.service;
    let context = service.party.context().clone();
    Enroller::new(context, service.bus.clone(), ModulusSize::Bits2048)
        .rotate(service.party.identity(), None, None)
        .await?;
    stage.sign_service_partner(&wallet, "m").await?;
    stage.service.crash().await?;
    stage.service.start().await?;
    stage.sign_service_partner(&wallet, "m").await?;
    eprintln!("evidence: stores put back whole = 1; sessions initiated before the rotation = 0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_only_another_party_remembers__should_be_found_when_the_store_is_put_back() -> Result<()>
{
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let kept = yesterday(&mut stage).await?;
    lock(&mut stage, &wallet, key).await?;
    witnessed(&stage, key).await?;
    put_back(&mut stage, &kept).await?;
    stage.broker.restart_empty().await?;
    stage.orchestrator.ensure_streams(&StorageSettings::default()).await?;
    // The empty stream counts as an answer, so the party that remembers has to be back.
    timeout(PATIENCE, async {
        while fetch_card(&stage.service.bus, &name("service"), &name("partner")).await.is_err() {
            sleep(LOOK_EVERY).await;
        }
    })
    .await?;
    stage.service.start().await?;
    assert_eq!(refusal(&stage, &wallet, key).await?, Code::Locked);
    assert!(stage.service.sqlite.was_restored().await?);
    // With the lock come back what it costs the wallet, and the quarantine of the responder.
    assert_eq!(failures(&stage, &wallet).await?, 1);
    let culprit = stage.partner.party.card().fingerprint();
    let standing = stage.service.sqlite.standing(culprit).await?;
    assert_eq!(standing, Standing { locks: 1, is_accepted: false });
    eprintln!("evidence: stores put back with the stream lost = 1; locks forgotten = 0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_hears_from_no_witness__should_initiate_nothing() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    stage.service.crash().await?;
    // Without the streams, and without the partner.
    stage.broker.restart_empty().await?;
    stage.service.start().await?;
    let request = stage.request(&wallet, "m", "afterwards");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    match stage.invite_when_present(&manifest.initiator.party, &manifest.encode()?).await? {
        InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::StorageUnavailable, "{refusal}"),
        InvitationReply::Accepted { .. } => bail!("the service initiates"),
    }
    // One of the two is enough.
    stage.partner.start().await?;
    timeout(PATIENCE, async {
        while stage.sign_service_partner(&wallet, "m").await.is_err() {
            sleep(LOOK_EVERY).await;
        }
    })
    .await?;
    Ok(())
}

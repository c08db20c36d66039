//! P2* sends a bad answer, the initiator decrypts it, and the verdict is lost before the lock is
//! written: the worker dies, or its disk is full. If the lock were lost too, the attacker could ask
//! again and again.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use duet_actors::{
    held_gate::HeldGate,
    malicious::{MaliciousPartner, Opened, answer_badly_to},
    stage::{Backend, PATIENCE, Stage, limits},
};
use duet_adversary::responder::respond_with;
use duet_chaos::{databases, suite::SmallDisk};
use duet_harness::{
    duet::text,
    http::Api,
    stack::{ALL_KINDS, Pair as StackPair, Stack},
};
use duet_party::{
    Context, Party, PartySettings,
    compute::system_rng,
    culprits,
    enrolment::Enroller,
    key_encryption::KeyFile,
    store::{
        PaillierState, PendingStore as _, Readiness, RecordStore as _, ShareStore,
        postgres::{PostgresOptions, PostgresStore},
    },
    vault::Vault,
};
use duet_protocol::{ids::PaillierKeyId, natural::Natural, paillier::ModulusSize, responder::Charged};
use duet_test_postgres::PostgresServer as Postgres;
use duet_wire::{Code, InvitationReply, Pair, WalletInfo};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::{sync::OwnedMutexGuard, time::timeout};

/// The partner's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
}

/// A session of the service, played up to where it waits for the partner's answer.
async fn opened(
    stage: &Stage,
    attacker: &MaliciousPartner,
    wallet: &WalletInfo,
    key: PaillierKeyId,
) -> Result<Opened> {
    let request = stage.request(wallet, "m", "lost");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    let mut rounds = attacker.listen(&manifest).await?;
    let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    ensure!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    attacker.opened(&manifest, &request, &mut rounds).await
}

async fn give(opened: Opened, answer: Answer) -> Result<()> {
    opened
        .answer(move |state| match answer {
            Answer::Good => {
                let (session, wallet, digest) = state.charge();
                let charged = Charged::committed_durably(session, wallet, digest);
                state.respond(charged, None, &mut system_rng())
            }
            Answer::Bad => respond_with(state, &Natural::from(2)),
        })
        .await
}

/// Plays a session up to where the verdict is about to pass the gate: it is written as pending, and
/// kept from the gate as long as what this returns lives.
async fn decrypted(
    stage: &Stage,
    attacker: &MaliciousPartner,
    wallet: &WalletInfo,
    key: PaillierKeyId,
    answer: Answer,
) -> Result<OwnedMutexGuard<()>> {
    let kept = stage.service.gate.hold().await;
    give(opened(stage, attacker, wallet, key).await?, answer).await?;
    let pending = async {
        // At the end of all time everything pending is old.
        while store(stage).abandoned(u64::MAX, 1).await?.is_empty() {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, pending).await??;
    Ok(kept)
}

/// The service's share store, whichever database it is in.
fn store(stage: &Stage) -> &Arc<dyn ShareStore> {
    stage.service.party.context().vault.store()
}

async fn becomes_unready(stage: &Stage) -> Result<()> {
    Ok(timeout(PATIENCE, store(stage).until_ready(false)).await?)
}

async fn state(stage: &Stage, key: PaillierKeyId) -> Result<PaillierState> {
    Ok(store(stage).paillier_key(key).await?.context("the key's row is gone")?.state)
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
    let (mut stage, wallet) = Stage::with_wallet().await?;
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
    let (mut stage, wallet) = Stage::with_wallet().await?;
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
            let opened = opened(&stage, &attacker, &wallet, key).await?;
            disk.fill()?;
            give(opened, answer).await?;
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

/// What the data folder of a server with one store takes, and as much again.
const SERVER_DISK_MIB: u32 = 160;
/// The size of a file of PostgreSQL's log, as `initdb` makes it: it is there in full before it is
/// written to.
const LOG_FILE_BYTES: i64 = 16 * 1024 * 1024;
/// Room in the newest of these files that no commit of a share store fits into.
const NO_ROOM_BYTES: i64 = 128;

/// A PostgreSQL server that keeps everything on a small file system of its own.
struct SmallServer {
    server: Postgres,
    disk: SmallDisk,
}

impl SmallServer {
    /// Starts one in `folder`. `None` when no disk can be mounted here.
    async fn start(folder: &Path) -> Result<Option<Self>> {
        let mounted = folder.join("disk");
        let disk = match SmallDisk::mount_of(&mounted, SERVER_DISK_MIB) {
            Ok(disk) => disk,
            Err(error) => {
                eprintln!("SKIPPED: no disk can be mounted here: {error}");
                return Ok(None);
            }
        };
        for reached in [folder, &mounted] {
            fs::set_permissions(reached, fs::Permissions::from_mode(0o711))?;
        }
        // Only what the test does writes to the log, and no file of it is kept for later.
        let settings = [
            "wal_level=minimal",
            "max_wal_senders=0",
            "wal_recycle=off",
            "checkpoint_timeout=1h",
            "autovacuum=off",
        ];
        Ok(Some(Self { server: Postgres::start_in(&mounted, &settings).await?, disk }))
    }

    /// Fills the disk to the last byte, and the newest file of the server's log as well: no commit
    /// finds a place.
    async fn fill(&self) -> Result<()> {
        self.disk.fill()?;
        let mut connection = self.server.maintenance().await?;
        // The party's worker writes meanwhile. When that is what finds no place, the server has
        // ended by itself.
        while let Ok(true) = Self::use_up(&mut connection).await {}
        Ok(())
    }

    /// Writes to the server's log what its newest file still holds; whether there may be room yet.
    async fn use_up(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let row = sqlx::query(
            "SELECT (at - '0/0')::BIGINT AS at,
                    (SELECT COUNT(*) FROM pg_ls_waldir() WHERE name > pg_walfile_name(at)) AS later
             FROM pg_current_wal_insert_lsn() AS at",
        )
        .fetch_one(&mut *connection)
        .await?;
        let (at, later): (i64, i64) = (row.try_get("at")?, row.try_get("later")?);
        let left = LOG_FILE_BYTES - at % LOG_FILE_BYTES;
        if later == 0 && left <= NO_ROOM_BYTES {
            return Ok(false);
        }
        // A page's head takes 24 of 8,192 bytes; the record's own head and that of the commit some
        // 130.
        let bytes = (left - left / 256 - 160).max(1);
        let statement = format!("SELECT pg_logical_emit_message(true, 'duet', repeat('x', {bytes}))");
        sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
        Ok(true)
    }

    /// Gives the room back, and starts the server as its operator would.
    async fn give_room(&mut self) -> Result<()> {
        self.disk.empty()?;
        self.server.kill()?;
        self.server.resume()?;
        self.server.ready().await
    }
}

/// Opens the service in the database, as a new process does.
async fn open_service(stage: &mut Stage, options: &PostgresOptions) -> Result<()> {
    drop(stage.service.worker.take());
    let gate = HeldGate::new(Arc::new(PostgresStore::open(options).await?));
    let store: Arc<dyn ShareStore> = Arc::new(gate.clone());
    let source = KeyFile::at(stage.service.directory.path().join("key"));
    let vault = Vault::open(store, &source, &duet_party::clock::Clock::system()).await?;
    let settings = PartySettings { limits: limits(), ..PartySettings::default() };
    stage.service.party = Party::open(Context::new(vault)).await?.with_settings(settings);
    stage.service.gate = gate;
    Ok(())
}

/// That a process which starts while the disk is full initiates nothing.
async fn initiates_nothing(
    stage: &mut Stage,
    options: &PostgresOptions,
    wallet: &WalletInfo,
    key: PaillierKeyId,
) -> Result<()> {
    // With the log full a server does not even start; then there is no store to open.
    if open_service(stage, options).await.is_err() {
        return Ok(());
    }
    ensure!(store(stage).readiness() != Readiness::Ready, "the test write succeeded on a full disk");
    stage.service.start().await?;
    let request = stage.request(wallet, "m", "on a full disk");
    let manifest = stage.manifest(wallet, Pair::ServicePartner, key, &request);
    match stage.invite_when_present(&manifest.initiator.party, &manifest.encode()?).await? {
        InvitationReply::Refused(refusal) if refusal.code == Code::StorageUnavailable => Ok(()),
        reply => anyhow::bail!("{reply:?}"),
    }
}

/// Gives the service a new key and lets it go on with the partner; the partner's part under that
/// key.
async fn rotated(stage: &mut Stage, wallet: &WalletInfo) -> Result<(PaillierKeyId, MaliciousPartner)> {
    stage.partner.start().await?;
    let service = &stage.service;
    let enroller = Enroller::new(service.party.context().clone(), service.bus.clone(), ModulusSize::Bits2048);
    enroller.rotate(service.party.identity(), None, None).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(stage, &[wallet], key).await?;
    Ok((key, attacker))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_server_whose_disk_is_truly_full__should_let_no_verdict_out_and_forget_none() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let Some(mut small) = SmallServer::start(folder.path()).await? else { return Ok(()) };
    let database = small.server.database().await?;
    let options = PostgresOptions::at(&database.url)?.with_password(&database.password.clone().into());
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    // The service moves to the server by way of a backup, so its key has to be rotated.
    drop(stage.service.worker.take());
    let backup = folder.path().join("backup.db");
    stage.service.sqlite.back_up(&backup).await?;
    PostgresStore::restore(&backup, &options).await?.close().await;
    open_service(&mut stage, &options).await?;
    stage.service.start().await?;
    let (mut key, mut attacker) = rotated(&mut stage, &wallet).await?;
    while stage.outcomes.try_recv().is_ok() {}

    // Full before the answer comes: nothing leaves, and with the log ends what was not flushed.
    // Full between decryption and gate: nothing leaves, and what is pending is judged by the next
    // process, or the lock is written by this one.
    let mut silent = 0;
    for (answer, is_full_before, lives_on) in [
        (Answer::Good, true, false),
        (Answer::Bad, true, false),
        (Answer::Good, false, false),
        (Answer::Bad, false, false),
        (Answer::Bad, false, true),
    ] {
        let what = format!("{answer:?}, full before: {is_full_before}, lives on: {lives_on}");
        if is_full_before {
            let opened = opened(&stage, &attacker, &wallet, key).await?;
            small.fill().await?;
            give(opened, answer).await?;
        } else {
            let kept = decrypted(&stage, &attacker, &wallet, key, answer).await?;
            // The server's log is flushed by any commit.
            database.run("SELECT txid_current()").await?;
            small.fill().await?;
            drop(kept);
        }
        becomes_unready(&stage).await?;
        assert!(stage.outcomes.try_recv().is_err(), "{what}: something was said");
        silent += 1;
        if lives_on {
            small.give_room().await?;
            timeout(PATIENCE, store(&stage).until_ready(true)).await?;
        } else {
            initiates_nothing(&mut stage, &options, &wallet, key).await?;
            small.give_room().await?;
            open_service(&mut stage, &options).await?;
            stage.service.start().await?;
        }
        let expected = match (answer, is_full_before) {
            (Answer::Bad, false) => PaillierState::Locked,
            _ => PaillierState::Ready,
        };
        assert_eq!(state(&stage, key).await?, expected, "{what}");
        assert!(store(&stage).abandoned(u64::MAX, 1).await?.is_empty(), "{what}");
        assert!(stage.outcomes.try_recv().is_err(), "{what}: something was said afterwards");
        if expected == PaillierState::Locked && !lives_on {
            let culprit = stage.partner.party.card().fingerprint();
            culprits::accept(stage.service.party.context(), culprit).await?;
            (key, attacker) = rotated(&mut stage, &wallet).await?;
        }
    }
    ensure!(small.server.log()?.contains("No space left on device"), "the disk was never full");
    // What had no answer to fear signs again on the room that was given back: the device with the
    // service.
    stage.sign_device(&wallet, Pair::DeviceService, "m").await?;
    eprintln!(
        "evidence: verdicts on a full file system of a server = {silent}; told = 0; locks forgotten = 0"
    );
    drop(stage);
    Ok(())
}

/// What the service's worker shows of its unclean starts.
async fn unclean_starts(stack: &Stack) -> Result<i64> {
    let text = stack.service.metrics().await?;
    let line = text.lines().find_map(|line| line.strip_prefix("duet_unclean_starts "));
    Ok(line.context("the metric is not shown")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_between_decryption_and_lock__should_lock_when_it_starts_again() -> Result<()> {
    let server = Postgres::shared().await?;
    let databases = databases::two(server).await?;
    let mut stack = Stack::start_as(&[("DUET_METRICS_LISTEN", "127.0.0.1:0")], Some(databases)).await?;
    assert_eq!(unclean_starts(&stack).await?, 0);
    let wallet = stack.create_wallet("device", ALL_KINDS).await?;
    wallet.sign_by(StackPair::ServicePartner, &["message", "honest"]).await?;
    stack.partner.stop().await?;
    answer_badly_to(&stack.party("partner"), wallet.id.parse()?, duet_protocol::ids::ShareIndex::Service)
        .await?;
    stack.partner.start().await?;

    // The lock waits for a row that the test holds. The answer is decrypted by then.
    let party = stack.party("service");
    let database = databases::administered(&party)?;
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
    assert_eq!(unclean_starts(&stack).await?, 1);
    let states: Vec<_> =
        status["paillier_keys"].as_array().context("keys")?.iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["locked"], "{status}");
    assert_eq!(text(&status, "/culprits/0/state")?, "quarantined");
    // A start in order counts nothing, and shows what was counted before.
    stack.service.stop().await?;
    stack.service.start().await?;
    assert_eq!(unclean_starts(&stack).await?, 1);
    eprintln!("evidence: processes killed between decryption and lock = 1; locks forgotten = 0");
    Ok(())
}

/// How many jobs are queued while the service is killed, and how often.
const JOBS: usize = 160;
const KILLS: usize = 3;

/// How many jobs of the list are signed, and how many have ended otherwise.
async fn ended(api: &Api, jobs: &[String]) -> Result<(usize, usize)> {
    let (mut signed, mut otherwise) = (0, 0);
    for job in jobs {
        match text(&api.get(&format!("/v1/jobs/{job}")).await?.body, "/state")? {
            "signed" => signed += 1,
            "failed" | "expired" | "cancelled" => otherwise += 1,
            _ => {}
        }
    }
    Ok((signed, otherwise))
}

/// Waits until at least `count` of the jobs are signed.
async fn until_signed(api: &Api, jobs: &[String], count: usize) -> Result<()> {
    let enough = async {
        loop {
            let (signed, otherwise) = ended(api, jobs).await?;
            ensure!(otherwise == 0, "{otherwise} jobs ended without a signature");
            if signed >= count {
                return Ok(());
            }
        }
    };
    timeout(4 * PATIENCE, enough).await.with_context(|| format!("{count} jobs were not signed"))?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_under_load__should_need_no_rotation() -> Result<()> {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await?;
    let api = Api::new(&stack, &wallet)?;
    let jobs = api.queue_messages("load", JOBS).await?;

    // The orchestrator has 32 jobs in work, and the worker a seat for each: sessions are open
    // whenever it dies.
    for kill in 1..=KILLS {
        until_signed(&api, &jobs, kill * JOBS / (KILLS + 2)).await?;
        stack.service.kill().await?;
        stack.service.start().await?;
    }
    until_signed(&api, &jobs, JOBS).await?;
    let status = stack.party("service").command(&stack.duet()).json(&["party", "status"]).await?;
    let states: Vec<_> =
        status["paillier_keys"].as_array().context("keys")?.iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["ready"], "{status}");
    assert_eq!(status["culprits"].as_array().map_or(0, Vec::len), 0, "{status}");
    eprintln!("evidence: workers killed under load = {KILLS}; jobs lost = 0; rotations needed = 0");
    Ok(())
}

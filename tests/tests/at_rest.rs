//! What opens a share store: changed while workers run, taken away, restored elsewhere, refused.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{fs, iter::successors, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use duet_chaos::{databases, signers};
use duet_credentials::{InitSettings, Layout, initialise};
use duet_harness::{
    duet::{Duet, text},
    parties::PartyFolder,
    stack::{ALL_KINDS, Pair, Stack, Wallet},
};
use duet_party::{
    at_rest::{RecordKind, RecordLabel},
    clock::Clock,
    key_encryption::KeyFile,
    store::{
        ShareStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_test_postgres::PostgresServer as Postgres;
use tokio::task::JoinSet;

use crate::vault_transit::{Mood, TOKEN, VaultTransitServer};

/// The settings that name what opens a store.
const SOURCES: [&str; 4] = ["DUET_KEY_FILE", "DUET_KEY_CREDENTIAL", "DUET_PASSPHRASE", "DUET_VAULT_KEY"];

/// What opens a store, as settings.
#[derive(Clone)]
struct Source(Vec<(&'static str, String)>);

impl Source {
    fn file(path: &Path) -> Self {
        Self(vec![("DUET_KEY_FILE", shown(path))])
    }

    fn passphrase(text: &str) -> Self {
        Self(vec![("DUET_PASSPHRASE", text.to_owned())])
    }

    fn vault(server: &VaultTransitServer, key: &str) -> Self {
        Self(vec![
            ("DUET_VAULT_KEY", key.to_owned()),
            ("DUET_VAULT_URL", server.url()),
            ("DUET_VAULT_TOKEN", TOKEN.to_owned()),
        ])
    }

    fn credential(directory: &Path, name: &str) -> Self {
        Self(vec![("DUET_KEY_CREDENTIAL", name.to_owned()), ("CREDENTIALS_DIRECTORY", shown(directory))])
    }

    /// The command with this source, and no other.
    fn command(&self, duet: &Duet) -> Duet {
        let without = SOURCES.iter().fold(duet.clone(), |duet, name| duet.without(name));
        self.0.iter().fold(without, |duet, (name, value)| duet.with(name, value))
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

async fn sign(wallet: &Wallet, message: &str) {
    let signed = wallet.sign_by(Pair::ServicePartner, &["message", message]).await.unwrap();
    let signer = signers::message_signer(message.as_bytes(), text(&signed, "/signature").unwrap()).unwrap();
    assert_eq!(signer.to_string(), wallet.address);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers__should_go_on_while_what_opens_their_store_changes() {
    let postgres = Postgres::shared().await.unwrap();
    let mut stack = Stack::start_on(Some(databases::two(postgres).await.unwrap())).await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let vault = VaultTransitServer::start(&["duet"]).await.unwrap();
    let service = stack.party("service");
    let duet = service.command(&stack.duet()).with("DUET_NEW_PASSPHRASE", "second");
    let second_file = stack.directory().join("second.key");
    let (file, passphrase) = (Source::file(&service.key_file()), Source::passphrase("second"));
    let (by_vault, by_second_file) = (Source::vault(&vault, "duet"), Source::file(&second_file));
    let status = async |source: &Source| source.command(&duet).json(&["party", "status"]).await;

    // The workers that started with the key file keep the store open.
    let changed = file.command(&duet).json(&["party", "rewrap", "--new-passphrase"]).await.unwrap();
    assert_eq!(text(&changed, "/opened_by").unwrap(), "passphrase");
    assert_eq!(text(&status(&passphrase).await.unwrap(), "/opened_by").unwrap(), "passphrase");
    let refused = file.command(&duet).refused(&["party", "status"]).await.unwrap();
    assert_eq!(refused.code, "wrong-passphrase", "{}", refused.message);
    sign(&wallet, "after the passphrase").await;

    let to_vault =
        passphrase.command(&duet).with("DUET_VAULT_URL", &vault.url()).with("DUET_VAULT_TOKEN", TOKEN);
    to_vault.json(&["party", "rewrap", "--new-vault-key", "duet"]).await.unwrap();
    assert!(status(&passphrase).await.is_err());
    assert_eq!(text(&status(&by_vault).await.unwrap(), "/opened_by").unwrap(), "vault");
    assert_eq!(vault.calls(), ["encrypt/duet", "decrypt/duet", "decrypt/duet"]);
    vault.rotate("duet").unwrap();
    by_vault.command(&duet).json(&["party", "rewrap"]).await.unwrap();
    assert_eq!(vault.calls(), ["decrypt/duet", "rewrap/duet", "decrypt/duet"]);
    vault.retire_before(2);
    stack.service.stop().await.unwrap();
    stack.service.set_settings(by_vault.command(&duet));
    stack.service.start().await.unwrap();
    assert_eq!(vault.calls(), ["decrypt/duet"]);
    vault.set(Mood::Sealed);
    sign(&wallet, "while Vault is sealed").await;
    assert!(vault.calls().is_empty(), "signing asks nothing of Vault");
    vault.set(Mood::Working);

    // Give the store another key while service and partner sign and a device creates a wallet.
    let mut jobs = JoinSet::new();
    for number in 0..8 {
        let wallet = wallet.clone();
        jobs.spawn(async move { sign(&wallet, &format!("meanwhile {number}")).await });
    }
    let arguments = ["party", "rewrap", "--new-store-key", "--new-key-file", &shown(&second_file)];
    let changed = by_vault.command(&duet).json(&arguments).await.unwrap();
    assert!(changed["records"].as_u64().unwrap() > 5, "{changed}");
    jobs.join_all().await;
    let newer = stack.create_wallet("another-device", ALL_KINDS).await.unwrap();
    sign(&newer, "a wallet that came after").await;
    sign(&wallet, "a wallet that came before").await;
    let refused = by_vault.command(&duet).refused(&["party", "status"]).await.unwrap();
    assert_eq!(refused.code, "wrong-passphrase", "{}", refused.message);

    stack.service.stop().await.unwrap();
    stack.service.set_settings(by_second_file.command(&duet));
    stack.service.start().await.unwrap();
    sign(&newer, "with the new key file").await;
    sign(&wallet, "with the new key file as well").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup__should_restore_on_an_empty_machine_whatever_opens_it() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let vault = VaultTransitServer::start(&["duet"]).await.unwrap();
    let service = stack.party("service");
    let duet = service.command(&stack.duet()).with("DUET_NEW_PASSPHRASE", "second");
    let mut now = (Source::file(&service.key_file()), service.store());

    for opened_by in ["file", "passphrase", "credential", "vault"] {
        let machine = stack.directory().join(format!("machine-{opened_by}"));
        let key = machine.join("seal.key");
        let file = shown(&key);
        fs::create_dir(&machine).unwrap();
        let source = match opened_by {
            "file" => Source::file(&key),
            "passphrase" => Source::passphrase("second"),
            "credential" => Source::credential(&machine, "seal.key"),
            _ => Source::vault(&vault, "duet"),
        };
        let arguments: &[&str] = match opened_by {
            "file" | "credential" => &["--new-key-file", &file],
            "passphrase" => &["--new-passphrase"],
            _ => &["--new-vault-key", "duet"],
        };
        let at = now.0.command(&duet).with("DUET_STORE", &shown(&now.1));
        let vault_at = at.clone().with("DUET_VAULT_URL", &vault.url()).with("DUET_VAULT_TOKEN", TOKEN);
        vault_at.json(&[&["party", "rewrap"], arguments].concat()).await.unwrap();
        if opened_by == "credential" {
            // With the permissions that systemd sets.
            fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).unwrap();
        }
        let at = source.command(&duet).with("DUET_STORE", &shown(&now.1));
        let backup = machine.join("backup");
        at.json(&["party", "backup", "--out", &shown(&backup)]).await.unwrap();

        // The old machine is gone. The new one has the backup and its key source.
        stack.service.stop().await.unwrap();
        for suffix in ["", "-wal", "-shm", ".generation"] {
            let _ = fs::remove_file(format!("{}{suffix}", shown(&now.1)));
        }
        let store = machine.join("shares.db");
        let there = source.command(&duet).with("DUET_STORE", &shown(&store));
        let wrong =
            Source::passphrase("wrong").command(&there).with("DUET_STORE", &shown(&machine.join("no.db")));
        let refused = wrong.refused(&["party", "restore", "--from", &shown(&backup)]).await.unwrap();
        assert_eq!(refused.code, "wrong-passphrase", "{}", refused.message);
        let restored = there.json(&["party", "restore", "--from", &shown(&backup)]).await.unwrap();
        assert_eq!(
            (restored["wallets"].as_u64(), restored["needs_rotation"].as_bool()),
            (Some(1), Some(true))
        );
        stack.service.set_settings(there.clone());
        stack.service.start().await.unwrap();
        there.json(&["party", "rotate"]).await.unwrap();
        sign(&wallet, opened_by).await;
        now = (source, store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_a_store__should_be_named_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let duet = Duet::new(directory.path()).with("DUET_VAULT_PATIENCE", "1ms");
    let party = PartyFolder::new(directory.path(), "service");
    party.copy_or_set_up(&duet).await.unwrap();
    let vault = VaultTransitServer::start(&["duet", "other"]).await.unwrap();
    let duet = party.command(&duet).with("DUET_VAULT_URL", &vault.url()).with("DUET_VAULT_TOKEN", TOKEN);
    let refused = async |duet: &Duet, expected: (&str, i32), says: &str| {
        let refused = duet.refused(&["party", "status"]).await.unwrap();
        assert_eq!((refused.code.as_str(), refused.exit_code), expected, "{}", refused.message);
        assert!(refused.message.contains(says), "{says}: {}", refused.message);
        assert!(!refused.message.contains(TOKEN));
    };

    // Keys on this machine.
    let file = Source::file(&party.key_file()).command(&duet);
    refused(
        &Source::passphrase("x").command(&duet),
        ("wrong-passphrase", 6),
        "a key file or credential, not with a passphrase",
    )
    .await;
    refused(&Source::file(&directory.path().join("absent")).command(&duet), ("file", 3), "absent").await;
    let credential = Source::credential(directory.path(), "absent");
    refused(&credential.command(&duet), ("file", 3), "no credential absent").await;
    refused(
        &credential.command(&duet).without("CREDENTIALS_DIRECTORY"),
        ("file", 3),
        "CREDENTIALS_DIRECTORY is not set",
    )
    .await;
    fs::set_permissions(party.key_file(), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&file, ("file", 3), "chmod 600").await;
    fs::set_permissions(party.key_file(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(file.refused(&["party", "rewrap"]).await.unwrap().code, "usage");

    // Vault. A refused rewrap changes nothing.
    let denied = file.clone().with("DUET_VAULT_TOKEN", "expired");
    let rewrap = ["party", "rewrap", "--new-vault-key", "duet"];
    assert_eq!(denied.refused(&rewrap).await.unwrap().code, "vault-refused");
    file.json(&["party", "status"]).await.unwrap();
    file.json(&rewrap).await.unwrap();
    let by_vault = Source::vault(&vault, "duet").command(&duet);
    by_vault.json(&["party", "status"]).await.unwrap();
    refused(&file, ("wrong-passphrase", 6), "Vault's transit engine").await;
    refused(
        &by_vault.clone().with("DUET_VAULT_TOKEN", "expired"),
        ("vault-refused", 5),
        "v1/transit/decrypt/duet",
    )
    .await;
    refused(&by_vault.clone().without("DUET_VAULT_TOKEN"), ("usage", 2), "no token for Vault").await;
    refused(
        &by_vault.clone().with("DUET_VAULT_KEY", "other"),
        ("vault-refused", 5),
        "transit/duet, not transit/other",
    )
    .await;
    refused(&by_vault.clone().with("DUET_VAULT_KEY", "../sys"), ("usage", 2), "key").await;
    let elsewhere = by_vault.clone().with("DUET_VAULT_URL", "http://vault.example:8200");
    refused(&elsewhere, ("usage", 2), "https").await;
    // The port of a server that has ended.
    let gone = VaultTransitServer::start(&[]).await.unwrap().url();
    refused(&by_vault.clone().with("DUET_VAULT_URL", &gone), ("vault-unreachable", 7), &gone).await;
    for (mood, expected, says) in [
        (Mood::Sealed, ("vault-unreachable", 7), "is sealed"),
        (Mood::Silent, ("vault-unreachable", 7), "no answer in time"),
        (Mood::Strange, ("vault-refused", 5), "not one of Vault's"),
        (Mood::Elsewhere, ("vault-refused", 5), "another address"),
    ] {
        vault.set(mood);
        refused(&by_vault, expected, says).await;
    }
    vault.set(Mood::Working);
    vault.rotate("duet").unwrap();
    vault.retire_before(2);
    refused(&by_vault, ("vault-refused", 5), "too old").await;
    vault.delete("duet");
    refused(&by_vault, ("vault-refused", 5), "encryption key not found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vaults_token__should_be_sent_only_where_the_certificate_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let duet = Duet::new(directory.path()).with("DUET_VAULT_PATIENCE", "1ms");
    let party = PartyFolder::new(directory.path(), "service");
    party.copy_or_set_up(&duet).await.unwrap();
    // Two authorities, each with a certificate for this machine's names.
    let [own, foreign] = ["own", "foreign"].map(|name| directory.path().join(name));
    for credentials in [&own, &foreign] {
        initialise(credentials, &InitSettings::default()).unwrap();
    }
    let [own, foreign] = [Layout::new(&own), Layout::new(&foreign)];
    // As an editor saves it that puts a byte order mark before a text.
    let authority = fs::read_to_string(own.ca_certificate()).unwrap();
    fs::write(own.ca_certificate(), format!("\u{feff}{authority}")).unwrap();
    let vault = VaultTransitServer::start_encrypted(&["duet"], &own.server_certificate(), &own.server_key())
        .await
        .unwrap();
    let plain = VaultTransitServer::start(&["duet"]).await.unwrap();

    let duet = party.command(&duet).with("DUET_VAULT_TOKEN", TOKEN).with("DUET_VAULT_URL", &vault.url());
    let trusting =
        |authority: &Layout| duet.clone().with("DUET_VAULT_CA", &shown(&authority.ca_certificate()));
    let by_file = Source::file(&party.key_file()).command(&trusting(&own));
    by_file.json(&["party", "rewrap", "--new-vault-key", "duet"]).await.unwrap();
    let by_vault = |duet: &Duet| Source(vec![("DUET_VAULT_KEY", "duet".to_owned())]).command(duet);
    by_vault(&trusting(&own)).json(&["party", "status"]).await.unwrap();
    assert_eq!(vault.calls().last().unwrap(), "decrypt/duet");

    // The certificate is for 127.0.0.1, but not for its neighbour.
    let other_name = vault.url().replace("127.0.0.1", "127.0.0.2");
    let other_server = plain.url().replace("http:", "https:");
    for (duet, says) in [
        (duet.clone(), "certificate"),
        // This authority has the same name and another key.
        (trusting(&foreign), "BadSignature"),
        (trusting(&own).with("DUET_VAULT_URL", &other_name), "not valid for name"),
        (trusting(&own).with("DUET_VAULT_URL", &other_server), "corrupt message"),
    ] {
        let refused = by_vault(&duet).refused(&["party", "status"]).await.unwrap();
        assert_eq!(
            (refused.code.as_str(), refused.exit_code),
            ("vault-unreachable", 7),
            "{}",
            refused.message
        );
        assert!(refused.message.contains(says), "{says}: {}", refused.message);
        assert!(!refused.message.contains(TOKEN));
    }
    // No request came through, and so no token did.
    assert_eq!((vault.calls(), plain.calls()), (vec![], vec![]));
    by_vault(&trusting(&own)).json(&["party", "status"]).await.unwrap();
}

/// Adds many records to a party's store, so that rewrapping takes a while.
async fn fill(store: Arc<dyn ShareStore>, key: &Path, records: u32) -> Result<()> {
    let vault = Vault::open(store, &KeyFile::at(key), &Clock::system()).await?;
    let numbers: Vec<u32> = (0..records).collect();
    for some in numbers.chunks(1000) {
        let sealed: Result<Vec<_>, _> = some
            .iter()
            .map(|&number| label(number))
            .map(|label| vault.seal_now(&label, &label.item).map(|record| (label, record)))
            .collect();
        vault.store().put_records(&sealed?).await?;
    }
    Ok(())
}

fn label(number: u32) -> RecordLabel {
    RecordLabel::of_party(RecordKind::Application, &number.to_be_bytes())
}

/// Changes a store's key in a process that is killed, each time later, until one process completes.
/// After each kill, the store and every record must open with one of the two key files. Returns the
/// number of kills.
async fn change_and_kill(duet: &Duet, folder: &Path, open: impl AsyncFn() -> Arc<dyn ShareStore>) -> u32 {
    // Five of the batches in which a store wraps records anew.
    const RECORDS: u32 = 2_500;
    let (old, new) = (folder.join("seal.key"), folder.join("new.key"));
    let store = open().await;
    fill(Arc::clone(&store), &old, RECORDS).await.unwrap();
    store.close().await;
    let change = |file: &Path| {
        let arguments = ["party", "rewrap", "--new-store-key", "--new-key-file", &shown(file)];
        duet.command(&arguments).unwrap().spawn().unwrap()
    };
    let mut killed = 0;
    // Each delay is longer by a part of the one before, so that deaths fall into each part of the
    // work on a quick machine and on a slow one.
    for delay in successors(Some(Duration::from_millis(20)), |delay| Some(delay.mul_f64(1.15))) {
        let mut process = change(&new);
        // This does not wait for anything: it ends the process at any point of its work.
        let ended = tokio::time::timeout(delay, process.wait()).await;
        if ended.is_err() {
            process.kill().await.unwrap();
            killed += 1;
        }
        let store = open().await;
        let by_old = Vault::open(Arc::clone(&store), &KeyFile::at(&old), &Clock::system()).await;
        let by_new = Vault::open(Arc::clone(&store), &KeyFile::at(&new), &Clock::system()).await;
        let (vault, done) = match (by_old, by_new) {
            (Ok(vault), Err(_)) => (vault, false),
            (Err(_), Ok(vault)) => (vault, true),
            opened => panic!("it opens with both or neither: {opened:?}"),
        };
        for number in (0..RECORDS).step_by(97) {
            assert_eq!(*vault.read(&label(number)).await.unwrap().unwrap(), number.to_be_bytes());
        }
        store.close().await;
        if done {
            return killed;
        }
        assert!(ended.is_err(), "it ended and changed nothing");
    }
    unreachable!("the delays do not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_changes_a_stores_key__should_leave_it_whole() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let duet = Duet::new(directory.path());
    let mut party = PartyFolder::new(directory.path(), "service");
    party.copy_or_set_up(&duet).await?;
    let killed = change_and_kill(&party.command(&duet), party.path(), async || {
        let store = SqliteStore::open(&SqliteOptions::at(party.store())).await.unwrap();
        Arc::new(store) as Arc<dyn ShareStore>
    })
    .await;
    ensure!(killed > 9, "it was killed {killed} times");

    let directory = tempfile::tempdir()?;
    party = PartyFolder::new(directory.path(), "partner");
    party.copy_or_set_up(&duet).await?;
    party.move_to(&duet, databases::one(Postgres::shared().await?).await?).await?;
    let database = party.database().unwrap();
    let options = PostgresOptions::at(&database.url)?.with_password(&database.password.clone().into());
    let killed = change_and_kill(&party.command(&duet), party.path(), async || {
        Arc::new(PostgresStore::open(&options).await.unwrap()) as Arc<dyn ShareStore>
    })
    .await;
    ensure!(killed > 9, "it was killed {killed} times");
    Ok(())
}

//! The owner's machine is lost, and a backup file brings its wallets back on another one.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use duet_chaos::signers;
use duet_harness::{
    duet::{Duet, text},
    stack::{Stack, Wallet},
};
use serde_json::Value;

/// A folder of files, and the command of a device that knows the passphrase of its backups.
struct Owner {
    folder: PathBuf,
    duet: Duet,
}

impl Owner {
    fn new(stack: &Stack, duet: &Duet) -> Self {
        let folder = stack.directory().to_path_buf();
        let passphrase = folder.join("backup.passphrase");
        fs::write(&passphrase, "correct horse battery staple\n").unwrap();
        let duet = duet.clone().with("DUET_BACKUP_PASSPHRASE_FILE", &passphrase.to_string_lossy());
        Self { folder, duet }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    async fn shown(&self) -> Value {
        self.duet.json(&["wallet", "show"]).await.unwrap()
    }

    async fn code(&self, arguments: &[&str]) -> String {
        self.duet.refused(arguments).await.unwrap().code
    }
}

/// Which party signs with the device, and whether it can.
fn signs_with(shown: &Value) -> Vec<(&str, &str)> {
    let all = shown.pointer("/wallet/signs_with").and_then(Value::as_array).unwrap();
    all.iter().map(|one| (text(one, "/party").unwrap(), text(one, "/state").unwrap())).collect()
}

async fn signer(wallet: &Wallet, duet: &Duet, other: &str) -> String {
    let signed =
        duet.json(&["sign", "message", "still mine", "--wallet", &wallet.id, "--with", other]).await.unwrap();
    signers::message_signer(b"still mine", text(&signed, "/signature").unwrap()).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_file__should_bring_a_wallet_back_on_another_machine() {
    let (stack, wallet) = Stack::with_wallet("transaction,personal_message").await.unwrap();
    let lost = Owner::new(&stack, &wallet.duet);
    let file = lost.file("wallet.age");
    assert!(lost.shown().await.pointer("/wallet/backup_opened_at_ms").is_none());
    let made = lost.duet.json(&["wallet", "backup", "--out", &file]).await.unwrap();
    assert!(made.pointer("/wallet/backup_opened_at_ms").unwrap().as_u64().is_some());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let opened = |shown: &Value| shown.pointer("/wallet/backup_opened_at_ms").unwrap().as_u64().unwrap();
    let first = opened(&lost.shown().await);
    lost.duet.json(&["wallet", "rehearse", &file]).await.unwrap();
    assert!(opened(&lost.shown().await) > first);

    let found = Owner::new(&stack, &stack.device("found").unwrap());
    let restored = found.duet.json(&["wallet", "restore", &file]).await.unwrap();
    assert_eq!(restored.pointer("/wallet/status").unwrap(), "needs_rotation", "{restored}");
    assert_eq!(text(&restored, "/wallet/address").unwrap(), wallet.address);
    assert_eq!(signs_with(&restored), [("service", "not_enrolled"), ("partner", "not_enrolled")]);
    let sign = ["sign", "message", "too early", "--with", "service"];
    assert_eq!(found.code(&sign).await, "needs-rotation");

    found.duet.json(&["wallet", "rotate"]).await.unwrap();
    let shown = found.shown().await;
    assert_eq!(shown.pointer("/wallet/status").unwrap(), "ready");
    assert_eq!(signs_with(&shown), [("service", "ready"), ("partner", "ready")]);
    for other in ["service", "partner"] {
        assert_eq!(signer(&wallet, &found.duet, other).await, wallet.address, "{other}");
    }
    // Its own backup brings the restored wallet back as well.
    let again = found.file("again.age");
    found.duet.json(&["wallet", "backup", "--out", &again]).await.unwrap();
    lost.duet.json(&["wallet", "rehearse", &again]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_brings_no_wallet_back__should_be_refused_by_name() {
    let (stack, wallet) = Stack::with_wallet("personal_message").await.unwrap();
    let owner = Owner::new(&stack, &wallet.duet);
    let (file, short) = (owner.file("wallet.age"), owner.file("short.passphrase"));
    fs::write(&short, "too short").unwrap();
    let backup = ["wallet", "backup", "--out", &file];
    let with = |passphrase: &str| Owner {
        duet: owner.duet.clone().with("DUET_BACKUP_PASSPHRASE_FILE", passphrase),
        folder: owner.folder.clone(),
    };
    assert_eq!(with(&short).code(&backup).await, "file");
    assert!(!PathBuf::from(&file).exists());
    owner.duet.json(&backup).await.unwrap();
    let kept = fs::read(&file).unwrap();
    assert_eq!(owner.code(&backup).await, "file", "a backup file is never overwritten");
    assert_eq!(fs::read(&file).unwrap(), kept);

    // On a machine without any device.
    let empty = Owner::new(&stack, &stack.device("empty").unwrap());
    let (changed, cut, noise) = (owner.file("changed.age"), owner.file("cut.age"), owner.file("noise.age"));
    let mut bytes = kept.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&changed, bytes).unwrap();
    fs::write(&cut, kept.get(..kept.len() - 40).unwrap()).unwrap();
    fs::write(&noise, [7; 70_000]).unwrap();
    for bad in [&changed, &cut, &noise, &owner.file("none.age")] {
        for command in ["rehearse", "restore"] {
            let at = if command == "rehearse" { &owner } else { &empty };
            assert_eq!(at.code(&["wallet", command, bad]).await, "file", "{command} {bad}");
        }
    }
    let wrong = owner.file("wrong.passphrase");
    fs::write(&wrong, "another passphrase").unwrap();
    assert_eq!(with(&wrong).code(&["wallet", "rehearse", &file]).await, "wrong-passphrase");
    assert_eq!(empty.code(&["wallet", "list"]).await, "unknown-wallet", "nothing was made");

    // A machine that has the wallet, and one of another owner.
    assert_eq!(owner.code(&["wallet", "restore", &file]).await, "wallet-exists");
    let other = stack.create_wallet("other", "personal_message").await.unwrap();
    let other = Owner::new(&stack, &other.duet);
    assert_eq!(other.code(&["wallet", "restore", &file]).await, "conflict");
    assert_eq!(other.code(&["wallet", "rehearse", &file]).await, "unknown-wallet");
    assert_eq!(signer(&wallet, &owner.duet, "service").await, wallet.address, "the refusals changed nothing");
}

//! The audit log of a real run contains every decision, and reveals tampering.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails"
)]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use duet_actors::malicious::answer_badly_to;
use duet_harness::{
    duet::{Duet, text},
    stack::{ALL_KINDS, Pair, Stack, Wallet},
};
use duet_protocol::ids::ShareIndex;
use serde_json::Value;
use tokio::time::{interval, timeout};

/// How long a record may take to reach the stream, on a busy machine.
const SHIP_DEADLINE: Duration = Duration::from_secs(60);

/// The public keys of a stack's writers, in the form of `--key`.
pub(crate) async fn keys(stack: &Stack) -> Vec<String> {
    let mut keys = vec![format!("orchestrator={}", stack.orchestrator_key())];
    for name in ["service", "partner"] {
        let card = stack.party(name).command(&stack.duet()).json(&["party", "card"]).await.unwrap();
        keys.push(format!("{name}={}", text(&card, "/ed25519").unwrap()));
    }
    keys.into_iter().flat_map(|key| ["--key".to_owned(), key]).collect()
}

pub(crate) async fn verify(duet: &Duet, keys: &[String], more: &[&str]) -> anyhow::Result<Value> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    duet.json(&[&["audit", "verify"], more, &keys].concat()).await
}

async fn shown(duet: &Duet, about: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["audit", "show", "--limit", "1000"];
    for about in about {
        arguments.extend(["--about", about]);
    }
    duet.json(&arguments).await.unwrap()["records"].as_array().unwrap().clone()
}

fn kinds(records: &[Value]) -> BTreeSet<(String, String)> {
    records
        .iter()
        .map(|record| {
            let kind = text(record, "/body/event/kind").unwrap();
            (text(record, "/writer").unwrap().to_owned(), kind.to_owned())
        })
        .collect()
}

/// Waits until the stream contains all of `expected` about `about`.
pub(crate) async fn until_shipped(duet: &Duet, about: &str, expected: &[(&str, &str)]) -> Vec<Value> {
    let mut look_again = interval(Duration::from_millis(300));
    let mut last = BTreeSet::new();
    let shipped = timeout(SHIP_DEADLINE, async {
        loop {
            look_again.tick().await;
            let records = shown(duet, &[about]).await;
            last = kinds(&records);
            let is_there =
                |(writer, kind): &(&str, &str)| last.contains(&((*writer).to_owned(), (*kind).to_owned()));
            if expected.iter().all(is_there) {
                return records;
            }
        }
    })
    .await;
    shipped.unwrap_or_else(|_| panic!("not everything came into the stream: {last:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision__should_be_in_the_log_that_verifies() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", "transaction,personal_message").await.unwrap();
    let duet = stack.duet();
    let keys = keys(&stack).await;

    let job = wallet.sign_by(Pair::ServicePartner, &["message", "for the record"]).await.unwrap();
    let signed = until_shipped(
        &duet,
        text(&job, "/id").unwrap(),
        &[
            ("orchestrator", "job_accepted"),
            ("orchestrator", "attempt_started"),
            ("orchestrator", "job_signed"),
            ("service", "session_accepted"),
            ("service", "session_signed"),
            ("partner", "session_accepted"),
            ("partner", "session_charged"),
        ],
    )
    .await;
    // Both sides record the same answer, and each its own nonce. They also record the requester.
    let of = |writer: &str, kind: &str| {
        let is =
            |record: &&Value| record["writer"] == writer && text(record, "/body/event/kind").unwrap() == kind;
        signed.iter().find(is).unwrap()["body"]["event"].clone()
    };
    let (charged, done) = (of("partner", "session_charged"), of("service", "session_signed"));
    assert_eq!(charged["answer"], done["answer"]);
    assert_ne!(charged["nonce"], done["nonce"]);
    assert_eq!(charged["digest"], job["digest"]);
    let requester = duet.json(&["requester", "show", &wallet.requester_key.to_string_lossy()]).await.unwrap();
    assert_eq!(charged["asked"]["requester"], requester["public_key"]);
    assert_eq!(charged["asked"]["wallet"], wallet.id.as_str());

    // A refusal with its rule. The log also contains the wallet's creation.
    let digest = format!("0x{}", "5a".repeat(32));
    let key = wallet.requester_key.to_string_lossy();
    let job = ["job", "submit", "digest", &digest, "--wallet", &wallet.id, "--requester-key", &key];
    assert_eq!(wallet.duet.refused(&job).await.unwrap().code, "kind-not-allowed");
    until_shipped(
        &duet,
        &wallet.id,
        &[
            ("orchestrator", "refused"),
            ("service", "wallet_prepared"),
            ("service", "wallet_committed"),
            ("partner", "wallet_committed"),
            ("partner", "enrolment_taken"),
            ("service", "enrolment_agreed"),
        ],
    )
    .await;

    // When the orchestrator and a worker stop in order, they sign their chains to the end.
    stack.orchestrator.stop().await.unwrap();
    stack.partner.stop().await.unwrap();
    let report = verify(&duet, &keys, &[]).await.unwrap();
    assert_eq!(report["valid"], true);
    for chain in report["chains"].as_array().unwrap() {
        let writer = text(chain, "/writer").unwrap();
        assert_eq!(chain["pinned"], writer != "gateway", "{chain}");
        let last = chain["last"]["sequence"].as_u64().unwrap();
        match writer {
            "orchestrator" => {
                assert_eq!(
                    (chain["closed"].as_bool(), chain["signed_through"].as_u64()),
                    (Some(true), Some(last - 1))
                );
            }
            "partner" => assert_eq!(chain["signed_through"].as_u64(), Some(last - 1)),
            _ => {}
        }
    }
    // The partner's store has the same records as the stream.
    let store = stack.party("partner").store();
    let own = verify(&duet, &keys, &["--store", &store.to_string_lossy()]).await.unwrap();
    let head = |report: &Value| {
        let chains = report["chains"].as_array().unwrap().iter();
        chains.filter(|chain| chain["writer"] == "partner").map(|chain| chain["last"].clone()).next_back()
    };
    assert_eq!(head(&own), head(&report));

    // Nothing in the log is secret: it contains nothing that opens the parties' shares.
    let exported = export(&stack, &duet).await;
    let log = fs::read(&exported).unwrap();
    assert!(!log.is_empty());
    tampering(&stack, &duet, &keys, &exported, &report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_to_go_on_with_a_culprit__should_be_in_the_log_that_verifies() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let duet = stack.duet();
    let keys = keys(&stack).await;
    wallet.sign_by(Pair::ServicePartner, &["message", "honest"]).await.unwrap();
    stack.partner.stop().await.unwrap();
    answer_badly_to(&stack.party("partner"), wallet.id.parse().unwrap(), ShareIndex::Service).await.unwrap();
    stack.partner.start().await.unwrap();
    let key = wallet.requester_key.to_string_lossy();
    let bad = ["job", "submit", "message", "bad", "--wallet", &wallet.id, "--requester-key", &key];
    wallet.duet.json(&[&bad[..], &["--pairs", "service+partner"]].concat()).await.unwrap();
    let card = stack.party("partner").command(&duet).json(&["party", "card"]).await.unwrap();
    let card = text(&card, "/fingerprint").unwrap();
    until_shipped(&duet, &wallet.id, &[("service", "key_locked")]).await;
    let service = stack.party("service").command(&duet);
    for _ in 0..2 {
        let accepted = service.json(&["party", "accept-culprit", card]).await.unwrap();
        assert_eq!(accepted["accepted"], true);
    }
    let records = until_shipped(&duet, card, &[("service", "culprit_accepted")]).await;
    let accepted = records.iter().filter(|record| record["body"]["event"]["kind"] == "culprit_accepted");
    assert_eq!(accepted.count(), 1, "said again it decides nothing");
    let report = verify(&duet, &keys, &[]).await.unwrap();
    assert_eq!(report["valid"], true, "{report}");
    let unknown = report["chains"].as_array().unwrap().iter().map(|chain| chain["unknown"].clone());
    assert!(unknown.clone().all(|unknown| unknown == 0), "{report}");
}

async fn export(stack: &Stack, duet: &Duet) -> PathBuf {
    let file = stack.directory().join("audit.ndjson");
    let done = duet.json(&["audit", "export", "--out", &file.to_string_lossy()]).await.unwrap();
    let lines = fs::read_to_string(&file).unwrap().lines().count();
    assert_eq!(done["records"], lines);
    file
}

/// Each way of tampering with the exported log, and the finding that reveals it.
async fn tampering(stack: &Stack, duet: &Duet, keys: &[String], exported: &std::path::Path, report: &Value) {
    let log = fs::read_to_string(exported).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let partner = lines.iter().position(|line| line.contains("session_charged")).unwrap();
    let altered =
        lines[partner].replacen("personal_message", "transaction", 1).replacen("digest", "dagest", 1);
    let earlier = stack.directory().join("report.json");
    fs::write(&earlier, report.to_string()).unwrap();
    let earlier = earlier.to_string_lossy().into_owned();

    let without: Vec<&str> = [&lines[..partner], &lines[partner + 1..]].concat();
    let mut swapped = lines.clone();
    // The next record of the same chain.
    let chain = lines[partner].split(',').next().unwrap();
    let next = (partner + 1..lines.len()).find(|at| lines[*at].starts_with(chain)).unwrap();
    swapped.swap(partner, next);
    let mut changed = lines.clone();
    changed[partner] = &altered;
    let cut = &lines[..partner];
    for (what, lines, expected) in [
        ("removed", &without[..], "missing"),
        ("swapped", &swapped[..], "reordered"),
        ("altered", &changed[..], "altered"),
        ("cut off", cut, "rewritten"),
    ] {
        let file = stack.directory().join("tampered.ndjson");
        fs::write(&file, lines.join("\n")).unwrap();
        let file = file.to_string_lossy();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let command = [&["audit", "verify", "--file", &file, "--since", &earlier], &keys[..]].concat();
        let refusal = duet.refused(&command).await.unwrap();
        assert_eq!((refusal.code.as_str(), refusal.exit_code), ("audit-broken", 9), "{what}");
        assert!(refusal.message.contains(expected), "{what}: {}", refusal.message);
    }
}

/// Signs as soon as all processes have reconnected to the broker.
async fn until_signed(wallet: &Wallet, message: &str) -> Value {
    let mut look_again = interval(Duration::from_millis(300));
    let signed = timeout(SHIP_DEADLINE, async {
        loop {
            look_again.tick().await;
            if let Ok(signed) = wallet.sign_by(Pair::DeviceService, &["message", message]).await {
                return signed;
            }
        }
    });
    signed.await.unwrap_or_else(|_| panic!("no signature after the outage"))
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_a_party__should_outlive_the_broker_and_a_restore() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let duet = stack.duet();
    let keys = keys(&stack).await;
    let service = stack.party("service");

    // The broker is away for a while. Earlier decisions reach the stream afterwards.
    wallet.sign_by(Pair::DeviceService, &["message", "before the outage"]).await.unwrap();
    stack.broker.kill().await.unwrap();
    stack.broker.resume().await.unwrap();
    let after = until_signed(&wallet, "after the outage").await;
    let job = text(&after, "/job").unwrap();
    until_shipped(&duet, job, &[("service", "session_charged")]).await;
    assert_eq!(verify(&duet, &keys, &[]).await.unwrap()["valid"], true);

    // A store restored from a backup does not continue its old chain in a second way.
    stack.service.stop().await.unwrap();
    let backup = stack.directory().join("backup.db");
    let command = service.command(&duet);
    command.json(&["party", "backup", "--out", &backup.to_string_lossy()]).await.unwrap();
    stack.service.start().await.unwrap();
    let job = wallet.sign_by(Pair::DeviceService, &["message", "after the backup"]).await.unwrap();
    let job = text(&job, "/job").unwrap().to_owned();
    until_shipped(&duet, &job, &[("service", "session_charged")]).await;
    stack.service.stop().await.unwrap();
    for end in ["", "-wal", "-shm", ".generation"] {
        let file = PathBuf::from(format!("{}{end}", service.store().display()));
        if file.exists() {
            fs::remove_file(file).unwrap();
        }
    }
    command.json(&["party", "restore", "--from", &backup.to_string_lossy()]).await.unwrap();
    stack.service.start().await.unwrap();
    let job = wallet.sign_by(Pair::DeviceService, &["message", "after the restore"]).await.unwrap();
    until_shipped(&duet, text(&job, "/job").unwrap(), &[("service", "session_charged")]).await;
    let report = verify(&duet, &keys, &[]).await.unwrap();
    let chains = report["chains"].as_array().unwrap().iter();
    let chains: Vec<_> = chains.filter(|chain| chain["writer"] == "service").collect();
    assert_eq!(chains.len(), 2, "{report}");
    // An orchestrator and a gateway begin another chain on each new connection.
    let opened = shown(&duet, &["continues"]).await.into_iter();
    let opened: Vec<_> = opened.filter(|record| record["writer"] == "service").collect();
    assert_eq!(opened.len(), 1);
    let after = &opened[0]["body"]["event"]["continues"]["after"];
    assert!(chains.iter().any(|chain| chain["last"]["chain"] == after["chain"]), "{after}");
}

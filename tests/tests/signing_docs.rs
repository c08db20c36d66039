//! Runs the programs of docs/signing.md as they stand there. The orchestrator accepts what they
//! sign.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use duet_harness::{
    http::{Api, http_token},
    process, programs,
    stack::{ALL_KINDS, Stack, TENANT},
};
use serde_json::{Value, json};
use tokio::process::Command;

/// The Go compiler has to compile its standard library first.
const DEADLINE: Duration = Duration::from_secs(300);

/// The only code block of docs/signing.md in `language`.
fn block(language: &str) -> String {
    let page = fs::read_to_string(programs::repository().join("docs/signing.md")).unwrap();
    let opening = format!("\n```{language}\n");
    assert_eq!(page.matches(&opening).count(), 1, "{language}");
    let (_, rest) = page.split_once(&opening).unwrap();
    rest.split_once("\n```\n").unwrap().0.to_owned() + "\n"
}

/// Writes the document's programs to `directory`. Returns the command that runs each.
fn write_programs(directory: &Path) -> [(&'static str, Vec<&'static str>); 3] {
    let programs = [
        ("python", "sign.py", vec!["python3", "sign.py"]),
        ("javascript", "sign.mjs", vec!["node", "sign.mjs"]),
        ("go", "sign.go", vec!["go", "run", "sign.go"]),
    ];
    programs.map(|(language, file, runner)| {
        fs::write(directory.join(file), block(language)).unwrap();
        (language, runner)
    })
}

/// The output of one program: a public key and a signature.
async fn signed(directory: &Path, runner: &[&str], arguments: &[&str]) -> String {
    let mut command = Command::new(runner[0]);
    command.args(&runner[1..]).args(arguments).current_dir(directory);
    // Nothing is written to a home directory that the suite does not own.
    command.env("GOCACHE", directory.join("go-cache")).env("GO111MODULE", "off");
    let output = process::run(command, "", DEADLINE).await.unwrap();
    assert!(output.status.success(), "{runner:?}: {}", output.stderr);
    output.stdout.trim().to_owned()
}

#[tokio::test]
async fn the_programs_of_the_documentation__should_sign_as_the_vectors_say() {
    let directory = tempfile::tempdir().unwrap();
    let vectors: Value = serde_json::from_str(&block("json")).unwrap();
    let text = |name: &str| vectors[name].as_str().unwrap();
    fs::write(directory.path().join("request.json"), text("request")).unwrap();
    // With a newline at the end, as `duet requester new` writes it, and without.
    fs::write(directory.path().join("requester.key"), format!("{}\n", text("requester_seed"))).unwrap();
    fs::write(directory.path().join("approver.key"), text("approver_seed")).unwrap();
    for (language, runner) in write_programs(directory.path()) {
        let request = signed(directory.path(), &runner, &["requester.key", "request.json"]).await;
        assert_eq!(request, format!("{} {}", text("requester"), text("signature")), "{language}");
        let approval =
            signed(directory.path(), &runner, &["approver.key", "request.json", text("requester")]).await;
        assert_eq!(approval, format!("{} {}", text("approver"), text("approval")), "{language}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_signed_by_the_documentations_programs__should_be_a_job() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_programs(directory.path());
    fs::copy(&wallet.requester_key, directory.path().join("requester.key")).unwrap();
    let expires_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    // Formatted by hand, with a newline at the end: the bytes are signed as they are.
    let request = json!({
        "version": 1, "tenant": TENANT, "wallet": wallet.id, "idempotency_key": "documented",
        "payload": {"kind": "personal_message", "text": "Grüße"}, "expires_at": expires_at,
        "pairs": ["service+partner"],
    });
    fs::write(directory.path().join("request.json"), format!("{request:#}\n")).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euc", &block("bash")]).current_dir(directory.path());
    bash.env("DUET_API", stack.api_url()).env("IDEMPOTENCY_KEY", "documented");
    bash.env("DUET_TOKEN", http_token(stack.broker.credentials()).unwrap());
    let output = process::run(bash, "", DEADLINE).await.unwrap();
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
    let job: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(api.settled(job["id"].as_str().unwrap()).await.unwrap(), "signed");

    // The other programs' signatures of this file are the same request, and so the same job.
    for runner in [["node", "sign.mjs"].as_slice(), &["go", "run", "sign.go"]] {
        let line = signed(directory.path(), runner, &["requester.key", "request.json"]).await;
        let (requester, signature) = line.split_once(' ').unwrap();
        let mut request =
            api.request(&json!({"kind": "personal_message", "text": "x"}), "documented").unwrap();
        request.body = fs::read(directory.path().join("request.json")).unwrap();
        hex::decode_to_slice(requester, &mut request.requester).unwrap();
        hex::decode_to_slice(signature, &mut request.signature).unwrap();
        let answer = api.submit(&request, "documented").await.unwrap();
        assert_eq!((answer.status, &answer.body["id"]), (200, &job["id"]), "{answer:?}");
    }

    // With one changed byte, the answer states what was expected for the bytes that arrived.
    let mut changed = api.request(&json!({"kind": "personal_message", "text": "x"}), "changed").unwrap();
    changed.body.push(b'\n');
    let answer = api.submit(&changed, "changed").await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (401, Some("bad-signature")), "{answer:?}");
    let detail = answer.body["detail"].as_str().unwrap();
    let size = format!("{} bytes", changed.body.len());
    for part in
        ["Duet-Signature", "Duet-Requester", "duet/v1/signing-request", "newline", &size, "docs/signing.md"]
    {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert!(detail.contains(&hex::encode(changed.requester)), "{detail}");
}

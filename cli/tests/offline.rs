//! Runs the built binary with commands that need neither broker nor orchestrator.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what helpers expect and do not find fails the test"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

fn duet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duet"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DUET_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    duet().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = duet()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Standard output as exactly one JSON document on one line.
fn document(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn error_of(output: &Output) -> (String, Option<i32>) {
    let document = document(output);
    let error = &document["error"];
    assert_eq!(error["exit_code"].as_i64(), output.status.code().map(i64::from), "{document}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    (error["code"].as_str().unwrap().to_owned(), output.status.code())
}

// The message and key of the web3.js documentation of `eth.accounts.sign`.
const ADDRESS: &str = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";
const MESSAGE_SIGNATURE: &str = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
                                 6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";
// The signed transaction of EIP-155.
const EIP155: &str = "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a0\
                      28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800\
                      ccf555c9f3dc64214b297fb1966a3b6d83";

#[test]
fn a_message_signature_is_verified_and_the_document_is_pinned() {
    let output = run(&["verify", "message", "Some data", "--signature", MESSAGE_SIGNATURE, "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        document(&output),
        json!({"valid": true, "kind": "personal_message", "address": ADDRESS,
               "digest": "0x1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655"})
    );
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let other = "0x3535353535353535353535353535353535353535";
    let arguments =
        ["verify", "message", "Some data", "--signature", MESSAGE_SIGNATURE, "--address", other, "--json"];
    assert_eq!(error_of(&run(&arguments)), ("bad-signature".to_owned(), Some(5)));
}

#[test]
fn the_transaction_of_eip_155_is_verified() {
    let arguments =
        ["--json", "verify", "tx", EIP155, "--address", "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"];
    let output = run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let verified = document(&output);
    assert_eq!(verified["digest"], "0xdaf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
    assert_eq!((&verified["chain_id"], &verified["kind"]), (&json!(1), &json!("transaction")));
    let from_input = run_with_input(&["verify", "tx", "--json"], &format!("{EIP155}\n"));
    assert_eq!(document(&from_input), verified);
}

#[test]
fn a_broken_transaction_is_refused_without_panic() {
    for raw in ["0x", "0x00", "0x02", "0x02c0", &EIP155[..EIP155.len() - 2], &format!("{EIP155}00"), "zz"] {
        let output = run(&["verify", "tx", raw, "--json"]);
        let (code, exit) = error_of(&output);
        assert!(["malformed-message", "file"].contains(&code.as_str()), "{raw}: {code}");
        assert_eq!(exit, Some(3));
    }
}

#[test]
fn typed_data_of_eip_712_is_verified_and_its_errors_have_paths() {
    let mail = json!({
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"}, {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}],
            "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
            "Mail": [
                {"name": "from", "type": "Person"}, {"name": "to", "type": "Person"},
                {"name": "contents", "type": "string"}]},
        "primaryType": "Mail",
        "domain": {"name": "Ether Mail", "version": "1", "chainId": 1,
                   "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"},
        "message": {
            "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
            "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
            "contents": "Hello, Bob!"}});
    let signature = "0x4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d\
                     07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b915621c";
    let arguments = ["verify", "typed-data", "--signature", signature, "--json"];
    let output = run_with_input(&arguments, &mail.to_string());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(document(&output)["address"], "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826");

    let mut wrong = mail;
    wrong["message"]["postscript"] = json!("x");
    let output = run_with_input(&arguments, &wrong.to_string());
    assert_eq!(error_of(&output), ("malformed-json".to_owned(), Some(3)));
    assert_eq!(document(&output)["error"]["path"], "message.postscript");
}

#[test]
fn malformed_transactions_are_refused_with_their_path_before_anything_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let key = key.to_str().unwrap();
    assert!(run(&["requester", "new", "--out", key]).status.success());
    // No server listens there, so the command cannot have asked one.
    let base =
        ["job", "submit", "tx", "-", "--requester-key", key, "--api-url", "http://127.0.0.1:1", "--json"];
    for (input, path) in [
        (r#"{"to":"0x1"}"#, "to"),
        (r#"{"value":"1 parsec"}"#, "value"),
        (r#"{"accessList":[{"address":7,"storageKeys":[]}]}"#, "accessList[0].address"),
        ("{", "$"),
    ] {
        let output = run_with_input(&base, input);
        assert_eq!(error_of(&output), ("malformed-json".to_owned(), Some(3)), "{input}");
        assert_eq!(document(&output)["error"]["path"], path);
    }
}

#[test]
fn an_orchestrator_out_of_reach_is_said_once_and_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "duet_0123456789abcdef0123456789abcdef\n").unwrap();
    let id = "00".repeat(16);
    let arguments = ["job", "get", &id, "--api-url", "http://127.0.0.1:1", "--timeout", "1s", "--json"];
    let output = duet().args(arguments).arg("--api-token-file").arg(&token).output().unwrap();
    assert_eq!(error_of(&output), ("api-unreachable".to_owned(), Some(7)));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.matches("out of reach").count(), 1, "{log}");
    assert!(!log.contains("duet_0123"), "the token is a secret");
}

/// Answers every request with 503 and these headers. Returns its address, and how many requests
/// there were.
fn unavailable(headers: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    // It ends with the process.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.unwrap());
            let mut line = String::new();
            while connection.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = format!("HTTP/1.1 503 x\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n");
            // A program that has given up does not read it.
            connection.get_mut().write_all(answer.as_bytes()).ok();
        }
    });
    (address, requests)
}

#[test]
fn a_pause_that_is_asked_for_is_kept_in_seconds_and_as_a_date() {
    let id = "00".repeat(16);
    let tried = |headers| {
        let (url, requests) = unavailable(headers);
        let arguments = ["job", "get", &id, "--api-url", &url, "--timeout", "3s", "--json"];
        let output = duet().args(arguments).env("DUET_API_TOKEN", "token").output().unwrap();
        assert_eq!(error_of(&output), ("api-unreachable".to_owned(), Some(7)));
        requests.load(Ordering::Relaxed)
    };
    // The pause is longer than the command's time: no second request follows.
    assert_eq!(tried("retry-after: 50\r\n"), 1);
    assert_eq!(
        tried("date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:27 GMT\r\n"),
        1
    );
    // Without one, and where a date has passed, it is tried again and again.
    assert!(tried("") > 1);
    assert!(tried("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n") > 1);
}

#[test]
fn a_policy_check_warns_of_what_the_owners_bound_does_not_bound() {
    let directory = tempfile::tempdir().unwrap();
    let payload = directory.path().join("payload.json");
    std::fs::write(&payload, json!({"kind": "personal_message", "text": "hi"}).to_string()).unwrap();
    let checked = |rule: Value, is_json: bool| {
        let mut rules = vec![rule];
        let everything = json!({"name": "rest", "payloads": ["personal_message"]});
        rules.push(everything);
        let policy =
            json!({"version": 1, "wallet": "11".repeat(32), "revision": 1, "delay": "1h", "rules": rules});
        let payload = payload.to_str().unwrap();
        let arguments = ["policy", "check", "-", "--payload", payload];
        let more: &[&str] = if is_json { &["--json"] } else { &[] };
        let output = run_with_input(&[&arguments[..], more].concat(), &policy.to_string());
        assert!(output.status.success(), "{output:?}");
        output
    };
    let bounded = |more: Value| {
        let mut rule = json!({"name": "bounded", "owner_above": "1000", "max_value": "any"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    for (rule, unbounded, named) in [
        (json!({"payloads": ["transaction"], "calls": "any"}), "calls", "calls count"),
        (json!({"payloads": ["typed_data"], "primary_types": "any"}), "typed_data", "typed data count"),
        (json!({"payloads": ["personal_message"]}), "personal_message", "messages count"),
    ] {
        let warnings = document(&checked(bounded(rule.clone()), true))["warnings"].clone();
        assert_eq!(warnings[0]["rule"], "bounded", "{warnings}");
        assert_eq!(warnings[0]["unbounded"], json!([unbounded]), "{warnings}");
        let shown = String::from_utf8(checked(bounded(rule), false).stdout).unwrap();
        let (_, warning) = shown.split_once("warning: rule bounded: ").unwrap_or_else(|| panic!("{shown}"));
        assert!(warning.contains(named) && warning.contains("a rule of their own"), "{shown}");
    }
    // A bound on transfers alone says what it does.
    let transfers = document(&checked(bounded(json!({"payloads": ["transaction"]})), true));
    assert_eq!(transfers.get("warnings"), None, "{transfers}");
}

#[test]
fn a_request_key_is_made_once_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let file = file.to_str().unwrap();
    let made = run(&["requester", "new", "--out", file, "--json"]);
    let key = document(&made);
    assert_eq!(key["file"], file);
    assert_eq!(key["public_key"].as_str().unwrap().len(), 64);
    let secret = std::fs::read_to_string(file).unwrap();
    assert!(!String::from_utf8(made.stdout).unwrap().contains(secret.trim()));
    assert_eq!(document(&run(&["requester", "show", file, "--json"])), key);
    assert_eq!(error_of(&run(&["requester", "new", "--out", file, "--json"])), ("file".to_owned(), Some(3)));
}

#[test]
fn credentials_are_made_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials");
    let arguments =
        ["init", "--dir", path.to_str().unwrap(), "--tenant", "demo", "--tenant", "acme", "--json"];
    let first = document(&run(&arguments));
    for file in [&first["ca"], &first["nkeys"]["service"], &first["tokens"]["acme"], &first["broker_env"]] {
        assert!(std::path::Path::new(file.as_str().unwrap()).is_file(), "{file}");
    }
    assert!(!first["made"].as_array().unwrap().is_empty());
    let again = document(&run(&arguments));
    assert_eq!(again["made"], json!([]));
    assert_eq!(again["orchestrator_public_key"], first["orchestrator_public_key"]);
}

#[test]
fn credentials_are_exchanged_step_by_step() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    run(&["init", "--dir", dir]);
    let step =
        |step: &str, what: &[&str]| run(&[&["--json", "credentials", step, "--dir", dir][..], what].concat());
    let prepared = step("prepare", &["token/demo", "nkey/service", "token/demo"]);
    let secrets = std::fs::read_to_string(directory.path().join("tokens/demo")).unwrap();
    let shown = String::from_utf8(prepared.stdout.clone()).unwrap();
    assert!(secrets.lines().all(|line| !shown.contains(line.trim_start_matches("next "))));
    let prepared = document(&prepared);
    let taken: Vec<_> = prepared["credentials"].as_array().unwrap().iter().collect();
    assert_eq!((&taken[0]["credential"], &taken[0]["restart"]), (&json!("nkey/service"), &json!(["broker"])));
    assert_eq!(
        (&taken[1]["stage"], &taken[1]["restart"]),
        (&json!("prepared"), &json!(["orchestrator"])),
        "{prepared}"
    );
    assert_eq!(error_of(&step("retire", &["token/demo"])), ("conflict".to_owned(), Some(5)));
    assert_eq!(error_of(&step("prepare", &["nkey/root"])), ("usage".to_owned(), Some(2)));
    assert_eq!(error_of(&step("prepare", &["route-tls"])), ("usage".to_owned(), Some(2)));
    let standing = document(&run(&["--json", "credentials", "status", "--dir", dir]));
    let count = |stage| {
        standing["credentials"].as_array().unwrap().iter().filter(|one| one["stage"] == stage).count()
    };
    assert_eq!((count("prepared"), count("settled")), (2, 9), "{standing}");
}

#[test]
fn a_line_that_does_not_parse_is_an_error_document_too() {
    for arguments in
        [&["nonsense", "--json"][..], &["--json", "verify", "digest", "0x12"], &["--json", "init", "--dir"]]
    {
        assert_eq!(error_of(&run(arguments)), ("usage".to_owned(), Some(2)), "{arguments:?}");
    }
    let plain = run(&["nonsense"]);
    assert_eq!((plain.status.code(), plain.stdout.is_empty()), (Some(2), true));
    let by_variable = duet().env("DUET_JSON", "1").arg("nonsense").output().unwrap();
    assert_eq!(error_of(&by_variable).0, "usage");
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("typed-data"), "{shell}");
    }
}

#[test]
fn exit_codes_are_listed() {
    let table = document(&run(&["exit-codes", "--json"]));
    let rows = table["exit_codes"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["code"] == "chain-id-mismatch" && row["exit_code"] == 3));
    let help = String::from_utf8(run(&["help", "exit-codes"]).stdout).unwrap();
    assert!(help.contains("chain-id-mismatch"));
}

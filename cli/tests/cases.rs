//! Runs the inputs of `tests/cases` through the command line.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what helpers expect and do not find fails the test"
)]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A signature by some key. Without an address to compare with, the command still prints the
/// digest.
const SIGNATURE: &str = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
                         6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases").join(name)).unwrap()
}

/// The program's answer to `input`, as one JSON document.
fn run(arguments: &[&str], input: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duet"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DUET_")) {
        command.env_remove(name);
    }
    let mut child = command
        .args(arguments)
        .args(["--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

/// The digest of a document, or the path of the fault in it.
fn read(document: &str, options: &[&str]) -> Result<String, String> {
    let arguments = [&["verify", "typed-data", "--signature", SIGNATURE][..], options].concat();
    let said = run(&arguments, document);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    text(&said["digest"]).ok_or_else(|| text(&said["error"]["path"]).unwrap_or_else(|| said.to_string()))
}

#[test]
fn typed_data_of_the_field_has_its_wanted_outcome() {
    let cases: Vec<Value> = serde_json::from_str(&file("typed-data.json")).unwrap();
    for case in cases {
        let document = case["document"].to_string();
        let wanted = |member: &str| case[member].as_str().map(str::to_owned);
        let outcome = wanted("digest").ok_or_else(|| wanted("refused_at").unwrap());
        assert_eq!(read(&document, &[]), outcome, "{}", case["name"]);
        if let Some(digest) = wanted("digest_when_dropped") {
            assert_eq!(read(&document, &["--drop-undeclared"]), Ok(digest), "{}", case["name"]);
        }
    }
}

#[test]
fn numbers_keep_their_digits_from_the_text_on() {
    let digest = "0xa0be4440434ad05bfae2bd1eabab489def7d57c1c8dc447bf0918d990c2c45bc";
    assert_eq!(read(&file("typed-data-large-number.json"), &[]), Ok(digest.to_owned()));
}

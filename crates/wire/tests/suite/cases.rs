//! The inputs of `tests/cases`, through the reader behind every way in.

use std::{fs, path::Path};

use duet_wire::{Payload, payload::NotSigned};
use serde_json::{Value, json};

use crate::samples::hash;

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases(name: &str) -> Vec<Value> {
    serde_json::from_slice(&file(name)).unwrap()
}

fn read(document: &Value) -> Result<Payload, String> {
    Payload::from_json(document.to_string().as_bytes()).map_err(|error| error.to_string())
}

fn typed(case: &Value, undeclared: Option<&str>) -> Result<Payload, String> {
    let mut document = case["document"].clone();
    document["kind"] = "typed_data".into();
    if let Some(choice) = undeclared {
        document["undeclared"] = choice.into();
    }
    read(&document)
}

fn digest(payload: &Payload) -> Value {
    format!("0x{}", hex::encode(payload.digest().unwrap())).into()
}

fn not_signed(payload: &Payload) -> Value {
    let members = payload.describe().unwrap().not_signed;
    members.into_iter().map(|NotSigned { path, .. }| path).collect()
}

#[test]
fn typed_data_of_the_field_has_its_wanted_outcome() {
    for case in cases("typed-data.json") {
        let name = &case["name"];
        match (typed(&case, None), case["refused_at"].as_str()) {
            (Ok(payload), None) => {
                assert_eq!(digest(&payload), case["digest"], "{name}");
                let wanted = case.get("not_signed").cloned().unwrap_or(json!([]));
                assert_eq!(not_signed(&payload), wanted, "{name}");
            }
            (Err(problem), Some(path)) => {
                assert!(problem.contains(&format!("{path}: ")), "{name}: {problem}");
            }
            (Ok(payload), Some(_)) => panic!("{name}: {}", digest(&payload)),
            (Err(problem), None) => panic!("{name}: {problem}"),
        }
        if let Some(wanted) = case.get("digest_when_dropped") {
            let payload = typed(&case, Some("drop")).unwrap();
            assert_eq!(digest(&payload), *wanted, "{name}");
            assert_eq!(not_signed(&payload), case["not_signed_when_dropped"], "{name}");
        }
    }
}

#[test]
fn numbers_keep_their_digits_from_the_text_on() {
    let text = String::from_utf8(file("typed-data-large-number.json")).unwrap();
    let read = |text: &str| Payload::typed_data_from_json(text.as_bytes(), false);
    let payload = read(&text).unwrap();
    assert_eq!(digest(&payload), "0xa0be4440434ad05bfae2bd1eabab489def7d57c1c8dc447bf0918d990c2c45bc");
    // Above 64 bits, too, where a number is what the type asks for.
    let most = alloy_primitives::U256::MAX.to_string();
    let large = read(&text.replace("1000000000000000001", &most)).unwrap();
    let quoted = read(&text.replace("1000000000000000001", &format!("\"{most}\""))).unwrap();
    assert_eq!(large.digest(), quoted.digest());
    let problem = read(&text.replace("\"USD Coin\"", &most)).unwrap_err().to_string();
    assert!(problem.contains("domain.name: expected a string"), "{problem}");
    let over = read(&text.replace("1000000000000000001", &format!("{most}0"))).unwrap_err().to_string();
    assert!(over.contains("message.value: "), "{over}");
}

#[test]
fn transactions_of_the_field_have_their_wanted_outcome() {
    for case in cases("transactions.json") {
        let name = &case["name"];
        if !case["via"].as_array().unwrap().contains(&"http".into()) {
            continue;
        }
        let mut document = json!({ "kind": "transaction", "chainId": 1, "nonce": 0, "gas": 100_000 });
        if case["request"].get("gasPrice").is_none() {
            document["maxFeePerGas"] = 2.into();
            document["maxPriorityFeePerGas"] = 1.into();
        }
        document.as_object_mut().unwrap().extend(case["request"].as_object().unwrap().clone());
        match (read(&document), case["refused"].as_array()) {
            (Ok(payload), None) => {
                let written = serde_json::to_value(&payload).unwrap();
                for (member, value) in case["signed"].as_object().unwrap() {
                    assert_eq!(written[member], *value, "{name}: {member}");
                }
                assert_eq!(hash(written), hex::encode(payload.digest().unwrap()), "{name}");
            }
            (Err(problem), Some(members)) => {
                for member in members {
                    assert!(problem.contains(member.as_str().unwrap()), "{name}: {problem}");
                }
            }
            (Ok(_), Some(_)) => panic!("{name}: signed"),
            (Err(problem), None) => panic!("{name}: {problem}"),
        }
    }
}
